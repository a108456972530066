//! Reconciling two sides (§8): the tables of cases.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use omni_credentials_core::{
    Entry, Error, Failure, KeyOf, Preference, Reason, Reconciled, Side, Wrapping, XChaCha20Poly1305, agreed,
    reconcile, settled,
};
use support::documents::{Doc, Keys, document, edited, of, reconciled, state, written};
use support::{ALL, CHEAP, Dry, Fixed, identity, keyring};

/// Reconciles one record: the record of the ancestor, where it is known, of ours and of theirs.
fn one(
    ancestor: Option<Option<u8>>,
    ours: Option<Option<u8>>,
    theirs: Option<Option<u8>>,
    complete: bool,
    prefer: Preference,
) -> (Option<Option<u8>>, Option<Reason>) {
    let (keys, _) = keyring(1);
    let side = |record: Option<Option<u8>>| record.map(|value| ("a".to_owned(), value)).into_iter().collect();
    let ancestor = ancestor.map(|before| document(&keys, &side(before.map(Some)), 0).manifest());
    let (ours, theirs) = (document(&keys, &side(ours), 0), document(&keys, &side(theirs), 0));
    let found = reconciled(&keys, &ancestor.unwrap_or_default(), &ours, &theirs, complete, prefer);
    let reason = found.conflicts.first().map(|(_, reason)| *reason);
    (state(&keys, &found.document).get("a").copied(), reason)
}

#[test]
fn the_table_of_cases() {
    use Preference::{Neither, Ours, Theirs};
    use Reason::{BothChanged, OursDeleted, TheirsDeleted};
    let (live, dead, none) = (|value| Some(Some(value)), Some(None), None);
    for (before, ours, theirs, complete, prefer, expected, conflict) in [
        // New on one side.
        (None, live(1), none, false, Neither, live(1), None),
        (None, none, live(1), false, Neither, live(1), None),
        (None, none, live(1), true, Neither, live(1), None),
        // Changed on one side.
        (Some(1), live(2), live(1), false, Neither, live(2), None),
        (Some(1), live(1), live(2), false, Neither, live(2), None),
        // Absence is never deletion, except in a complete table.
        (Some(1), live(1), none, false, Neither, live(1), None),
        (Some(1), none, live(1), false, Neither, live(1), None),
        (Some(1), none, live(1), true, Neither, dead, None),
        (Some(1), live(1), none, true, Neither, live(1), None),
        // Deleted by tombstone.
        (Some(1), dead, live(1), false, Neither, dead, None),
        (Some(1), live(1), dead, false, Neither, dead, None),
        (Some(1), none, dead, false, Neither, dead, None),
        (None, none, dead, true, Neither, dead, None),
        // A value written later replaces an old tombstone.
        (None, live(1), dead, false, Neither, live(1), None),
        (None, dead, live(1), false, Neither, live(1), None),
        // Both the same.
        (Some(1), live(2), live(2), false, Neither, live(2), None),
        (None, live(2), live(2), false, Neither, live(2), None),
        (Some(1), dead, dead, false, Neither, dead, None),
        // Conflicts.
        (Some(1), live(2), live(3), false, Neither, live(2), Some(BothChanged)),
        (Some(1), live(2), live(3), false, Ours, live(2), Some(BothChanged)),
        (Some(1), live(2), live(3), false, Theirs, live(3), Some(BothChanged)),
        (None, live(2), live(3), false, Theirs, live(3), Some(BothChanged)),
        (Some(1), dead, live(3), false, Neither, dead, Some(OursDeleted)),
        (Some(1), none, live(3), true, Neither, dead, Some(OursDeleted)),
        (Some(1), none, live(3), true, Theirs, live(3), Some(OursDeleted)),
        (Some(1), live(2), dead, true, Ours, live(2), Some(TheirsDeleted)),
        (Some(1), live(2), dead, true, Theirs, dead, Some(TheirsDeleted)),
    ] {
        let found = one(Some(before), ours, theirs, complete, prefer);
        assert_eq!(found, (expected, conflict), "{before:?} {ours:?} {theirs:?} {complete} {prefer:?}");
    }
}

