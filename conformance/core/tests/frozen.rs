//! The generator still makes the very bytes that are kept: the format has not moved.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may panic")]

use std::collections::BTreeSet;
use std::fs;

use omni_credentials_core_conformance::{generate, vectors};

#[test]
fn generated_vectors_are_the_ones_that_are_kept() {
    let made = generate::all().unwrap();
    for (path, bytes) in &made {
        let kept = fs::read(vectors().join(path)).unwrap_or_default();
        assert!(kept == *bytes, "{path} is not what it was");
    }
    let names: BTreeSet<_> = made.into_iter().map(|(path, _)| path).collect();
    for folder in ["golden", "hostile/xchacha20poly1305", "hostile/aes256gcmsiv"] {
        for file in fs::read_dir(vectors().join(folder)).unwrap() {
            let path = format!("{folder}/{}", file.unwrap().file_name().into_string().unwrap());
            assert!(names.contains(&path), "{path} is kept, but nothing makes it");
        }
    }
}
