//! Keyrings: whatever unlocks is the stored keyring itself, and no bytes cost more than the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omni_credentials_core::{Document, Keyring};
use omni_credentials_fuzz::{Fixture, Suite};

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
        // A secret that looks generated is one or is refused; nobody guesses the check or the key.
        let secret = [b"omck1_", data].concat();
        assert!(Keyring::<Suite>::derive_kek(&secret, &fixture.stored).is_err());
    });
});
