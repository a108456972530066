//! Known-answer tests and properties, run in throw-away stores before a module is trusted.
//!
//! They find a module that is broken, miscompiled or not what it says. A module that lies on
//! purpose can pass them: trust in a module rests on its digest.

mod vectors;

use crate::{
    Costs, Document, EntryRef, Error, ErrorCode, Failure, Files, Identities, Identity, KeyOf, Module,
    Preference, Rows, Side, Wrapping,
};

/// The least that Argon2id can be asked for.
const CHEAP: Option<Costs> = Some(Costs { memory_kib: 8, passes: 1, lanes: 1 });
const SECRET: &[u8] = b"correct horse battery staple";
const STRIPE: Identity<'static> =
    Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: br#"{"all": true, "n": 1.0}"# };
/// Some second of the year 2027.
const EXPIRES: Option<u64> = Some(1_800_000_000);
const VALUE: &[u8] = b"sk_live_51H8zQ2eZvKYlo2C7xJ3mN0pR";

impl Module {
    /// Runs known-answer tests and the properties that every module must have, in throw-away stores.
    /// A host does so before it trusts a module for the first time; it takes about a second.
    ///
    /// # Errors
    ///
    /// [`Error::FailedCheck`] names the first that fails; or the error that a call ended with.
    pub fn check(&self) -> Result<(), Error> {
        vectors::run(self)?;
        derivation(self)?;
        values(self)?;
        other_suites(self)?;
        keys(self)?;
        file(self)
    }
}

fn derivation(module: &Module) -> Result<(), Error> {
    let made = module.create_keyring(SECRET, CHEAP)?;
    let kek = module.derive_kek(SECRET, &made.keyring)?;
    require(kek.as_bytes() == made.kek.as_bytes(), "a derived KEK is the one of creation")?;
    refused(
        module.derive_kek(b"another secret", &made.keyring),
        ErrorCode::WrongMasterSecret,
        "a wrong master secret is refused",
    )?;
    let other = module.create_keyring(SECRET, CHEAP)?;
    require(other.keyring != made.keyring, "keyrings are random")?;
    require(other.kek.as_bytes() != made.kek.as_bytes(), "the salt enters the KEK")?;
    let beyond = Some(Costs { memory_kib: u32::MAX, passes: 1, lanes: 1 });
    refused(
        module.create_keyring(SECRET, beyond),
        ErrorCode::KdfOutOfBounds,
        "costs beyond the limits are refused",
    )?;

    let generated = module.generate_master_key()?;
    require(generated.starts_with(b"omck1_") && generated.len() == 54, "a generated master key")?;
    let expanded = module.create_keyring(&generated, None)?;
    let kek = module.derive_kek(&generated, &expanded.keyring)?;
    require(kek.as_bytes() == expanded.kek.as_bytes(), "a generated master key derives its KEK")
}

