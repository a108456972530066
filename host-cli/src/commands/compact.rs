use omni_credentials_host::Entry;

use crate::context::Context;
use crate::error::Error;
use crate::output;
use crate::{store, terminal};

pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let count = store::change(context, |opened| {
        let store = &mut opened.store;
        let count = store.entries.iter().filter(|entry| entry.deleted).count();
        if count == 0 {
            return Ok((0, false));
        }
        let document = store.files.create(&store.keyring_bytes)?;
        let live: Vec<_> = store.live().cloned().collect();
        let live: Vec<_> = live.iter().map(Entry::as_ref).collect();
        store.files.put(document, &live)?;
        store.document = document;
        Ok((count, true))
    })?;
    if context.json {
        return output::json(&Done { forgotten: count });
    }
    terminal::note(&format!("removed the records of {count} deleted credentials"));
    if count > 0 {
        terminal::note("a merge with a branch or a database that still has them brings them back");
    }
    Ok(())
}

/// What `compact` prints with `--json`.
#[derive(serde::Serialize)]
struct Done {
    forgotten: usize,
}
