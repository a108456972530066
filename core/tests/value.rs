//! Sealed values (§5): bound to their identity, padded, and refused when changed.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use omni_credentials_core::{
    Aes256GcmSiv, Document, Entry, Error, Identity, KeyOf, Keyring, Suite, XChaCha20Poly1305,
};
use proptest::prelude::*;
use support::{ALL, Fixed, identity, keyring};

/// Version, suite, key id, nonce and tag.
fn overhead<S: Suite>() -> usize {
    10 + 16 + if S::ID == 1 { 24 } else { 12 }
}

fn every_changed_byte_is_refused<S: Suite>() {
    let (keys, _) = keyring::<S>(1);
    let stripe = identity("stripe", ALL);
    let sealed = keys.seal(&stripe, None, b"sk_live_4eC39HqLyjWDarjtT1zdp7dc", &mut Fixed::new(2)).unwrap();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[at] ^= 1 << bit;
            let failure = keys.open(&stripe, None, &changed).expect_err("changed");
            let expected = match at {
                0 => (Error::UnknownVersion, u64::from(changed[0])),
                1 => (Error::UnknownSuite, u64::from(changed[1])),
                2..10 => (Error::UnknownKey, 0),
                _ => (Error::NotAuthentic, 0),
            };
            assert_eq!((failure.error, failure.found), expected, "byte {at} bit {bit}");
        }
    }
    for len in 0..sealed.len() {
        let error = keys.open(&stripe, None, &sealed[..len]).expect_err("cut").error;
        let shape = len >= overhead::<S>() + 32 && (len - overhead::<S>()).is_multiple_of(32);
        assert_eq!(error, if shape { Error::NotAuthentic } else { Error::Malformed }, "cut to {len}");
    }
}

#[test]
fn every_changed_byte_is_refused_xchacha20poly1305() {
    every_changed_byte_is_refused::<XChaCha20Poly1305>();
}

#[test]
fn every_changed_byte_is_refused_aes256gcmsiv() {
    every_changed_byte_is_refused::<Aes256GcmSiv>();
}

