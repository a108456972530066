use omni_credentials_host::EntryRef;

use crate::args::Which;
use crate::context::Context;
use crate::error::Error;
use crate::output::Object;
use crate::{find, identity, store, terminal};

pub(crate) fn run(context: &Context, name: &str, which: &Which) -> Result<(), Error> {
    find::the_one(&mut store::Store::read(context)?, name, which)?;
    let entry = store::change(context, |opened| {
        let entry = find::the_one(&mut opened.store, name, which)?;
        opened.put(&[EntryRef { identity: entry.identity(), sealed: b"", deleted: true }])?;
        Ok((entry, true))
    })?;
    if context.json {
        return Object::default().identity(&entry.identity()).text("result", "deleted").print();
    }
    terminal::note(&format!("deleted {}", identity::shown(&entry.identity())));
    Ok(())
}
