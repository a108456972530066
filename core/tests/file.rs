//! The file (§7): one encoding a state, and a refusal of its own for each way to be wrong.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod support;

use omni_credentials_core::{
    Aes256GcmSiv, Document, Entry, Error, Identity, Keyring, Suite, XChaCha20Poly1305,
};
use proptest::prelude::*;
use support::{ALL, CHEAP, Fixed, identity, keyring};

type Chacha = Document<XChaCha20Poly1305>;

/// A file of these live and deleted names.
fn file<S: Suite>(keys: &Keyring<S>, live: &[&str], deleted: &[&str]) -> Vec<u8> {
    let mut entropy = Fixed::new(99);
    let mut document = Document::create(&keys.to_bytes()).unwrap();
    for name in live {
        let identity = identity(name, ALL);
        let sealed = keys.seal(&identity, None, name.as_bytes(), &mut entropy).unwrap();
        document.put([Entry { identity, expires: None, sealed: Some(&sealed) }]).unwrap();
    }
    document
        .put(deleted.iter().map(|name| Entry { identity: identity(name, ALL), expires: None, sealed: None }))
        .unwrap();
    document.write(keys, 0).unwrap()
}

fn refusal(file: impl AsRef<[u8]>) -> (Error, u32, u64) {
    let failure = Chacha::parse(file.as_ref()).err().expect("a refusal");
    (failure.error, failure.line, failure.found)
}

#[test]
fn what_was_written_parses_verifies_and_says_the_same() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(1);
    let bytes = file(&keys, &["stripe", "github", "a\"\\\n\u{1}\u{e9}"], &["old"]);
    let document = Chacha::parse(&bytes).unwrap();
    document.verify(&keys).unwrap();
    assert_eq!(document.generation(), 1);
    let names: Vec<_> = document.entries().map(|entry| entry.identity.name.to_vec()).collect();
    assert_eq!(names, ["a\"\\\n\u{1}\u{e9}".as_bytes(), b"github", b"old", b"stripe"]);
    for entry in document.entries() {
        match entry.sealed {
            Some(sealed) => {
                assert_eq!(keys.open(&entry.identity, None, sealed).unwrap(), entry.identity.name);
            }
            None => assert_eq!(entry.identity.name, b"old"),
        }
    }
    assert_eq!(document.keyring_bytes(), keys.to_bytes());
    // The same state at the same generation has the same bytes.
    let mut again = Chacha::create(&keys.to_bytes()).unwrap();
    again.put(document.entries()).unwrap();
    assert_eq!(again.write(&keys, 0).unwrap(), bytes);
}

#[test]
fn a_table_holds_its_rows_and_nothing_else() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(3);
    let document = Chacha::parse(&file(&keys, &["a", "b", "c"], &["old"])).unwrap();
    let mut entropy = Fixed::new(5);
    let scope = r#"{ "n": 1.0 }"#;
    let changed = keys.seal(&identity("b", ALL), None, b"changed", &mut entropy).unwrap();
    let new = keys.seal(&identity("d", scope), None, b"new", &mut entropy).unwrap();
    let kept: Vec<_> = document.entries().filter(|entry| entry.identity.name == b"c").collect();
    let rows = [
        Entry { identity: identity("d", scope), expires: None, sealed: Some(&new) },
        kept[0],
        Entry { identity: identity("b", ALL), expires: None, sealed: Some(&changed) },
    ];
    let table = document.table(rows.map(Ok)).unwrap();
    let mut expected = Chacha::create(&keys.to_bytes()).unwrap();
    expected.put(rows).unwrap();
    assert_eq!(table.manifest(), expected.manifest());
    assert_eq!(table.entries().len(), 3);
    assert_eq!(table.write(&keys, 0).unwrap(), expected.write(&keys, 0).unwrap());
    assert_eq!(table.verify(&keys).err().unwrap().error, Error::SealMismatch);
    // An empty table has nothing of the document.
    assert_eq!(document.table([]).unwrap().entries().len(), 0);

    let refused = |rows: Vec<Result<Entry<'_>, _>>| document.table(rows).err().unwrap().error;
    assert_eq!(refused(vec![Ok(rows[0]), Ok(rows[1]), Ok(rows[0])]), Error::DuplicateRecord);
    assert_eq!(refused(vec![Ok(rows[0]), Err(Error::InvalidArgument.into())]), Error::InvalidArgument);
    let bad = Entry { identity: identity("", ALL), expires: None, sealed: Some(&new) };
    assert_eq!(refused(vec![Ok(bad)]), Error::InvalidName);
    assert_eq!(refused(vec![Ok(Entry { sealed: Some(b"bad"), ..rows[0] })]), Error::UnknownVersion);
}

