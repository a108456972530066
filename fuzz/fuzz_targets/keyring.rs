//! Keyrings: whatever unlocks is the stored keyring itself, and no bytes cost more than the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omni_credentials_core::{Document, Keyring};
use omni_credentials_fuzz::{Counter, Fixture, Suite};

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
}

fuzz_target!(|data: &[u8]| {
    FIXTURE.with(|fixture| {
        if let Ok(keyring) = Keyring::<Suite>::unlock(data, &fixture.kek) {
            assert_eq!(data, fixture.stored);
            assert_eq!(keyring.to_bytes(), data);
        }
        // What has a good shape is carried by a file, byte for byte.
        if let Ok(document) = Document::<Suite>::create(data) {
            assert_eq!(document.keyring_bytes(), data);
        }
        // The stored keyring with a stretch of it replaced.
        if let [at, replacement @ ..] = data {
            let mut changed = fixture.stored.clone();
            let at = usize::from(*at) * changed.len() / 256;
            changed.iter_mut().skip(at).zip(replacement).for_each(|(to, from)| *to = *from);
            assert_eq!(Keyring::<Suite>::unlock(&changed, &fixture.kek).is_ok(), changed == fixture.stored);
        }
        // Unions of keyrings with some of three more keys: the same from any side, and once is enough.
        let [a, b, c] = [0, 2, 4].map(|bits| {
            let mut keyring = fixture.keyring.clone();
            for (seed, bit) in [(11, 1), (12, 2), (13, 4)] {
                if data.first().is_some_and(|byte| byte.rotate_right(bits) & bit == bit) {
                    let mut more = fixture.keyring.clone();
                    more.add_key(&mut Counter::new(seed)).expect("room");
                    keyring.unite(&more, &mut Counter::new(14)).expect("room");
                }
            }
            keyring
        });
        let union = |one: &Keyring<Suite>, other: &Keyring<Suite>| {
            let mut one = one.clone();
            one.unite(other, &mut Counter::new(15)).expect("room");
            one
        };
        assert_eq!(union(&a, &b).to_bytes(), union(&b, &a).to_bytes());
        assert_eq!(union(&union(&a, &b), &c).to_bytes(), union(&a, &union(&b, &c)).to_bytes());
        assert_eq!(union(&union(&a, &b), &b).to_bytes(), union(&a, &b).to_bytes());
        // A secret that looks generated is one or is refused; no one guesses the check or the key.
        let secret = [b"omck1_", data].concat();
        assert!(Keyring::<Suite>::derive_kek(&secret, &fixture.stored).is_err());
    });
});
