//! Keyrings (§3, §4): what unlocks, and what each refusal is called.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use omni_credentials_core::kdf::{self, Costs};
use omni_credentials_core::{
    Aes256GcmSiv, Document, Entropy, Entry, Error, KeyOf, Keyring, Suite, XChaCha20Poly1305,
};
use proptest::prelude::*;
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
                67..69 => &[Error::Malformed],
                69..73 => &[Error::Malformed, Error::KeyringTampered], // the slot's number, which is never 0
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
    let old = keys.seal(&stripe, None, b"old", &mut entropy).unwrap();
    assert_eq!(keys.key_of(&old).unwrap(), KeyOf::Current);
    keys.add_key(&mut entropy).unwrap();
    assert_eq!(keys.key_of(&old).unwrap(), KeyOf::Known);
    let new = keys.seal(&stripe, None, b"new", &mut entropy).unwrap();
    let keys = Chacha::unlock(&keys.to_bytes(), &kek).unwrap();
    assert_eq!(keys.open(&stripe, None, &old).unwrap(), b"old");
    assert_eq!(keys.open(&stripe, None, &new).unwrap(), b"new");
    assert_eq!(keys.key_of(&new).unwrap(), KeyOf::Current);
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
    assert_eq!(cause(keys.unite(&keyring(19).0, &mut entropy)), Error::TooManyKeys);
    assert_eq!(keys.to_bytes(), before);
    assert_eq!(Chacha::unlock(&before, &kek).unwrap().to_bytes(), before);
}

#[test]
fn united_keys_open_and_the_newest_is_current() {
    let (mut ours, kek) = keyring::<XChaCha20Poly1305>(20);
    let mut entropy = Fixed::new(21);
    let (mut theirs, _) = Chacha::create(b"another", Some(CHEAP), &mut entropy).unwrap();
    theirs.add_key(&mut entropy).unwrap();
    let stripe = identity("stripe", ALL);
    let sealed = theirs.seal(&stripe, None, b"value", &mut entropy).unwrap();
    assert_eq!(cause(ours.open(&stripe, None, &sealed)), Error::UnknownKey);
    let own = ours.seal(&stripe, None, b"own", &mut entropy).unwrap();
    assert_eq!(ours.unite(&theirs, &mut entropy).unwrap(), 2);
    assert_eq!(ours.unite(&theirs, &mut entropy).unwrap(), 0);
    let mut ours = Chacha::unlock(&ours.to_bytes(), &kek).unwrap();
    assert_eq!(ours.open(&stripe, None, &sealed).unwrap(), b"value");
    // Theirs is the second of its keyring, ours the first.
    assert_eq!((ours.key_of(&sealed).unwrap(), ours.key_of(&own).unwrap()), (KeyOf::Current, KeyOf::Known));
    ours.add_key(&mut entropy).unwrap();
    assert_eq!(ours.key_of(&sealed).unwrap(), KeyOf::Known, "what is added is the newest of all");
}

#[test]
fn rewrapped_keys_open_what_was_sealed_before() {
    let (keys, kek) = keyring::<XChaCha20Poly1305>(22);
    let mut entropy = Fixed::new(23);
    let stripe = identity("stripe", ALL);
    let sealed = keys.seal(&stripe, None, b"value", &mut entropy).unwrap();
    let (rewrapped, new_kek) = keys.rewrap(b"new secret", Some(CHEAP), &mut entropy).unwrap();
    let stored = rewrapped.to_bytes();
    assert_eq!(cause(Chacha::unlock(&stored, &kek)), Error::WrongMasterSecret);
    assert_eq!(cause(Chacha::derive_kek(b"correct horse", &stored)), Error::WrongMasterSecret);
    let keys = Chacha::unlock(&stored, &*new_kek).unwrap();
    assert_eq!(keys.open(&stripe, None, &sealed).unwrap(), b"value");
    assert_eq!(keys.key_of(&sealed).unwrap(), KeyOf::Current);
}

