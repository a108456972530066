//! Sealed values: nothing opens but what was sealed, for whom it was sealed, unchanged.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use omni_credentials_core::{KeyOf, Keyring};
use omni_credentials_fuzz::{Counter, Fixture, Suite, identity};

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
    static FIXTURE_ROTATED: Fixture = Fixture::rotated(5);
}

/// The key ids are needed to get past the first checks.
static HEADER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let fixture = Fixture::new();
    let sealed = fixture.keyring.seal(&identity(b"a"), None, b"", &mut Counter::new(2)).expect("sealed");
    sealed[..10].to_vec()
});

fuzz_target!(|data: &[u8]| {
    FIXTURE.with(|fixture| {
        let keyring: &Keyring<Suite> = &fixture.keyring;
        let who = identity(b"a");
        // As it is, and behind a header that is good.
        assert!(keyring.open(&who, None, data).is_err());
        assert!(keyring.open(&who, None, &[&**HEADER, data].concat()).is_err());
        assert!(keyring.reseal(&who, None, data).is_err());
        let _ = keyring.key_of(data);
        // What is sealed opens; with a byte changed, or for another, it does not.
        let (at, rest) = data.split_at(data.len().min(4));
        let sealed = keyring.seal(&who, None, rest, &mut Counter::new(3)).expect("within limits");
        assert_eq!(keyring.open(&who, None, &sealed).expect("just sealed"), rest);
        let mut at = at.iter().fold(0_usize, |at, byte| at << 8 | usize::from(*byte));
        let mut changed = sealed.clone();
        let bit = at % 8;
        at = at / 8 % changed.len();
        changed[at] ^= 1 << bit;
        assert!(keyring.open(&who, None, &changed).is_err());
        assert!(keyring.open(&identity(b"b"), None, &sealed).is_err());
        // Sealed again under a newer key: the same value, for the same one only, and the same bytes each time.
        FIXTURE_ROTATED.with(|rotated| {
            let again = rotated.keyring.reseal(&who, None, &sealed).expect("just sealed");
            assert_eq!(rotated.keyring.open(&who, None, &again).expect("sealed again"), rest);
            assert_eq!(rotated.keyring.key_of(&again), Ok(KeyOf::Current));
            assert_eq!(rotated.keyring.reseal(&who, None, &again).expect("sealed again"), again);
            assert!(rotated.keyring.reseal(&identity(b"b"), None, &sealed).is_err());
            assert!(rotated.keyring.reseal(&who, None, &changed).is_err());
        });
        // Any bytes as a name: refused, or the value is bound to them.
        if let Ok(sealed) = keyring.seal(&identity(data), None, b"x", &mut Counter::new(4)) {
            assert_eq!(keyring.open(&identity(data), None, &sealed).expect("just sealed"), b"x");
            assert_eq!(keyring.open(&who, None, &sealed).is_ok(), data == b"a");
        }
    });
});
