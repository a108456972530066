use std::time::Duration;

use crate::args::Selection;
use crate::context::Context;
use crate::error::Error;
use crate::expiry;
use crate::find;
use crate::output::{self, EntryFields};
use crate::store::Store;

pub(crate) fn run(
    context: &Context,
    selection: &Selection,
    deleted: bool,
    expiring: Option<Duration>,
) -> Result<(), Error> {
    let mut store = Store::read(context)?;
    let mut found = find::matching(&mut store, None, selection)?;
    if deleted {
        found.extend(store.entries.iter().filter(|entry| entry.deleted).cloned());
        found.sort_by(|a, b| {
            (&a.name, &a.kind, &a.principal, &a.scope).cmp(&(&b.name, &b.kind, &b.principal, &b.scope))
        });
    }
    if let Some(within) = expiring {
        let until = expiry::after(within);
        found.retain(|entry| entry.expires.is_some_and(|expires| expires <= until));
        found.sort_by_key(|entry| entry.expires);
    }
    if context.json {
        let credentials = found.iter().map(EntryFields::new).collect::<Result<_, _>>()?;
        output::json(&Listed { generation: store.generation, credentials })?;
    } else {
        output::write(output::table(&found).as_bytes())?;
    }
    if expiring.is_some() && !found.is_empty() { Err(Error::Expiring) } else { Ok(()) }
}

/// What `list` prints with `--json`.
#[derive(serde::Serialize)]
struct Listed {
    generation: u64,
    credentials: Vec<EntryFields>,
}