fn values(module: &Module) -> Result<(), Error> {
    let made = module.create_keyring(SECRET, CHEAP)?;
    let mut keyring = module.unlock(&made.keyring, &made.kek)?;

    for length in [0, 1, 31, 32, 33, 1000, 100_000] {
        let value = vec![0x80; length];
        let sealed = keyring.seal(&STRIPE, None, &value)?;
        require(*keyring.open(&STRIPE, None, &sealed)? == value, "what is sealed opens")?;
    }

    let sealed = keyring.seal(&STRIPE, None, VALUE)?;
    let again = keyring.seal(&STRIPE, None, VALUE)?;
    require(sealed != again, "nonces are fresh")?;
    require(!contains(&sealed, VALUE), "a sealed value does not show its plaintext")?;
    require(
        keyring.seal(&STRIPE, None, b"")?.len() == keyring.seal(&STRIPE, None, b"x")?.len(),
        "lengths are padded",
    )?;

    let same = Identity { scope: br#"{"n":1,"all":true}"#, ..STRIPE };
    require(*keyring.open(&same, None, &sealed)? == VALUE, "equal scopes are one identity")?;
    let others = [
        Identity { name: b"stripe2", ..STRIPE },
        Identity { kind: b"password", ..STRIPE },
        Identity { principal: b"other", ..STRIPE },
        Identity { scope: br#"{"all": false, "n": 1.0}"#, ..STRIPE },
        // A module that joins the fields without their lengths takes these two for STRIPE.
        Identity { name: b"stripeapi", kind: b"_key", ..STRIPE },
        Identity { kind: b"api_keyapp", principal: b"a", ..STRIPE },
    ];
    for other in &others {
        let moved = keyring.open(other, None, &sealed);
        refused(moved, ErrorCode::NotAuthentic, "a value of another identity does not open")?;
    }
    let mut packed = Vec::new();
    STRIPE.pack(&mut packed);
    require(
        *keyring.open_packed(&packed, None, &sealed)? == VALUE,
        "an identity in one list is that identity",
    )?;
    let longer = [packed.as_slice(), &[0]].concat();
    for other in (0..packed.len()).filter_map(|at| packed.get(..at)).chain([longer.as_slice()]) {
        let opened = keyring.open_packed(other, None, &sealed);
        refused(opened, ErrorCode::InvalidArgument, "a list that is cut or goes on is no identity")?;
    }

    let expiring = keyring.seal(&STRIPE, EXPIRES, VALUE)?;
    require(*keyring.open(&STRIPE, EXPIRES, &expiring)? == VALUE, "a value with an expiry opens with it")?;
    for (expires, sealed) in [(None, &expiring), (Some(0), &expiring), (EXPIRES, &sealed), (Some(0), &sealed)]
    {
        let changed = keyring.open(&STRIPE, expires, sealed);
        refused(changed, ErrorCode::NotAuthentic, "a value does not open with another expiry")?;
    }
    let sealed_for_ever = keyring.seal(&STRIPE, Some(u64::MAX), VALUE);
    refused(sealed_for_ever, ErrorCode::InvalidExpiry, "an expiry has a limit")?;

    for at in 0..sealed.len() {
        let mut altered = sealed.clone();
        if let Some(byte) = altered.get_mut(at) {
            *byte ^= 1;
        }
        let opened = keyring.open(&STRIPE, None, &altered);
        not_taken(opened, "an altered value does not open")?;
        let cut = sealed.get(..at).unwrap_or_default();
        not_taken(keyring.open(&STRIPE, None, cut), "a truncated value does not open")?;
    }
    // After all those refusals, each row still gets its own plaintext.
    let second = keyring.seal(&same, None, b"another value")?;
    require(*keyring.open(&STRIPE, None, &sealed)? == VALUE, "a value opens to itself")?;
    require(*keyring.open(&same, None, &second)? == b"another value", "a value opens to itself")?;
    require(keyring.instantiations() == 1, "a refusal is no trap")
}

/// A sealed value tells its suite in its second byte, so that a module can say of another's which one it needs.
fn other_suites(module: &Module) -> Result<(), Error> {
    let suite = module.describe()?.suite.id;
    let made = module.create_keyring(SECRET, CHEAP)?;
    let mut keyring = module.unlock(&made.keyring, &made.kek)?;
    let mut sealed = keyring.seal(&STRIPE, None, VALUE)?;
    require(sealed.get(1) == Some(&suite), "a sealed value tells its suite")?;
    let other = suite ^ 1;
    if let Some(byte) = sealed.get_mut(1) {
        *byte = other;
    }
    match keyring.open(&STRIPE, None, &sealed) {
        Err(Error::Refused(Failure { code: ErrorCode::UnknownSuite, found, .. })) => {
            require(found == u64::from(other), "a value of another suite is told by its number")
        }
        Ok(_) | Err(Error::Refused(_)) => {
            Err(Error::FailedCheck("a value of another suite is unknown-suite"))
        }
        Err(error) => Err(error),
    }
}

fn keys(module: &Module) -> Result<(), Error> {
    let made = module.create_keyring(SECRET, CHEAP)?;
    let mut keyring = module.unlock(&made.keyring, &made.kek)?;
    let sealed = keyring.seal(&STRIPE, None, VALUE)?;
    require(keyring.key_of(&sealed)? == KeyOf::Current, "a fresh value is of the current key")?;
    require(keyring.reseal(&STRIPE, None, &sealed)? == sealed, "a value of the current key stays as it is")?;
    keyring.add_key()?;
    require(keyring.key_of(&sealed)? == KeyOf::Known, "an added key is current")?;
    require(*keyring.open(&STRIPE, None, &sealed)? == VALUE, "an older key still opens")?;
    let again = keyring.reseal(&STRIPE, None, &sealed)?;
    require(keyring.key_of(&again)? == KeyOf::Current, "a value that is sealed again is of the current key")?;
    require(*keyring.open(&STRIPE, None, &again)? == VALUE, "a value that is sealed again opens")?;
    require(
        keyring.reseal(&STRIPE, None, &sealed)? == again,
        "sealing again gives the same bytes each time",
    )?;
    let other = Identity { name: b"other", ..STRIPE };
    refused(
        keyring.reseal(&other, None, &sealed),
        ErrorCode::NotAuthentic,
        "a value is not sealed again for another identity",
    )?;
    let stored = keyring.to_bytes()?;

    let rewrapped = module.rewrap(&stored, &made.kek, b"a new secret", CHEAP)?;
    let kek = module.derive_kek(b"a new secret", &rewrapped.keyring)?;
    let mut renewed = module.unlock(&rewrapped.keyring, &kek)?;
    require(*renewed.open(&STRIPE, None, &sealed)? == VALUE, "a rewrapped keyring opens what was sealed")?;
    refused(
        module.unlock(&rewrapped.keyring, &made.kek),
        ErrorCode::WrongMasterSecret,
        "the KEK of before does not unlock a rewrapped keyring",
    )?;

    let other = module.create_keyring(SECRET, CHEAP)?;
    let theirs = module.unlock(&other.keyring, &other.kek)?.seal(&STRIPE, None, VALUE)?;
    refused(
        renewed.open(&STRIPE, None, &theirs),
        ErrorCode::UnknownKey,
        "the value of another keyring does not open",
    )?;
    require(renewed.key_of(&theirs)? == KeyOf::Unknown, "the key of another keyring is not known")?;
    require(renewed.unite(&other.keyring, &other.kek)? == 1, "another keyring adds its key")?;
    require(*renewed.open(&STRIPE, None, &theirs)? == VALUE, "an added key opens")?;

    for at in 0..stored.len() {
        let mut altered = stored.clone();
        if let Some(byte) = altered.get_mut(at) {
            *byte ^= 1;
        }
        let unlocked = module.unlock(&altered, &made.kek);
        not_taken(unlocked, "an altered keyring does not unlock")?;
    }
    Ok(())
}

fn file(module: &Module) -> Result<(), Error> {
    let made = module.create_keyring(SECRET, CHEAP)?;
    let sealed = module.unlock(&made.keyring, &made.kek)?.seal(&STRIPE, EXPIRES, VALUE)?;
    let mut files = module.files()?;
    let keyring = files.unlock(&made.keyring, &made.kek)?;
    let document = files.create(&made.keyring)?;
    let aws = Identity { name: b"aws", ..STRIPE };
    let live = EntryRef { identity: STRIPE, expires: EXPIRES, sealed: &sealed, deleted: false };
    let deleted = EntryRef { identity: aws, expires: None, sealed: b"", deleted: true };
    files.put(document, &[live, deleted])?;
    let bytes = files.write(document, keyring, 41)?;

    let parsed = files.parse(&bytes)?;
    files.verify(parsed, keyring)?;
    require(files.generation(parsed)? == 42, "the generation is one more")?;
    require(files.keyring_bytes(parsed)? == made.keyring, "a file carries its keyring")?;
    let entries = files.entries(parsed)?;
    let found: Vec<_> = entries.iter().map(|entry| (entry.name.as_slice(), entry.deleted)).collect();
    require(found == [(&b"aws"[..], true), (&b"stripe"[..], false)], "a file holds its records")?;
    require(entries.iter().any(|entry| entry.sealed == sealed), "a file holds sealed values as they are")?;
    require(entries.iter().any(|entry| entry.expires == EXPIRES), "a file holds when a value expires")?;
    let base = files.manifest(parsed)?;
    let side = Side { document: parsed, keyring };
    let same = files.reconcile(&base, side, side, true, Preference::Neither)?;
    require(
        same.conflicts.is_empty() && same.to_ours.is_empty() && same.to_theirs.is_empty(),
        "between equals there is nothing to do",
    )?;
    require(same.wrapping == Wrapping::Same, "equals have one keyring")?;
    require(files.agreed(&base, parsed, parsed, 42)? == base, "equals agree")?;
    let mut rows = Rows::default();
    rows.push(&STRIPE, EXPIRES, &sealed);
    let table = files.table(parsed, &rows)?;
    require(files.entries(table)?.len() == 1, "a table holds its rows and nothing else")?;
    let side = Side { document: table, keyring };
    let file = Side { document: parsed, keyring };
    let same = files.reconcile(&base, side, file, true, Preference::Neither)?;
    require(same.to_ours.is_empty() && same.to_theirs.is_empty(), "a table holds sealed values as they are")?;
    require(files.matches(table, &base)?, "a table holds what was agreed on")?;
    require(files.settled(&base, &base, parsed)? == base, "a settled manifest is the one of both")?;
    changes(&mut files, parsed, &base, &rows, &sealed)?;
    let gone = files.table(parsed, &Rows::default())?;
    let found = files.reconcile(&base, Side { document: gone, keyring }, file, true, Preference::Neither)?;
    require(found.to_theirs.iter().any(|entry| entry.deleted), "what a table lacks was deleted")?;
    let unknown = files.reconcile(&[], Side { document: gone, keyring }, file, true, Preference::Neither)?;
    require(unknown.to_ours.len() == 1, "what was never agreed on is not deleted")?;
    altered_files(&mut files, &bytes, keyring)
}

/// What a host says of changes alone is what it would say of everything.
fn changes(files: &mut Files, file: Document, base: &[u8], rows: &Rows, sealed: &[u8]) -> Result<(), Error> {
    let mut gone = Identities::default();
    gone.push(&STRIPE);
    let same = files.table_changes(file, &gone, rows)?;
    require(files.matches(same, base)?, "a row that is gone and comes again did not change")?;
    let twice = files.table_changes(file, &Identities::default(), rows);
    not_taken(twice, "a table has one row for each credential")?;
    let empty = files.table_changes(file, &gone, &Rows::default())?;
    require(files.entries(empty)?.is_empty(), "what is gone from a table is not in it")?;
    let aws = Identity { name: b"aws", ..STRIPE };
    let live = |identity| EntryRef { identity, expires: EXPIRES, sealed, deleted: false };
    let keyring = files.keyring_bytes(file)?;
    let more = files.create(&keyring)?;
    files.put(more, &[live(aws), live(STRIPE)])?;
    let agreed = files.agreed(base, more, more, 43)?;
    let changes = [&files.agreed_changes(base, more, more, 43)?, base].concat();
    require(files.fold(&changes)? == agreed, "changes and a manifest are the manifest after them")?;
    require(files.matches(more, &changes)?, "changes count wherever a manifest is taken")
}

/// No altered file is believed, wherever it was altered.
fn altered_files(files: &mut Files, bytes: &[u8], keyring: crate::KeyringHandle) -> Result<(), Error> {
    for at in 0..bytes.len() {
        let mut altered = bytes.to_vec();
        if let Some(byte) = altered.get_mut(at) {
            *byte ^= 1;
        }
        let result = files.parse(&altered).and_then(|document| files.verify(document, keyring));
        not_taken(result, "an altered file is refused")?;
    }
    Ok(())
}

fn require(holds: bool, what: &'static str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::FailedCheck(what)) }
}

fn refused<T>(result: Result<T, Error>, code: ErrorCode, what: &'static str) -> Result<(), Error> {
    match result {
        Err(Error::Refused(Failure { code: found, .. })) if found == code => Ok(()),
        Ok(_) | Err(Error::Refused(_)) => Err(Error::FailedCheck(what)),
        Err(error) => Err(error),
    }
}

/// Refused, with whatever code. What the system did not give, or a trap, is told as it is: it says nothing of the module's
/// answer.
fn not_taken<T>(result: Result<T, Error>, what: &'static str) -> Result<(), Error> {
    match result {
        Err(Error::Refused(_)) => Ok(()),
        Ok(_) => Err(Error::FailedCheck(what)),
        Err(error) => Err(error),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_one() {
        let refusal = Error::Refused(Failure { code: ErrorCode::Malformed, line: 0, found: 0 });
        let short = Error::OutOfMemory { export: "encryption.keyring.unlock", limit_mib: 8 };
        let taken = Error::FailedCheck("it is refused");
        assert_eq!(not_taken::<()>(Err(refusal.clone()), "it is refused"), Ok(()));
        assert_eq!(not_taken(Ok(()), "it is refused"), Err(taken.clone()));
        assert_eq!(not_taken::<()>(Err(short.clone()), "it is refused"), Err(short.clone()));
        assert_eq!(refused::<()>(Err(refusal.clone()), ErrorCode::Malformed, "it is refused"), Ok(()));
        assert_eq!(refused::<()>(Err(refusal), ErrorCode::NotAuthentic, "it is refused"), Err(taken.clone()));
        assert_eq!(refused(Ok(()), ErrorCode::Malformed, "it is refused"), Err(taken));
        assert_eq!(refused::<()>(Err(short.clone()), ErrorCode::Malformed, "it is refused"), Err(short));
    }
}
