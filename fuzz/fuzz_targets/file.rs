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
    let unsealed = unsealed.ok().expect("less is asked");
    assert_eq!(unsealed.manifest(), document.manifest());
    assert_eq!(unsealed.deletions_since(), document.deletions_since());
    let Some(generation) = document.generation().checked_sub(1) else { return };
    let mut again = Document::<Suite>::create(&fixture.stored).expect("a good keyring");
    again.put(document.entries()).expect("records of a document");
    assert_eq!(again.matches(&document.manifest()), Ok(true));
    if document.keyring_bytes() == fixture.stored {
        // As it stands, one generation on: all but the trailer's lines keep their bytes.
        let next = document.write(&fixture.keyring, 0);
        if let Ok(next) = next {
            let records = |file: &[u8]| file.windows(6).rposition(|window| window == b"\n\nend\n");
            let (before, after) = (records(file).expect("a trailer"), records(&next).expect("a trailer"));
            assert_eq!(file[..before], next[..after]);
            let next = Document::<Suite>::parse(&next).expect("just written");
            assert!(next.verify(&fixture.keyring).is_ok());
        }
        // Written from its parts it is the same file, unless it has a history: deletions of other generations.
        let written = again.write(&fixture.keyring, generation).expect("it was a file");
        let body = file.len() - SEAL;
        if written.len() == file.len() && written[..body] == file[..body] {
            assert_eq!(document.verify(&fixture.keyring).is_ok(), written == file);
        } else {
            assert!(document.entries().any(|entry| entry.sealed.is_none()) || document.deletions_since() > 0);
        }
    }
    let mut forgetful = document.clone();
    forgetful.forget_deletions();
    assert_eq!(forgetful.manifest(), document.manifest());
    assert_eq!(forgetful.deletions_since(), document.generation());
}
