//! Two sides of any three states converge, lose nothing, and have nothing left to do once they are reconciled.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use omni_credentials_core::{
    Document, Entry, Keyring, Preference, Reason, Reconciled, Side, agreed, agreed_changes, fold, reconcile,
    settled,
};
use omni_credentials_fuzz::{Counter, Fixture, Suite, identity};

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
    static FIXTURE_ROTATED: Fixture = Fixture::rotated(5);
    /// What was sealed before: the same name and value are always the same bytes.
    static SEALED: RefCell<BTreeMap<(u8, u8), Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Names to values; `None` is a tombstone.
type State = BTreeMap<u8, Option<u8>>;

fuzz_target!(|data: &[u8]| {
    let [options, rest @ ..] = data else { return };
    FIXTURE.with(|fixture| run(fixture, *options, rest));
});

fn run(fixture: &Fixture, options: u8, data: &[u8]) {
    let (complete, known) = (options & 1 == 1, options & 2 == 0);
    let forgetful = [options & 4 == 4, options & 8 == 8 && !complete];
    let rotated = [options & 16 == 16, options & 32 == 32];
    let mut states = [State::new(), State::new(), State::new()];
    for entry in data.chunks_exact(2).take(24) {
        let name = entry[0] % 8;
        let value = (entry[1] & 8 == 0).then_some(entry[1] % 4 + (entry[1] & 16));
        if let Some(state) = states.get_mut(usize::from(entry[0] >> 3) % 3) {
            state.insert(name, value);
        }
    }
    let [before, ours, theirs] = states.map(|state| document(&fixture.keyring, &fixture.stored, &state));
    let before = if known { before.manifest() } else { Vec::new() };
    FIXTURE_ROTATED.with(|newer| {
        let side = |document: Document<Suite>, forgets: bool, rotates: bool| {
            let keys = if rotates { &newer.keyring } else { &fixture.keyring };
            made(keys, document, forgets, rotates)
        };
        let ours = side(ours, forgetful[1], rotated[0]);
        let theirs = side(theirs, forgetful[0], rotated[1]);
        laws(&before, &ours, &theirs, complete);
    });
    // Any bytes as an ancestor are refused or taken, never worse.
    let document = document(&fixture.keyring, &fixture.stored, &State::new());
    let side = || Side { document: &document, keyring: &fixture.keyring };
    let _ = reconcile(data, &side(), &side(), complete, Preference::Neither, &mut Counter::new(7));
    let _ = agreed(data, &document, &document, 1);
    let _ = agreed_changes(data, &document, &document, 1);
    if let Ok(folded) = fold(data) {
        assert_eq!(fold(&folded).as_ref(), Ok(&folded));
    }
    let _ = settled(data, &before, &document);
    let _ = settled(&before, data, &document);
    let _ = document.matches(data);
}

type Made<'a> = (&'a Keyring<Suite>, Document<Suite>);

/// The document sealed again or with its deletions forgotten, as a file.
fn made(keys: &Keyring<Suite>, mut document: Document<Suite>, forgets: bool, rotates: bool) -> Made<'_> {
    if rotates {
        let again: Vec<_> = document
            .entries()
            .map(|entry| {
                entry
                    .sealed
                    .map(|sealed| keys.reseal(&entry.identity, entry.expires, sealed).expect("it opens"))
            })
            .collect();
        let records = document.clone();
        let entries = records.entries().zip(&again);
        let entries = entries.map(|(entry, sealed)| Entry { sealed: sealed.as_deref(), ..entry });
        document.put(entries).expect("distinct records");
        document.set_keyring(&keys.to_bytes()).expect("a good keyring");
    }
    document = Document::parse(&document.write(keys, 1).expect("a small file")).expect("just written");
    if forgets {
        document.forget_deletions();
    }
    (keys, document)
}