#[test]
fn the_generation_only_grows() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(2);
    let document = Chacha::parse(&file(&keys, &["a"], &[])).unwrap();
    for (at_least, expected) in [(0, 2), (1, 2), (7, 8)] {
        let written = Chacha::parse(&document.write(&keys, at_least).unwrap()).unwrap();
        assert_eq!(written.generation(), expected);
        written.verify(&keys).unwrap();
    }
    assert_eq!(document.write(&keys, u64::MAX).err().unwrap().error, Error::InvalidArgument);
}

#[test]
fn unchanged_records_keep_their_bytes() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(3);
    let before = String::from_utf8(file(&keys, &["a", "c"], &[])).unwrap();
    let mut document = Chacha::parse(before.as_bytes()).unwrap();
    let identity = identity("b", ALL);
    let sealed = keys.seal(&identity, None, b"new", &mut Fixed::new(4)).unwrap();
    document.put([Entry { identity, expires: None, sealed: Some(&sealed) }]).unwrap();
    let after = String::from_utf8(document.write(&keys, 0).unwrap()).unwrap();
    let blocks = |text: &str| text.split("\n\n").map(str::to_owned).collect::<Vec<_>>();
    let (before, mut after) = (blocks(&before), blocks(&after));
    after.remove(2);
    assert_eq!(before[..3], after[..3], "header, a and c");
}

/// A changed byte is refused by the parser, or else by the seal.
#[test]
fn every_changed_byte_is_refused() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(5);
    let bytes = file(&keys, &["a", "b"], &["c"]);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(document) = Chacha::parse(&changed) {
                assert_eq!(
                    document.verify(&keys).err().unwrap().error,
                    Error::SealMismatch,
                    "byte {at} bit {bit}"
                );
            }
        }
    }
    for len in 0..bytes.len() {
        let expected = if len == 0 { Error::NotACredentialsFile } else { Error::Truncated };
        assert_eq!(refusal(&bytes[..len]).0, expected, "cut to {len}");
    }
}

#[test]
fn dropped_swapped_and_edited_records_are_refused() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(6);
    let text = String::from_utf8(file(&keys, &["a", "b"], &[])).unwrap();
    let blocks: Vec<_> = text.split("\n\n").collect();
    let dropped = [blocks[0], blocks[1], blocks[3]].join("\n\n");
    assert_eq!(refusal(&dropped), (Error::CountMismatch, 18, 1));
    let recounted = Chacha::parse(dropped.replace("records 2", "records 1").as_bytes()).unwrap();
    assert_eq!(recounted.verify(&keys).err().unwrap().error, Error::SealMismatch);
    assert_eq!(refusal([blocks[0], blocks[2], blocks[1], blocks[3]].join("\n\n")).0, Error::Unsorted);
    assert_eq!(refusal([blocks[0], blocks[1], blocks[1], blocks[3]].join("\n\n")).0, Error::DuplicateRecord);
    let edited = text.replacen("\"app\"", "\"apq\"", 1);
    let edited = Chacha::parse(edited.as_bytes()).unwrap();
    assert_eq!(edited.verify(&keys).err().unwrap().error, Error::SealMismatch);
}

