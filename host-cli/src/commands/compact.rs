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
        store.files.forget_deletions(store.document)?;
        Ok((count, true))
    })?;
    if context.json {
        return output::json(&Done { forgotten: count });
    }
    terminal::note(&format!("removed the records of {count} deleted credentials"));
    if count > 0 {
        terminal::note(
            "a branch or a database that still has one of them conflicts with this file when it is merged",
        );
    }
    Ok(())
}

/// What `compact` prints with `--json`.
#[derive(serde::Serialize)]
struct Done {
    forgotten: usize,
}
