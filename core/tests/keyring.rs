//! Keyrings (§3, §4): what unlocks, and what each refusal is called.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use omni_credentials_core::kdf::{self, Costs};
use omni_credentials_core::{Aes256GcmSiv, Error, Keyring, Suite, XChaCha20Poly1305};
use support::{ALL, CHEAP, Dry, Fixed, identity, keyring};

type Chacha = Keyring<XChaCha20Poly1305>;

fn cause<T>(result: Result<T, omni_credentials_core::Failure>) -> Error {
    result.err().expect("a refusal").error
}

#[test]
fn what_was_stored_unlocks_to_the_same_bytes() {
    let (made, kek) = keyring::<XChaCha20Poly1305>(1);
    let stored = made.to_bytes();
    assert_eq!(Chacha::derive_kek(b"correct horse", &stored).unwrap().to_vec(), kek);
    assert_eq!(Chacha::unlock(&stored, &kek).unwrap().to_bytes(), stored);
}

#[test]
fn a_generated_key_works_and_a_damaged_one_is_told() {
    let secret = kdf::generate_master_key(&mut Fixed::new(2)).unwrap();
    assert_eq!(secret.len(), 54);
    assert!(secret.starts_with(kdf::GENERATED_PREFIX.as_bytes()));
    let (made, _) = Chacha::create(&secret, None, &mut Fixed::new(3)).unwrap();
    let stored = made.to_bytes();
    let kek = Chacha::derive_kek(&secret, &stored).unwrap();
    assert!(Chacha::unlock(&stored, &*kek).is_ok());
    for at in 6..secret.len() {
        let mut damaged = secret.to_vec();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(
            cause(Chacha::derive_kek(&damaged, &stored)),
            Error::InvalidMasterSecret,
            "character {at}"
        );
    }
    for wrong in [&secret[..53], b"omck1_".as_slice(), &[&*secret, b"A".as_slice()].concat()] {
        assert_eq!(cause(Chacha::derive_kek(wrong, &stored)), Error::InvalidMasterSecret);
    }
}

#[test]
fn secrets_out_of_bounds_are_refused() {
    let stored = keyring::<XChaCha20Poly1305>(4).0.to_bytes();
    for secret in [vec![], vec![b'x'; 4_097]] {
        assert_eq!(
            cause(Chacha::create(&secret, Some(CHEAP), &mut Fixed::new(5))),
            Error::InvalidMasterSecret
        );
        assert_eq!(cause(Chacha::derive_kek(&secret, &stored)), Error::InvalidMasterSecret);
    }
    assert!(Chacha::create(&[0xff; 4_096], Some(CHEAP), &mut Fixed::new(6)).is_ok());
}

#[test]
fn a_wrong_secret_of_either_sort_is_a_wrong_secret() {
    let by_password = keyring::<XChaCha20Poly1305>(7).0.to_bytes();
    let generated = kdf::generate_master_key(&mut Fixed::new(8)).unwrap();
    let by_key = Chacha::create(&generated, None, &mut Fixed::new(9)).unwrap().0.to_bytes();
    let another = kdf::generate_master_key(&mut Fixed::new(10)).unwrap();
    assert_eq!(cause(Chacha::derive_kek(b"wrong horse", &by_password)), Error::WrongMasterSecret);
    assert_eq!(cause(Chacha::derive_kek(&generated, &by_password)), Error::WrongMasterSecret);
    assert_eq!(cause(Chacha::derive_kek(b"correct horse", &by_key)), Error::WrongMasterSecret);
    assert_eq!(cause(Chacha::derive_kek(&another, &by_key)), Error::WrongMasterSecret);
    assert_eq!(cause(Chacha::unlock(&by_key, &[7; 32])), Error::WrongMasterSecret);
    assert_eq!(cause(Chacha::unlock(&by_key, &[7; 31])), Error::InvalidArgument);
}

