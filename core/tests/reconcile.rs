//! Three-way merge (§8).
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use std::collections::BTreeMap;

use omni_credentials_core::{
    Document, Entry, Error, Keyring, Merged, Preference, XChaCha20Poly1305, agreed, merge,
};
use proptest::prelude::*;
use support::{ALL, Fixed, identity, keyring};

type Doc = Document<XChaCha20Poly1305>;
type Keys = Keyring<XChaCha20Poly1305>;

/// What a side has of the records that it has: a value, or a tombstone.
type State = BTreeMap<String, Option<u8>>;

/// A document; the same value of a name in two documents with the same `salt` has the same sealed bytes.
fn document(keys: &Keys, state: &State, salt: u64) -> Doc {
    let mut document = Doc::create(&keys.to_bytes()).unwrap();
    for (name, value) in state {
        let identity = identity(name, ALL);
        let seed = salt * 1_000_000 + u64::from(value.unwrap_or(0)) * 1_000 + u64::from(name.as_bytes()[0]);
        let sealed = value.map(|value| keys.seal(&identity, &[value], &mut Fixed::new(seed)).unwrap());
        document.put([Entry { identity, sealed: sealed.as_deref() }]).unwrap();
    }
    document
}

fn state(keys: &Keys, document: &Doc) -> State {
    document
        .entries()
        .map(|entry| {
            let name = String::from_utf8(entry.identity.name.to_vec()).unwrap();
            (name, entry.sealed.map(|sealed| keys.open(&entry.identity, sealed).unwrap()[0]))
        })
        .collect()
}

