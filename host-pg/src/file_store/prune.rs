//! Which files keep a superseded keyring from being pruned.

use omni_credentials_host as host;

use super::registry::Registry;
use super::{file_error, read};
use crate::error::Error;
use crate::heap;
use crate::instance::Handle;

/// Fails where a registered file is still sealed with a superseded keyring of the copy, as after a crash between the
/// move and the file, or where that cannot be told because the file is not there. Keeps other sessions from
/// synchronising the files until the end of the transaction.
pub(crate) fn must_not_need_superseded(handle: &Handle) -> Result<(), Error> {
    let instance = handle.borrow();
    let registry = Registry::lock(instance.schema)?;
    for store in registry.all()? {
        let filename = store.filename;
        let needed = || Error::KeyringSealsFile {
            schema: heap::schema_name(instance.schema),
            filename: filename.clone(),
        };
        let file = read(&filename)?.ok_or_else(needed)?;
        let fault = |error: host::Error| match error {
            host::Error::Refused(failure) if failure.code == host::ErrorCode::UnknownSuite => needed(),
            other => file_error(&filename, other),
        };
        let mut files = instance.current_module()?.files().map_err(fault)?;
        let document = files.parse(&file).map_err(fault)?;
        let keyring = files.keyring_bytes(document).map_err(fault)?;
        if instance.superseded().iter().any(|before| before.bytes == keyring) {
            return Err(needed());
        }
    }
    Ok(())
}
