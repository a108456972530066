use omni_credentials_host::EntryRef;
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output;
use crate::terminal::Progress;
use crate::{store, terminal};

pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let count = store::change(context, |opened| {
        opened.keyring.add_key().map_err(Error::of_file(&opened.store.path))?;
        let (keyring, kek) = (opened.keyring.to_bytes()?, opened.kek.clone());
        let live: Vec<_> = opened.store.live().cloned().collect();
        let mut progress = Progress::new("encrypting", live.len());
        let mut sealed = Vec::with_capacity(live.len());
        for (done, entry) in live.iter().enumerate() {
            progress.at(done)?;
            sealed.push(opened.reseal(entry)?);
        }
        let entries: Vec<_> =
            live.iter().zip(&sealed).map(|(entry, sealed)| EntryRef { sealed, ..entry.as_ref() }).collect();
        opened.put(&entries)?;
        opened.set_keyring(context, &keyring, &kek)?;
        opened.retire_keys(context)?;
        Ok((live.len(), true))
    })?;
    if context.json {
        return output::json(&Done { reencrypted: count });
    }
    terminal::note(&format!(
        "a new data key encrypts {count} values; versions in git keep the keys that they need"
    ));
    Ok(())
}

/// What `rotate-key` prints with `--json`.
#[derive(Serialize)]
struct Done {
    reencrypted: usize,
}
