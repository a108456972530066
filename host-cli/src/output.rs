//! Standard output: data for people or, with `--json`, for programs.

use std::io::{self, Write};

use base64ct::{Base64, Encoding};
use omni_credentials_host::{Entry, Identity};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::expiry;

/// Writes data to standard output, as it is.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::io("standard output"))
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a line of JSON to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    line(&serde_json::to_string(value).map_err(|error| Error::io("JSON")(error.into()))?)
}

/// The fields of an identity in JSON. The scope goes in as it stands: a parsed number could lose digits.
#[derive(Debug, Serialize)]
pub(crate) struct IdentityFields {
    name: String,
    kind: String,
    principal: String,
    scope: Box<RawValue>,
}

impl IdentityFields {
    pub(crate) fn new(identity: &Identity<'_>) -> Result<Self, Error> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let scope = RawValue::from_string(text(identity.scope));
        Ok(Self {
            name: text(identity.name),
            kind: text(identity.kind),
            principal: text(identity.principal),
            scope: scope.map_err(|error| Error::io("the scope of a credential")(error.into()))?,
        })
    }
}

/// A credential without its value in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct EntryFields {
    #[serde(flatten)]
    identity: IdentityFields,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl EntryFields {
    pub(crate) fn new(entry: &Entry) -> Result<Self, Error> {
        let identity = IdentityFields::new(&entry.identity())?;
        Ok(Self { identity, deleted: entry.deleted, expires: expiry::text(entry.expires) })
    }
}

/// What was done to a credential, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Done<'a> {
    #[serde(flatten)]
    pub(crate) identity: IdentityFields,
    pub(crate) result: &'a str,
}

/// Bytes in JSON: as text where they are UTF-8.
#[derive(Debug)]
pub(crate) struct Bytes {
    pub(crate) text: Option<String>,
    pub(crate) base64: Option<String>,
}

impl Bytes {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { text: Some(text.to_owned()), base64: None },
            Err(_) => Self { text: None, base64: Some(Base64::encode_string(bytes)) },
        }
    }
}

/// A value in JSON, or why it does not open. The field that stands there says which.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ValueFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

impl ValueFields {
    pub(crate) fn opened(value: &[u8]) -> Self {
        let Bytes { text, base64 } = Bytes::new(value);
        Self { value: text, value_base64: base64, unreadable: None }
    }

    pub(crate) fn unreadable(reason: String) -> Self {
        Self { unreadable: Some(reason), ..Self::default() }
    }
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A value on one line: as a JSON string, or base64 where it is not text.
pub(crate) fn escaped(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => quoted(text),
        Err(_) => format!("base64 {}", Base64::encode_string(value)),
    }
}

/// The identities and expiries as an aligned table.
pub(crate) fn table<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let cell = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    let rows: Vec<[String; 4]> = entries
        .into_iter()
        .map(|entry| {
            let mut scope = String::from_utf8_lossy(&entry.scope).into_owned();
            if entry.expires.is_some() {
                scope.push_str(&format!("  expires {}", expiry::shown(entry.expires)));
            }
            let name =
                if entry.deleted { format!("{} (deleted)", cell(&entry.name)) } else { cell(&entry.name) };
            [name, cell(&entry.kind), cell(&entry.principal), scope]
        })
        .collect();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max();
    let (first, second, third) = (width(0).unwrap_or(0), width(1).unwrap_or(0), width(2).unwrap_or(0));
    let lines = rows.iter().map(|[name, kind, principal, scope]| {
        format!("{name:first$}  {kind:second$}  {principal:third$}  {scope}\n")
    });
    lines.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn json_is_json() {
        let identity =
            Identity { name: b"x\"\\\n\x01\xc3\xa9", kind: b"k", principal: b"p", scope: b"{\"n\":1e400}" };
        let fields = |value| {
            #[derive(Serialize)]
            struct Line {
                #[serde(flatten)]
                identity: IdentityFields,
                #[serde(flatten)]
                value: ValueFields,
            }
            serde_json::to_string(&Line { identity: IdentityFields::new(&identity).unwrap(), value }).unwrap()
        };
        let start = r#"{"name":"x\"\\\n\u0001é","kind":"k","principal":"p","scope":{"n":1e400}"#;
        assert_eq!(fields(ValueFields::default()), format!("{start}}}"));
        assert_eq!(fields(ValueFields::opened(b"c")), format!(r#"{start},"value":"c"}}"#));
        assert_eq!(fields(ValueFields::opened(b"\xff")), format!(r#"{start},"value_base64":"/w=="}}"#));
        assert_eq!(fields(ValueFields::unreadable("r".into())), format!(r#"{start},"unreadable":"r"}}"#));
    }

    #[test]
    fn a_scope_that_is_not_json_is_refused() {
        let identity = Identity { name: b"n", kind: b"k", principal: b"p", scope: b"{},\"value\":1" };
        assert!(IdentityFields::new(&identity).is_err());
    }
}
