//! The step that export and import share: file and table become the two sides of a reconciliation.
//!
//! Which side is right, and what becomes of the two keyrings, is the module's decision (FORMAT.md, section 8). Here both
//! sides are put together, and the keyring that both have afterwards becomes the instance's.

use omni_credentials_host::{
    self as host, Digest, Document, Files, Kek, KeyringHandle, Module, Preference, Reconciled, Side, Wrapping,
};

use super::kept::Kept;
use super::published::Note;
use super::registry::{FileState, Store};
use super::table::{Rows, Seen};
use super::{file_error, limit_error, moved};
use crate::error::Error;
use crate::instance::{Instance, Union};
use crate::keys::stored_keyring::StoredKeyring;

/// Both sides, and what they are to hold.
pub(super) struct Sides {
    pub(super) files: Files,
    /// The table's rows.
    pub(super) ours: Document,
    /// The file, as it was.
    pub(super) theirs: Document,
    /// The file's generation.
    pub(super) generation: u64,
    pub(super) seen: FileState,
    /// Whether the file was sealed again for the instance's keyring (see [`moved`]).
    pub(super) moved: bool,
    /// Whether the file has the keyring that both are to have.
    pub(super) same_keyring: bool,
    /// The keyrings of both sides, unlocked.
    pub(super) keyrings: [KeyringHandle; 2],
    /// The rows of the table; `None` where one cannot become a record.
    pub(super) rows: Option<Seen>,
    /// How many records of the file changed since it was parsed.
    pub(super) changed: usize,
    pub(super) found: Reconciled,
}

/// The file as a document.
struct Opened {
    files: Files,
    document: Document,
    seen: FileState,
    moved: bool,
    /// Where it was kept: the rows that are its live records, and how many records changed since it was parsed.
    kept: Option<(Seen, usize)>,
}

/// Reconciles the table with `file`. `store` learns what both last agreed on. With `keep`, the keyring of both becomes the
/// instance's. `kept` saves work where it is of this very file.
pub(super) fn reconcile(
    instance: &mut Instance,
    store: &mut Store,
    note: &Note,
    file: Option<&[u8]>,
    kept: Option<Kept>,
    prefer: Preference,
    keep: bool,
) -> Result<Sides, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);
    let schema = instance.schema;
    let over = |error: host::Error| limit_error(&filename, schema, error);
    // 1. The file as a document, and what it says of the last agreement.
    let module = instance.current_module()?;
    let kept = match kept.filter(|kept| file == Some(&kept.file)) {
        Some(kept) => opened_before(instance, &module, store, note, kept)?,
        None => None,
    };
    let opened = match kept {
        Some(opened) => opened,
        None => open(instance, &module, store, note, file)?,
    };
    let Opened { mut files, document: theirs, seen, moved, kept } = opened;
    // 2. The keyrings of both sides; the seal of a file that someone else wrote.
    let carried = files.keyring_bytes(theirs).map_err(fault)?;
    let mut keys = Keys::unlock(instance, &module, &mut files, &filename, theirs, &carried)?;
    // The file that this instance wrote or checked, byte for byte, needs no second check.
    if file.is_some() && !moved && seen != FileState::Known {
        files.verify(theirs, keys.theirs).map_err(fault)?;
    }
    let generation = files.generation(theirs).map_err(fault)?;
    if seen == FileState::Foreign && !moved {
        warn_if_rolled_back(store, generation, prefer);
    }
    // 3. The rows of the table, and the module's decision.
    let (rows, ours, changed) = match kept {
        Some((before, changed)) => {
            let rows = Rows::read_beside(instance, &filename, before)?;
            match files.table_changes(theirs, &rows.gone, &rows.packed) {
                Ok(ours) => (rows, ours, changed),
                // What was kept says something else than the table did: then it is of no use.
                Err(host::Error::Refused(failure)) if failure.code == host::ErrorCode::InvalidArgument => {
                    return reconcile(instance, store, note, file, None, prefer, keep);
                }
                Err(error) => return Err(over(error)),
            }
        }
        None => {
            let rows = Rows::read(instance, &filename)?;
            let ours = files.table(theirs, &rows.packed).map_err(&over)?;
            (rows, ours, 0)
        }
    };
    let keyrings = [keys.ours, keys.theirs];
    let (our_side, their_side) =
        (Side { document: ours, keyring: keys.ours }, Side { document: theirs, keyring: keys.theirs });
    let found = files
        .reconcile(&store.base.to_bytes(), our_side, their_side, rows.complete, prefer)
        .map_err(|error| match error {
            host::Error::Refused(failure) if failure.code == host::ErrorCode::WrongMasterSecret => {
                keys.refused.take().unwrap_or_else(|| fault(error))
            }
            other => limit_error(&filename, instance.schema, other),
        })?;
    // 4. The keyring of both becomes the instance's.
    let keyring = files.to_bytes(found.keyring).map_err(fault)?;
    if keep && instance.current().is_none_or(|current| current.bytes != keyring) {
        // As the module decided it.
        let ours_lead = match found.wrapping {
            Wrapping::Same | Wrapping::Ours => true,
            Wrapping::Theirs => false,
            Wrapping::Conflict => prefer == Preference::Ours,
        };
        keys.keep(instance, &module, &keyring, ours_lead)?;
    }
    let same_keyring = carried == keyring;
    let rows = rows.complete.then_some(rows.seen);
    Ok(Sides { files, ours, theirs, generation, seen, moved, same_keyring, keyrings, rows, changed, found })
}