fn of(records: &[(&str, Option<u8>)]) -> State {
    records.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// Merges a base, ours and theirs of one record.
fn one(
    base: Option<u8>,
    ours: Option<Option<u8>>,
    theirs: Option<Option<u8>>,
    complete: bool,
    prefer: Preference,
) -> (Option<Option<u8>>, bool) {
    let (keys, _) = keyring(1);
    let side = |record: Option<Option<u8>>| record.map(|value| ("a".to_owned(), value)).into_iter().collect();
    let base = document(&keys, &side(base.map(Some)), 0).manifest();
    let (ours, theirs) = (document(&keys, &side(ours), 0), document(&keys, &side(theirs), 0));
    let merged = merge(&base, &ours, &theirs, complete, &keys, prefer).unwrap();
    (state(&keys, &merged.document).get("a").copied(), !merged.conflicts.is_empty())
}

#[test]
fn the_table_of_cases() {
    use Preference::{Neither, Ours, Theirs};
    let (live, dead, none) = (|value| Some(Some(value)), Some(None), None);
    for (base, ours, theirs, complete, prefer, expected, conflict) in [
        // New on one side.
        (None, live(1), none, false, Neither, live(1), false),
        (None, none, live(1), false, Neither, live(1), false),
        (None, none, live(1), true, Neither, live(1), false),
        // Changed on one side.
        (Some(1), live(2), live(1), false, Neither, live(2), false),
        (Some(1), live(1), live(2), false, Neither, live(2), false),
        // Absence is never deletion, except in a complete table.
        (Some(1), live(1), none, false, Neither, live(1), false),
        (Some(1), none, live(1), false, Neither, live(1), false),
        (Some(1), none, live(1), true, Neither, dead, false),
        (Some(1), live(1), none, true, Neither, live(1), false),
        // Deleted by tombstone.
        (Some(1), dead, live(1), false, Neither, dead, false),
        (Some(1), live(1), dead, false, Neither, dead, false),
        (Some(1), none, dead, false, Neither, dead, false),
        (None, none, dead, true, Neither, dead, false),
        // A value written later replaces an old tombstone.
        (None, live(1), dead, false, Neither, live(1), false),
        (None, dead, live(1), false, Neither, live(1), false),
        // Both the same.
        (Some(1), live(2), live(2), false, Neither, live(2), false),
        (None, live(2), live(2), false, Neither, live(2), false),
        (Some(1), dead, dead, false, Neither, dead, false),
        // Conflicts.
        (Some(1), live(2), live(3), false, Neither, live(2), true),
        (Some(1), live(2), live(3), false, Ours, live(2), true),
        (Some(1), live(2), live(3), false, Theirs, live(3), true),
        (None, live(2), live(3), false, Theirs, live(3), true),
        (Some(1), dead, live(3), false, Neither, dead, true),
        (Some(1), none, live(3), true, Neither, dead, true),
        (Some(1), none, live(3), true, Theirs, live(3), true),
        (Some(1), live(2), dead, true, Ours, live(2), true),
        (Some(1), live(2), dead, true, Theirs, dead, true),
    ] {
        let found = one(base, ours, theirs, complete, prefer);
        assert_eq!(found, (expected, conflict), "{base:?} {ours:?} {theirs:?} {complete} {prefer:?}");
    }
}

#[test]
fn equal_values_sealed_apart_do_not_conflict() {
    let (keys, _) = keyring(2);
    let state = of(&[("a", Some(1)), ("b", Some(2))]);
    let (ours, theirs) = (document(&keys, &state, 1), document(&keys, &state, 2));
    assert_ne!(ours.manifest(), theirs.manifest());
    let merged = merge(&[], &ours, &theirs, false, &keys, Preference::Neither).unwrap();
    assert!(merged.conflicts.is_empty());
    let other = merge(&[], &theirs, &ours, false, &keys, Preference::Neither).unwrap();
    assert_eq!(merged.document.manifest(), other.document.manifest(), "the same from either end");
}

#[test]
fn a_value_under_the_current_key_is_preferred() {
    let (mut keys, _) = keyring(3);
    let state = of(&[("a", Some(1))]);
    let old = document(&keys, &state, 1);
    keys.add_key(&mut Fixed::new(4)).unwrap();
    let new = document(&keys, &state, 2);
    for (ours, theirs) in [(&old, &new), (&new, &old)] {
        let merged = merge(&[], ours, theirs, false, &keys, Preference::Neither).unwrap();
        assert_eq!(merged.document.manifest(), new.manifest());
    }
}

#[test]
fn keyring_and_generation_are_those_of_theirs() {
    let (keys, _) = keyring(5);
    let (others, _) = keyring(6);
    let ours = Doc::create(&keys.to_bytes()).unwrap();
    let theirs = Doc::parse(&Doc::create(&others.to_bytes()).unwrap().write(&others, 41).unwrap()).unwrap();
    let merged = merge(&[], &ours, &theirs, false, &keys, Preference::Neither).unwrap().document;
    assert_eq!((merged.keyring_bytes(), merged.generation()), (theirs.keyring_bytes(), 42));
}

#[test]
fn what_is_no_manifest_is_refused() {
    let (keys, _) = keyring(7);
    let document = document(&keys, &of(&[("a", Some(1)), ("b", Some(2))]), 0);
    let manifest = document.manifest();
    let swapped = [&manifest[32..], &manifest[..32]].concat();
    for bad in [&manifest[..31], &swapped, &[&manifest[..32], &manifest[..32]].concat()] {
        let refused = merge(bad, &document, &document, false, &keys, Preference::Neither).err().unwrap();
        assert_eq!(refused.error, Error::Malformed);
        assert_eq!(agreed(bad, &document, &document).err().unwrap().error, Error::Malformed);
    }
}

#[test]
fn agreed_takes_what_is_the_same_and_keeps_the_base_for_the_rest() {
    let (keys, _) = keyring(8);
    let base = document(&keys, &of(&[("a", Some(1)), ("b", Some(1)), ("c", Some(1)), ("d", Some(1))]), 0);
    let ours = document(&keys, &of(&[("a", Some(2)), ("b", Some(2)), ("d", Some(1)), ("e", Some(1))]), 0);
    let theirs = document(&keys, &of(&[("a", Some(2)), ("b", Some(3)), ("c", None)]), 0);
    // The same; in dispute, so as before; gone from both; not in theirs, so as before; only in ours.
    let expected = document(&keys, &of(&[("a", Some(2)), ("b", Some(1)), ("d", Some(1))]), 0);
    assert_eq!(agreed(&base.manifest(), &ours, &theirs).unwrap(), expected.manifest());
}

fn side() -> impl Strategy<Value = State> {
    prop::collection::btree_map("[a-f]", prop::option::weighted(0.75, 0_u8..3), 0..6)
}

fn live() -> impl Strategy<Value = State> {
    prop::collection::btree_map("[a-f]", (0_u8..3).prop_map(Some), 0..6)
}

fn apply<'a>(
    document: &Doc,
    changes: impl Iterator<Item = (&'a omni_credentials_core::OwnedIdentity, Option<&'a [u8]>)>,
) -> Doc {
    let mut document = document.clone();
    for (identity, sealed) in changes {
        document.put([Entry { identity: self::identity(&identity.name, &identity.scope), sealed }]).unwrap();
    }
    document
}

