//! Versions of one file, and what becomes of any two of them (FORMAT.md §8).

use omni_credentials_core::kdf::Costs;
use omni_credentials_core::{Document, Entry, Error, Failure, Keyring, Suite};

use super::{Fixed, VectorFile};
use crate::Native;
use crate::native::borrowed;
use omni_credentials_conformance::golden::{KeyringVector, ReconcileVector, suite_name};
use omni_credentials_conformance::{Identity, Prefer, ReconcileCase, Subject};

const LEAST: Costs = Costs { memory_kib: 8, passes: 1, lanes: 1 };
/// What every version starts from.
const BASE: [(&str, &[u8]); 5] =
    [("deleted", b"1"), ("disputed", b"1"), ("edited", b"1"), ("kept", b"1"), ("untouched", b"1")];

/// The two sides by the names of their versions.
const PAIRS: [(&str, &str); 21] = [
    ("base", "base"),
    ("ours", "theirs"),
    ("rotated", "theirs"),
    ("ours", "rotated"),
    ("rotated", "deleted"),
    ("rotated", "rotated-too"),
    ("rewrapped", "theirs"),
    ("rewrapped", "rotated"),
    ("rewrapped", "rewrapped-too"),
    ("ours", "compacted"),
    ("compacted", "base"),
    ("deleted", "theirs"),
    ("deleted", "deleted"),
    ("ours", "equal"),
    ("ours", "older"),
    ("damaged", "ours"),
    ("damaged", "damaged-too"),
    ("theirs", "deleted"),
    ("theirs", "rewrapped"),
    ("prolonged", "base"),
    ("prolonged", "theirs"),
];

/// A version: its name, the name of the keyring whose KEK unlocks it, and the file.
struct Version {
    name: &'static str,
    keyring: &'static str,
    file: Vec<u8>,
}

/// Files, keyrings and vectors.
type Made = (Vec<VectorFile>, Vec<KeyringVector>, Vec<ReconcileVector>);

/// The versions as files, their keyrings, and the vectors. `main` is the keyring called `generated` and its KEK.
pub(super) fn vectors<S: Suite>(main: &(Keyring<S>, [u8; 32])) -> Result<Made, Failure> {
    let suite = suite_name(S::ID);
    let (versions, keyrings) = versions(main)?;
    let file = |name: &str| versions.iter().find(|version| version.name == name).ok_or(Error::Other);
    let kek = |name: &str| -> Result<[u8; 32], Error> {
        if name == "generated" {
            return Ok(main.1);
        }
        let found = keyrings.iter().find(|keyring| keyring.name == name).ok_or(Error::Other)?;
        let kek = hex::decode(&found.kek).map_err(|_| Error::Other)?;
        kek.try_into().map_err(|_| Error::Other)
    };
    let base = Document::<S>::parse(&file("base")?.file)?.manifest();
    let mut vectors = Vec::new();
    let mut add = |pair: (&str, &str),
                   known: bool,
                   complete: bool,
                   prefer: Prefer,
                   open: (bool, bool)|
     -> Result<(), Failure> {
        let (ours, theirs) = (file(pair.0)?, file(pair.1)?);
        let ancestor: &[u8] = if known { &base } else { &[] };
        let (our_keyring, their_keyring) =
            (open.0.then(|| ours.keyring.to_owned()), open.1.then(|| theirs.keyring.to_owned()));
        let our_kek = our_keyring.as_deref().map(kek).transpose()?;
        let their_kek = their_keyring.as_deref().map(kek).transpose()?;
        let case = ReconcileCase {
            ancestor,
            ours: &ours.file,
            theirs: &theirs.file,
            ours_complete: complete,
            prefer,
            our_kek: our_kek.as_ref(),
            their_kek: their_kek.as_ref(),
        };
        let mut name = format!("{} and {}", pair.0, pair.1);
        if !known {
            name.push_str(", ancestor unknown");
        }
        for (open, side) in [(open.0, "ours"), (open.1, "theirs")] {
            if !open {
                name.push_str(&format!(", {side} locked"));
            }
        }
        vectors.push(ReconcileVector {
            name,
            ancestor: hex::encode(ancestor),
            ours: path(suite, pair.0),
            theirs: path(suite, pair.1),
            our_keyring,
            their_keyring,
            ours_complete: complete,
            prefer,
            result: Native::<S>::default().reconcile(case).map_err(|refusal| refusal.class),
        });
        Ok(())
    };
    for pair in PAIRS {
        for known in [true, false] {
            add(pair, known, false, Prefer::Neither, (true, true))?;
            add(pair, known, false, Prefer::Theirs, (true, true))?;
        }
        add(pair, true, false, Prefer::Ours, (true, true))?;
    }
    for pair in [("ours", "theirs"), ("rotated", "theirs"), ("ours", "older"), ("base", "compacted")] {
        for known in [true, false] {
            add(pair, known, true, Prefer::Neither, (true, true))?;
        }
    }
    for pair in [("rewrapped", "theirs"), ("rewrapped", "rotated"), ("rewrapped", "rewrapped-too")] {
        add(pair, true, false, Prefer::Neither, (true, false))?;
        add(pair, true, false, Prefer::Neither, (false, true))?;
    }
    let files = versions
        .into_iter()
        .map(|version| (format!("golden/{}", path(suite, version.name)), version.file))
        .collect();
    Ok((files, keyrings, vectors))
}

