use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use omni_credentials_host::{self as host, Entry, EntryRef, Identity, shared_file};
use zeroize::Zeroizing;

use crate::args::Selection;
use crate::context::Context;
use crate::error::Error;
use crate::identity::{DEFAULT_KIND, DEFAULT_SCOPE};
use crate::output::{self, Done, IdentityFields};
use crate::store::{self, Store};
use crate::{find, identity, interrupt, prompt, terminal};

/// One byte more than a value and a line end may have: enough for the module to refuse it.
const MAX_VALUE: u64 = (1 << 20) + 3;

/// Where the value comes from.
pub(crate) enum Source {
    /// Standard input, or a person.
    Input,
    /// A file.
    File(PathBuf),
    /// It is empty.
    Empty,
}

pub(crate) fn run(
    context: &Context,
    name: &str,
    selection: Selection,
    source: Source,
    expires: Option<u64>,
    exact: bool,
) -> Result<(), Error> {
    // A person is asked for nothing before it is clear that the file exists and that the arguments are valid.
    let canonical = meant(&mut Store::read(context)?, name, selection)?;
    let identity = canonical.identity();
    let mut value = match source {
        Source::Empty => Zeroizing::default(),
        Source::File(path) => of_file(&path)?,
        Source::Input => input(name)?,
    };
    if !exact {
        terminal::take_line_end(&mut value);
    }
    let changed = store::change(context, |opened| {
        let before = opened.store.record(&identity).cloned();
        let known = match &before {
            Some(entry) => opened.value(entry).ok(),
            None => None,
        };
        let expired = before.as_ref().and_then(|before| before.expires);
        if known.is_some_and(|known| known == value) && expired == expires {
            return Ok((None, false));
        }
        let sealed = opened.seal(&identity, expires, &value)?;
        opened.put(&[EntryRef { identity, expires, sealed: &sealed, deleted: false }])?;
        Ok((Some((before.is_none(), expired.is_some() && expires.is_none())), true))
    })?;
    // What was due was the old value.
    if changed.is_some_and(|(_, had_expiry)| had_expiry) {
        terminal::note("it does not expire any more: --expires says when");
    }
    let changed = changed.map(|(added, _)| added);
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

/// The credential that is added or changed: without options, the only one of this name.
fn meant(store: &mut Store, name: &str, selection: Selection) -> Result<Entry, Error> {
    if selection.kind.is_none() && selection.principal.is_none() && selection.scope.is_none() {
        match find::only_one(store, name, &selection) {
            Err(Error::NotFound(_)) => {}
            found => return found,
        }
    }
    let principal = selection.principal.map_or_else(identity::default_principal, Ok)?;
    store.canonical(Identity {
        name: name.as_bytes(),
        kind: selection.kind.as_deref().unwrap_or(DEFAULT_KIND).as_bytes(),
        principal: principal.as_bytes(),
        scope: selection.scope.as_deref().unwrap_or(DEFAULT_SCOPE).as_bytes(),
    })
}

fn input(name: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    if io::stdin().is_terminal() {
        let prompt = format!("Value of {}: ", name.escape_debug());
        return prompt::ask(&prompt)?.filter(|value| !value.is_empty()).ok_or(Error::NoValue);
    }
    let mut value = Zeroizing::new(Vec::with_capacity(4096));
    let read = || io::stdin().take(MAX_VALUE).read_to_end(&mut value);
    interrupt::blocking(read)?.map_err(Error::io("standard input"))?;
    // A closed pipe gives nothing: no reason to overwrite a credential.
    if value.is_empty() { Err(Error::NoValue) } else { Ok(value) }
}

fn of_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let value = Zeroizing::new(shared_file::read(path, MAX_VALUE).map_err(|error| match error {
        host::Error::File { path, fault } => Error::ValueFile { path, fault },
        other => other.into(),
    })?);
    if value.is_empty() { Err(Error::NoValue) } else { Ok(value) }
}
