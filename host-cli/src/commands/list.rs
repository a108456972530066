use crate::args::Selection;
use crate::context::Context;
use crate::error::Error;
use crate::find;
use crate::output::{self, EntryFields};
use crate::store::Store;

pub(crate) fn run(context: &Context, selection: &Selection, deleted: bool) -> Result<(), Error> {
    let mut store = Store::read(context)?;
    let mut found = find::matching(&mut store, None, selection)?;
    if deleted {
        found.extend(store.entries.iter().filter(|entry| entry.deleted).cloned());
        found.sort_by(|a, b| {
            (&a.name, &a.kind, &a.principal, &a.scope).cmp(&(&b.name, &b.kind, &b.principal, &b.scope))
        });
    }
    if !context.json {
        return output::write(output::table(&found).as_bytes());
    }
    let credentials = found.iter().map(EntryFields::new).collect::<Result<_, _>>()?;
    output::json(&Listed { generation: store.generation, credentials })
}

/// What `list` prints with `--json`.
#[derive(serde::Serialize)]
struct Listed {
    generation: u64,
    credentials: Vec<EntryFields>,
}
