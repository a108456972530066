use omni_credentials_host::EntryRef;

use crate::args::Which;
use crate::context::Context;
use crate::error::Error;
use crate::output::{self, Done, IdentityFields};
use crate::{find, identity, store, terminal};

pub(crate) fn run(context: &Context, name: &str, which: &Which) -> Result<(), Error> {
    find::the_one(&mut store::Store::read(context)?, name, which)?;
    let entry = store::change(context, |opened| {
        let entry = find::the_one(&mut opened.store, name, which)?;
        opened.put(&[EntryRef { identity: entry.identity(), sealed: b"", deleted: true }])?;
        Ok((entry, true))
    })?;
    if context.json {
        let identity = IdentityFields::new(&entry.identity())?;
        return output::json(&Done { identity, result: "deleted" });
    }
    terminal::note(&format!("deleted {}", identity::shown(&entry.identity())));
    Ok(())
}
