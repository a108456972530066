//! Files: accepted input is the one encoding of what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omni_credentials_core::Document;
use omni_credentials_fuzz::{Fixture, Suite};

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
    /// Everything of an empty file before its trailer.
    static HEADER: Vec<u8> = FIXTURE.with(|fixture| {
        let document = Document::<Suite>::create(&fixture.stored).expect("a good keyring");
        let mut file = document.write(&fixture.keyring, 0).expect("an empty file");
        let end = file.windows(6).position(|window| window == b"\n\nend\n").expect("a trailer");
        file.truncate(end + 1);
        file
    });
}

/// Bytes of the seal's line, which alone depends on a key.
const SEAL: usize = "  seal ".len() + 56 + 1;

fuzz_target!(|data: &[u8]| {
    FIXTURE.with(|fixture| {
        // As it is, and with a good header in front of what may be records.
        check(data, fixture);
        HEADER.with(|header| check(&[header, data].concat(), fixture));
    });
});

fn check(file: &[u8], fixture: &Fixture) {
    let unsealed = Document::<Suite>::parse_unsealed(file);
    let Ok(document) = Document::<Suite>::parse(file) else { return };
    // What parses also parses when its trailer is not looked at, and says the same.
    assert_eq!(unsealed.ok().expect("less is asked").manifest(), document.manifest());
    let Some(generation) = document.generation().checked_sub(1) else { return };
    let mut again = Document::<Suite>::create(&fixture.stored).expect("a good keyring");
    again.put(document.entries()).expect("records of a document");
    assert_eq!(again.manifest(), document.manifest());
    if document.keyring_bytes() == fixture.stored {
        let written = again.write(&fixture.keyring, generation).expect("it was a file");
        assert_eq!(written.len(), file.len());
        let body = file.len() - SEAL;
        assert_eq!(written[..body], file[..body]);
        assert_eq!(document.verify(&fixture.keyring).is_ok(), written == file);
    }
}