/// Each byte of a stored keyring, changed in every bit: it never unlocks, and the refusal names the part.
fn every_changed_byte_is_refused<S: Suite>() {
    let (made, kek) = keyring::<S>(11);
    let stored = made.to_bytes();
    for at in 0..stored.len() {
        for bit in 0..8 {
            let mut changed = stored.clone();
            changed[at] ^= 1 << bit;
            let error = cause(Keyring::<S>::unlock(&changed, &kek));
            let expected: &[Error] = match at {
                0..4 => &[Error::Malformed],
                4 => &[Error::UnknownVersion],
                5 => &[Error::UnknownSuite],
                6 => &[Error::Malformed],
                7..19 => &[Error::KdfOutOfBounds, Error::KeyringTampered],
                19..35 => &[Error::KeyringTampered],
                35..67 => &[Error::WrongMasterSecret],
                67..77 => &[Error::Malformed],
                77..85 => &[Error::Malformed], // the only slot's id: the current one is then missing
                _ => &[Error::KeyringTampered],
            };
            assert!(expected.contains(&error), "byte {at} bit {bit}: {error:?}");
        }
    }
    for len in 0..stored.len() {
        assert_eq!(cause(Keyring::<S>::unlock(&stored[..len], &kek)), Error::Malformed, "cut to {len}");
    }
    assert_eq!(cause(Keyring::<S>::unlock(&[&*stored, &[0]].concat(), &kek)), Error::Malformed);
}

#[test]
fn every_changed_byte_is_refused_xchacha20poly1305() {
    every_changed_byte_is_refused::<XChaCha20Poly1305>();
}

#[test]
fn every_changed_byte_is_refused_aes256gcmsiv() {
    every_changed_byte_is_refused::<Aes256GcmSiv>();
}

#[test]
fn the_other_suites_keyring_says_which_suite_it_is() {
    let (made, kek) = keyring::<Aes256GcmSiv>(12);
    let failure = Chacha::unlock(&made.to_bytes(), &kek).err().unwrap();
    assert_eq!((failure.error, failure.found), (Error::UnknownSuite, 2));
}

#[test]
fn costs_beyond_the_limits_are_refused_when_made_and_when_read() {
    let stored = keyring::<XChaCha20Poly1305>(13).0.to_bytes();
    let good = Costs { memory_kib: 64, passes: 2, lanes: 2 };
    for costs in [
        Costs { memory_kib: 262_145, ..good },
        Costs { memory_kib: 15, ..good },
        Costs { memory_kib: u32::MAX, passes: u32::MAX, lanes: u32::MAX },
        Costs { passes: 0, ..good },
        Costs { passes: 17, ..good },
        Costs { lanes: 0, ..good },
        Costs { lanes: 5, ..good },
        Costs { lanes: 0x2000_0001, ..good },
    ] {
        assert_eq!(
            cause(Chacha::create(b"x", Some(costs), &mut Fixed::new(14))),
            Error::KdfOutOfBounds,
            "{costs:?}"
        );
        let mut changed = stored.clone();
        let fields = [costs.memory_kib, costs.passes, costs.lanes].map(u32::to_be_bytes).concat();
        changed[7..19].copy_from_slice(&fields);
        assert_eq!(cause(Chacha::derive_kek(b"correct horse", &changed)), Error::KdfOutOfBounds, "{costs:?}");
    }
    assert_eq!(good.checked(), Ok(good));
    assert_eq!(Costs::DEFAULT.checked(), Ok(Costs::DEFAULT));
}

