//! Every vector, against both modules inside the sandbox.
//!
//! The modules are those of `OMNI_CREDENTIALS_MODULES`, a folder, or `modules/` in the target folder,
//! where `tools/build-modules.sh` puts them.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::env;
use std::fs;
use std::path::PathBuf;

use omni_credentials_conformance::{Component, Subject, of_suite};

fn modules() -> PathBuf {
    if let Some(folder) = env::var_os("OMNI_CREDENTIALS_MODULES") {
        return folder.into();
    }
    let exe = env::current_exe().expect("this test has a path");
    let target = exe.ancestors().find(|folder| folder.join("modules").is_dir());
    target.unwrap_or_else(|| panic!("no modules; run tools/build-modules.sh first")).join("modules")
}

fn passes(name: &str) {
    let path = modules().join(name).with_extension("wasm");
    let wasm = fs::read(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    let mut module = Component::load(&wasm).unwrap();
    for set in of_suite(module.suite()) {
        set.run(&mut module).unwrap();
    }
}

#[test]
fn xchacha20poly1305() {
    passes("xchacha20poly1305");
}

#[test]
fn aes256gcmsiv() {
    passes("aes256gcmsiv");
}
