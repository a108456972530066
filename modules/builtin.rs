//! Part of the build scripts of hosts that carry the default crypto module: finds its bytes.

use std::path::PathBuf;

/// Sets `OMNI_CREDENTIALS_BUILTIN_MODULE`, for `include_bytes!`, to the path of the default module, and gives it.
pub(crate) fn find() -> PathBuf {
    println!("cargo:rerun-if-env-changed=OMNI_CREDENTIALS_MODULES");
    let folder = std::env::var_os("OMNI_CREDENTIALS_MODULES").map_or_else(default_folder, PathBuf::from);
    let module = folder.join("xchacha20poly1305.wasm");
    println!("cargo:rerun-if-changed={}", module.display());
    assert!(
        module.is_file(),
        "{} is missing: build the crypto modules first, with `./just modules`",
        module.display()
    );
    println!("cargo:rustc-env=OMNI_CREDENTIALS_BUILTIN_MODULE={}", module.display());
    module
}

/// `modules` in the target folder that this build script runs from.
fn default_folder() -> PathBuf {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    out.ancestors().nth(4).map(|target| target.join("modules")).unwrap_or_default()
}