#[test]
fn a_new_key_is_current_and_the_old_one_still_opens() {
    let (mut keys, kek) = keyring::<XChaCha20Poly1305>(15);
    let mut entropy = Fixed::new(16);
    let stripe = identity("stripe", ALL);
    let old = keys.seal(&stripe, b"old", &mut entropy).unwrap();
    assert!(keys.is_current(&old).unwrap());
    keys.add_key(&mut entropy).unwrap();
    assert!(!keys.is_current(&old).unwrap());
    let new = keys.seal(&stripe, b"new", &mut entropy).unwrap();
    let keys = Chacha::unlock(&keys.to_bytes(), &kek).unwrap();
    assert_eq!(keys.open(&stripe, &old).unwrap(), b"old");
    assert_eq!(keys.open(&stripe, &new).unwrap(), b"new");
    assert!(keys.is_current(&new).unwrap());
}

#[test]
fn a_full_keyring_says_so_and_stays_as_it_was() {
    let (mut keys, kek) = keyring::<XChaCha20Poly1305>(17);
    let mut entropy = Fixed::new(18);
    for _ in 1..256 {
        keys.add_key(&mut entropy).unwrap();
    }
    let before = keys.to_bytes();
    assert_eq!(cause(keys.add_key(&mut entropy)), Error::TooManyKeys);
    assert_eq!(cause(keys.absorb(&keyring(19).0, &mut entropy)), Error::TooManyKeys);
    assert_eq!(keys.to_bytes(), before);
    assert_eq!(Chacha::unlock(&before, &kek).unwrap().to_bytes(), before);
}

#[test]
fn absorbed_keys_open_and_the_current_key_stays() {
    let (mut ours, kek) = keyring::<XChaCha20Poly1305>(20);
    let mut entropy = Fixed::new(21);
    let (mut theirs, _) = Chacha::create(b"another", Some(CHEAP), &mut entropy).unwrap();
    theirs.add_key(&mut entropy).unwrap();
    let stripe = identity("stripe", ALL);
    let sealed = theirs.seal(&stripe, b"value", &mut entropy).unwrap();
    assert_eq!(cause(ours.open(&stripe, &sealed)), Error::UnknownKey);
    let own = ours.seal(&stripe, b"own", &mut entropy).unwrap();
    assert_eq!(ours.absorb(&theirs, &mut entropy).unwrap(), 2);
    assert_eq!(ours.absorb(&theirs, &mut entropy).unwrap(), 0);
    let ours = Chacha::unlock(&ours.to_bytes(), &kek).unwrap();
    assert_eq!(ours.open(&stripe, &sealed).unwrap(), b"value");
    assert!(ours.is_current(&own).unwrap());
}

#[test]
fn rewrapped_keys_open_what_was_sealed_before() {
    let (keys, kek) = keyring::<XChaCha20Poly1305>(22);
    let mut entropy = Fixed::new(23);
    let stripe = identity("stripe", ALL);
    let sealed = keys.seal(&stripe, b"value", &mut entropy).unwrap();
    let (rewrapped, new_kek) = keys.rewrap(b"new secret", Some(CHEAP), &mut entropy).unwrap();
    let stored = rewrapped.to_bytes();
    assert_eq!(cause(Chacha::unlock(&stored, &kek)), Error::WrongMasterSecret);
    assert_eq!(cause(Chacha::derive_kek(b"correct horse", &stored)), Error::WrongMasterSecret);
    let keys = Chacha::unlock(&stored, &*new_kek).unwrap();
    assert_eq!(keys.open(&stripe, &sealed).unwrap(), b"value");
    assert!(keys.is_current(&sealed).unwrap());
}

#[test]
fn a_dry_source_of_entropy_changes_nothing() {
    let (mut keys, _) = keyring::<XChaCha20Poly1305>(24);
    let before = keys.to_bytes();
    assert_eq!(cause(keys.add_key(&mut Dry)), Error::Other);
    assert_eq!(cause(keys.absorb(&keyring(25).0, &mut Dry)), Error::Other);
    assert_eq!(cause(keys.seal(&identity("stripe", ALL), b"value", &mut Dry)), Error::Other);
    assert_eq!(cause(Chacha::create(b"x", Some(CHEAP), &mut Dry)), Error::Other);
    assert_eq!(keys.to_bytes(), before);
}
