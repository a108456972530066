//! What changes alone say is what everything would say.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use std::collections::BTreeMap;

use omni_credentials_core::{
    Document, Entry, Error, Identity, Keyring, Preference, Side, XChaCha20Poly1305, agreed, agreed_changes,
    fold, reconcile, settled,
};
use proptest::prelude::*;
use support::{ALL, Fixed, identity, keyring};

type Doc = Document<XChaCha20Poly1305>;
type Keys = Keyring<XChaCha20Poly1305>;

/// Names to sealed values.
type Table = BTreeMap<String, Vec<u8>>;

fn rows(table: &Table) -> Vec<Entry<'_>> {
    table
        .iter()
        .map(|(name, sealed)| Entry { identity: identity(name, ALL), expires: None, sealed: Some(sealed) })
        .collect()
}

fn table_of(document: &Doc, table: &Table) -> Doc {
    document.table(rows(table).into_iter().map(Ok)).unwrap()
}

/// One commit: what file and table agreed on, the file as a document, and the rows.
fn commit(keys: &Keys, ancestor: &[u8], ours: &Doc, theirs: &Doc) -> (Vec<u8>, Doc) {
    let (ours, theirs) = (Side { document: ours, keyring: keys }, Side { document: theirs, keyring: keys });
    let found = reconcile(ancestor, &ours, &theirs, true, Preference::Neither, &mut Fixed::new(1)).unwrap();
    assert!(found.conflicts.is_empty());
    let mut document = found.document;
    let file = document.rewrite(keys, 0).unwrap();
    (file, document)
}

