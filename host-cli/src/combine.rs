//! Merging two versions of a file.

use std::path::Path;

use omni_credentials_host::{Document, Entry, Error as HostError, ErrorCode, Files, Keyring, Preference};

use crate::context::Context;
use crate::error::Error;
use crate::identity;

/// A merged file, and what it took over.
pub(crate) struct Combined {
    /// The file, sealed.
    pub(crate) bytes: Vec<u8>,
    /// What ours did not have.
    pub(crate) to_ours: Vec<Entry>,
    /// What theirs did not have.
    pub(crate) to_theirs: Vec<Entry>,
    /// Changed on both sides; settled as preferred.
    pub(crate) conflicts: Vec<String>,
}

/// Merges two files whose common ancestor is `base`; an ancestor that is no credentials file counts as empty.
/// `path` is for messages. With conflicts and no preference it is an error that names them.
pub(crate) fn combine(
    context: &Context,
    path: &Path,
    base: &[u8],
    ours: &[u8],
    theirs: &[u8],
    prefer: Preference,
) -> Result<Combined, Error> {
    let module = context.module()?;
    let mut files = module.files()?;
    let of_file = Error::of_file(path);
    let ours = files.parse(ours).map_err(&of_file)?;
    let theirs = files.parse(theirs).map_err(&of_file)?;
    let base = match files.parse(base) {
        Ok(base) => base,
        Err(HostError::Refused(_)) => {
            let keyring = files.keyring_bytes(ours)?;
            files.create(&keyring)?
        }
        Err(error) => return Err(error.into()),
    };
    let base_keyring = files.keyring_bytes(base)?;

    let (our_keyring, their_keyring) = (files.keyring_bytes(ours)?, files.keyring_bytes(theirs)?);
    // Who changed the keyring since the ancestor has the newer one.
    let (newer, other) = if their_keyring == base_keyring {
        (our_keyring, their_keyring)
    } else {
        (their_keyring, our_keyring)
    };
    let kek = context.kek(path, &newer)?;
    let mut keyring = newer;
    if other != keyring {
        let mut unlocked = module.unlock(&keyring, &kek).map_err(&of_file)?;
        match context.kek(path, &other) {
            Ok(other_kek) => {
                if unlocked.absorb(&other, &other_kek).map_err(&of_file)? > 0 {
                    keyring = unlocked.to_bytes()?;
                }
            }
            // Under the master secret of before a change: as long as it has no keys of its own, all is well,
            // and otherwise the seal of that side will not be known below.
            Err(Error::WrongSecret { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    context.remember(&keyring, &kek);
    let handle = files.unlock(&keyring, &kek).map_err(&of_file)?;
    for side in [ours, theirs] {
        files.verify(side, handle).map_err(|error| match error {
            HostError::Refused(failure) if failure.code == ErrorCode::UnknownKey => {
                Error::WrongSecret { path: path.to_owned() }
            }
            other => of_file(other),
        })?;
    }

    let mut unlocked = module.unlock(&keyring, &kek).map_err(&of_file)?;
    discount_rotation(&mut files, &mut unlocked, base, ours, theirs)?;
    let manifest = files.manifest(base)?;
    let merged = files.merge(&manifest, ours, theirs, false, handle, prefer).map_err(&of_file)?;
    let conflicts: Vec<_> = merged.conflicts.iter().map(|it| identity::shown(&it.as_ref())).collect();
    if !conflicts.is_empty() && prefer == Preference::Neither {
        return Err(Error::Conflict(conflicts));
    }
    files.set_keyring(merged.document, &keyring)?;
    let generation = files.generation(ours)?.max(files.generation(theirs)?);
    let bytes = files.write(merged.document, handle, generation).map_err(&of_file)?;
    Ok(Combined { bytes, to_ours: merged.to_ours, to_theirs: merged.to_theirs, conflicts })
}

/// A merge compares sealed values with those of the ancestor, so after a rotation every value looks changed. Where a
/// side only encrypted a value anew, this makes its sealed value the ancestor's.
fn discount_rotation(
    files: &mut Files,
    keyring: &mut Keyring,
    base: Document,
    ours: Document,
    theirs: Document,
) -> Result<(), Error> {
    let (ours, theirs) = (files.entries(ours)?, files.entries(theirs)?);
    let find = |side: &[Entry], entry: &Entry| {
        let key = |it: &Entry| (it.name.clone(), it.kind.clone(), it.principal.clone(), it.scope.clone());
        let at = side.binary_search_by(|other| key(other).cmp(&key(entry))).ok()?;
        side.get(at).filter(|found| !found.deleted && found.sealed != entry.sealed).cloned()
    };
    let mut anew = Vec::new();
    for entry in files.entries(base)?.into_iter().filter(|entry| !entry.deleted) {
        let (Some(ours), Some(theirs)) = (find(&ours, &entry), find(&theirs, &entry)) else { continue };
        let mut open = |entry: &Entry| keyring.open(&entry.identity(), &entry.sealed).ok();
        let Some(before) = open(&entry) else { continue };
        if open(&ours).is_some_and(|value| value == before) {
            anew.push(ours);
        } else if open(&theirs).is_some_and(|value| value == before) {
            anew.push(theirs);
        }
    }
    let anew: Vec<_> = anew.iter().map(Entry::as_ref).collect();
    Ok(files.put(base, &anew)?)
}
