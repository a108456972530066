//! Finding the credentials that are meant.

use omni_credentials_host::Entry;

use crate::args::Selection;
use crate::error::Error;
use crate::identity::shown;
use crate::store::{self, Store};

/// The live credentials that match; `name` none stands for all.
pub(crate) fn matching(
    store: &mut Store,
    name: Option<&str>,
    selection: &Selection,
) -> Result<Vec<Entry>, Error> {
    let scope = match &selection.scope {
        None => None,
        Some(scope) => Some(store::canonical_scope(&mut store.files, &store.keyring_bytes, scope)?),
    };
    let same = |wanted: Option<&str>, found: &[u8]| wanted.is_none_or(|wanted| wanted.as_bytes() == found);
    let found = store.live().filter(|entry| {
        same(name, &entry.name)
            && same(selection.kind.as_deref(), &entry.kind)
            && same(selection.principal.as_deref(), &entry.principal)
            && scope.as_ref().is_none_or(|scope| *scope == entry.scope)
    });
    Ok(found.cloned().collect())
}

/// The one live credential that matches.
pub(crate) fn only_one(store: &mut Store, name: &str, selection: &Selection) -> Result<Entry, Error> {
    let mut found = matching(store, Some(name), selection)?;
    match (found.pop(), found.is_empty()) {
        (Some(entry), true) => Ok(entry),
        (Some(entry), false) => {
            found.push(entry);
            let found = found.iter().map(|entry| shown(&entry.identity())).collect();
            Err(Error::Ambiguous { name: name.to_owned(), found })
        }
        (None, _) => Err(Error::NotFound(name.to_owned())),
    }
}