#[test]
fn the_table_of_cases_of_an_unknown_ancestor() {
    use Preference::{Neither, Ours, Theirs};
    use Reason::{AncestorUnknown, BothChanged};
    let (live, dead, none) = (|value| Some(Some(value)), Some(None), None);
    for (ours, theirs, prefer, expected, conflict) in [
        // Absence on a side that has forgotten nothing.
        (live(1), none, Neither, live(1), None),
        (none, live(1), Neither, live(1), None),
        (none, dead, Neither, dead, None),
        (live(1), live(1), Neither, live(1), None),
        (dead, dead, Neither, dead, None),
        (live(1), live(2), Neither, live(1), Some(BothChanged)),
        (live(1), live(2), Theirs, live(2), Some(BothChanged)),
        (live(1), dead, Neither, live(1), Some(AncestorUnknown)),
        (live(1), dead, Theirs, dead, Some(AncestorUnknown)),
        (dead, live(1), Ours, dead, Some(AncestorUnknown)),
        (dead, live(1), Theirs, live(1), Some(AncestorUnknown)),
    ] {
        for complete in [false, true] {
            let found = one(None, ours, theirs, complete, prefer);
            assert_eq!(found, (expected, conflict), "{ours:?} {theirs:?} {complete} {prefer:?}");
        }
    }
}

/// A record that one side has, and the other lacks and has forgotten deletions.
#[test]
fn the_table_of_cases_of_forgotten_deletions() {
    use Preference::{Neither, Ours, Theirs};
    let (live, dead) = (|value| Some(Some(value)), Some(None));
    let (keys, _) = keyring(1);
    let first = written(&keys, &document(&keys, &of(&[("a", Some(1))]), 0), 0);
    let changed = written(&keys, &edited(&keys, &first, &[("a", Some(2))], 0), 0);
    // Of generation 3, and knows of no deletion before that.
    let mut forgetful = written(&keys, &edited(&keys, &first, &[("a", None)], 0), 2);
    forgetful.forget_deletions();
    let forgetful = written(&keys, &forgetful, 0);
    assert_eq!((forgetful.generation(), forgetful.deletions_since(), forgetful.entries().len()), (4, 3, 0));
    let later = |generation: u64| written(&keys, &first, generation - 1).manifest();
    let forgotten = Some(Reason::DeletionForgotten);
    for (ancestor, other, prefer, value, conflict) in [
        // Agreed before the deletions were forgotten: it may have been deleted, whether the other changed it or not.
        (first.manifest(), &first, Neither, live(1), forgotten),
        (first.manifest(), &changed, Neither, live(2), forgotten),
        (later(2), &first, Neither, live(1), forgotten),
        // Agreed after it: all that was deleted since then has a tombstone.
        (later(3), &first, Neither, live(1), None),
        (later(9), &changed, Neither, live(2), None),
        // Not known: any deletion that was forgotten may be it.
        (vec![], &first, Neither, live(1), forgotten),
        // Both agreed on a state without it: it is new.
        (Doc::create(&keys.to_bytes()).unwrap().manifest(), &first, Neither, live(1), None),
        // The preferred side is believed: deleted where it lacks the record, kept where it has it.
        (first.manifest(), &first, Ours, dead, forgotten),
        (first.manifest(), &first, Theirs, live(1), forgotten),
    ] {
        let found = reconciled(&keys, &ancestor, &forgetful, other, false, prefer);
        let reason = found.conflicts.first().map(|(_, reason)| *reason);
        assert_eq!(
            (state(&keys, &found.document).get("a").copied(), reason),
            (value, conflict),
            "{prefer:?}"
        );
        assert_eq!(found.document.deletions_since(), 3);
        let mirrored = match prefer {
            Neither => Neither,
            Ours => Theirs,
            Theirs => Ours,
        };
        let other = reconciled(&keys, &ancestor, other, &forgetful, false, mirrored);
        assert_eq!(other.document.write(&keys, 0).unwrap(), found.document.write(&keys, 0).unwrap());
        assert_eq!(other.conflicts, found.conflicts);
    }
    // A table has not forgotten anything: what it lacks is deleted, or was never there.
    let rows = forgetful.table([]).unwrap();
    let found = reconciled(&keys, &first.manifest(), &rows, &first, true, Neither);
    assert_eq!((state(&keys, &found.document).get("a").copied(), found.conflicts.len()), (dead, 0));
}

