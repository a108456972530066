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
/// With `keep` false the instance's keyring stays as it is, and the unlocked one is for this work only.
///
/// An instance without a keyring takes the file's. Otherwise, a file with keys that the instance does not have leads: its
/// keyring, with the instance's keys added, becomes the instance's, so that several databases around one file arrive at the same
/// bytes. A file without news keeps the instance's keyring, which may have been rotated since.
pub(super) fn join(
    store: &mut Instance,
    module: &Module,
    files: &mut Files,
    filename: &str,
    file: Document,
    keep: bool,
) -> Result<KeyringHandle, Error> {
    let fault = |error: host::Error| file_error(filename, error);
    let theirs = files.keyring_bytes(file).map_err(fault)?;
    match store.current().map(|current| current.bytes.clone()) {
        None => {
            let kek = adoptable(store, module, filename, &theirs)?;
            if !keep {
                return files.unlock(&theirs, &kek).map_err(fault);
            }
            store.store_keyring(module.digest(), &theirs, kek)?;
        }
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
            let mut mine = module.unlock(&ours, &our_kek).map_err(fault)?;
            let news = mine.absorb(&theirs, &their_kek).map_err(fault)?;
            if news > 0 {
                let mut united = module.unlock(&theirs, &their_kek).map_err(fault)?;
                united.absorb(&ours, &our_kek).map_err(fault)?;
                let bytes = united.to_bytes().map_err(fault)?;
                if !keep {
                    return files.unlock(&bytes, &their_kek).map_err(fault);
                }
                store.replace_current(&bytes, their_kek)?;
            }
        }
    }
    unlock_current(store, files, filename)
}

/// The instance's current keyring, unlocked for work on documents.
pub(super) fn unlock_current(
    store: &mut Instance,
    files: &mut Files,
    filename: &str,
) -> Result<KeyringHandle, Error> {
    let kek = store.current_kek()?;
    let bytes = store.current_bytes()?;
    files.unlock(&bytes, &kek).map_err(|error| file_error(filename, error))
}

/// The KEK of a keyring that an instance without one may take.
fn adoptable(store: &Instance, module: &Module, filename: &str, theirs: &[u8]) -> Result<host::Kek, Error> {
    if !store.holds_nothing()? {
        return Err(Error::KeyringMissing { schema: store.schema_name() });
    }
    derive(store, module, filename, theirs)
}

fn derive(store: &Instance, module: &Module, filename: &str, keyring: &[u8]) -> Result<host::Kek, Error> {
    store.derive(module, keyring, &format!("file store {filename}")).map_err(|error| match error {
        Error::KeyringTampered { .. } => {
            Error::FileInvalid { filename: filename.to_owned(), reason: "its keyring was altered".to_owned() }
        }
        other => other,
    })
}