#[test]
fn a_dry_source_of_entropy_changes_nothing() {
    let (mut keys, _) = keyring::<XChaCha20Poly1305>(24);
    let before = keys.to_bytes();
    assert_eq!(cause(keys.add_key(&mut Dry)), Error::Other);
    assert_eq!(cause(keys.unite(&keyring(25).0, &mut Dry)), Error::Other);
    assert_eq!(cause(keys.seal(&identity("stripe", ALL), None, b"value", &mut Dry)), Error::Other);
    assert_eq!(cause(Chacha::create(b"x", Some(CHEAP), &mut Dry)), Error::Other);
    assert_eq!(keys.to_bytes(), before);
}

#[test]
fn of_two_keys_added_apart_the_higher_id_is_current() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(26);
    let stripe = identity("stripe", ALL);
    let added = [27, 28].map(|seed| {
        let mut keys = keys.clone();
        keys.add_key(&mut Fixed::new(seed)).unwrap();
        let sealed = keys.seal(&stripe, None, b"value", &mut Fixed::new(29)).unwrap();
        (keys, sealed)
    });
    let [(a, by_a), (b, by_b)] = &added;
    let (higher, lower) = if by_a[2..10] > by_b[2..10] { (by_a, by_b) } else { (by_b, by_a) };
    for (from, other) in [(a, b), (b, a)] {
        let mut united = from.clone();
        // The slots are under one wrapping, so that nothing is to be drawn.
        assert_eq!(united.unite(other, &mut Dry).unwrap(), 1);
        assert_eq!(
            (united.key_of(higher).unwrap(), united.key_of(lower).unwrap()),
            (KeyOf::Current, KeyOf::Known)
        );
    }
}

/// Two clones that each took over the same key from elsewhere have two slots for it.
#[test]
fn slots_taken_over_apart_become_one() {
    let (keys, kek) = keyring::<XChaCha20Poly1305>(30);
    let (foreign, _) = Chacha::create(b"another", Some(CHEAP), &mut Fixed::new(31)).unwrap();
    let [a, b] = [32, 33].map(|seed| {
        let mut keys = keys.clone();
        keys.unite(&foreign, &mut Fixed::new(seed)).unwrap();
        keys
    });
    assert_ne!(a.to_bytes(), b.to_bytes());
    let (mut one, mut other) = (a.clone(), b.clone());
    assert_eq!((one.unite(&b, &mut Dry).unwrap(), other.unite(&a, &mut Dry).unwrap()), (0, 0));
    assert_eq!(one.to_bytes(), other.to_bytes());
    assert!(Chacha::unlock(&one.to_bytes(), &kek).is_ok());
}

/// A source whose ids (the only eight bytes that are drawn) are all the same.
struct OneId(Fixed);

impl Entropy for OneId {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        if out.len() == 8 {
            out.fill(7);
            return Ok(());
        }
        self.0.fill(out)
    }
}

#[test]
fn one_id_for_two_keys_is_refused() {
    let create = |seed| Chacha::create(b"x", Some(CHEAP), &mut OneId(Fixed::new(seed))).unwrap().0;
    let (mut ours, theirs) = (create(34), create(35));
    let before = ours.to_bytes();
    assert_eq!(cause(ours.unite(&theirs, &mut Fixed::new(36))), Error::InvalidArgument);
    assert_eq!(ours.to_bytes(), before);
    assert_eq!(cause(ours.add_key(&mut OneId(Fixed::new(37)))), Error::Other, "the id is taken");
}