/// What both have deleted, and one has forgotten, is forgotten: the tombstone would be older than `deletions-since`.
#[test]
fn a_deletion_that_one_side_has_forgotten_is_forgotten() {
    let (keys, _) = keyring(1);
    let first = written(&keys, &document(&keys, &of(&[("a", Some(1)), ("b", Some(1))]), 0), 0);
    let gone = written(&keys, &edited(&keys, &first, &[("a", None)], 0), 0);
    let mut forgetful = written(&keys, &gone, 6);
    forgetful.forget_deletions();
    let newer = written(&keys, &edited(&keys, &gone, &[("b", None)], 0), 8);
    for (ours, theirs) in [(&newer, &forgetful), (&forgetful, &newer)] {
        let found = reconciled(&keys, &gone.manifest(), ours, theirs, false, Preference::Neither);
        assert_eq!(found.conflicts.len(), 0);
        assert_eq!(state(&keys, &found.document), of(&[("b", None)]));
        // And the file that comes of it is one.
        let found = written(&keys, &found.document, 0);
        assert_eq!((found.generation(), found.deletions_since()), (10, 7));
    }
}

/// Who last saw the record alive must be able to see the tombstone, whatever the generations of the two branches were.
#[test]
fn a_deletion_that_wins_over_a_newer_file_is_a_deletion_of_the_next_write() {
    let (keys, _) = keyring(1);
    let first = written(&keys, &document(&keys, &of(&[("a", Some(1)), ("b", Some(1))]), 0), 0);
    let gone = written(&keys, &edited(&keys, &first, &[("a", None)], 0), 0);
    let mut busy = written(&keys, &edited(&keys, &first, &[("b", Some(2))], 0), 40);
    busy.forget_deletions();
    let found = reconciled(&keys, &first.manifest(), &gone, &busy, false, Preference::Neither);
    assert_eq!(
        (state(&keys, &found.document), found.conflicts.len()),
        (of(&[("a", None), ("b", Some(2))]), 0)
    );
    let text = String::from_utf8(found.document.write(&keys, 0).unwrap()).unwrap();
    assert!(text.contains("\n  generation 42\n") && !text.contains("\n  generation 2\n"), "{text}");
    assert!(Doc::parse(text.as_bytes()).is_ok());
}

/// An older version of the file, put back beside a complete table: what it lists as deleted may have been added again.
#[test]
fn an_older_file_beside_a_complete_table_deletes_nothing() {
    use Preference::{Neither, Ours, Theirs};
    let (keys, _) = keyring(1);
    let gone = written(&keys, &document(&keys, &of(&[("a", None)]), 0), 0);
    let again = written(&keys, &edited(&keys, &gone, &[("a", Some(2))], 0), 4);
    let rows = |document: &Doc| gone.table(document.entries().map(Ok)).unwrap();
    for (prefer, expected) in [(Neither, Some(2)), (Ours, Some(2)), (Theirs, None)] {
        let found = reconciled(&keys, &again.manifest(), &rows(&again), &gone, true, prefer);
        assert_eq!((state(&keys, &found.document)["a"], found.conflicts.len()), (expected, 0), "{prefer:?}");
    }
    // A deletion in a file that is not older counts.
    let newer = written(&keys, &edited(&keys, &again, &[("a", None)], 0), 0);
    let found = reconciled(&keys, &again.manifest(), &rows(&again), &newer, true, Neither);
    assert_eq!(state(&keys, &found.document)["a"], None);
}