fn path(suite: &str, name: &str) -> String {
    format!("{suite}-reconcile-{name}.credentials")
}

fn versions<S: Suite>(main: &(Keyring<S>, [u8; 32])) -> Result<(Vec<Version>, Vec<KeyringVector>), Failure> {
    let entropy = &mut Fixed::new(&format!("reconcile {}", S::NAME));
    let mut versions = Vec::new();
    let mut keep = |name, keyring, file| versions.push(Version { name, keyring, file });
    let (keys, _) = main;
    let mut base = Document::<S>::create(&keys.to_bytes())?;
    put(&mut base, keys, &BASE, entropy)?;
    let older = base.write(keys, 0)?;
    let mut base = Document::<S>::parse(&older)?;
    put(&mut base, keys, &[("younger", b"1")], entropy)?;
    let file = base.write(keys, 4)?;
    let base = Document::<S>::parse(&file)?;
    keep("base", "generated", file);
    keep("older", "generated", older);

    for (name, other) in [("ours", b"ours"), ("theirs", b"them")] {
        let mut version = base.clone();
        put(&mut version, keys, &[("disputed", other), (name, b"1")], entropy)?;
        let alone: &[(&str, &[u8])] = if name == "ours" { &[("edited", b"2")] } else { &[("kept", b"2")] };
        put(&mut version, keys, alone, entropy)?;
        if name == "theirs" {
            remove(&mut version, "untouched")?;
        } else {
            remove(&mut version, "deleted")?;
        }
        let file = version.write(keys, 0)?;
        keep(name, "generated", file);
    }
    let mut equal = base.clone();
    put(&mut equal, keys, &[("disputed", b"ours"), ("edited", b"2")], entropy)?;
    keep("equal", "generated", equal.write(keys, 0)?);
    let mut deleted = base.clone();
    for (name, _) in BASE {
        remove(&mut deleted, name)?;
    }
    keep("deleted", "generated", deleted.write(keys, 0)?);
    let mut compacted = Document::<S>::parse(&deleted.write(keys, 8)?)?;
    compacted.forget_deletions();
    keep("compacted", "generated", compacted.write(keys, 0)?);

    for name in ["rotated", "rotated-too"] {
        let mut rotated = Keyring::<S>::unlock(&keys.to_bytes(), &main.1)?;
        rotated.add_key(entropy)?;
        let mut version = base.clone();
        for entry in base.entries() {
            let Some(sealed) = entry.sealed else { continue };
            let again = rotated.reseal(&entry.identity, entry.expires, sealed)?;
            version.put([Entry { sealed: Some(&again), ..entry }])?;
        }
        version.set_keyring(&rotated.to_bytes())?;
        keep(name, "generated", version.write(&rotated, 0)?);
    }
    let mut keyrings = Vec::new();
    for (name, secret) in [("rewrapped", "another secret"), ("rewrapped-too", "a third secret")] {
        let (rewrapped, kek) = keys.rewrap(secret.as_bytes(), Some(LEAST), entropy)?;
        keyrings.push(KeyringVector {
            name: name.to_owned(),
            secret: hex::encode(secret),
            kek: hex::encode(*kek),
            keyring: hex::encode(rewrapped.to_bytes()),
        });
        let mut version = base.clone();
        version.set_keyring(&rewrapped.to_bytes())?;
        keep(name, name, version.write(&rewrapped, 0)?);
    }
    let kept = base.entries().find(|entry| entry.identity.name == b"kept").ok_or(Error::Other)?;
    // One value that does not open, with the version of the one that does.
    for (name, bit) in [("damaged", 1), ("damaged-too", 2)] {
        let mut sealed = kept.sealed.map(<[u8]>::to_vec).ok_or(Error::Other)?;
        if let Some(last) = sealed.last_mut() {
            *last ^= bit;
        }
        let mut version = base.clone();
        version.put([Entry { sealed: Some(&sealed), ..kept }])?;
        keep(name, "generated", version.write(keys, 0)?);
    }
    // The same value with another expiry.
    let mut prolonged = base.clone();
    let expires = Some(2_000_000_000);
    let sealed = keys.seal(&kept.identity, expires, b"1", entropy)?;
    prolonged.put([Entry { expires, sealed: Some(&sealed), ..kept }])?;
    keep("prolonged", "generated", prolonged.write(keys, 0)?);
    Ok((versions, keyrings))
}

fn put<S: Suite>(
    document: &mut Document<S>,
    keys: &Keyring<S>,
    values: &[(&str, &[u8])],
    entropy: &mut Fixed,
) -> Result<(), Failure> {
    for (name, value) in values {
        let identity = identity(name);
        let expires = identity.expires;
        let sealed = keys.seal(&borrowed(&identity), expires, value, entropy)?;
        document.put([Entry { identity: borrowed(&identity), expires, sealed: Some(&sealed) }])?;
    }
    Ok(())
}

fn remove<S: Suite>(document: &mut Document<S>, name: &str) -> Result<(), Failure> {
    document.put([Entry { identity: borrowed(&identity(name)), expires: None, sealed: None }])
}

fn identity(name: &str) -> Identity {
    Identity {
        name: name.to_owned(),
        kind: "api_key".to_owned(),
        principal: "app".to_owned(),
        scope: r#"{"all":true}"#.to_owned(),
        expires: (name == "edited").then_some(1_900_000_000),
    }
}