#[test]
fn what_the_key_of_a_value_is() {
    let (mut keys, _) = keyring::<XChaCha20Poly1305>(38);
    let (foreign, _) = keyring::<XChaCha20Poly1305>(39);
    let stripe = identity("stripe", ALL);
    let [own, other] =
        [&keys, &foreign].map(|keys| keys.seal(&stripe, None, b"x", &mut Fixed::new(40)).unwrap());
    assert_eq!((keys.key_of(&own), keys.key_of(&other)), (Ok(KeyOf::Current), Ok(KeyOf::Unknown)));
    keys.add_key(&mut Fixed::new(41)).unwrap();
    assert_eq!(keys.key_of(&own), Ok(KeyOf::Known));
    assert_eq!(cause(keys.key_of(&[])), Error::Malformed);
    assert_eq!(cause(keys.key_of(&[9])), Error::UnknownVersion);
    assert_eq!(cause(keys.key_of(&[1, 2])), Error::UnknownSuite);
}

#[test]
fn keys_that_nothing_uses_are_retired() {
    let (mut keys, kek) = keyring::<XChaCha20Poly1305>(42);
    let mut entropy = Fixed::new(43);
    let [a, b] = ["a", "b"].map(|name| identity(name, ALL));
    let first = keys.seal(&a, None, b"first", &mut entropy).unwrap();
    keys.add_key(&mut entropy).unwrap();
    let second = keys.seal(&b, None, b"second", &mut entropy).unwrap();
    keys.add_key(&mut entropy).unwrap();
    let mut document = Document::<XChaCha20Poly1305>::create(&keys.to_bytes()).unwrap();
    document
        .put([
            Entry { identity: a, expires: None, sealed: Some(&first) },
            Entry { identity: b, expires: None, sealed: None },
        ])
        .unwrap();
    assert_eq!(keys.retire(&document).unwrap(), 1);
    assert_eq!(keys.retire(&document).unwrap(), 0);
    let mut keys = Chacha::unlock(&keys.to_bytes(), &kek).unwrap();
    assert_eq!(keys.open(&a, None, &first).unwrap(), b"first");
    assert_eq!(keys.key_of(&second), Ok(KeyOf::Unknown));
    // The current key stays, even where nothing is sealed with it.
    let current = keys.seal(&b, None, b"third", &mut entropy).unwrap();
    document.put([Entry { identity: a, expires: None, sealed: None }]).unwrap();
    assert_eq!(keys.retire(&document).unwrap(), 1);
    assert_eq!(keys.key_of(&current), Ok(KeyOf::Current));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Under one wrapping: the same bytes whichever comes first, and however they are grouped.
    #[test]
    fn a_union_is_commutative_associative_and_idempotent(added in prop::array::uniform3(0_u64..4), common in 0_u64..3) {
        let (mut keys, kek) = keyring::<XChaCha20Poly1305>(44);
        for seed in 0..common {
            keys.add_key(&mut Fixed::new(45 + seed)).unwrap();
        }
        let mut seed = 100;
        let [a, b, c] = added.map(|count| {
            let mut keys = keys.clone();
            for _ in 0..count {
                seed += 1;
                keys.add_key(&mut Fixed::new(seed)).unwrap();
            }
            keys
        });
        let union = |one: &Chacha, other: &Chacha| {
            let mut one = one.clone();
            one.unite(other, &mut Dry).unwrap();
            one
        };
        prop_assert_eq!(union(&a, &b).to_bytes(), union(&b, &a).to_bytes());
        prop_assert_eq!(union(&union(&a, &b), &c).to_bytes(), union(&a, &union(&b, &c)).to_bytes());
        prop_assert_eq!(union(&a, &a).to_bytes(), a.to_bytes());
        let all = union(&union(&a, &b), &c);
        prop_assert_eq!(union(&all, &b).to_bytes(), all.to_bytes());
        // What is stored says which key is current.
        let sealed = all.seal(&identity("a", ALL), None, b"", &mut Fixed::new(99)).unwrap();
        prop_assert_eq!(Chacha::unlock(&all.to_bytes(), &kek).unwrap().key_of(&sealed), Ok(KeyOf::Current));
    }
}
