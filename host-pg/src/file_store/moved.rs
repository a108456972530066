//! Files from before the instance moved to another keyring (`use_module`): such a file is sealed with keys that only the
//! superseded keyring has, perhaps by a module whose format of sealed values is another one. The file carries its
//! keyring, so that it can be read after `prune_keyrings`, too, as long as its module is installed.
//!
//! It becomes a document of the current keyring: each record is opened as it was sealed and sealed again. A record whose
//! value is that of the table's row gets the row's own bytes, and those are what both sides have agreed on. The rest
//! merges as if file and table met for the first time: what only one side has stays, and what differs is a conflict,
//! unless the file is the one that the instance last saw: then it has nothing new to say.
//! That needs nothing but the file itself, so a crash between a commit and its file is repaired in the same way.

use std::collections::HashMap;

use omni_credentials_host::{
    self as host, Digest, Document, Entry, EntryRef, ErrorCode, Files, Identity, Module,
};

use super::agreed::Agreed;
use super::file_error;
use super::registry::Store;
use super::table::Rows;
use crate::error::Error;
use crate::instance::{Instance, OpenError};
use crate::keys::modules;

/// A file as a document of the current module.
pub(super) struct Theirs {
    pub(super) document: Document,
    /// Whether it was sealed again. Then it has no seal of its own to verify, and must be written.
    pub(super) moved: bool,
}

/// Parses a file, whichever keyring of the instance it was written with. `store` learns what both sides agree on.
pub(super) fn parse(
    instance: &mut Instance,
    module: &Module,
    files: &mut Files,
    store: &mut Store,
    bytes: &[u8],
) -> Result<Theirs, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);
    let superseded = instance.superseded();
    let parsed = match files.parse(bytes) {
        Ok(document) => {
            let keyring = files.keyring_bytes(document).map_err(fault)?;
            if !superseded.iter().any(|before| before.bytes == keyring) {
                return Ok(Theirs { document, moved: false });
            }
            None
        }
        Err(error) if may_be_of_another_module(&error) => Some(error),
        Err(error) => return Err(fault(error)),
    };
    // Newest first; a module that several keyrings have is asked once.
    let mut tried = if parsed.is_some() { vec![*module.digest()] } else { Vec::new() };
    let before = superseded.iter().map(|before| before.module);
    let mut closed = None;
    for digest in before.chain(modules::all_installed()?) {
        if tried.contains(&digest) {
            continue;
        }
        tried.push(digest);
        let old = match modules::module(&digest) {
            Ok(module) => module,
            // Another server made a keyring with a module that is not here. The file need not be of that one.
            Err(error) if error.is_of_keyring() => {
                closed.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut old_files = old.files().map_err(fault)?;
        if let Ok(document) = old_files.parse(bytes) {
            let settled = store.file_digest.as_deref() == Some(Digest::of(bytes).as_bytes());
            let document = seal_again(instance, &old, &mut old_files, document, files, store, settled)?;
            return Ok(Theirs { document, moved: true });
        }
        drop(old_files);
    }
    match (parsed, closed) {
        (Some(error), None) => Err(fault(error)),
        (_, Some(error)) => Err(error),
        (None, None) => {
            Err(Error::FileInvalid { filename, reason: format!("module {} cannot read it", module.digest()) })
        }
    }
}

/// Whether a module that refuses a file so may have met another one's: a suite or a version of its own formats that it
/// does not know, or a format that is none of its own.
pub(super) fn may_be_of_another_module(error: &host::Error) -> bool {
    use ErrorCode::{NotACredentialsFile, UnknownSuite, UnknownVersion};
    let host::Error::Refused(failure) = error else { return false };
    matches!(failure.code, UnknownSuite | UnknownVersion | NotACredentialsFile)
}

fn seal_again(
    instance: &mut Instance,
    old: &Module,
    old_files: &mut Files,
    document: Document,
    files: &mut Files,
    store: &mut Store,
    settled: bool,
) -> Result<Document, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);

    // Believed only if its seal is right.
    let keyring = old_files.keyring_bytes(document).map_err(fault)?;
    let kek = instance.derive(old, &keyring, &format!("file store {filename}"))?;
    let unlocked = old_files.unlock(&keyring, &kek).map_err(fault)?;
    old_files.verify(document, unlocked).map_err(fault)?;
    let generation = old_files.generation(document).map_err(fault)?;
    let records = old_files.entries(document).map_err(fault)?;
    let mut keys = old.unlock(&keyring, &kek).map_err(fault)?;

    let current = instance.current_bytes()?;
    // By way of a document, so that scopes are canonical on both sides.
    let empty = files.create(&current).map_err(fault)?;
    let ours = files.table(empty, &Rows::read(instance, &filename)?.packed).map_err(fault)?;
    let rows: HashMap<_, _> = files
        .entries(ours)
        .map_err(fault)?
        .into_iter()
        .map(|row| (key(&row.identity()), (row.expires, row.sealed)))
        .collect();
    let mut sealed_again = Vec::with_capacity(records.len());
    let mut agreed = Vec::new();
    for mut record in records {
        if !record.deleted {
            let identity = record.identity();
            let value = keys.open(&identity, record.expires, &record.sealed).map_err(fault)?;
            let row = rows.get(&key(&identity));
            let same = match row.map(|(expires, sealed)| instance.open(&identity, *expires, sealed)) {
                Some(Ok(held)) => *held == *value && row.is_some_and(|row| row.0 == record.expires),
                Some(Err(OpenError::Store(error) | OpenError::Closed(error))) => return Err(error),
                Some(Err(OpenError::Value(_))) | None => false,
            };
            record.sealed = match row {
                Some((_, sealed)) if same => sealed.clone(),
                _ => instance.seal(&identity, record.expires, &value)?,
            };
            if same || (settled && row.is_some()) {
                agreed.push(record.clone());
            }
        }
        sealed_again.push(record);
    }
    store.generation = store.generation.max(i64::try_from(generation).ok());
    store.base = {
        let base = files.create(&current).map_err(fault)?;
        files.put(base, &refs(&agreed)).map_err(fault)?;
        Agreed::on(files.agreed(&[], base, base, generation).map_err(fault)?)
    };
    let moved = files.create(&current).map_err(fault)?;
    files.put(moved, &refs(&sealed_again)).map_err(fault)?;
    Ok(moved)
}

/// An identity as the key of a map.
pub(super) fn key(identity: &Identity<'_>) -> [Vec<u8>; 4] {
    [identity.name, identity.kind, identity.principal, identity.scope].map(<[u8]>::to_vec)
}

fn refs(entries: &[Entry]) -> Vec<EntryRef<'_>> {
    entries.iter().map(Entry::as_ref).collect()
}
