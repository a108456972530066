use std::io::{self, IsTerminal};

use crate::args::Selection;
use crate::context::Context;
use crate::error::Error;
use crate::find;
use crate::output::{self, IdentityFields, ValueFields};
use crate::store::Store;

pub(crate) fn run(context: &Context, name: &str, selection: &Selection) -> Result<(), Error> {
    let mut store = Store::read(context)?;
    let entry = find::only_one(&mut store, name, selection)?;
    let value = store.unlock(context)?.value_of(&entry)?;
    if context.json {
        let identity = IdentityFields::new(&entry.identity())?;
        return output::json(&Opened { identity, value: ValueFields::opened(&value) });
    }
    output::write(&value)?;
    // A pipe gets the value as it is; a person gets a prompt on a line of its own.
    if io::stdout().is_terminal() { output::write(b"\n") } else { Ok(()) }
}

/// What `get` prints with `--json`.
#[derive(serde::Serialize)]
struct Opened {
    #[serde(flatten)]
    identity: IdentityFields,
    #[serde(flatten)]
    value: ValueFields,
}