/// Parses the file.
fn open(
    instance: &mut Instance,
    module: &Module,
    store: &mut Store,
    note: &Note,
    file: Option<&[u8]>,
) -> Result<Opened, Error> {
    let filename = store.filename.clone();
    let fault = |error: host::Error| file_error(&filename, error);
    let mut files = module.files().map_err(fault)?;
    let (document, seen, moved) = match file {
        Some(bytes) => {
            let seen = store.resolve_state(note, &Digest::of(bytes), &mut files, bytes)?;
            let moved::Theirs { document, moved } = moved::parse(instance, module, &mut files, store, bytes)?;
            (document, seen, moved)
        }
        None => {
            let keyring = instance.current_bytes()?;
            (files.create(&keyring).map_err(fault)?, FileState::Behind, false)
        }
    };
    Ok(Opened { files, document, seen, moved, kept: None })
}

/// The file that was kept, unless module, keyring or table are others now, or it is not the file that this instance knows.
fn opened_before(
    instance: &Instance,
    module: &Module,
    store: &mut Store,
    note: &Note,
    kept: Kept,
) -> Result<Option<Opened>, Error> {
    let Kept { file, digest, module: kept_module, keyring, mut files, document, changed, rows, .. } = kept;
    let is_current = instance.current().is_some_and(|current| current.bytes == keyring)
        && !instance.superseded().iter().any(|before| before.bytes == keyring);
    if !is_current || kept_module != *module.digest() || !rows.holds(instance)? {
        return Ok(None);
    }
    let seen = store.resolve_state(note, &digest, &mut files, &file)?;
    let known = seen == FileState::Known;
    Ok(known.then_some(Opened { files, document, seen, moved: false, kept: Some((rows, changed)) }))
}

/// The keyrings of both sides, unlocked, and their KEKs.
struct Keys {
    ours: KeyringHandle,
    theirs: KeyringHandle,
    our_kek: Option<Kek>,
    their_kek: Option<Kek>,
    /// The keyrings of the instance whose keys ours has.
    of: Vec<StoredKeyring>,
    /// Why the file's keyring could not be unlocked, where the instance's keys do for its seal.
    refused: Option<Error>,
}

impl Keys {
    fn unlock(
        instance: &mut Instance,
        module: &Module,
        files: &mut Files,
        filename: &str,
        file: Document,
        carried: &[u8],
    ) -> Result<Self, Error> {
        let fault = |error: host::Error| file_error(filename, error);
        if instance.current().is_none() {
            // An instance without a keyring takes the file's, unless it lost its own.
            if !instance.holds_nothing()? {
                return Err(Error::KeyringMissing { schema: instance.schema_name() });
            }
            let kek = derive(instance, module, filename, carried)?;
            let theirs = files.unlock(carried, &kek).map_err(fault)?;
            let (ours, their_kek) = (theirs, Some(kek));
            return Ok(Self { ours, theirs, our_kek: None, their_kek, of: Vec::new(), refused: None });
        }
        let Union { bytes: current, kek: our_kek, of } = instance.union()?;
        let ours = files.unlock(&current, &our_kek).map_err(fault)?;
        // Until the file's own are unlocked.
        let keys = Self { ours, theirs: ours, our_kek: Some(our_kek), their_kek: None, of, refused: None };
        if current == carried {
            return Ok(keys);
        }
        match derive(instance, module, filename, carried) {
            Ok(kek) => {
                let theirs = files.unlock(carried, &kek).map_err(fault)?;
                Ok(Self { theirs, their_kek: Some(kek), ..keys })
            }
            // The seal tells which key the file was written with. If it is one of ours, the file was written by us or
            // for us, and a changed master secret need not be an obstacle: that is for the module to say.
            Err(error) if files.verify(file, ours).is_ok() => Ok(Self { refused: Some(error), ..keys }),
            Err(error) => Err(error),
        }
    }

    /// Makes the keyring of both the instance's; it has the wrapping of ours or of theirs.
    fn keep(
        self,
        instance: &mut Instance,
        module: &Module,
        keyring: &[u8],
        ours_lead: bool,
    ) -> Result<(), Error> {
        // A side without a KEK has the other's wrapping, or came with its keyring.
        let kek = if ours_lead { self.our_kek.or(self.their_kek) } else { self.their_kek.or(self.our_kek) };
        let kek = kek.ok_or_else(|| Error::KeyringMissing { schema: instance.schema_name() })?;
        match instance.current() {
            None => instance.store_keyring(module.digest(), keyring, kek),
            Some(_) => instance.replace(&self.of, keyring, kek),
        }
    }
}

/// Tells when the file is older than what was last seen of it.
fn warn_if_rolled_back(store: &Store, generation: u64, prefer: Preference) {
    let known = store.known_generation();
    if generation < known && prefer != Preference::Theirs {
        pgrx::warning!(
            "file store {} went back from generation {known} to {generation}: an older version of it was put in place. What it marks as deleted is not deleted here",
            store.filename
        );
    }
}

fn derive(instance: &Instance, module: &Module, filename: &str, keyring: &[u8]) -> Result<Kek, Error> {
    instance.derive(module, keyring, &format!("file store {filename}")).map_err(|error| match error {
        Error::KeyringTampered { .. } => {
            Error::FileInvalid { filename: filename.to_owned(), reason: "its keyring was altered".to_owned() }
        }
        other => other,
    })
}
