//! Saying which credential is meant.

use omni_credentials_host::{Entry, Identity};

use crate::args::Which;
use crate::error::Error;
use crate::store::Store;

/// What a credential is when nothing else is said; as in the database.
pub(crate) const DEFAULT_KIND: &str = "credential";
pub(crate) const DEFAULT_SCOPE: &str = r#"{"all":true}"#;

/// An identity on one line, for people.
pub(crate) fn shown(identity: &Identity<'_>) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).escape_debug().to_string();
    let name = text(identity.name);
    let principal = text(identity.principal);
    let kind = text(identity.kind);
    format!("{name} ({kind} of {principal}, {})", String::from_utf8_lossy(identity.scope))
}

/// Whose credential is meant when nobody says so: as libpq, the role of the session.
pub(crate) fn default_principal() -> Result<String, Error> {
    let named = ["PGUSER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.is_empty()).ok_or(Error::NoPrincipal)
}

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