#[test]
fn each_way_to_be_wrong_has_its_name() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(7);
    let text = String::from_utf8(file(&keys, &["a"], &["b"])).unwrap();
    let swap = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let long = "x".repeat(4_090);
    for (changed, error) in [
        (text.replace('\n', "\r\n"), Error::CarriageReturn),
        (swap("  kind \"api_key\"\n", "  kind \"api_key\"\r\n"), Error::CarriageReturn),
        (swap("credentials 1", "credentials 2"), Error::UnknownVersion),
        (swap("credentials 1", "credentials 18446744073709551615"), Error::UnknownVersion),
        (swap("credentials 1", "credentials 01"), Error::NotACredentialsFile),
        (swap("omni-credentials", "\u{feff}omni-credentials"), Error::NotACredentialsFile),
        ("stripe: sk_live_1\n".into(), Error::NotACredentialsFile),
        (swap("\ncredential", "\n<<<<<<< ours\ncredential"), Error::ConflictMarkers),
        (swap("omni-credentials", "<<<<<<< ours\nomni-credentials"), Error::ConflictMarkers),
        (swap("  records 2", "=======\n  records 2"), Error::ConflictMarkers),
        (swap("credential \"a\"", &format!("credential \"{long}\"")), Error::LineTooLong),
        (swap("credential \"a\"", "credential \"\u{7}\""), Error::NotText),
        (swap("credential \"a\"", "credential \"\t\""), Error::NotText),
        (swap("credential \"a\"", "credential \"\""), Error::InvalidName),
        (swap("credential \"a\"", "credential \"\\u0000\""), Error::InvalidName),
        (swap("credential \"a\"", "credential \"\\u0061\""), Error::NotCanonical),
        (swap("credential \"a\"", "credential a"), Error::BadSyntax),
        (swap("credential \"a\"", "credential  \"a\""), Error::NotCanonical),
        (swap("credential \"a\"", "Credential \"a\""), Error::BadSyntax),
        (swap("  kind \"api_key\"", "  kind \"\""), Error::InvalidKind),
        (swap("  principal \"app\"", "  principal \"\""), Error::InvalidPrincipal),
        (swap("  principal \"app\"\n", ""), Error::BadSyntax),
        (swap("{\"all\":true}", "{\"all\": true}"), Error::NotCanonical),
        (swap("{\"all\":true}", "{\"all\":tru}"), Error::InvalidScope),
        (swap("{\"all\":true}", &format!("\"{}\"", "x".repeat(2_047))), Error::ScopeTooLarge),
        (swap("  value\n    ", "  value\n     "), Error::NotCanonical),
        (swap("  value\n    A", "  value\n    ~"), Error::BadSyntax),
        (swap("records 2", "records 3"), Error::CountMismatch),
        (swap("records 2", "records 02"), Error::BadSyntax),
        (swap("records 2", "records -2"), Error::BadSyntax),
        (swap("generation 1", "generation 18446744073709551616"), Error::BadSyntax),
        (swap("\n\nend", "\nend"), Error::BadSyntax),
        (swap("\n\nend", "\n\n\nend"), Error::BadSyntax),
        (format!("{text}\n"), Error::BadSyntax),
        (format!("{text}# a remark\n"), Error::BadSyntax),
        (text.trim_end().into(), Error::Truncated),
    ] {
        assert_eq!(refusal(&changed).0, error, "{changed}");
    }
    let latin1 = [&text.as_bytes()[..40], &[0xe9], &text.as_bytes()[40..]].concat();
    assert_eq!(refusal(latin1).0, Error::NotText);
    assert_eq!(refusal(vec![b'\n'; 67_108_865]), (Error::FileTooLarge, 0, 67_108_865));
}

#[test]
fn the_other_suites_file_says_which_suite_it_is() {
    let (keys, _) = keyring::<Aes256GcmSiv>(8);
    let (error, line, found) = refusal(file(&keys, &["a"], &[]));
    assert_eq!((error, found), (Error::UnknownSuite, 2));
    assert!(line > 1);
}

