use omni_credentials_core::kdf::{self, Costs};
use omni_credentials_core::{Document, Entry, Failure, Keyring, Suite, scope};

use super::{Fixed, VectorFile, json, reconcile};
use crate::native::borrowed;
use omni_credentials_conformance::golden::{
    FileVector, Golden, KeyringVector, ScopeVector, ValueVector, suite_name,
};
use omni_credentials_conformance::{Identity, Record};

/// A file by its entries: identity, and the value or a tombstone.
type Contents<'a> = &'a [(Identity, Option<&'a [u8]>)];

pub(super) fn files<S: Suite>() -> Result<Vec<VectorFile>, Failure> {
    let mut entropy = Fixed::new(S::NAME);
    let mut keyrings = Vec::new();
    let mut keep = |name: &str, secret: &[u8], (keyring, kek): &(Keyring<S>, _)| {
        let kek: &[u8; 32] = kek;
        keyrings.push(KeyringVector {
            name: name.to_owned(),
            secret: hex::encode(secret),
            kek: hex::encode(kek),
            keyring: hex::encode(keyring.to_bytes()),
        });
    };

    let generated = kdf::generate_master_key(&mut entropy)?;
    let main = unlocked(Keyring::<S>::create(&generated, None, &mut entropy)?);
    keep("generated", &generated, &main);
    let least = Costs { memory_kib: 8, passes: 1, lanes: 1 };
    keep(
        "password",
        b"correct horse",
        &unlocked(Keyring::create(b"correct horse", Some(least), &mut entropy)?),
    );
    let lanes = Costs { memory_kib: 1_024, passes: 3, lanes: 4 };
    let bytes: Vec<u8> = (0..=255).collect();
    keep("password of bytes", &bytes, &unlocked(Keyring::create(&bytes, Some(lanes), &mut entropy)?));
    keep(
        "default costs",
        "pässword".as_bytes(),
        &unlocked(Keyring::create("pässword".as_bytes(), None, &mut entropy)?),
    );
    let mut rotated = unlocked(Keyring::<S>::create(b"rotated", Some(least), &mut entropy)?);
    let before = rotated.0.seal(&borrowed(&stripe()), None, b"before the rotation", &mut entropy)?;
    rotated.0.add_key(&mut entropy)?;
    rotated.0.add_key(&mut entropy)?;
    keep("three keys", b"rotated", &rotated);

    let mut values = vec![ValueVector {
        keyring: "three keys".into(),
        identity: stripe(),
        value: hex::encode(b"before the rotation"),
        sealed: hex::encode(before),
    }];
    for (identity, value) in value_cases() {
        let sealed = main.0.seal(&borrowed(&identity), identity.expires, &value, &mut entropy)?;
        values.push(ValueVector {
            keyring: "generated".into(),
            identity,
            value: hex::encode(&value),
            sealed: hex::encode(sealed),
        });
    }

    let suite = suite_name(S::ID);
    let mut files = Vec::new();
    let mut vectors = Vec::new();
    for (name, generation, contents) in file_cases() {
        let path = format!("{suite}{name}.credentials");
        let (bytes, records) = file(&main.0, generation, &contents)?;
        vectors.push(FileVector { file: path.clone(), keyring: "generated".into(), generation, records });
        files.push((format!("golden/{path}"), bytes));
    }
    let (versions, others, reconciliations) = reconcile::vectors::<S>(&main)?;
    files.extend(versions);
    keyrings.extend(others);
    let golden = Golden { suite: S::ID, keyrings, values, files: vectors, reconciliations };
    files.push((format!("golden/{suite}.json"), json(&golden)));
    Ok(files)
}

/// The canonical forms that an implementer gets wrong first.
pub(super) fn scopes() -> Result<VectorFile, Failure> {
    let given = [
        r#"{"all": true}"#,
        r#"{"all":true}"#,
        "{}",
        "[]",
        " [ 1 , [ 2 ] ] ",
        "null",
        "true",
        r#""""#,
        r#"{"b":1,"a":2}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":{"x":1},"b":3,"\u0061":[]}"#,
        r#"{"aa":1,"a":2,"":3}"#,
        "{\"\u{10000}\":1,\"\u{ffff}\":2}",
        r#""\u0041\/\u00e9\uD83D\uDE00\u007f""#,
        r#""\u0008\u0009\u000a\u000c\u000d""#,
        r#""\u0001\u001F\u0022\u005c\u2028""#,
        r#"{"$serde_json::private::Number":"12"}"#,
        "0",
        "-0",
        "0.0",
        "-0.0e5",
        "0e99999999999999999999",
        "1.0",
        "1.10",
        "100",
        "1e2",
        "12.5e1",
        "-12.50E-1",
        "0.000001",
        "0.0000001",
        "1.5e-7",
        "123456789012345678901",
        "1234567890123456789012",
        "1e20",
        "1e21",
        "-1E+00021",
        "0.1e131072",
        "1e-16383",
        "12345678901234567890.123456789",
        "9007199254740993",
        "0.1000000000000000055511151231257827",
        r#"{"n":1.50,"a":[1e0,2E1]}"#,
    ];
    let mut vectors = Vec::new();
    for given in given {
        let canonical = scope::canonical(given.as_bytes())?.into_owned();
        vectors.push(ScopeVector { given: given.to_owned(), canonical });
    }
    Ok(("golden/scopes.json".into(), json(&vectors)))
}

fn unlocked<S: Suite, K: std::ops::Deref<Target = [u8; 32]>>(
    (keyring, kek): (Keyring<S>, K),
) -> (Keyring<S>, [u8; 32]) {
    (keyring, *kek)
}

fn identity(name: &str, kind: &str, principal: &str, scope: &str) -> Identity {
    Identity {
        name: name.into(),
        kind: kind.into(),
        principal: principal.into(),
        scope: scope.into(),
        expires: None,
    }
}

fn expiring(expires: u64) -> Identity {
    let name = format!("expires {expires}");
    Identity { expires: Some(expires), ..identity(&name, "token", "app", r#"{"all": true}"#) }
}

fn stripe() -> Identity {
    identity("stripe", "api_key", "app", r#"{"all": true}"#)
}

fn value_cases() -> Vec<(Identity, Vec<u8>)> {
    let mut cases = vec![
        (stripe(), b"sk_live_4eC39HqLyjWDarjtT1zdp7dc".to_vec()),
        (identity("empty", "credential", "app", "{}"), vec![]),
        (
            identity("zéro \"\\ \n", "password", "web admin", r#"{"n": 1.0, "a": [1e2, "\u00e9"]}"#),
            vec![0; 64],
        ),
        (identity("nul in value", "token[jwt]", "app", "null"), b"a\0b\x80".to_vec()),
        (identity(&"n".repeat(512), &"k".repeat(63), &"p".repeat(255), r#""s""#), b"longest fields".to_vec()),
        (identity("certificate", "certificate", "app", r#"{"host": "db.example.org"}"#), vec![b'P'; 4_096]),
    ];
    for expires in [0, 1, 1_800_000_000, 253_402_300_799] {
        cases.push((expiring(expires), b"until then".to_vec()));
    }
    for len in [1, 30, 31, 32, 33, 63] {
        cases.push((
            identity(&format!("length {len}"), "credential", "app", r#"{"all": true}"#),
            vec![0x80; len],
        ));
    }
    cases
}

/// Suffix of the file's name, generation, entries.
type FileCase = (&'static str, u64, Vec<(Identity, Option<&'static [u8]>)>);

fn file_cases() -> Vec<FileCase> {
    let all = r#"{"all": true}"#;
    let one = |name: &str, value: &'static [u8]| (identity(name, "api_key", "app", all), Some(value));
    vec![
        ("-empty", 1, vec![]),
        (
            "",
            7,
            vec![
                one("stripe", b"sk_live_1"),
                (identity("stripe", "api_key", "app", r#"{"b": 1.0, "a": "\u00e9"}"#), Some(b"scoped")),
                (identity("stripe", "api_secret", "app", all), Some(b"")),
                (identity("stripe", "api_key", "web", all), Some(b"another role's")),
                (
                    identity("q\"uo\\te\nline\u{1}\u{e9}\u{1f600}", "password", "p \"q\"", all),
                    Some(b"escapes"),
                ),
                (identity("old", "token", "app", all), None),
                (expiring(1_800_000_000), Some(b"until then")),
                (identity("certificate", "certificate", "app", all), Some(&[b'C'; 200])),
            ],
        ),
        (
            "-ours",
            3,
            vec![
                one("same", b"1"),
                one("mine", b"1"),
                one("edited", b"ours"),
                one("kept", b"1"),
                one("disputed", b"ours"),
            ],
        ),
        (
            "-theirs",
            5,
            vec![
                one("same", b"1"),
                one("yours", b"1"),
                one("edited", b"base"),
                (identity("kept", "api_key", "app", all), None),
                one("disputed", b"theirs"),
                one("gone", b"1"),
            ],
        ),
        (
            "-base",
            2,
            vec![one("edited", b"base"), one("kept", b"1"), one("disputed", b"base"), one("gone", b"1")],
        ),
    ]
}

/// A file, sealed value by sealed value; equal values of one name have equal bytes in all files.
fn file<S: Suite>(
    keys: &Keyring<S>,
    generation: u64,
    contents: Contents<'_>,
) -> Result<(Vec<u8>, Vec<Record>), Failure> {
    let mut document = Document::<S>::create(&keys.to_bytes())?;
    for (identity, value) in contents {
        let mut entropy = Fixed::new(&format!("{} {identity:?} {value:?}", S::NAME));
        let sealed = value
            .map(|value| keys.seal(&borrowed(identity), identity.expires, value, &mut entropy))
            .transpose()?;
        document.put([Entry {
            identity: borrowed(identity),
            expires: identity.expires,
            sealed: sealed.as_deref(),
        }])?;
    }
    let bytes = document.write(keys, generation - 1)?;
    let mut records = Vec::new();
    for (identity, value) in contents {
        let scope = scope::canonical(identity.scope.as_bytes())?.into_owned();
        records
            .push(Record { identity: Identity { scope, ..identity.clone() }, value: value.map(hex::encode) });
    }
    records.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok((bytes, records))
}

fn key(record: &Record) -> [&str; 4] {
    let Identity { name, kind, principal, scope, .. } = &record.identity;
    [name, kind, principal, scope]
}