/// The scope of the call before must not stand for another.
#[test]
fn scopes_in_any_order() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(5);
    let scopes = [
        [r#"{"env": "prod"}"#, r#"{ "env":"prod" }"#],
        [r#"{"env": "test"}"#, r#"{"env":"test"}"#],
        [ALL, r#"{"all": true}"#],
        [r#"{"b": 1.0, "a": 2}"#, r#"{"a":2,"b":1}"#],
    ];
    let sealed = scopes
        .map(|[scope, _]| keys.seal(&identity("stripe", scope), None, b"v", &mut Fixed::new(6)).unwrap());
    for (i, j) in (0..64).map(|n| (n / 4 % 4, n % 4)) {
        for scope in scopes[i] {
            let opened =
                keys.open(&identity("stripe", scope), None, &sealed[j]).map_err(|failure| failure.error);
            let expected = if i == j { Ok(b"v".to_vec()) } else { Err(Error::NotAuthentic) };
            assert_eq!(opened, expected, "{scope} {j}");
            let refused = keys.open(&identity("stripe", "{"), None, &sealed[j]).expect_err("not JSON");
            assert_eq!(refused.error, Error::InvalidScope);
        }
    }
}

#[test]
fn a_moved_value_does_not_open() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(3);
    let home = Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: ALL.as_bytes() };
    let sealed = keys.seal(&home, None, b"value", &mut Fixed::new(4)).unwrap();
    for moved in [
        Identity { name: b"stripe2", ..home },
        Identity { kind: b"api_secret", ..home },
        Identity { principal: b"web", ..home },
        Identity { scope: br#"{"all": false}"#, ..home },
        // Borders between fields count: no sum of two fields stands for another split of them.
        Identity { name: b"stripea", kind: b"pi_key", ..home },
        Identity { kind: b"api_keya", principal: b"pp", ..home },
    ] {
        assert_eq!(
            keys.open(&moved, None, &sealed).expect_err("moved").error,
            Error::NotAuthentic,
            "{moved:?}"
        );
    }
    let same = Identity { scope: b" { \"\\u0061ll\" :true }", ..home };
    assert_eq!(keys.open(&same, None, &sealed).unwrap(), b"value");
}

#[test]
fn fields_out_of_bounds_are_named() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(5);
    let good = identity("stripe", ALL);
    let long = vec![b'x'; 600];
    for (bad, error) in [
        (Identity { name: b"", ..good }, Error::InvalidName),
        (Identity { name: &long[..513], ..good }, Error::InvalidName),
        (Identity { name: b"a\0b", ..good }, Error::InvalidName),
        (Identity { name: b"\xff", ..good }, Error::InvalidName),
        (Identity { kind: b"", ..good }, Error::InvalidKind),
        (Identity { kind: &long[..64], ..good }, Error::InvalidKind),
        (Identity { principal: b"", ..good }, Error::InvalidPrincipal),
        (Identity { principal: &long[..256], ..good }, Error::InvalidPrincipal),
        (Identity { scope: b"", ..good }, Error::InvalidScope),
        (Identity { scope: b"\xff", ..good }, Error::InvalidScope),
    ] {
        assert_eq!(keys.seal(&bad, None, b"", &mut Fixed::new(6)).expect_err("bad").error, error);
        assert_eq!(keys.open(&bad, None, b"").expect_err("bad").error, error);
    }
    let most = Identity { name: &long[..512], kind: &long[..63], principal: &long[..255], ..good };
    let sealed = keys.seal(&most, None, b"v", &mut Fixed::new(7)).unwrap();
    assert_eq!(keys.open(&most, None, &sealed).unwrap(), b"v");
}

#[test]
fn the_longest_value_is_a_mebibyte() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(8);
    let stripe = identity("stripe", ALL);
    let value = vec![0x80; 1_048_576];
    let sealed = keys.seal(&stripe, None, &value, &mut Fixed::new(9)).unwrap();
    assert_eq!(keys.open(&stripe, None, &sealed).unwrap(), value);
    let failure = keys.seal(&stripe, None, &vec![0; 1_048_577], &mut Fixed::new(10)).expect_err("too long");
    assert_eq!((failure.error, failure.found), (Error::ValueTooLarge, 1_048_577));
}

#[test]
fn no_two_seals_are_alike() {
    let (keys, _) = keyring::<Aes256GcmSiv>(11);
    let mut entropy = Fixed::new(12);
    let stripe = identity("stripe", ALL);
    let mut seals: Vec<_> =
        (0..1_000).map(|_| keys.seal(&stripe, None, b"value", &mut entropy).unwrap()).collect();
    seals.sort();
    seals.dedup();
    assert_eq!(seals.len(), 1_000);
}

fn round_trip<S: Suite>(value: &[u8], name: &str, seed: u64) {
    let (keys, _) = keyring::<S>(13);
    let identity = identity(name, ALL);
    let sealed = keys.seal(&identity, None, value, &mut Fixed::new(seed)).unwrap();
    // A length shows only as its bucket.
    assert_eq!(sealed.len(), overhead::<S>() + (value.len() / 32 + 1) * 32);
    assert_eq!(Keyring::<S>::open(&keys, &identity, None, &sealed).unwrap(), value);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_opens(
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop_oneof![Just(0), Just(0x80)], 0..130),
        ],
        name in "[^\\x00]{1,64}",
        seed: u64,
    ) {
        round_trip::<XChaCha20Poly1305>(&value, &name, seed);
        round_trip::<Aes256GcmSiv>(&value, &name, seed);
    }

    #[test]
    fn garbage_never_opens_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (keys, kek) = keyring::<XChaCha20Poly1305>(14);
        prop_assert!(keys.open(&identity("stripe", ALL), None, &bytes).is_err());
        prop_assert!(Keyring::<XChaCha20Poly1305>::unlock(&bytes, &kek).is_err());
    }
}

