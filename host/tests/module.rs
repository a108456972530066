//! The modules that ship, through the runtime.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::{CHEAP, MODULES, STRIPE, load, wasm};
use omni_credentials_host::{
    Config, Digest, EntryRef, Error, ErrorCode, Failure, Identity, Kek, KeyOf, Preference, Reason, Rows,
    Runtime, Side, Wrapping,
};

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Failure {
    match result.unwrap_err() {
        Error::Refused(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn passes_its_own_check() {
    for name in MODULES {
        load(name).check().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn describes_itself() {
    for (name, suite) in MODULES.into_iter().zip([1, 2]) {
        let description = load(name).describe().unwrap();
        assert_eq!(description.name, name);
        assert_eq!(description.contract, "omni:credentials@1.0.0");
        assert_eq!((description.suite.id, description.suite.name.as_str()), (suite, name));
        assert_eq!(description.limits.value_bytes, 1 << 20);
    }
}

#[test]
fn other_bytes_than_the_pinned_ones_are_refused() {
    let mut wasm = wasm(MODULES[0]);
    let pinned = Digest::of(&wasm);
    let last = wasm.len() - 1;
    wasm[last] ^= 1;
    let found = Digest::of(&wasm);
    let expected = Error::DigestMismatch { expected: pinned, found };
    assert_eq!(common::runtime().load(&wasm, &pinned).err(), Some(expected.clone()));
    assert_eq!(common::runtime().load_with(&pinned, || Ok(wasm)).err(), Some(expected));
}

#[test]
fn what_is_no_component_is_refused() {
    let cases: [&[u8]; 4] = [b"", b"not wasm", b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0garbage"];
    for bytes in cases {
        let result = common::runtime().load(bytes, &Digest::of(bytes));
        assert!(matches!(result, Err(Error::NotAComponent(_))), "{bytes:?}: {:?}", result.err());
    }
    let empty = b"\0asm\x0d\0\x01\0";
    let result = common::runtime().load(empty, &Digest::of(empty));
    match result.err() {
        Some(Error::WrongContract { detail, .. }) => {
            assert!(detail.contains("omni:credentials/types"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn seals_and_opens() {
    for name in MODULES {
        let module = load(name);
        let made = module.create_keyring(b"correct horse", CHEAP).unwrap();
        let kek = module.derive_kek(b"correct horse", &made.keyring).unwrap();
        assert_eq!(kek.as_bytes(), made.kek.as_bytes());
        let mut keyring = module.unlock(&made.keyring, &kek).unwrap();
        // 60,000 goes through the row store, 70,000 through a work store.
        for length in [0, 1, 40, 60_000, 70_000, 1 << 20] {
            let value: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut sealed = keyring.seal(&STRIPE, None, &value).unwrap();
            assert_eq!(*keyring.open(&STRIPE, None, &sealed).unwrap(), value, "{name} {length}");
            assert_eq!(keyring.key_of(&sealed), Ok(KeyOf::Current));
            sealed[40] ^= 1;
            assert_eq!(refusal(keyring.open(&STRIPE, None, &sealed)).code, ErrorCode::NotAuthentic);
        }
        let long = refusal(keyring.seal(&STRIPE, None, &vec![0; (1 << 20) + 1]));
        assert_eq!((long.code, long.found), (ErrorCode::ValueTooLarge, (1 << 20) + 1));
        assert_eq!(keyring.instantiations(), 1);
    }
}

#[test]
fn keyrings_take_turns_with_large_values() {
    let runtime = Runtime::new(Config::default()).unwrap();
    let wasm = wasm(MODULES[0]);
    let module = runtime.load(&wasm, &Digest::of(&wasm)).unwrap();
    let [mut one, mut two] = [b"one", b"two"].map(|secret| {
        let made = module.create_keyring(secret, CHEAP).unwrap();
        module.unlock(&made.keyring, &made.kek).unwrap()
    });
    for turn in 0..3_u8 {
        for keyring in [&mut one, &mut two] {
            let sealed = keyring.seal(&STRIPE, None, &[turn; 100_000]).unwrap();
            assert_eq!(*keyring.open(&STRIPE, None, &sealed).unwrap(), [turn; 100_000]);
            runtime.release_large();
            assert_eq!(*keyring.open(&STRIPE, None, &sealed).unwrap(), [turn; 100_000]);
        }
    }
    let sealed = one.seal(&STRIPE, None, &[1; 100_000]).unwrap();
    assert_eq!(refusal(two.open(&STRIPE, None, &sealed)).code, ErrorCode::UnknownKey);
    drop(one);
    assert_eq!(refusal(two.open(&STRIPE, None, &sealed)).code, ErrorCode::UnknownKey);
}

#[test]
fn refusals_cost_no_instance() {
    let module = load(MODULES[0]);
    let made = module.create_keyring(b"correct horse", CHEAP).unwrap();
    let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
    let mut sealed = keyring.seal(&STRIPE, None, b"sk_live").unwrap();
    let last = sealed.len() - 1;
    for i in 0..100_000_u32 {
        sealed[last] ^= u8::try_from(i % 255).unwrap() + 1;
        match keyring.open(&STRIPE, None, &sealed) {
            Err(Error::Refused(failure)) => assert_eq!(failure.code, ErrorCode::NotAuthentic),
            // The changes undo each other now and then.
            Ok(value) => assert_eq!(*value, b"sk_live"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(keyring.instantiations(), 1);
}

#[test]
fn keys_are_added_united_and_rewrapped() {
    let module = load(MODULES[0]);
    let made = module.create_keyring(b"one", CHEAP).unwrap();
    let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
    let old = keyring.seal(&STRIPE, None, b"value").unwrap();
    keyring.add_key().unwrap();
    assert_eq!(keyring.key_of(&old), Ok(KeyOf::Known));
    let again = keyring.reseal(&STRIPE, None, &old).unwrap();
    assert_eq!(
        (keyring.key_of(&again), keyring.reseal(&STRIPE, None, &old)),
        (Ok(KeyOf::Current), Ok(again))
    );
    assert_eq!(*keyring.open(&STRIPE, None, &old).unwrap(), b"value");
    let stored = keyring.to_bytes().unwrap();
    assert_ne!(stored, made.keyring);

    let other = module.create_keyring(b"two", CHEAP).unwrap();
    let theirs = module.unlock(&other.keyring, &other.kek).unwrap().seal(&STRIPE, None, b"theirs").unwrap();
    assert_eq!(refusal(keyring.open(&STRIPE, None, &theirs)).code, ErrorCode::UnknownKey);
    assert_eq!(keyring.key_of(&theirs), Ok(KeyOf::Unknown));
    assert_eq!(refusal(keyring.unite(&other.keyring, &made.kek)).code, ErrorCode::WrongMasterSecret);
    assert_eq!(keyring.unite(&other.keyring, &other.kek), Ok(1));
    assert_eq!(keyring.unite(&other.keyring, &other.kek), Ok(0));
    assert_eq!(*keyring.open(&STRIPE, None, &theirs).unwrap(), b"theirs");
    // Large values go to another store, which has to know the new keys too.
    let large = keyring.seal(&STRIPE, None, &[7; 100_000]).unwrap();
    assert_eq!(*keyring.open(&STRIPE, None, &large).unwrap(), [7; 100_000]);

    // One that is kept for the next large value as well.
    keyring.add_key().unwrap();
    let newer = keyring.seal(&STRIPE, None, &[8; 100_000]).unwrap();
    assert_eq!((keyring.key_of(&large), keyring.key_of(&newer)), (Ok(KeyOf::Known), Ok(KeyOf::Current)));
    assert_eq!(*keyring.open(&STRIPE, None, &large).unwrap(), [7; 100_000]);

    let stored = keyring.to_bytes().unwrap();
    let rewrapped = module.rewrap(&stored, &made.kek, b"three", CHEAP).unwrap();
    let kek = module.derive_kek(b"three", &rewrapped.keyring).unwrap();
    assert_eq!(
        *module.unlock(&rewrapped.keyring, &kek).unwrap().open(&STRIPE, None, &old).unwrap(),
        b"value"
    );
    assert_eq!(refusal(module.derive_kek(b"one", &rewrapped.keyring)).code, ErrorCode::WrongMasterSecret);
    assert_eq!(
        refusal(module.unlock(&rewrapped.keyring, &made.kek).map(drop)).code,
        ErrorCode::WrongMasterSecret
    );
}

#[test]
fn a_generated_master_key_is_one() {
    let module = load(MODULES[0]);
    let secret = module.generate_master_key().unwrap();
    assert!(secret.starts_with(b"omck1_"));
    assert_ne!(secret, module.generate_master_key().unwrap());
    let made = module.create_keyring(&secret, None).unwrap();
    assert_eq!(module.derive_kek(&secret, &made.keyring).unwrap().as_bytes(), made.kek.as_bytes());
}

#[test]
fn files_are_written_parsed_and_reconciled() {
    let module = load(MODULES[0]);
    let made = module.create_keyring(b"one", CHEAP).unwrap();
    let mut rows = module.unlock(&made.keyring, &made.kek).unwrap();
    let sealed = rows.seal(&STRIPE, None, b"value").unwrap();
    let aws = Identity { name: b"aws", ..STRIPE };

    let mut files = module.files().unwrap();
    let keyring = files.unlock(&made.keyring, &made.kek).unwrap();
    let document = files.create(&made.keyring).unwrap();
    files
        .put(document, &[EntryRef { identity: STRIPE, expires: None, sealed: &sealed, deleted: false }])
        .unwrap();
    let ancestor = files.manifest(document).unwrap();
    assert_eq!(files.matches(document, &ancestor), Ok(true));
    let file = files.write(document, keyring, 6).unwrap();

    let parsed = files.parse(&file).unwrap();
    files.verify(parsed, keyring).unwrap();
    assert_eq!(files.generation(parsed), Ok(7));
    assert_eq!(files.keyring_bytes(parsed).unwrap(), made.keyring);
    let entries = files.entries(parsed).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].name.as_slice(), entries[0].sealed.as_slice()), (&b"stripe"[..], &sealed[..]));
    assert_eq!(entries[0].scope, br#"{"all":true}"#);

    // Ours lacks stripe and has aws; theirs is as it was.
    let ours = files.create(&made.keyring).unwrap();
    let added = rows.seal(&aws, None, b"new").unwrap();
    files.put(ours, &[EntryRef { identity: aws, expires: None, sealed: &added, deleted: false }]).unwrap();
    assert_eq!(files.matches(ours, &ancestor), Ok(false));
    let side = |document| Side { document, keyring };
    let found = files.reconcile(&ancestor, side(ours), side(parsed), true, Preference::Neither).unwrap();
    assert!(found.conflicts.is_empty() && found.to_ours.is_empty(), "{found:?}");
    assert_eq!((found.wrapping, files.to_bytes(found.keyring)), (Wrapping::Same, Ok(made.keyring.clone())));
    let to_theirs: Vec<_> = found.to_theirs.iter().map(|it| (it.name.as_slice(), it.deleted)).collect();
    assert_eq!(to_theirs, [(&b"aws"[..], false), (&b"stripe"[..], true)]);
    let pending = files.manifest(found.document).unwrap();
    assert_eq!(files.agreed(&ancestor, ours, found.document, 7), Ok(pending.clone()));
    // Whether a file came into place shows in what it holds.
    assert_eq!(files.settled(&ancestor, &pending, found.document), Ok(pending.clone()));
    assert_eq!(files.settled(&ancestor, &pending, parsed), Ok(ancestor.clone()));

    // The same as the rows of a table.
    let mut packed = Rows::default();
    packed.push(&aws, None, &added);
    let table = files.table(parsed, &packed).unwrap();
    assert_eq!(files.entries(table), files.entries(ours));
    let again = files.reconcile(&ancestor, side(table), side(parsed), true, Preference::Neither).unwrap();
    assert_eq!(again.to_theirs, found.to_theirs);
    // Both changed: the reason is told.
    let theirs = files.parse(&file).unwrap();
    files
        .put(
            theirs,
            &[EntryRef {
                identity: STRIPE,
                expires: None,
                sealed: &rows.seal(&STRIPE, None, b"x").unwrap(),
                deleted: false,
            }],
        )
        .unwrap();
    let found = files.reconcile(&ancestor, side(table), side(theirs), true, Preference::Neither).unwrap();
    assert_eq!(found.conflicts.iter().map(|it| it.reason).collect::<Vec<_>>(), [Reason::OursDeleted]);
    packed.push(&Identity { name: b"", ..STRIPE }, None, &added);
    assert_eq!(refusal(files.table(parsed, &packed)).code, ErrorCode::InvalidName);

    let mut forged = file.clone();
    let at = file.windows(8).position(|window| window == b"\"stripe\"").unwrap();
    forged[at + 1] = b't';
    let forged = files.parse(&forged).unwrap();
    assert_eq!(refusal(files.verify(forged, keyring)).code, ErrorCode::SealMismatch);
    let failure = refusal(files.parse(b"stripe: sk_live\n"));
    assert_eq!((failure.code, failure.line), (ErrorCode::NotACredentialsFile, 1));
    // Keys that nothing uses, and deletions that no one needs any more.
    rows.add_key().unwrap();
    let both = files.unlock(&rows.to_bytes().unwrap(), &made.kek).unwrap();
    assert_eq!((files.retire_keys(parsed, both), files.retire_keys(ours, both)), (Ok(0), Ok(0)));
    files.put(theirs, &[EntryRef { identity: STRIPE, expires: None, sealed: &[], deleted: true }]).unwrap();
    let gone = files.write(theirs, keyring, 0).unwrap();
    let gone = files.parse(&gone).unwrap();
    files.forget_deletions(gone).unwrap();
    assert_eq!((files.entries(gone).unwrap().len(), files.retire_keys(gone, both)), (0, Ok(1)));
    // A refusal leaves the store and its documents as they were.
    assert_eq!(files.generation(parsed), Ok(7));
}

#[test]
fn handles_of_another_store_are_refused() {
    let module = load(MODULES[0]);
    let made = module.create_keyring(b"one", CHEAP).unwrap();
    let document = module.files().unwrap().create(&made.keyring).unwrap();
    let mut files = module.files().unwrap();
    assert!(matches!(files.generation(document), Err(Error::Trap { .. })));
}

#[test]
fn a_keyring_of_another_suite_is_refused() {
    let made = load(MODULES[0]).create_keyring(b"one", CHEAP).unwrap();
    let failure = refusal(load(MODULES[1]).unlock(&made.keyring, &made.kek).map(drop));
    assert_eq!((failure.code, failure.found), (ErrorCode::UnknownSuite, 1));
}

#[test]
fn a_kek_is_not_printed() {
    let kek = Kek::from_bytes(&[0x5a; 32]);
    assert_eq!(format!("{kek:?}"), "Kek(redacted)");
}

#[test]
fn works_in_threads() {
    let module = load(MODULES[0]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let made = module.create_keyring(b"one", CHEAP).unwrap();
                let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
                let sealed = keyring.seal(&STRIPE, None, b"value").unwrap();
                assert_eq!(*keyring.open(&STRIPE, None, &sealed).unwrap(), b"value");
            });
        }
    });
}
