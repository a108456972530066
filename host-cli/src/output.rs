//! Standard output: data for people or, with `--json`, for programs.

use std::io::{self, Write};

use base64ct::{Base64, Encoding};
use omni_credentials_host::{Entry, Identity};

use crate::error::Error;

/// Writes data to standard output, as it is.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::io("standard output"))
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    write(format!("{text}\n").as_bytes())
}

/// A JSON object that is being written. Scopes go in as they stand: a parsed number could lose digits.
#[derive(Default)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, &quoted(value))
    }

    pub(crate) fn bytes(self, key: &str, value: &[u8]) -> Self {
        match std::str::from_utf8(value) {
            Ok(text) => self.text(key, text),
            Err(_) => self.text(&format!("{key}_base64"), &Base64::encode_string(value)),
        }
    }

    pub(crate) fn number(self, key: &str, value: impl TryInto<u64>) -> Self {
        self.raw(key, &value.try_into().unwrap_or(u64::MAX).to_string())
    }

    pub(crate) fn boolean(self, key: &str, value: bool) -> Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    pub(crate) fn list(self, key: &str, items: impl IntoIterator<Item = String>) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        self.raw(key, &format!("[{}]", items.join(",")))
    }

    pub(crate) fn object(self, key: &str, value: &Self) -> Self {
        self.raw(key, &value.to_json())
    }

    pub(crate) fn identity(self, identity: &Identity<'_>) -> Self {
        let text = String::from_utf8_lossy;
        self.text("name", &text(identity.name))
            .text("kind", &text(identity.kind))
            .text("principal", &text(identity.principal))
            .raw("scope", &text(identity.scope))
    }

    fn raw(mut self, key: &str, json: &str) -> Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    pub(crate) fn to_json(&self) -> String {
        if self.0.is_empty() { "{}".to_owned() } else { format!("{}}}", self.0) }
    }

    pub(crate) fn print(&self) -> Result<(), Error> {
        line(&self.to_json())
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

/// The identities as an aligned table.
pub(crate) fn table<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let cell = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    let rows: Vec<[String; 4]> = entries
        .into_iter()
        .map(|entry| {
            let scope = String::from_utf8_lossy(&entry.scope).into_owned();
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
mod tests {
    use super::*;

    #[test]
    fn json_is_json() {
        let json = Object::default()
            .text("a", "x\"\\\n\u{1}é")
            .bytes("b", b"\xff")
            .bytes("c", b"c")
            .number("d", 3_u32)
            .boolean("e", true)
            .list("f", [quoted("g")])
            .to_json();
        let expected = r#"{"a":"x\"\\\n\u0001é","b_base64":"/w==","c":"c","d":3,"e":true,"f":["g"]}"#;
        assert_eq!(json, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        assert_eq!(Object::default().to_json(), "{}");
    }
}
