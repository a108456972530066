//! Which files keep a superseded keyring from being pruned.

use omni_credentials_host as host;

use super::registry::Registry;
use super::{check_rights_of, file_error, moved, read};
use crate::error::Error;
use crate::instance::{Handle, Instance};
use crate::keys::modules;
use crate::postgres::catalog;

/// Fails where a registered file is still sealed with a superseded keyring of the instance, as after a crash between the
/// move and the file, or where that cannot be told because the file is not there. Keeps other sessions from
/// synchronising the files until the end of the transaction.
pub(crate) fn must_not_need_superseded(handle: &Handle) -> Result<(), Error> {
    let instance = handle.borrow();
    let registry = Registry::lock(instance.schema)?;
    for store in registry.all()? {
        let filename = store.filename;
        // A role that owns the table can put any name into it.
        check_rights_of(registry.owner(), &filename)?;
        let needed = match read(&filename)? {
            Some(file) => needs_superseded(&instance, &filename, &file)?,
            None => true,
        };
        if needed {
            return Err(Error::KeyringSealsFile { schema: catalog::schema_name(instance.schema), filename });
        }
    }
    Ok(())
}

fn needs_superseded(instance: &Instance, filename: &str, file: &[u8]) -> Result<bool, Error> {
    let fault = |error: host::Error| file_error(filename, error);
    let superseded = instance.superseded();
    let mut files = instance.current_module()?.files().map_err(fault)?;
    match files.parse(file) {
        Ok(document) => {
            let keyring = files.keyring_bytes(document).map_err(fault)?;
            Ok(superseded.iter().any(|before| before.bytes == keyring))
        }
        Err(error) if moved::may_be_of_another_module(&error) => {
            let mut closed = None;
            for before in &superseded {
                match modules::module(&before.module) {
                    Ok(module) if module.files().map_err(fault)?.parse(file).is_ok() => return Ok(true),
                    Ok(_) => {}
                    Err(error) if error.is_of_keyring() => {
                        closed.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(closed.unwrap_or_else(|| fault(error)))
        }
        Err(error) => Err(fault(error)),
    }
}