/// All values of a document sealed again under a new key, as a rotation does it.
fn rotated(keys: &Keys, document: &Doc, seed: u64) -> (Keys, Doc) {
    let mut keys = keys.clone();
    keys.add_key(&mut Fixed::new(seed)).unwrap();
    let mut rotated = document.clone();
    for entry in document.entries() {
        let sealed = entry.sealed.map(|sealed| keys.reseal(&entry.identity, entry.expires, sealed).unwrap());
        rotated.put([Entry { sealed: sealed.as_deref(), ..entry }]).unwrap();
    }
    rotated.set_keyring(&keys.to_bytes()).unwrap();
    (keys, rotated)
}

/// Reconciles two documents, each with its own keyring.
fn with_keys(
    ancestor: &[u8],
    (our_keys, ours): (&Keys, &Doc),
    (their_keys, theirs): (&Keys, &Doc),
    prefer: Preference,
) -> Result<Reconciled<XChaCha20Poly1305>, Failure> {
    let ours = Side { document: ours, keyring: our_keys };
    let theirs = Side { document: theirs, keyring: their_keys };
    reconcile(ancestor, &ours, &theirs, false, prefer, &mut Fixed::new(77))
}

#[test]
fn a_rotation_is_no_change() {
    let (keys, _) = keyring(2);
    let first = document(&keys, &of(&[("a", Some(1)), ("b", Some(1)), ("c", Some(1))]), 0);
    let before = first.manifest();
    let (mut new_keys, new) = rotated(&keys, &first, 3);
    assert_eq!(new.manifest(), before);
    new_keys.retire(&new).unwrap();
    let mut new = new;
    new.set_keyring(&new_keys.to_bytes()).unwrap();
    // Rotation here, edit and deletion there, under the key that is retired here.
    let there = edited(&keys, &first, &[("a", Some(2)), ("b", None)], 0);
    for (ours, theirs) in [((&new_keys, &new), (&keys, &there)), ((&keys, &there), (&new_keys, &new))] {
        let found = with_keys(&before, ours, theirs, Preference::Neither).unwrap();
        assert_eq!((found.conflicts.len(), found.wrapping), (0, Wrapping::Same));
        assert_eq!(
            state(&found.keyring, &found.document),
            of(&[("a", Some(2)), ("b", None), ("c", Some(1))])
        );
        let kept = found.document.entries().find(|entry| entry.identity.name == b"c").unwrap();
        assert_eq!(
            found.keyring.key_of(kept.sealed.unwrap()),
            Ok(KeyOf::Current),
            "the newer sealing of one version"
        );
        let seal = found.keyring.seal(&identity("new", ALL), None, b"", &mut Fixed::new(4)).unwrap();
        assert_eq!(new_keys.key_of(&seal), Ok(KeyOf::Current));
    }
    // Rotated on both sides with a key each: the same from either end, and no conflict, known ancestor or not.
    let (other_keys, other) = rotated(&keys, &first, 5);
    for ancestor in [&*before, &[]] {
        let one = with_keys(ancestor, (&new_keys, &new), (&other_keys, &other), Preference::Neither).unwrap();
        let two = with_keys(ancestor, (&other_keys, &other), (&new_keys, &new), Preference::Neither).unwrap();
        assert_eq!((one.conflicts.len(), two.conflicts.len()), (0, 0));
        assert_eq!(
            one.document.write(&one.keyring, 0).unwrap(),
            two.document.write(&two.keyring, 0).unwrap()
        );
    }
}

