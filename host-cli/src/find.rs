//! Finding the credentials that are meant.

use omni_credentials_host::{Entry, Identity};

use crate::args::Which;
use crate::error::Error;
use crate::identity::shown;
use crate::store::Store;

/// The live credentials that match; `name` none stands for all.
pub(crate) fn matching(store: &mut Store, name: Option<&str>, which: &Which) -> Result<Vec<Entry>, Error> {
    let scope = match &which.scope {
        None => None,
        Some(scope) => {
            let any = Identity { name: b"x", kind: b"x", principal: b"x", scope: scope.as_bytes() };
            Some(store.canonical(any)?.scope)
        }
    };
    let same = |wanted: Option<&str>, found: &[u8]| wanted.is_none_or(|wanted| wanted.as_bytes() == found);
    let found = store.live().filter(|entry| {
        same(name, &entry.name)
            && same(which.kind.as_deref(), &entry.kind)
            && same(which.principal.as_deref(), &entry.principal)
            && scope.as_ref().is_none_or(|scope| *scope == entry.scope)
    });
    Ok(found.cloned().collect())
}

/// The one live credential that matches.
pub(crate) fn the_one(store: &mut Store, name: &str, which: &Which) -> Result<Entry, Error> {
    let mut found = matching(store, Some(name), which)?;
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
