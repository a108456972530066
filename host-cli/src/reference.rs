//! The name of a credential where options cannot say more: `NAME`, with `?kind=…&principal=…&scope=…` behind it where it
//! takes more to tell credentials apart, percent-encoded (RFC 3986).

use std::fmt::Write;

use omni_credentials_host::Identity;

use crate::args::Selection;

/// What has a meaning in a reference, in a shell or in a template.
const KEPT: &[u8] = b"-._/:@+,";

/// The name and what else tells the credential apart; or what is wrong.
pub(crate) fn parse(reference: &str) -> Result<(String, Selection), String> {
    let (name, query) = reference.split_once('?').unwrap_or((reference, ""));
    let mut selection = Selection::default();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (field, value) = part.split_once('=').unwrap_or((part, ""));
        let value = Some(decoded(value)?);
        match field {
            "kind" => selection.kind = value,
            "principal" => selection.principal = value,
            "scope" => selection.scope = value,
            _ => {
                return Err(
                    "a reference has kind, principal and scope behind its ?, and nothing else".to_owned()
                );
            }
        }
    }
    Ok((decoded(name)?, selection))
}

/// The reference of one credential: all of its fields, or the name if that `is_enough`.
pub(crate) fn of(identity: &Identity<'_>, is_enough: bool) -> String {
    let mut text = encoded(identity.name);
    if !is_enough {
        let fields = [("kind", identity.kind), ("principal", identity.principal), ("scope", identity.scope)];
        for (number, (field, value)) in fields.into_iter().enumerate() {
            let _ = write!(text, "{}{field}={}", if number == 0 { '?' } else { '&' }, encoded(value));
        }
    }
    text
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or_else(|| "a % in a reference has no two digits behind it".to_owned())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| "a reference is not UTF-8".to_owned())
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || KEPT.contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_credential() {
        let scope = r#"{"a":"b c&d"}"#;
        let identity = Identity {
            name: "ü a?b".as_bytes(),
            kind: b"token[jwt]",
            principal: b"o'neil",
            scope: scope.as_bytes(),
        };
        let text = of(&identity, false);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\''), "{text}");
        let (name, selection) = parse(&text).unwrap();
        assert_eq!(name, "ü a?b");
        assert_eq!(
            [selection.kind, selection.principal, selection.scope],
            ["token[jwt]", "o'neil", scope].map(|text| Some(text.to_owned()))
        );
        assert_eq!(parse(&of(&identity, true)).unwrap(), ("ü a?b".to_owned(), Selection::default()));
    }
}