fn merged(
    keys: &Keys,
    base: &[u8],
    ours: &Doc,
    theirs: &Doc,
    complete: bool,
    prefer: Preference,
) -> Merged<XChaCha20Poly1305> {
    merge(base, ours, theirs, complete, keys, prefer).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn both_ends_converge(base in live(), ours in side(), theirs in side(), salt in 0_u64..2) {
        let (keys, _) = keyring(9);
        let base = document(&keys, &base, 0).manifest();
        let (ours, theirs) = (document(&keys, &ours, 0), document(&keys, &theirs, salt));
        let one = merged(&keys, &base, &ours, &theirs, false, Preference::Ours);
        let other = merged(&keys, &base, &theirs, &ours, false, Preference::Theirs);
        prop_assert_eq!(one.document.manifest(), other.document.manifest());
        prop_assert_eq!(state(&keys, &one.document), state(&keys, &other.document));
        prop_assert_eq!(&one.conflicts, &other.conflicts);
        // What each side is told to take over makes it the merged document.
        prop_assert_eq!(state(&keys, &apply(&ours, one.to_ours())), state(&keys, &one.document));
        prop_assert_eq!(state(&keys, &apply(&theirs, one.to_theirs())), state(&keys, &one.document));
        // And then there is nothing left to do.
        let again = merged(&keys, &base, &one.document, &one.document, false, Preference::Neither);
        prop_assert_eq!((again.to_ours().len(), again.to_theirs().len(), again.conflicts.len()), (0, 0, 0));
    }

    #[test]
    fn nothing_is_lost_without_a_tombstone(base in live(), ours in side(), theirs in side()) {
        let (keys, _) = keyring(10);
        let base = document(&keys, &base, 0).manifest();
        let merged = merged(&keys, &base, &document(&keys, &ours, 0), &document(&keys, &theirs, 0), false, Preference::Neither);
        let result = state(&keys, &merged.document);
        for (name, value) in ours.iter().chain(&theirs) {
            prop_assert!(result.contains_key(name));
            if value.is_some() && ours.get(name) != Some(&None) && theirs.get(name) != Some(&None) {
                prop_assert!(result[name].is_some(), "{} vanished", name);
            }
        }
    }

    /// A table and a file, synchronised again and again with edits in between, always end up the same.
    #[test]
    fn a_table_and_a_file_stay_in_step(
        start in live(),
        rounds in prop::collection::vec((live(), prop::collection::btree_map("[a-f]", prop::option::weighted(0.6, 3_u8..6), 0..3)), 1..5),
    ) {
        let (keys, _) = keyring(11);
        let mut base = Vec::new();
        let mut file = document(&keys, &start, 0);
        for (table, edits) in rounds {
            // The table is whatever it is now, deletions included; the file got some edits.
            let edited: State = edits.into_iter().filter(|(name, value)| value.is_some() || state(&keys, &file).contains_key(name)).collect();
            let mut file_state = state(&keys, &file);
            file_state.extend(edited);
            file = document(&keys, &file_state, 0);
            let table = document(&keys, &table, 0);
            let merged = merged(&keys, &base, &table, &file, true, Preference::Ours);
            let table = apply(&table, merged.to_ours());
            file = apply(&file, merged.to_theirs());
            let live = |document: &Doc| -> State { state(&keys, document).into_iter().filter(|(_, value)| value.is_some()).collect() };
            prop_assert_eq!(live(&table), live(&file));
            base = agreed(&base, &table, &file).unwrap();
            prop_assert_eq!(&base, &file.manifest());
        }
    }

    /// Where the base is what the file holds and the table has nothing to take over, what they agree on is the base
    /// with the changes in it: hosts need not have all the rest looked at.
    #[test]
    fn changes_alone_tell_what_is_agreed(table in live(), file in side()) {
        let (keys, _) = keyring(12);
        let file = Doc::parse(&document(&keys, &file, 0).write(&keys, 0).unwrap()).unwrap();
        let rows = document(&keys, &table, 0);
        let table = file.table(rows.entries().map(Ok)).unwrap();
        prop_assert_eq!(table.manifest(), rows.manifest());
        let base = file.manifest();
        let merged = merged(&keys, &base, &table, &file, true, Preference::Neither);
        prop_assert_eq!((merged.to_ours().len(), merged.conflicts.len()), (0, 0));
        let changes = apply(&document(&keys, &State::new(), 0), merged.to_theirs());
        prop_assert_eq!(agreed(&base, &changes, &changes).unwrap(), agreed(&base, &table, &merged.document).unwrap());
    }
}