/// A value opens with the expiry that it was sealed with, and with no other.
#[test]
fn a_value_is_bound_to_its_expiry() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(50);
    let stripe = identity("stripe", ALL);
    let latest = 253_402_300_799;
    let all = [None, Some(0), Some(1), Some(1 << 32), Some(latest)];
    for expires in all {
        let sealed = keys.seal(&stripe, expires, b"v", &mut Fixed::new(51)).unwrap();
        for other in all {
            let opened = keys.open(&stripe, other, &sealed).map_err(|failure| failure.error);
            let expected = if other == expires { Ok(b"v".to_vec()) } else { Err(Error::NotAuthentic) };
            assert_eq!(opened, expected, "{expires:?} {other:?}");
        }
    }
    for too_late in [latest + 1, u64::MAX] {
        let failures = [
            keys.seal(&stripe, Some(too_late), b"v", &mut Fixed::new(52)),
            keys.open(&stripe, Some(too_late), b""),
            keys.reseal(&stripe, Some(too_late), b""),
        ];
        for failure in failures.map(|result| result.expect_err("too late")) {
            assert_eq!((failure.error, failure.found), (Error::InvalidExpiry, too_late));
        }
    }
}

fn sealed_again_it_stays_the_same_version<S: Suite>() {
    let (mut keys, _) = keyring::<S>(40);
    let stripe = identity("stripe", ALL);
    let old = keys.seal(&stripe, None, b"sk_live_1", &mut Fixed::new(41)).unwrap();
    assert_eq!(
        keys.reseal(&stripe, None, &old).unwrap(),
        old,
        "what is under the current key stays as it is"
    );
    let before = keys.clone();
    keys.add_key(&mut Fixed::new(42)).unwrap();
    let new = keys.reseal(&stripe, None, &old).unwrap();
    assert_ne!(new, old);
    assert_eq!(new.len(), old.len());
    assert_eq!(
        new,
        keys.reseal(&stripe, None, &old).unwrap(),
        "sealing again gives the same bytes each time"
    );
    assert_eq!(new, keys.reseal(&stripe, None, &new).unwrap());
    assert_eq!(keys.open(&stripe, None, &new).unwrap(), b"sk_live_1");
    assert_eq!(keys.key_of(&new), Ok(KeyOf::Current));
    let manifest = |sealed: &[u8]| {
        let mut document = Document::<S>::create(&keys.to_bytes()).unwrap();
        document.put([Entry { identity: stripe, expires: None, sealed: Some(sealed) }]).unwrap();
        document.manifest()
    };
    assert_eq!(manifest(&new), manifest(&old));
    assert_ne!(
        manifest(&keys.seal(&stripe, None, b"sk_live_1", &mut Fixed::new(43)).unwrap()),
        manifest(&old)
    );

    let error =
        |result: Result<Vec<u8>, omni_credentials_core::Failure>| result.expect_err("a refusal").error;
    assert_eq!(error(keys.reseal(&identity("other", ALL), None, &old)), Error::NotAuthentic);
    assert_eq!(
        error(keys.reseal(&identity("other", ALL), None, &new)),
        Error::NotAuthentic,
        "the current key's as well"
    );
    assert_eq!(error(keys.reseal(&identity("", ALL), None, &old)), Error::InvalidName);
    assert_eq!(error(before.reseal(&stripe, None, &new)), Error::UnknownKey);
    let mut changed = old.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(error(keys.reseal(&stripe, None, &changed)), Error::NotAuthentic);
}

#[test]
fn sealed_again_it_stays_the_same_version_xchacha20poly1305() {
    sealed_again_it_stays_the_same_version::<XChaCha20Poly1305>();
}

#[test]
fn sealed_again_it_stays_the_same_version_aes256gcmsiv() {
    sealed_again_it_stays_the_same_version::<Aes256GcmSiv>();
}