/// The same value with another expiry is another version, and differs.
#[test]
fn an_expiry_is_part_of_what_changed() {
    let (keys, _) = keyring(20);
    let expiring = |expires, seed| {
        let identity = identity("a", ALL);
        let sealed = keys.seal(&identity, expires, b"1", &mut Fixed::new(seed)).unwrap();
        let mut document = Doc::create(&keys.to_bytes()).unwrap();
        document.put([Entry { identity, expires, sealed: Some(&sealed) }]).unwrap();
        document
    };
    let (never, soon, later) = (expiring(None, 1), expiring(Some(10), 2), expiring(Some(20), 3));
    let expiry = |found: &Reconciled<XChaCha20Poly1305>| found.document.entries().next().unwrap().expires;
    let base = never.manifest();
    let one_side = reconciled(&keys, &base, &soon, &never, false, Preference::Neither);
    assert_eq!((expiry(&one_side), one_side.conflicts.len(), one_side.to_theirs().len()), (Some(10), 0, 1));
    let both = reconciled(&keys, &base, &soon, &later, false, Preference::Theirs);
    assert_eq!((expiry(&both), both.conflicts[0].1), (Some(20), Reason::BothChanged));
    let same = reconciled(&keys, &base, &soon, &expiring(Some(10), 4), false, Preference::Neither);
    assert_eq!((expiry(&same), same.conflicts.len()), (Some(10), 0));

    // Changed without sealing again, it does not open, and the side that does is right.
    let mut forged = soon.clone();
    let entry = soon.entries().next().unwrap();
    forged.put([Entry { expires: Some(99), ..entry }]).unwrap();
    for (ours, theirs) in [(&forged, &soon), (&soon, &forged)] {
        let found = reconciled(&keys, &base, ours, theirs, false, Preference::Neither);
        assert_eq!((expiry(&found), found.conflicts.len()), (Some(10), 0));
    }
    let agreed = agreed(&base, &forged, &soon, 1).unwrap();
    assert_eq!(agreed[29..], base[29..], "they do not agree on it");
}

#[test]
fn one_version_that_opens_on_one_side_only_is_that_side_s() {
    let (keys, _) = keyring(2);
    let first = document(&keys, &of(&[("a", Some(1))]), 0);
    let (new_keys, new) = rotated(&keys, &first, 3);
    let damaged = |document: &Doc| {
        let mut document = document.clone();
        let entry = first.entries().next().unwrap();
        let mut sealed = document.entries().next().unwrap().sealed.unwrap().to_vec();
        *sealed.last_mut().unwrap() ^= 1;
        document.put([Entry { sealed: Some(&sealed), ..entry }]).unwrap();
        document
    };
    for (ours, theirs) in [(&damaged(&first), &new), (&new, &damaged(&first)), (&first, &damaged(&new))] {
        let found = reconciled(&new_keys, &first.manifest(), ours, theirs, false, Preference::Neither);
        assert_eq!((state(&new_keys, &found.document), found.conflicts.len()), (of(&[("a", Some(1))]), 0));
    }
    let found =
        reconciled(&new_keys, &first.manifest(), &damaged(&first), &damaged(&new), false, Preference::Theirs);
    assert_eq!(found.conflicts[0].1, Reason::Unreadable);
}

