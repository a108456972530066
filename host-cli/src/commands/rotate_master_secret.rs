use std::path::Path;

use crate::context::Context;
use crate::error::Error;
use crate::output;
use crate::store::Store;
use crate::{secret, store, terminal};

pub(crate) fn run(context: &Context, variable: &str, key_file: Option<&Path>) -> Result<(), Error> {
    // The old secret first: a new one is of no use without it.
    let before = Store::read(context)?.unlock(context)?.store.keyring_bytes;
    let new = match key_file {
        Some(path) => {
            let key = context.module()?.generate_master_key()?;
            secret::keep(path, &context.file, &key)?;
            key
        }
        None => secret::new(variable)?,
    };
    let changed = store::change(context, |opened| {
        let module = context.module()?;
        let made = module
            .rewrap(&opened.store.keyring_bytes, &opened.kek, &new, None)
            .map_err(Error::of_argument("the new master secret"))?;
        opened.set_keyring(context, &made.keyring, &made.kek)?;
        Ok(((), true))
    });
    if let (Err(_), Some(path)) = (&changed, key_file) {
        // A key that opens nothing would only be mistaken for one that does. But an error may come after the file
        // was replaced, and then the key is all there is.
        if Store::read(context).is_ok_and(|store| store.keyring_bytes == before) {
            let _ = std::fs::remove_file(path);
        }
    }
    changed?;
    if context.json {
        return output::json(&Done {
            rotated: true,
            key_file: key_file.map(|path| path.display().to_string()),
        });
    }
    if let Some(path) = key_file {
        terminal::note(&format!(
            "the new master key is in {}: save it in your password manager",
            path.display()
        ));
    }
    terminal::note(
        "the file opens with the new secret only; its older versions in git still open with the old one",
    );
    Ok(())
}

/// What `rotate-master-secret` prints with `--json`.
#[derive(serde::Serialize)]
struct Done {
    rotated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<String>,
}
