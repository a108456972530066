//! Finds the default crypto module, which the library carries, and its digest: a backend has no time to hash what
//! cannot have changed since.

#[path = "../modules/builtin.rs"]
mod builtin;

use std::fs;

use sha2::{Digest, Sha256};

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=sql");
    let module = builtin::find();
    let bytes = fs::read(module)?;
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo:rustc-env=OMNI_CREDENTIALS_BUILTIN_DIGEST={digest}");
    Ok(())
}
