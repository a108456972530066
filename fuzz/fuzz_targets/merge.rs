//! Merges of any three states converge, lose nothing, and are settled once applied.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use omni_credentials_core::{Document, Entry, Keyring, OwnedIdentity, Preference, agreed, merge};
use omni_credentials_fuzz::{Counter, Fixture, Suite, identity};

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
    /// What was sealed before: the same name and value are always the same bytes.
    static SEALED: RefCell<BTreeMap<(u8, u8), Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Names to values; `None` is a tombstone.
type State = BTreeMap<u8, Option<u8>>;

fuzz_target!(|data: &[u8]| {
    let [complete, rest @ ..] = data else { return };
    FIXTURE.with(|fixture| run(&fixture.keyring, &fixture.stored, complete & 1 == 1, rest));
});

fn run(keys: &Keyring<Suite>, stored: &[u8], complete: bool, data: &[u8]) {
    let mut states = [State::new(), State::new(), State::new()];
    for entry in data.chunks_exact(2).take(24) {
        let name = entry[0] % 8;
        let value = (entry[1] & 8 == 0).then_some(entry[1] % 4 + (entry[1] & 16));
        if let Some(state) = states.get_mut(usize::from(entry[0] >> 3) % 3) {
            state.insert(name, value);
        }
    }
    let [base, ours, theirs] = states.map(|state| document(keys, stored, &state));
    let base = base.manifest();
    let one = merge(&base, &ours, &theirs, complete, keys, Preference::Ours).expect("good documents");
    if !complete {
        let other = merge(&base, &theirs, &ours, false, keys, Preference::Theirs).expect("good documents");
        assert_eq!(one.document.manifest(), other.document.manifest());
        assert_eq!(one.conflicts, other.conflicts);
        assert_eq!(applied(&ours, one.to_ours()), one.document.manifest());
    }
    assert_eq!(applied(&theirs, one.to_theirs()), one.document.manifest());
    // Nobody's preference only shows in the conflicts.
    let neither = merge(&base, &ours, &theirs, complete, keys, Preference::Neither).expect("good documents");
    assert_eq!(neither.document.manifest(), one.document.manifest());
    assert_eq!(neither.conflicts, one.conflicts);
    // Once applied there is nothing left to do, and both agree on all of it.
    let settled = agreed(&base, &one.document, &one.document).expect("good documents");
    let again = merge(&settled, &one.document, &one.document, false, keys, Preference::Neither)
        .expect("good documents");
    assert_eq!((again.to_ours().len(), again.to_theirs().len(), again.conflicts.len()), (0, 0, 0));
    // Any bytes as a base are refused or taken, never worse.
    let _ = merge(data, &ours, &theirs, complete, keys, Preference::Neither);
    let _ = agreed(data, &ours, &theirs);
}

/// Equal values of one name have equal bytes, unless bit 4 of the value says otherwise.
fn document(keys: &Keyring<Suite>, stored: &[u8], state: &State) -> Document<Suite> {
    let mut document = Document::create(stored).expect("a good keyring");
    let records: Vec<_> = state
        .iter()
        .map(|(name, value)| {
            let sealed = value.map(|value| sealed(keys, *name, value));
            ([b'a' + name], sealed)
        })
        .collect();
    let entries =
        records.iter().map(|(name, sealed)| Entry { identity: identity(name), sealed: sealed.as_deref() });
    document.put(entries).expect("distinct records");
    document
}

fn sealed(keys: &Keyring<Suite>, name: u8, value: u8) -> Vec<u8> {
    let make = || {
        let seed = u64::from(name) << 8 | u64::from(value);
        keys.seal(&identity(&[b'a' + name]), &[value & 15], &mut Counter::new(seed)).expect("sealed")
    };
    SEALED.with_borrow_mut(|known| known.entry((name, value)).or_insert_with(make).clone())
}

fn applied<'a>(
    document: &Document<Suite>,
    changes: impl Iterator<Item = (&'a OwnedIdentity, Option<&'a [u8]>)>,
) -> Vec<u8> {
    let mut document = document.clone();
    let entries = changes.map(|(who, sealed)| Entry { identity: identity(who.name.as_bytes()), sealed });
    document.put(entries).expect("distinct records");
    document.manifest()
}
