//! What git does to a credentials file without knowing it: `git merge-file` joins edits of neighbouring
//! records and stops only in the trailer, which `parse_unsealed` and a write put right.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may panic")]

use std::fs;
use std::process::Command;

use omni_credentials_core::{
    Document, Entry, Error, Identity, Keyring, Preference, Reconciled, Side, XChaCha20Poly1305, kdf::Costs,
    reconcile,
};
use omni_credentials_core_conformance::generate::Fixed;

type Keys = Keyring<XChaCha20Poly1305>;
type Doc = Document<XChaCha20Poly1305>;

fn keys() -> Keys {
    let costs = Costs { memory_kib: 8, passes: 1, lanes: 1 };
    Keys::create(b"secret", Some(costs), &mut Fixed::new("merge-file")).unwrap().0
}

fn identity(name: &str) -> Identity<'_> {
    Identity { name: name.as_bytes(), kind: b"api_key", principal: b"app", scope: br#"{"all":true}"# }
}

/// The document with these names given a value, or none.
fn edited(keys: &Keys, document: &Doc, edits: &[(&str, Option<&str>)]) -> Doc {
    let mut document = document.clone();
    for (name, value) in edits {
        let sealed = value.map(|value| {
            keys.seal(&identity(name), None, value.as_bytes(), &mut Fixed::new(&format!("{name} {value}")))
                .unwrap()
        });
        document.put([Entry { identity: identity(name), expires: None, sealed: sealed.as_deref() }]).unwrap();
    }
    Doc::parse(&document.write(keys, 0).unwrap()).unwrap()
}

/// What git makes of three files, and whether it says that it conflicts.
fn git(keys: &Keys, [ours, base, theirs]: [&Doc; 3]) -> (String, bool) {
    let folder = tempfile::tempdir().unwrap();
    let paths = [("ours", ours), ("base", base), ("theirs", theirs)].map(|(name, document)| {
        let path = folder.path().join(name);
        fs::write(&path, document.write(keys, 0).unwrap()).unwrap();
        path
    });
    let output =
        Command::new("git").args(["merge-file", "--stdout"]).args(paths).output().expect("git is installed");
    (String::from_utf8(output.stdout).unwrap(), !output.status.success())
}

fn values(keys: &Keys, document: &Doc) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    document
        .entries()
        .map(|entry| {
            let value = entry.sealed.map(|sealed| text(&keys.open(&entry.identity, None, sealed).unwrap()));
            (text(entry.identity.name), value)
        })
        .collect()
}

fn base(keys: &Keys) -> Doc {
    let names = ["a", "b", "c", "d"].map(|name| (name, Some("base")));
    edited(keys, &Doc::create(&keys.to_bytes()).unwrap(), &names)
}

fn reconciled(keys: &Keys, base: &Doc, ours: &Doc, theirs: &Doc) -> Reconciled<XChaCha20Poly1305> {
    let side = |document| Side { document, keyring: keys };
    let entropy = &mut Fixed::new("reconcile");
    reconcile(&base.manifest(), &side(ours), &side(theirs), false, Preference::Neither, entropy).unwrap()
}

/// Git's result has conflicts in the trailer at most, and its records are those of our own merge.
fn joins(ours: &[(&str, Option<&str>)], theirs: &[(&str, Option<&str>)]) {
    let keys = keys();
    let base = base(&keys);
    let (ours, theirs) = (edited(&keys, &base, ours), edited(&keys, &base, theirs));
    let (text, _) = git(&keys, [&ours, &base, &theirs]);
    let (records, trailer) = text.split_once("\nend\n").expect("a trailer");
    assert!(!records.contains("<<<<<<<"), "a conflict among the records:\n{text}");
    // The seals differ, so that no one takes the joined file for a sealed one.
    assert!(trailer.contains("<<<<<<<"), "{text}");
    assert_eq!(Doc::parse(text.as_bytes()).err().unwrap().error, Error::ConflictMarkers);
    let joined = Doc::parse_unsealed(text.as_bytes()).unwrap();
    let ours_merge = reconciled(&keys, &base, &ours, &theirs);
    assert!(ours_merge.conflicts.is_empty());
    assert_eq!(values(&keys, &joined), values(&keys, &ours_merge.document));
    let written = Doc::parse(&joined.write(&keys, 0).unwrap()).unwrap();
    written.verify(&keys).unwrap();
    assert!(written.generation() > ours.generation());
}

#[test]
fn edits_of_neighbours() {
    joins(&[("b", Some("ours"))], &[("c", Some("theirs"))]);
    joins(&[("a", Some("ours")), ("c", Some("ours"))], &[("b", Some("theirs")), ("d", Some("theirs"))]);
}

#[test]
fn long_values_of_neighbours() {
    let long = "x".repeat(3_000);
    joins(&[("b", Some(&long))], &[("a", Some(&long)), ("c", Some(""))]);
}

#[test]
fn a_deletion_beside_an_edit() {
    joins(&[("b", None)], &[("c", Some("theirs"))]);
    joins(&[("b", Some("ours"))], &[("a", None), ("c", None)]);
}

#[test]
fn new_records_in_different_places() {
    joins(&[("aa", Some("ours"))], &[("cc", Some("theirs"))]);
    joins(&[("e", Some("ours"))], &[("d", Some("theirs"))]);
}

#[test]
fn the_same_record_is_a_conflict_for_both() {
    let keys = keys();
    let base = base(&keys);
    let (ours, theirs) =
        (edited(&keys, &base, &[("b", Some("ours"))]), edited(&keys, &base, &[("b", Some("theirs"))]));
    let (text, conflict) = git(&keys, [&ours, &base, &theirs]);
    assert!(conflict);
    assert_eq!(Doc::parse_unsealed(text.as_bytes()).err().unwrap().error, Error::ConflictMarkers);
    let merged = reconciled(&keys, &base, &ours, &theirs);
    assert_eq!(merged.conflicts.len(), 1);
}