#[test]
fn who_rewrapped_has_the_wrapping_of_both() {
    let (keys, _) = keyring(2);
    let first = document(&keys, &of(&[("a", Some(1))]), 0);
    let before = first.manifest();
    let rewrapped = |secret: &[u8], seed| {
        let (keys, kek) = keys.rewrap(secret, Some(CHEAP), &mut Fixed::new(seed)).unwrap();
        let mut document = first.clone();
        document.set_keyring(&keys.to_bytes()).unwrap();
        (keys, document, kek.to_vec())
    };
    let (new_keys, new, new_kek) = rewrapped(b"new", 3);
    let (other_keys, other, other_kek) = rewrapped(b"other", 4);
    let (old_keys, old) = (&keys, &edited(&keys, &first, &[("b", Some(2))], 0));
    let unlocks = |found: &Reconciled<XChaCha20Poly1305>, kek: &[u8]| {
        assert_eq!(found.document.keyring_bytes(), found.keyring.to_bytes());
        assert!(Keys::unlock(found.document.keyring_bytes(), kek).is_ok());
        assert_eq!(found.conflicts.len(), 0);
        found.wrapping
    };
    let neither = Preference::Neither;
    let found = with_keys(&before, (&new_keys, &new), (old_keys, old), neither).unwrap();
    assert_eq!(unlocks(&found, &new_kek), Wrapping::Ours);
    let found = with_keys(&before, (old_keys, old), (&new_keys, &new), neither).unwrap();
    assert_eq!(unlocks(&found, &new_kek), Wrapping::Theirs);
    // Both, or no one knows which.
    for (prefer, kek) in
        [(neither, &other_kek), (Preference::Ours, &new_kek), (Preference::Theirs, &other_kek)]
    {
        let found = with_keys(&before, (&new_keys, &new), (&other_keys, &other), prefer).unwrap();
        assert_eq!(unlocks(&found, kek), Wrapping::Conflict);
        let found = with_keys(&[], (old_keys, old), (&other_keys, &other), neither).unwrap();
        assert_eq!(unlocks(&found, &other_kek), Wrapping::Conflict);
    }

    // A side whose secret is not at hand comes with the other's keyring.
    let found = with_keys(&before, (&new_keys, &new), (&new_keys, old), neither).unwrap();
    assert_eq!((unlocks(&found, &new_kek), found.document.entries().len()), (Wrapping::Ours, 2));
    let found = with_keys(&before, (&new_keys, old), (&new_keys, &new), neither).unwrap();
    assert_eq!(unlocks(&found, &new_kek), Wrapping::Theirs);
    let error = |ours, theirs, prefer| with_keys(&before, ours, theirs, prefer).err().unwrap().error;
    assert_eq!(error((old_keys, &new), (old_keys, old), neither), Error::WrongMasterSecret);
    assert_eq!(error((&new_keys, &other), (&new_keys, &new), Preference::Ours), Error::WrongMasterSecret);
    assert_eq!(
        unlocks(&with_keys(&before, (&new_keys, &other), (&new_keys, &new), neither).unwrap(), &new_kek),
        Wrapping::Conflict
    );
    let (_, rotated) = rotated(old_keys, old, 5);
    assert_eq!(error((&new_keys, &new), (&new_keys, &rotated), neither), Error::UnknownKey);
}

#[test]
fn equal_values_sealed_apart_do_not_conflict() {
    let (keys, _) = keyring(2);
    let state = of(&[("a", Some(1)), ("b", Some(2))]);
    let (ours, theirs) = (document(&keys, &state, 1), document(&keys, &state, 2));
    assert_ne!(ours.manifest(), theirs.manifest());
    for ancestor in [vec![], document(&keys, &of(&[("a", Some(3))]), 0).manifest()] {
        let found = reconciled(&keys, &ancestor, &ours, &theirs, false, Preference::Neither);
        assert!(found.conflicts.is_empty());
        let other = reconciled(&keys, &ancestor, &theirs, &ours, false, Preference::Neither);
        assert_eq!(found.document.manifest(), other.document.manifest(), "the same from either end");
    }
}

#[test]
fn a_value_under_the_current_key_is_preferred() {
    let (mut keys, _) = keyring(3);
    let state = of(&[("a", Some(1))]);
    let old = document(&keys, &state, 1);
    keys.add_key(&mut Fixed::new(4)).unwrap();
    let new = document(&keys, &state, 2);
    for (ours, theirs) in [(&old, &new), (&new, &old)] {
        let found = reconciled(&keys, &[], ours, theirs, false, Preference::Neither);
        assert_eq!(found.document.manifest(), new.manifest());
    }
}

#[test]
fn the_generation_is_the_higher_one() {
    let (keys, _) = keyring(5);
    let ours = Doc::create(&keys.to_bytes()).unwrap();
    let theirs = written(&keys, &ours, 41);
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let found = reconciled(&keys, &[], ours, theirs, false, Preference::Neither).document;
        assert_eq!((found.keyring_bytes(), found.generation()), (theirs.keyring_bytes(), 42));
    }
}