#[test]
fn a_broken_trailer_needs_parse_unsealed_and_then_a_write() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(9);
    let text = String::from_utf8(file(&keys, &["a", "b"], &[])).unwrap();
    let (whole, trailer) = text.split_once("end\n").unwrap();
    let conflict =
        format!("{whole}end\n<<<<<<< ours\n{trailer}=======\n  records 3\n  generation 7\n>>>>>>> theirs\n");
    assert_eq!(refusal(&conflict).0, Error::ConflictMarkers);
    let document = Chacha::parse_unsealed(conflict.as_bytes()).unwrap();
    assert_eq!((document.generation(), document.entries().len()), (7, 2));
    assert_eq!(document.verify(&keys).err().unwrap().error, Error::SealMismatch);
    let written = Chacha::parse(&document.write(&keys, 0).unwrap()).unwrap();
    written.verify(&keys).unwrap();
    assert_eq!(written.generation(), 8);
    let in_a_record = text.replacen("  kind", "<<<<<<< ours\n  kind", 1);
    let error = Chacha::parse_unsealed(in_a_record.as_bytes()).err().unwrap();
    assert_eq!((error.error, error.line), (Error::ConflictMarkers, 10));
}

#[test]
fn put_is_all_or_none() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(10);
    let mut document = Chacha::parse(&file(&keys, &["a"], &[])).unwrap();
    let before = document.manifest();
    let tombstone = |name| Entry { identity: identity(name, ALL), expires: None, sealed: None };
    for (second, error) in [
        (
            Entry { identity: Identity { name: b"", ..identity("x", ALL) }, expires: None, sealed: None },
            Error::InvalidName,
        ),
        (tombstone("a"), Error::DuplicateRecord),
        (Entry { sealed: Some(&[]), ..tombstone("b") }, Error::Malformed),
        (Entry { sealed: Some(&[1, 1, 0]), ..tombstone("b") }, Error::Malformed),
        (Entry { sealed: Some(&[9]), ..tombstone("b") }, Error::UnknownVersion),
        (Entry { sealed: Some(&[1, 2]), ..tombstone("b") }, Error::UnknownSuite),
    ] {
        assert_eq!(document.put([tombstone("a"), second]).err().unwrap().error, error);
        assert_eq!(document.manifest(), before);
    }
}

/// The line of an expiry, and that another expiry alone is a change.
#[test]
fn an_expiry_in_a_file() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(27);
    let mut document = Chacha::parse(&file(&keys, &["a"], &["b"])).unwrap();
    let identity = identity("a", ALL);
    let expires = Some(1_800_000_000);
    let sealed = keys.seal(&identity, expires, b"a", &mut Fixed::new(28)).unwrap();
    document.put([Entry { identity, expires, sealed: Some(&sealed) }]).unwrap();
    let text = String::from_utf8(document.write(&keys, 0).unwrap()).unwrap();
    assert!(text.contains("\n  scope {\"all\":true}\n  expires 2027-01-15T08:00:00Z\n  value\n"), "{text}");
    let read = Chacha::parse(text.as_bytes()).unwrap();
    read.verify(&keys).unwrap();
    assert_eq!(read.entries().next().unwrap().expires, expires);
    for (from, to) in [
        ("expires 2027-01-15T08:00:00Z", "expires 2027-01-15T08:00:00.0Z"),
        ("expires 2027-01-15T08:00:00Z", "expires 2027-02-29T08:00:00Z"),
        ("expires 2027-01-15T08:00:00Z", "expires never"),
        (
            "  expires 2027-01-15T08:00:00Z\n",
            "  expires 2027-01-15T08:00:00Z\n  expires 2027-01-15T08:00:00Z\n",
        ),
        ("  generation 1\n", "  expires 2027-01-15T08:00:00Z\n  generation 1\n"),
    ] {
        assert_eq!(refusal(text.replacen(from, to, 1)).0, Error::BadSyntax, "{to}");
    }
    let other = Chacha::parse(text.replacen("15T", "16T", 1).as_bytes()).unwrap();
    assert_eq!(other.verify(&keys).unwrap_err().error, Error::SealMismatch);

    let mut changed = read.clone();
    let entry = read.entries().next().unwrap();
    changed.put([Entry { expires: Some(1), ..entry }]).unwrap();
    assert_eq!(changed.entries().next().unwrap().expires, Some(1));
    for (entry, found) in [
        (Entry { expires: Some(u64::MAX), ..entry }, u64::MAX),
        (Entry { expires: Some(7), sealed: None, ..entry }, 7),
    ] {
        let failure = changed.put([entry]).unwrap_err();
        assert_eq!((failure.error, failure.found), (Error::InvalidExpiry, found));
    }
}

