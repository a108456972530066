//! One keyring for file and table.
//!
//! A file carries the keyring that its records were sealed with. Where it differs from the table's, both become one:
//! the keys are united, so that every sealed value stays as it is on either side.

use omni_credentials_host::{self as host, Document, Files, KeyringHandle, Module};

use super::file_error;
use crate::error::Error;
use crate::instance::Instance;

/// Makes sure that the table's keyring opens all that the file holds, and gives it unlocked for work on documents.
///
/// A copy without a keyring takes the file's. Otherwise, a file with keys that the copy does not have leads: its
/// keyring, with the copy's keys added, becomes the copy's, so that several databases around one file arrive at the same
/// bytes. A file without news keeps the copy's keyring, which may have been rotated since.
pub(super) fn unite(
    store: &mut Instance,
    module: &Module,
    files: &mut Files,
    filename: &str,
    file: Document,
) -> Result<KeyringHandle, Error> {
    let theirs = files.keyring_bytes(file).map_err(|error| file_error(filename, error))?;
    match store.current().map(|current| current.bytes.clone()) {
        None => adopt(store, module, filename, &theirs)?,
        Some(ours) if ours == theirs => {}
        Some(ours) => {
            let ours_unlocked = unlock_current(store, files, filename)?;
            // The seal tells which key the file was written with. If it is one of ours, the file was written by us
            // or for us, and a changed master secret is no obstacle.
            let derived = derive(store, module, filename, &theirs);
            let their_kek = match derived {
                Ok(kek) => kek,
                Err(_) if files.verify(file, ours_unlocked).is_ok() => return Ok(ours_unlocked),
                Err(error) => return Err(error),
            };
            let our_kek = store.current_kek()?;
            let mut mine = module.unlock(&ours, &our_kek).map_err(|error| file_error(filename, error))?;
            let news = mine.absorb(&theirs, &their_kek).map_err(|error| file_error(filename, error))?;
            if news > 0 {
                let mut united =
                    module.unlock(&theirs, &their_kek).map_err(|error| file_error(filename, error))?;
                united.absorb(&ours, &our_kek).map_err(|error| file_error(filename, error))?;
                let bytes = united.to_bytes().map_err(|error| file_error(filename, error))?;
                store.replace_current(&bytes, their_kek)?;
            }
        }
    }
    unlock_current(store, files, filename)
}

/// The copy's current keyring, unlocked for work on documents.
pub(super) fn unlock_current(
    store: &mut Instance,
    files: &mut Files,
    filename: &str,
) -> Result<KeyringHandle, Error> {
    let kek = store.current_kek()?;
    let bytes = store.current().map(|current| current.bytes.clone()).unwrap_or_default();
    files.unlock(&bytes, &kek).map_err(|error| file_error(filename, error))
}

fn adopt(store: &mut Instance, module: &Module, filename: &str, theirs: &[u8]) -> Result<(), Error> {
    if !store.holds_nothing()? {
        return Err(Error::KeyringMissing { schema: store.schema_name() });
    }
    let kek = derive(store, module, filename, theirs)?;
    let digest = *module.digest();
    store.store_keyring(&digest, theirs, kek)
}

fn derive(store: &Instance, module: &Module, filename: &str, keyring: &[u8]) -> Result<host::Kek, Error> {
    store.derive(module, keyring, &format!("file store {filename}")).map_err(|error| match error {
        Error::KeyringTampered { .. } => {
            Error::FileInvalid { filename: filename.to_owned(), reason: "its keyring was altered".to_owned() }
        }
        other => other,
    })
}
