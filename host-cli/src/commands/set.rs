use std::io::{self, IsTerminal, Read};

use omni_credentials_host::{EntryRef, Identity};
use zeroize::Zeroizing;

use crate::args::What;
use crate::context::Context;
use crate::error::Error;
use crate::output::{self, Done, IdentityFields};
use crate::store::{self, Store};
use crate::{identity, interrupt, terminal};

/// One byte more than a value may have: enough for the module to refuse it.
const MAX_VALUE: u64 = (1 << 20) + 3;

pub(crate) fn run(context: &Context, name: &str, what: What, exact: bool, empty: bool) -> Result<(), Error> {
    let principal = what.principal.map_or_else(identity::default_principal, Ok)?;
    let identity = Identity {
        name: name.as_bytes(),
        kind: what.kind.as_bytes(),
        principal: principal.as_bytes(),
        scope: what.scope.as_bytes(),
    };
    // A person is asked for nothing before it is clear that there is a file and that the arguments are good.
    let canonical = Store::read(context)?.canonical(identity)?;
    let value = if empty { Zeroizing::default() } else { value(name, exact)? };
    let changed = store::change(context, |opened| {
        let before = opened.store.live().find(|entry| entry.identity() == canonical.identity()).cloned();
        let known = match &before {
            Some(entry) => opened.value(entry).ok(),
            None => None,
        };
        if known.is_some_and(|known| known == value) {
            return Ok((None, false));
        }
        let sealed = opened.seal(&identity, &value)?;
        opened.put(&[EntryRef { identity, sealed: &sealed, deleted: false }])?;
        Ok((Some(before.is_none()), true))
    })?;
    let result = match changed {
        Some(true) => "added",
        Some(false) => "changed",
        None => "unchanged",
    };
    if context.json {
        let identity = IdentityFields::new(&canonical.identity())?;
        return output::json(&Done { identity, result });
    }
    terminal::note(&format!("{result} {}", identity::shown(&canonical.identity())));
    Ok(())
}

fn value(name: &str, exact: bool) -> Result<Zeroizing<Vec<u8>>, Error> {
    if io::stdin().is_terminal() {
        let prompt = format!("Value of {}: ", name.escape_debug());
        return terminal::ask_hidden(&prompt)?.filter(|value| !value.is_empty()).ok_or(Error::NoValue);
    }
    let mut value = Zeroizing::new(Vec::with_capacity(4096));
    let read = || io::stdin().take(MAX_VALUE).read_to_end(&mut value);
    interrupt::blocking(read)?.map_err(Error::io("standard input"))?;
    // Nothing at all is what a closed pipe gives: not a reason to overwrite a credential.
    if value.is_empty() {
        return Err(Error::NoValue);
    }
    if !exact && value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    Ok(value)
}