#[test]
fn only_the_keyring_of_the_header_writes() {
    let (mut keys, _) = keyring::<XChaCha20Poly1305>(11);
    let mut document = Chacha::create(&keys.to_bytes()).unwrap();
    keys.add_key(&mut Fixed::new(12)).unwrap();
    assert_eq!(document.write(&keys, 0).err().unwrap().error, Error::InvalidArgument);
    document.set_keyring(&keys.to_bytes()).unwrap();
    let written = document.write(&keys, 0).unwrap();
    let (stranger, _) = keyring::<XChaCha20Poly1305>(13);
    assert_eq!(Chacha::parse(&written).unwrap().verify(&stranger).err().unwrap().error, Error::UnknownKey);
    assert_eq!(document.set_keyring(b"OCKR").err().unwrap().error, Error::Malformed);
}

#[test]
fn a_hundred_thousand_records_are_within_limits_and_one_more_is_not() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(14);
    let mut document = Chacha::create(&keys.to_bytes()).unwrap();
    let names: Vec<_> = (0..100_000).map(|i| format!("credential-{i}")).collect();
    document
        .put(names.iter().map(|name| Entry { identity: identity(name, ALL), expires: None, sealed: None }))
        .unwrap();
    let bytes = document.write(&keys, 0).unwrap();
    let parsed = Chacha::parse(&bytes).unwrap();
    parsed.verify(&keys).unwrap();
    assert_eq!(parsed.entries().len(), 100_000);
    let one_more = Entry { identity: identity("one more", ALL), expires: None, sealed: None };
    assert_eq!(document.put([one_more]).err().unwrap().error, Error::TooManyRecords);
    let text = String::from_utf8(bytes).unwrap();
    let block = "\ndeleted \"zzz\"\n  kind \"api_key\"\n  principal \"app\"\n  scope {\"all\":true}\n  generation 1\n";
    let longer = text.replacen("\n\nend", &format!("\n{block}\nend"), 1);
    assert_eq!(refusal(longer).0, Error::TooManyRecords);
}

#[test]
fn a_file_that_would_be_too_long_is_not_written() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(15);
    let mut document = Chacha::create(&keys.to_bytes()).unwrap();
    let names: Vec<_> = (0..50).map(|i| format!("big-{i}")).collect();
    let sealed = keys.seal(&identity("big", ALL), None, &vec![1; 1_048_576], &mut Fixed::new(16)).unwrap();
    document
        .put(names.iter().map(|name| Entry {
            identity: identity(name, ALL),
            expires: None,
            sealed: Some(&sealed),
        }))
        .unwrap();
    let failure = document.write(&keys, 0).err().unwrap();
    assert_eq!(failure.error, Error::FileTooLarge);
    assert!(failure.found > 67_108_864);
}

