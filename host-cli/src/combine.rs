//! Merging two versions of a file: what to do is the module's decision (FORMAT.md, section 8).

use std::path::Path;

use omni_credentials_host::{
    Conflict, Document, Entry, Error as HostError, ErrorCode, Files, KeyringHandle, Preference, Side,
    Wrapping,
};

use crate::context::Context;
use crate::error::Error;
use crate::{hints, identity};

/// A merged file, and what it took over.
pub(crate) struct Combined {
    /// The file, sealed.
    pub(crate) bytes: Vec<u8>,
    /// What ours did not have.
    pub(crate) to_ours: Vec<Entry>,
    /// What theirs did not have.
    pub(crate) to_theirs: Vec<Entry>,
    /// Changed on both sides, and decided as preferred.
    pub(crate) conflicts: Vec<String>,
    /// Whose master secret the file has, where the sides have different ones.
    pub(crate) wrapping: Wrapping,
}

/// Merges two files whose common ancestor is `base`; of an ancestor that is no credentials file nothing is known. `path` is
/// for messages. With conflicts and no preference it is an error that names them.
pub(crate) fn combine(
    context: &Context,
    path: &Path,
    base: &[u8],
    ours: &[u8],
    theirs: &[u8],
    prefer: Preference,
) -> Result<Combined, Error> {
    let mut files = context.module()?.files()?;
    let of_file = Error::of_file(path);
    let ours = files.parse(ours).map_err(&of_file)?;
    let theirs = files.parse(theirs).map_err(&of_file)?;
    let ancestor = match files.parse(base) {
        Ok(base) => files.manifest(base)?,
        Err(HostError::Refused(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let ours_unlocked = unlock(context, path, &mut files, ours)?;
    let theirs_unlocked = unlock(context, path, &mut files, theirs)?;
    // Where the secret of one side is not at hand, the other side's keyring may do.
    let wrong_secret = || Error::WrongSecret { path: path.to_owned() };
    let our_keyring = ours_unlocked.or(theirs_unlocked).ok_or_else(wrong_secret)?;
    let their_keyring = theirs_unlocked.unwrap_or(our_keyring);
    let (ours, theirs) =
        (Side { document: ours, keyring: our_keyring }, Side { document: theirs, keyring: their_keyring });
    let locked = |error| match error {
        HostError::Refused(failure)
            if matches!(failure.code, ErrorCode::UnknownKey | ErrorCode::WrongMasterSecret) =>
        {
            wrong_secret()
        }
        other => of_file(other),
    };
    for side in [ours, theirs] {
        files.verify(side.document, side.keyring).map_err(locked)?;
    }
    let found = files.reconcile(&ancestor, ours, theirs, false, prefer).map_err(locked)?;
    let one_secret = ours_unlocked.is_some() && theirs_unlocked.is_some();
    if prefer == Preference::Neither {
        if found.wrapping == Wrapping::Conflict && !one_secret {
            return Err(Error::SecretConflict { path: path.to_owned() });
        }
        if !found.conflicts.is_empty() {
            return Err(Error::Conflict(found.conflicts.iter().map(shown).collect()));
        }
    }
    let bytes = files.write(found.document, found.keyring, 0).map_err(&of_file)?;
    Ok(Combined {
        bytes,
        to_ours: found.to_ours,
        to_theirs: found.to_theirs,
        conflicts: found.conflicts.iter().map(shown).collect(),
        wrapping: found.wrapping,
    })
}

/// The keyring of a document, unlocked; `None` where it is under another master secret than the one at hand.
fn unlock(
    context: &Context,
    path: &Path,
    files: &mut Files,
    document: Document,
) -> Result<Option<KeyringHandle>, Error> {
    let keyring = files.keyring_bytes(document)?;
    match context.kek(path, &keyring) {
        Ok(kek) => Ok(Some(files.unlock(&keyring, &kek).map_err(Error::of_file(path))?)),
        Err(Error::WrongSecret { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A conflict, for people.
fn shown(conflict: &Conflict) -> String {
    let reason = hints::conflict(conflict.reason);
    format!("{} ({reason})", identity::shown(&conflict.identity.as_ref()))
}