#[test]
fn what_is_no_manifest_is_refused() {
    let (keys, _) = keyring(7);
    let document = document(&keys, &of(&[("a", Some(1)), ("b", Some(2))]), 0);
    let manifest = document.manifest();
    let (header, entries) = manifest.split_at(29);
    let next = [&manifest[..4], &[2], &manifest[5..]].concat();
    for (bad, error) in [
        (b"O".to_vec(), Error::Malformed),
        (manifest[..28].to_vec(), Error::Malformed),
        (manifest[..manifest.len() - 1].to_vec(), Error::Malformed),
        ([header, &entries[32..], &entries[..32]].concat(), Error::Malformed),
        ([header, &entries[..32], &entries[..32]].concat(), Error::Malformed),
        (entries.to_vec(), Error::Malformed),
        (next, Error::UnknownVersion),
    ] {
        let side = || Side { document: &document, keyring: &keys };
        let refused = reconcile(&bad, &side(), &side(), false, Preference::Neither, &mut Dry).err().unwrap();
        assert_eq!(refused.error, error);
        assert_eq!(agreed(&bad, &document, &document, 0).err().unwrap().error, error);
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
    assert_eq!(agreed(&base.manifest(), &ours, &theirs, 0).unwrap(), expected.manifest());
}

#[test]
fn a_document_matches_what_it_holds_and_nothing_else() {
    let (keys, _) = keyring(8);
    let two = document(&keys, &of(&[("a", Some(1)), ("b", Some(1)), ("c", None)]), 0);
    assert_eq!(two.matches(&two.manifest()), Ok(true));
    // Neither the generation nor the wrapping is what it holds.
    assert_eq!(two.matches(&written(&keys, &two, 7).manifest()), Ok(true));
    assert_eq!(rotated(&keys, &two, 9).1.matches(&two.manifest()), Ok(true));
    for other in [of(&[("a", Some(1))]), of(&[("a", Some(2)), ("b", Some(1))]), of(&[])] {
        let other = document(&keys, &other, 0);
        assert_eq!((two.matches(&other.manifest()), other.matches(&two.manifest())), (Ok(false), Ok(false)));
    }
    assert_eq!(two.matches(b"").err().unwrap().error, Error::Malformed);
}

/// Whether a file came into place is seen by what only it has.
#[test]
fn what_is_settled_after_a_crash() {
    let (keys, _) = keyring(8);
    let [old, new] = [1, 2].map(|value| {
        let same = document(&keys, &of(&[("a", Some(1)), ("b", Some(1))]), 0);
        written(&keys, &edited(&keys, &same, &[("a", Some(value))], 0), u64::from(value))
    });
    let (confirmed, pending) = (old.manifest(), new.manifest());
    let settle = |file: &Doc| settled(&confirmed, &pending, file).unwrap();
    assert_eq!((settle(&old), settle(&new)), (confirmed.clone(), pending.clone()));
    // Edited since: still seen, as long as there is a version that only one of the two has.
    let edited_new = edited(&keys, &new, &[("b", Some(9))], 0);
    assert_eq!(settle(&edited_new), pending);
    assert_eq!(settle(&edited(&keys, &old, &[("a", Some(9)), ("b", Some(9))], 0)), confirmed);
    // A sealing of the same version says the same.
    assert_eq!(settle(&rotated(&keys, &new, 9).1), pending);
    // Came into place, and then one record was put back: what is as it was confirmed counts as not changed.
    let both = written(&keys, &edited(&keys, &new, &[("b", Some(2))], 0), 0);
    let back = edited(&keys, &both, &[("b", Some(1))], 0);
    assert_eq!(settled(&confirmed, &both.manifest(), &back).unwrap()[29..], back.manifest()[29..]);
    // Without one of the two there is nothing to find out.
    assert_eq!(
        (settled(&confirmed, b"", &new), settled(b"", &pending, &old)),
        (Ok(confirmed.clone()), Ok(pending.clone()))
    );
    assert_eq!(settled(b"x", &pending, &old).err().unwrap().error, Error::Malformed);
    assert_eq!(settled(&confirmed, b"x", &old).err().unwrap().error, Error::Malformed);
}