/// The document with these names deleted by the write of the next generation.
fn without(keys: &Keyring<XChaCha20Poly1305>, document: &Chacha, names: std::ops::Range<usize>) -> Chacha {
    let names: Vec<_> = names.map(|number| format!("name-{number:06}")).collect();
    let mut document = document.clone();
    document
        .put(names.iter().map(|name| Entry { identity: identity(name, ALL), expires: None, sealed: None }))
        .unwrap();
    Chacha::parse(&document.write(keys, 0).unwrap()).unwrap()
}

fn deletions(document: &Chacha) -> usize {
    document.entries().filter(|entry| entry.sealed.is_none()).count()
}

#[test]
fn the_oldest_deletions_are_forgotten_beyond_a_thousand() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(19);
    let mut document = Chacha::create(&keys.to_bytes()).unwrap();
    for step in 0..14 {
        document = without(&keys, &document, step * 100..(step + 1) * 100);
        document.verify(&keys).unwrap();
        let kept = (step + 1).min(10);
        assert_eq!(
            (deletions(&document), document.deletions_since()),
            (kept * 100, (step + 1 - kept) as u64)
        );
    }
    let oldest = document.entries().next().unwrap().identity.name.to_vec();
    assert_eq!(oldest, b"name-000400");
    // One more is one too many, and it takes its whole generation with it.
    let document = without(&keys, &document, 2_000..2_001);
    assert_eq!((deletions(&document), document.deletions_since()), (901, 5));
}

#[test]
fn as_many_deletions_as_live_records_are_kept() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(20);
    let sealed = keys.seal(&identity("live", ALL), None, b"", &mut Fixed::new(21)).unwrap();
    let names: Vec<_> = (0..1_200).map(|number| format!("live-{number:06}")).collect();
    let mut document = Chacha::create(&keys.to_bytes()).unwrap();
    document
        .put(names.iter().map(|name| Entry {
            identity: identity(name, ALL),
            expires: None,
            sealed: Some(&sealed),
        }))
        .unwrap();
    let document = without(&keys, &document, 0..1_100);
    let document = without(&keys, &document, 1_100..1_200);
    assert_eq!((deletions(&document), document.deletions_since()), (1_200, 0));
    // With one live record less there is one deletion too many.
    let mut fewer = document.clone();
    fewer.put([Entry { identity: identity(&names[0], ALL), expires: None, sealed: None }]).unwrap();
    assert_eq!((deletions(&fewer), fewer.deletions_since()), (101, 1));
}

#[test]
fn what_one_write_deletes_is_kept_however_much_it_is() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(22);
    let document = without(&keys, &Chacha::create(&keys.to_bytes()).unwrap(), 0..5_000);
    assert_eq!((deletions(&document), document.deletions_since()), (5_000, 0));
    // The write after it makes room, and says so.
    let document = without(&keys, &document, 5_000..5_001);
    assert_eq!((deletions(&document), document.deletions_since(), document.generation()), (1, 1, 2));
}

#[test]
fn deletions_are_forgotten_when_told_so() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(23);
    let mut document = without(&keys, &Chacha::parse(&file(&keys, &["a"], &["b"])).unwrap(), 0..3);
    document.put([Entry { identity: identity("a", ALL), expires: None, sealed: None }]).unwrap();
    document.forget_deletions();
    // What has not been written yet is not forgotten.
    let names: Vec<_> = document.entries().map(|entry| entry.identity.name.to_vec()).collect();
    assert_eq!((names, document.deletions_since(), document.generation()), (vec![b"a".to_vec()], 2, 2));
    let written = Chacha::parse(&document.write(&keys, 0).unwrap()).unwrap();
    written.verify(&keys).unwrap();
    assert_eq!((deletions(&written), written.deletions_since(), written.generation()), (1, 2, 3));
}

