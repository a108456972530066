//! What a credential is called.

use omni_credentials_host::Identity;

use crate::error::Error;

/// The defaults, as in the database.
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

/// The principal if no option names one: the role of the session, as in libpq.
pub(crate) fn default_principal() -> Result<String, Error> {
    let named = ["PGUSER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.is_empty()).ok_or(Error::NoPrincipal)
}
