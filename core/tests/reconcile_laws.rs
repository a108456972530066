//! Reconciling two sides (§8): the laws.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use omni_credentials_core::{Entry, Preference, Reason, Reconciled, XChaCha20Poly1305, agreed};
use proptest::prelude::*;
use support::documents::{Doc, Keys, State, document, reconciled, state, written};
use support::{Fixed, keyring};

fn side() -> impl Strategy<Value = State> {
    prop::collection::btree_map("[a-f]", prop::option::weighted(0.75, 0_u8..3), 0..6)
}

fn live() -> impl Strategy<Value = State> {
    prop::collection::btree_map("[a-f]", (0_u8..3).prop_map(Some), 0..6)
}

fn apply<'a>(document: &Doc, changes: impl Iterator<Item = Entry<'a>>) -> Doc {
    let mut document = document.clone();
    document.put(changes).unwrap();
    document
}

/// A side with its history: the deletions of the first state are of generation 1, and may be forgotten.
#[derive(Clone, Debug)]
struct Made {
    first: State,
    then: State,
    forgets: bool,
    writes: u64,
    salt: u64,
    /// Names that are sealed again under the second key.
    resealed: Vec<String>,
}

fn made() -> impl Strategy<Value = Made> {
    let resealed = prop::collection::vec("[a-f]", 0..4);
    (side(), side(), prop::bool::weighted(0.3), 0_u64..4, 0_u64..2, resealed).prop_map(
        |(first, then, forgets, writes, salt, resealed)| Made {
            first,
            then,
            forgets,
            writes,
            salt,
            resealed,
        },
    )
}

fn make(keys: &Keys, made: &Made) -> Doc {
    let mut document = written(keys, &document(keys, &made.first, 0), made.writes);
    if made.forgets {
        document.forget_deletions();
    }
    document.put(self::document(keys, &made.then, made.salt).entries()).unwrap();
    let mut keys = keys.clone();
    keys.add_key(&mut Fixed::new(500)).unwrap();
    let before = document.clone();
    for entry in before.entries() {
        let is_resealed = made.resealed.iter().any(|name| name.as_bytes() == entry.identity.name);
        let Some(sealed) = entry.sealed.filter(|_| is_resealed) else { continue };
        let sealed = keys.reseal(&entry.identity, entry.expires, sealed).unwrap();
        document.put([Entry { sealed: Some(&sealed), ..entry }]).unwrap();
    }
    document.set_keyring(&keys.to_bytes()).unwrap();
    written(&keys, &document, 0)
}