fn laws(before: &[u8], ours: &Made<'_>, theirs: &Made<'_>, complete: bool) {
    let one = of(before, ours, theirs, complete, Preference::Ours);
    let file = one.document.write(&one.keyring, 0).expect("a small file");
    if !complete {
        let other = of(before, theirs, ours, false, Preference::Theirs);
        assert_eq!(other.document.write(&other.keyring, 0).expect("a small file"), file);
        let mirrored: Vec<_> =
            other.conflicts.iter().map(|(who, why)| (who.clone(), mirrored(*why))).collect();
        assert_eq!(one.conflicts, mirrored);
        assert_eq!(applied(&ours.1, one.to_ours()), one.document.manifest()[29..]);
    }
    assert_eq!(applied(&theirs.1, one.to_theirs()), one.document.manifest()[29..]);
    // Whose preference it is does not make a conflict.
    let neither = of(before, ours, theirs, complete, Preference::Neither);
    assert_eq!(neither.conflicts, one.conflicts);
    // What comes of it is a file; with either side again, nothing is new.
    let result = Document::parse(&file).expect("just written");
    assert!(result.verify(&one.keyring).is_ok());
    let result = (&one.keyring, result);
    for side in [ours, theirs] {
        if complete && std::ptr::eq(side, ours) {
            continue;
        }
        let again = of(&side.1.manifest(), &result, side, false, Preference::Neither);
        assert_eq!((again.to_ours().len(), again.conflicts.len()), (0, 0));
        assert_eq!(again.document.matches(&result.1.manifest()), Ok(true));
    }
    let again = of(before, &result, &result, false, Preference::Neither);
    assert_eq!((again.to_ours().len(), again.to_theirs().len(), again.conflicts.len()), (0, 0, 0));
    let both = agreed(before, &result.1, &result.1, result.1.generation()).expect("good documents");
    assert!(result.1.entries().all(|entry| entry.sealed.is_none()) || both.len() > 29);
}

fn of(
    before: &[u8],
    ours: &Made<'_>,
    theirs: &Made<'_>,
    complete: bool,
    prefer: Preference,
) -> Reconciled<Suite> {
    let ours = Side { document: &ours.1, keyring: ours.0 };
    let theirs = Side { document: &theirs.1, keyring: theirs.0 };
    reconcile(before, &ours, &theirs, complete, prefer, &mut Counter::new(6)).expect("good documents")
}

fn mirrored(reason: Reason) -> Reason {
    match reason {
        Reason::OursDeleted => Reason::TheirsDeleted,
        Reason::TheirsDeleted => Reason::OursDeleted,
        same => same,
    }
}

/// Equal values of one name have equal bytes, unless bit 4 of the value says otherwise.
fn document(keys: &Keyring<Suite>, stored: &[u8], state: &State) -> Document<Suite> {
    let mut document = Document::create(stored).expect("a good keyring");
    let records: Vec<_> = state
        .iter()
        .map(|(name, value)| {
            let sealed = value.map(|value| sealed(keys, *name, value));
            ([b'a' + name], value.and_then(expiry), sealed)
        })
        .collect();
    let entries = records.iter().map(|(name, expires, sealed)| Entry {
        identity: identity(name),
        expires: *expires,
        sealed: sealed.as_deref(),
    });
    document.put(entries).expect("distinct records");
    document
}

fn sealed(keys: &Keyring<Suite>, name: u8, value: u8) -> Vec<u8> {
    let make = || {
        let seed = u64::from(name) << 8 | u64::from(value);
        let expires = expiry(value);
        keys.seal(&identity(&[b'a' + name]), expires, &[value & 15], &mut Counter::new(seed)).expect("sealed")
    };
    SEALED.with_borrow_mut(|known| known.entry((name, value)).or_insert_with(make).clone())
}

/// Every other value expires.
fn expiry(value: u8) -> Option<u64> {
    (value & 1 == 1).then_some(u64::from(value & 15))
}

fn applied<'a>(document: &Document<Suite>, changes: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut document = document.clone();
    document.put(changes).expect("distinct records");
    // What it holds, and not its generation or wrapping.
    document.manifest()[29..].to_vec()
}
