//! Every vector, against both modules inside the sandbox.
//!
//! The modules are those of `OMNI_CREDENTIALS_MODULES`, a folder, or `modules/` in the target folder,
//! where `tools/build-modules.sh` puts them.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::env;
use std::fs;
use std::path::PathBuf;

use omni_credentials_conformance::{Component, Subject, golden, hostile, published};

fn modules() -> PathBuf {
    if let Some(folder) = env::var_os("OMNI_CREDENTIALS_MODULES") {
        return folder.into();
    }
    let exe = env::current_exe().expect("this test has a path");
    let target = exe.ancestors().find(|folder| folder.join("modules").is_dir());
    target.unwrap_or_else(|| panic!("no modules; run tools/build-modules.sh first")).join("modules")
}

fn both(run: impl Fn(&mut dyn Subject) -> usize) -> [usize; 2] {
    ["xchacha20poly1305", "aes256gcmsiv"].map(|name| {
        let path = modules().join(name).with_extension("wasm");
        let wasm = fs::read(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
        run(&mut Component::load(&wasm).unwrap())
    })
}

#[test]
fn wycheproof() {
    assert_eq!(both(|subject| published::wycheproof_aead(subject).unwrap()), [315, 202]);
    assert_eq!(both(|subject| published::wycheproof_hkdf(subject).unwrap()), [86, 86]);
}

#[test]
fn standards() {
    assert_eq!(both(|subject| published::standards(subject).unwrap()), [12, 35]);
}

#[test]
fn golden() {
    assert_eq!(both(|subject| golden::run(subject).unwrap()), [69, 69]);
}

#[test]
fn hostile() {
    assert_eq!(both(|subject| hostile::run(subject).unwrap()), [187, 187]);
}

#[test]
fn hostile_and_large() {
    assert_eq!(both(|subject| hostile::run_large(subject).unwrap()), [9, 9]);
}
