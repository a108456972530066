//! What the independent reader in `conformance/independent` sealed and wrote opens here.
//!
//! Its tests leave files in the folder `OMNI_CREDENTIALS_SEALED`; without one, this test makes a folder and
//! runs them with `OMNI_CREDENTIALS_PYTHON`, an interpreter that has `conformance/independent/requirements.txt`.
//! Without either it is skipped, and says so.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use omni_credentials_conformance::Subject;
use omni_credentials_conformance::golden::Golden;
use omni_credentials_core::{Aes256GcmSiv, XChaCha20Poly1305, scope};
use omni_credentials_core_conformance::Native;

#[test]
fn what_the_independent_reader_wrote_opens() {
    let made = tempfile::tempdir().unwrap();
    let folder = match (env::var_os("OMNI_CREDENTIALS_SEALED"), env::var_os("OMNI_CREDENTIALS_PYTHON")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(python)) => {
            let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../independent");
            let status = Command::new(python)
                .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
                .current_dir(tests)
                .env("OMNI_CREDENTIALS_SEALED", made.path())
                .status()
                .expect("the interpreter runs");
            assert!(status.success());
            made.path().to_owned()
        }
        (None, None) => {
            eprintln!("skipped: neither OMNI_CREDENTIALS_SEALED nor OMNI_CREDENTIALS_PYTHON is set");
            return;
        }
    };
    opens(&mut Native::<XChaCha20Poly1305>::default(), &folder.join("xchacha20poly1305.credentials"));
    opens(&mut Native::<Aes256GcmSiv>::default(), &folder.join("aes256gcmsiv.credentials"));
}

fn opens(subject: &mut dyn Subject, path: &Path) {
    let golden = Golden::load(subject.suite()).unwrap();
    let secret = hex::decode(&golden.keyrings.first().unwrap().secret).unwrap();
    let keyring = hex::decode(&golden.keyrings.first().unwrap().keyring).unwrap();
    let kek = subject.derive_kek(&secret, &keyring).unwrap();
    let (records, generation) = subject.read_file(&fs::read(path).unwrap(), &kek).unwrap();
    assert_eq!(generation, 1);
    let found: BTreeMap<_, _> = records
        .into_iter()
        .map(|record| {
            let identity = record.identity;
            (
                (identity.name, identity.kind, identity.principal, identity.scope),
                (identity.expires, record.value),
            )
        })
        .collect();
    let mut expected: BTreeMap<_, _> = golden
        .values
        .into_iter()
        .map(|vector| {
            let identity = vector.identity;
            let scope = scope::canonical(identity.scope.as_bytes()).unwrap().into_owned();
            (
                (identity.name, identity.kind, identity.principal, scope),
                (identity.expires, Some(vector.value)),
            )
        })
        .collect();
    expected.insert(("deleted by another".into(), "token".into(), "app".into(), "{}".into()), (None, None));
    assert_eq!(found, expected);
}