fn is_as_parsed(document: &Doc, file: &[u8], keys: &Keys) {
    let parsed = Doc::parse(file).unwrap();
    document.verify(keys).unwrap();
    assert_eq!(document.write(keys, 0).unwrap(), parsed.write(keys, 0).unwrap());
    assert!(document.entries().eq(parsed.entries()));
    assert_eq!(
        (document.generation(), document.deletions_since(), document.manifest()),
        (parsed.generation(), parsed.deletions_since(), parsed.manifest())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A file that is kept as a document and a table of which only the changes are told give the same files and agree on
    /// the same as a file that is parsed and a table that is told whole, however often, and wherever changes are folded.
    #[test]
    fn a_kept_file_is_as_good_as_a_parsed_one(
        commits in prop::collection::vec(prop::collection::vec((0_u8..12, prop::option::of(0_u8..3)), 0..5), 1..12),
        folds in 1_usize..5,
    ) {
        let (keys, _): (Keys, _) = keyring(2);
        let mut kept = Doc::create(&keys.to_bytes()).unwrap();
        let mut file = kept.rewrite(&keys, 0).unwrap();
        let (mut table, mut base, mut changes) = (Table::new(), kept.manifest(), Vec::new());
        for (number, commit_of) in commits.into_iter().enumerate() {
            let before = table.clone();
            for (name, value) in commit_of {
                let name = format!("n{name}");
                match value {
                    Some(value) => {
                        let seed = number as u64 * 100 + u64::from(value);
                        let sealed = keys.seal(&identity(&name, ALL), None, &[value], &mut Fixed::new(seed)).unwrap();
                        table.insert(name, sealed);
                    }
                    None => { table.remove(&name); }
                }
            }
            let gone: Vec<_> = before.iter().filter(|(name, sealed)| table.get(*name) != Some(*sealed)).collect();
            let added: Table = table
                .iter()
                .filter(|(name, sealed)| before.get(*name) != Some(*sealed))
                .map(|(name, sealed)| (name.clone(), sealed.clone()))
                .collect();
            let gone = gone.iter().map(|(name, _)| Ok(identity(name, ALL)));
            let parsed = Doc::parse(&file).unwrap();
            let ancestor = [changes.as_slice(), &base].concat();
            let whole = fold(&ancestor).unwrap();

            let ours = kept.table_changes(gone, rows(&added).into_iter().map(Ok)).unwrap();
            let expected = table_of(&parsed, &table);
            prop_assert!(ours.entries().eq(expected.entries()));
            let (new_file, new_kept) = commit(&keys, &ancestor, &ours, &kept);
            let (expected_file, _) = commit(&keys, &whole, &expected, &parsed);
            prop_assert_eq!(&new_file, &expected_file);
            is_as_parsed(&new_kept, &new_file, &keys);

            let generation = new_kept.generation();
            let more = agreed_changes(&ancestor, &ours, &new_kept, generation).unwrap();
            let after = agreed(&whole, &ours, &new_kept, generation).unwrap();
            let pending = [changes.as_slice(), &more, &base].concat();
            prop_assert_eq!(&fold(&pending).unwrap(), &after);
            prop_assert!(table_of(&parsed, &table).matches(&pending).unwrap());
            for file in [&parsed, &new_kept] {
                let one = settled(&ancestor, &pending, file).unwrap();
                prop_assert_eq!(fold(&one).unwrap(), settled(&whole, &after, file).unwrap());
            }
            changes.extend(more);
            if number % folds == 0 {
                base = fold(&[changes.as_slice(), &base].concat()).unwrap();
                changes.clear();
            }
            (kept, file) = (new_kept, new_file);
        }
    }
}

#[test]
fn what_is_no_change_is_refused() {
    let (keys, _): (Keys, _) = keyring(2);
    let empty = Doc::create(&keys.to_bytes()).unwrap();
    let sealed = keys.seal(&identity("a", ALL), None, b"1", &mut Fixed::new(3)).unwrap();
    let one = Table::from([("a".to_owned(), sealed)]);
    let live = table_of(&empty, &one);
    let none: [Result<Identity<'_>, _>; 0] = [];

    let refused = |gone: &[&str], table: &Table| {
        let gone: Vec<_> = gone.iter().map(|name| Ok(identity(name, ALL))).collect();
        live.table_changes(gone, rows(table).into_iter().map(Ok)).err().map(|failure| failure.error)
    };
    assert_eq!(refused(&["b"], &Table::new()), Some(Error::InvalidArgument));
    assert_eq!(refused(&["a", "a"], &Table::new()), Some(Error::InvalidArgument));
    assert_eq!(refused(&[], &one), Some(Error::DuplicateRecord));
    assert_eq!(refused(&["a"], &one), None);
    assert!(empty.table_changes(none, rows(&one).into_iter().map(Ok)).unwrap().entries().eq(live.entries()));
}

#[test]
fn what_is_no_list_of_changes_is_malformed() {
    let (keys, _): (Keys, _) = keyring(2);
    let empty = Doc::create(&keys.to_bytes()).unwrap();
    let base = empty.manifest();
    let table = |names: &[&str]| {
        let seal = |name: &&str| keys.seal(&identity(name, ALL), None, b"1", &mut Fixed::new(3)).unwrap();
        let table = names.iter().map(|name| ((*name).to_owned(), seal(name))).collect();
        table_of(&empty, &table)
    };
    let both = table(&["a", "b"]);
    let changes = agreed_changes(&base, &both, &both, 1).unwrap();
    assert_eq!(changes.len(), 4 + 1 + 16 + 8 + 4 + 4 + 2 * 32);
    assert_eq!(agreed_changes(&agreed(&base, &both, &both, 1).unwrap(), &both, &both, 1).unwrap(), b"");
    assert!(both.matches(&[&changes[..], &base].concat()).unwrap());

    for cut in 0..changes.len() {
        assert!(fold(&[&changes[..cut], &base].concat()).is_err() || cut == 0, "{cut}");
    }
    let error = |bytes: &[u8]| fold(bytes).unwrap_err().error;
    assert_eq!(error(&changes), Error::Malformed);
    assert_eq!(error(b""), Error::Malformed);
    assert_eq!(agreed_changes(b"", &both, &both, 1).unwrap_err().error, Error::Malformed);
    let swapped = [&changes[..37], &changes[69..], &changes[37..69], &base].concat();
    assert_eq!(error(&swapped), Error::Malformed);
    let version = [b"OCMC\x02", &changes[5..], &base].concat();
    assert_eq!(error(&version), Error::UnknownVersion);
    let many = [&changes[..29], &[255; 8], &changes[37..], &base].concat();
    assert_eq!(error(&many), Error::Malformed);
}