fn mirrored(reason: Reason) -> Reason {
    match reason {
        Reason::OursDeleted => Reason::TheirsDeleted,
        Reason::TheirsDeleted => Reason::OursDeleted,
        same => same,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Deterministic, the same from either end but for the names of the sides, and nothing to do when done again.
    #[test]
    fn the_laws(
        ancestor in prop::option::weighted(0.8, (live(), 0_u64..6)),
        ours in made(),
        theirs in made(),
        prefers_ours in any::<bool>(),
    ) {
        let (mut keys, _) = keyring(13);
        let ancestor = ancestor.map_or(Vec::new(), |(state, generation)| {
            written(&keys, &document(&keys, &state, 0), generation).manifest()
        });
        let (ours, theirs) = (make(&keys, &ours), make(&keys, &theirs));
        keys.add_key(&mut Fixed::new(500)).unwrap();
        let (prefer, opposite) = match prefers_ours {
            true => (Preference::Ours, Preference::Theirs),
            false => (Preference::Theirs, Preference::Ours),
        };
        let bytes = |found: &Reconciled<XChaCha20Poly1305>| found.document.write(&keys, 0).unwrap();

        let one = reconciled(&keys, &ancestor, &ours, &theirs, false, prefer);
        let again = reconciled(&keys, &ancestor, &ours, &theirs, false, prefer);
        prop_assert_eq!(bytes(&one), bytes(&again));
        prop_assert_eq!(&one.conflicts, &again.conflicts);

        let other = reconciled(&keys, &ancestor, &theirs, &ours, false, opposite);
        prop_assert_eq!(bytes(&one), bytes(&other));
        let mirrored: Vec<_> = other.conflicts.iter().map(|(it, reason)| (it.clone(), mirrored(*reason))).collect();
        prop_assert_eq!(&one.conflicts, &mirrored);
        prop_assert!(one.to_ours().eq(other.to_theirs()));
        prop_assert!(one.to_theirs().eq(other.to_ours()));
        let neither = reconciled(&keys, &ancestor, &ours, &theirs, false, Preference::Neither);
        prop_assert_eq!(&neither.conflicts, &one.conflicts);

        // What comes of it parses, and what each side is told to take over makes it that.
        let result = written(&keys, &one.document, 0);
        result.verify(&keys).unwrap();
        let live = |document: &Doc| -> State {
            state(&keys, document).into_iter().filter(|(_, value)| value.is_some()).collect()
        };
        prop_assert_eq!(live(&apply(&ours, one.to_ours())), live(&result));
        prop_assert_eq!(live(&apply(&theirs, one.to_theirs())), live(&result));

        // With either side again: that side is then the ancestor, and nothing is new in it.
        for side in [&ours, &theirs] {
            for (a, b) in [(&result, side), (side, &result)] {
                let again = reconciled(&keys, &side.manifest(), a, b, false, Preference::Neither);
                prop_assert_eq!(&again.conflicts, &vec![]);
                prop_assert_eq!(live(&again.document), live(&result));
                prop_assert_eq!(again.document.manifest(), result.manifest());
            }
        }
        // With what came of it, there is nothing to do at all.
        for ancestor in [ancestor, result.manifest(), vec![]] {
            let again = reconciled(&keys, &ancestor, &result, &result, false, Preference::Neither);
            prop_assert_eq!((again.to_ours().len(), again.to_theirs().len(), again.conflicts.len()), (0, 0, 0));
            prop_assert_eq!(again.document.write(&keys, 0).unwrap(), result.write(&keys, 0).unwrap());
        }
    }

    #[test]
    fn both_ends_converge(base in live(), ours in side(), theirs in side(), salt in 0_u64..2) {
        let (keys, _) = keyring(9);
        let base = document(&keys, &base, 0).manifest();
        let (ours, theirs) = (document(&keys, &ours, 0), document(&keys, &theirs, salt));
        let one = reconciled(&keys, &base, &ours, &theirs, false, Preference::Ours);
        let other = reconciled(&keys, &base, &theirs, &ours, false, Preference::Theirs);
        prop_assert_eq!(one.document.manifest(), other.document.manifest());
        prop_assert_eq!(state(&keys, &one.document), state(&keys, &other.document));
        prop_assert_eq!(one.conflicts.len(), other.conflicts.len());
        // What each side is told to take over makes it that document.
        prop_assert_eq!(state(&keys, &apply(&ours, one.to_ours())), state(&keys, &one.document));
        prop_assert_eq!(state(&keys, &apply(&theirs, one.to_theirs())), state(&keys, &one.document));
        // And then there is nothing left to do.
        let again = reconciled(&keys, &base, &one.document, &one.document, false, Preference::Neither);
        prop_assert_eq!((again.to_ours().len(), again.to_theirs().len(), again.conflicts.len()), (0, 0, 0));
    }

    #[test]
    fn nothing_is_lost_without_a_tombstone(base in live(), ours in side(), theirs in side()) {
        let (keys, _) = keyring(10);
        let base = document(&keys, &base, 0).manifest();
        let found = reconciled(&keys, &base, &document(&keys, &ours, 0), &document(&keys, &theirs, 0), false, Preference::Neither);
        let result = state(&keys, &found.document);
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
            let found = reconciled(&keys, &base, &table, &file, true, Preference::Ours);
            let table = apply(&table, found.to_ours());
            file = apply(&file, found.to_theirs());
            let live = |document: &Doc| -> State { state(&keys, document).into_iter().filter(|(_, value)| value.is_some()).collect() };
            prop_assert_eq!(live(&table), live(&file));
            base = agreed(&base, &table, &file, 0).unwrap();
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
        let found = reconciled(&keys, &base, &table, &file, true, Preference::Neither);
        prop_assert_eq!((found.to_ours().len(), found.conflicts.len()), (0, 0));
        let changes = apply(&document(&keys, &State::new(), 0), found.to_theirs());
        prop_assert_eq!(
            agreed(&base, &changes, &changes, 7).unwrap(),
            agreed(&base, &table, &found.document, 7).unwrap()
        );
    }
}
