use omni_credentials_host::EntryRef;

use crate::args::Selection;
use crate::context::Context;
use crate::error::Error;
use crate::output::{self, Done, IdentityFields};
use crate::{find, identity, store, terminal};

pub(crate) fn run(context: &Context, name: &str, selection: &Selection) -> Result<(), Error> {
    find::only_one(&mut store::Store::read(context)?, name, selection)?;
    let entry = store::change(context, |opened| {
        let entry = find::only_one(&mut opened.store, name, selection)?;
        opened.put(&[EntryRef { identity: entry.identity(), expires: None, sealed: b"", deleted: true }])?;
        Ok((entry, true))
    })?;
    if context.json {
        let identity = IdentityFields::new(&entry.identity())?;
        return output::json(&Done { identity, result: "deleted" });
    }
    terminal::note(&format!("deleted {}", identity::shown(&entry.identity())));
    Ok(())
}