/// A tombstone keeps the generation of its deletion.
#[test]
fn the_lines_of_a_deletion() {
    let (keys, _) = keyring::<XChaCha20Poly1305>(24);
    let first = Chacha::parse(&file(&keys, &["a"], &["b"])).unwrap();
    let text = String::from_utf8(without(&keys, &first, 0..1).write(&keys, 0).unwrap()).unwrap();
    assert!(text.contains(
        "\ndeleted \"b\"\n  kind \"api_key\"\n  principal \"app\"\n  scope {\"all\":true}\n  generation 1\n\n"
    ));
    assert!(text.contains("  scope {\"all\":true}\n  generation 2\n\nend\n  records 3\n  generation 3\n  deletions-since 0\n  seal "));
    let most = u64::MAX;
    for (from, to, error) in [
        ("generation 1\n", "generation 0\n", Error::BadSyntax),
        ("generation 1\n", "generation 01\n", Error::BadSyntax),
        ("generation 1\n", "generation 4\n", Error::NotCanonical),
        ("  generation 1\n", "", Error::BadSyntax),
        ("deletions-since 0", "deletions-since 1", Error::NotCanonical),
        ("deletions-since 0", "deletions-since 4", Error::NotCanonical),
        ("deletions-since 0", "deletions-since 00", Error::BadSyntax),
        ("deletions-since 0", &format!("deletions-since {most}"), Error::NotCanonical),
        (
            "generation 3\n  deletions-since 0",
            &format!("generation {most}\n  deletions-since {most}"),
            Error::NotCanonical,
        ),
        ("  deletions-since 0\n", "", Error::BadSyntax),
        ("generation 3\n", "generation 1\n", Error::NotCanonical),
    ] {
        assert_ne!(text.replacen(from, to, 1), text);
        assert_eq!(refusal(text.replacen(from, to, 1)).0, error, "{from} {to}");
    }
    assert_eq!(
        Chacha::parse(text.replacen("generation 3", "generation 4", 1).as_bytes())
            .unwrap()
            .verify(&keys)
            .err()
            .unwrap()
            .error,
        Error::SealMismatch
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn accepted_bytes_are_the_one_encoding(
        records in prop::collection::vec(("[^\\x00]{1,12}", "[a-c]{1,2}", "[^\\x00]{1,5}", any::<bool>(), 0_u8..90, prop::option::of(0_u64..253_402_300_800)), 0..12),
        generation in prop_oneof![0_u64..5, any::<u64>()],
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let (keys, _) = Keyring::<XChaCha20Poly1305>::create(b"x", Some(CHEAP), &mut Fixed::new(17)).unwrap();
        let mut entropy = Fixed::new(18);
        let mut document = Chacha::create(&keys.to_bytes()).unwrap();
        for (name, kind, principal, live, len, expires) in &records {
            let identity = Identity { kind: kind.as_bytes(), principal: principal.as_bytes(), ..identity(name, ALL) };
            let expires = expires.filter(|_| *live);
            let sealed = keys.seal(&identity, expires, &vec![*len; usize::from(*len)], &mut entropy).unwrap();
            document.put([Entry { identity, expires, sealed: live.then_some(&sealed) }]).unwrap();
        }
        let mut bytes = document.write(&keys, generation.min(u64::MAX - 1)).unwrap();
        Chacha::parse(&bytes).unwrap().verify(&keys).unwrap();
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Whatever parses is written back to the very same bytes, but for the seal and for when deletions were made,
        // which a new document does not know.
        if let Ok(parsed) = Chacha::parse(&bytes) && parsed.generation() > 0 && parsed.keyring_bytes() == keys.to_bytes() {
            let mut again = Chacha::create(parsed.keyring_bytes()).unwrap();
            again.put(parsed.entries()).unwrap();
            let again = again.write(&keys, parsed.generation() - 1).unwrap();
            prop_assert_eq!(lasting(&again), lasting(&bytes));
        }
    }
}

/// The lines of a file that do not say when it was written.
fn lasting(file: &[u8]) -> Vec<&str> {
    let lines = std::str::from_utf8(file).unwrap().split('\n');
    let passing = ["  generation ", "  deletions-since ", "  seal "];
    lines.filter(|line| !passing.iter().any(|start| line.starts_with(start))).collect()
}
