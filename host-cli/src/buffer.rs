//! The text that `edit` gives to an editor: TOML, a table for each credential.

use std::fmt::Write;

use base64ct::{Base64, Encoding};
use omni_credentials_host::Identity;
use toml::{Table, Value};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::expiry::{self, Expiry};
use crate::identity::{self, DEFAULT_KIND, DEFAULT_SCOPE};

/// A credential as people write it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) principal: String,
    /// JSON, as it was written.
    pub(crate) scope: String,
    /// In seconds since 1970.
    pub(crate) expires: Option<u64>,
    pub(crate) value: Zeroizing<Vec<u8>>,
}

impl Edited {
    /// A credential as it is in a file.
    pub(crate) fn new(identity: &Identity<'_>, expires: Option<u64>, value: Zeroizing<Vec<u8>>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            name: text(identity.name),
            kind: text(identity.kind),
            principal: text(identity.principal),
            scope: text(identity.scope),
            expires,
            value,
        }
    }
}

const HELP: &str = "\
# Credentials, in TOML. If you remove a [[credential]], the command deletes it. To add one:
#
#     [[credential]]
#     name = \"stripe\"
#     kind = \"api_key\"            # default: \"credential\"
#     principal = \"app\"           # the role it belongs to; default: you
#     scope = '{\"all\":true}'      # default: valid everywhere
#     expires = \"2027-01-31\"      # default: never; or a time from now, such as \"90d\"
#     value = \"sk_live_...\"       # or base64 = \"...\" for bytes that are not text
#
# To change nothing, leave this text unchanged or empty the file.
";

const HELP_CHOICE: &str = "\
# Both sides changed this credential. Save it as the merged file is to have it.
# To go back to the question, leave this text unchanged or empty the file.
";

/// The text, with a notice of several lines on top if there is something to say.
pub(crate) fn render(credentials: &[Edited], notice: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(8192));
    text.push_str(&comment(notice));
    text.push_str(HELP);
    for credential in credentials {
        push(&mut text, credential);
    }
    text
}

/// The text for one credential that is in conflict: what it starts from, and the other version as a comment.
pub(crate) fn render_choice(start: &Edited, other: Option<&Edited>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(8192));
    text.push_str(HELP_CHOICE);
    push(&mut text, start);
    if let Some(other) = other {
        let mut commented = Zeroizing::new(String::with_capacity(8192));
        push(&mut commented, other);
        text.push_str("\n# The other side has:\n");
        for line in commented.lines() {
            let _ = writeln!(text, "#{}{line}", if line.is_empty() { "" } else { " " });
        }
    }
    text
}

/// The same text under another notice.
pub(crate) fn with_notice(text: &str, notice: &str) -> Zeroizing<String> {
    let rest = text.lines().skip_while(|line| line.starts_with(NOTICE)).collect::<Vec<_>>().join("\n");
    Zeroizing::new(format!("{}{rest}\n", comment(notice)))
}

/// The text of an editor, and whether it is UTF-8. The text has the line ends of this system, and no byte-order mark:
/// a carriage return in a value is written as `\\r`, so one in the text is from the editor.
pub(crate) fn from_editor(bytes: &[u8]) -> (Zeroizing<String>, bool) {
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    let is_text = std::str::from_utf8(bytes).is_ok();
    (Zeroizing::new(text.trim_start_matches('\u{feff}').replace("\r\n", "\n")), is_text)
}

/// Whether a person gave up: nothing is left but comments.
pub(crate) fn is_given_up(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

/// What the text says. An error tells the line, or which credential.
pub(crate) fn parse(text: &str) -> Result<Vec<Edited>, Error> {
    let table: Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        // The message is one line or several, and never quotes the text.
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        Error::Meaningless(format!("line {line}: {message}"))
    })?;
    let mut edited = Vec::new();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("credential", Value::Array(list)) => {
                for item in list {
                    let number = edited.len() + 1;
                    let Value::Table(fields) = item else { return Err(not_a_table(&key)) };
                    edited.push(credential(fields, number)?);
                }
            }
            _ => return Err(not_a_table(&key)),
        }
    }
    Ok(edited)
}

fn push(text: &mut Zeroizing<String>, credential: &Edited) {
    let _ = write!(
        text,
        "\n[[credential]]\nname = {}\nkind = {}\nprincipal = {}\nscope = {}\n",
        quoted(&credential.name),
        quoted(&credential.kind),
        quoted(&credential.principal),
        literal(&credential.scope),
    );
    if let Some(expires) = expiry::text(credential.expires) {
        let _ = writeln!(text, "expires = \"{expires}\"");
    }
    match std::str::from_utf8(&credential.value) {
        Ok(value) => {
            let value = Zeroizing::new(paragraphs(value));
            let _ = writeln!(text, "value = {}", *value);
        }
        Err(_) => {
            let value = Zeroizing::new(Base64::encode_string(&credential.value));
            let _ = writeln!(text, "base64 = \"{}\"", *value);
        }
    }
}

const NOTICE: &str = "#! ";

fn comment(notice: &str) -> String {
    notice.lines().map(|line| format!("{NOTICE}{line}\n")).collect()
}

fn not_a_table(key: &str) -> Error {
    Error::Meaningless(format!("{key:?} means nothing here: every entry starts with [[credential]]"))
}

fn credential(fields: Table, number: usize) -> Result<Edited, Error> {
    let named = fields.get("name").and_then(Value::as_str).map(str::to_owned);
    let which = named.as_deref().map_or_else(|| format!("credential {number}"), |name| format!("{name:?}"));
    let wrong = |what: &str| Error::Meaningless(format!("{which}: {what}"));
    let (mut kind, mut principal, mut scope, mut expires, mut value) = (None, None, None, None, None);
    for (key, field) in fields {
        let Value::String(text) = field else {
            return Err(wrong(&format!("{key} must be a text in quotes")));
        };
        match key.as_str() {
            "name" => {}
            "kind" => kind = Some(text),
            "principal" => principal = Some(text),
            "scope" => scope = Some(text),
            "expires" => {
                let Expiry(second) =
                    expiry::parse(&text).map_err(|what| wrong(&format!("expires: {what}")))?;
                expires = second;
            }
            "value" | "base64" if value.is_some() => return Err(wrong("it has both value and base64")),
            "value" => value = Some(Zeroizing::new(text.into_bytes())),
            "base64" => {
                let bytes = Base64::decode_vec(&text).map_err(|_| wrong("base64 is not base64"))?;
                value = Some(Zeroizing::new(bytes));
            }
            _ => return Err(wrong(&format!("{key:?} means nothing here"))),
        }
    }
    let name = named.clone().ok_or_else(|| wrong("it has no name"))?;
    let value = value.ok_or_else(|| wrong("it has no value"))?;
    Ok(Edited {
        name,
        kind: kind.unwrap_or_else(|| DEFAULT_KIND.to_owned()),
        principal: principal.map_or_else(identity::default_principal, Ok)?,
        scope: scope.unwrap_or_else(|| DEFAULT_SCOPE.to_owned()),
        expires,
        value,
    })
}

/// A basic string. JSON's escapes are TOML's, but for U+007F.
fn quoted(text: &str) -> String {
    crate::output::quoted(text).replace('\u{7f}', "\\u007f")
}

/// JSON is easier to read without escapes.
fn literal(text: &str) -> String {
    if text.contains(['\'', '\u{7f}']) { quoted(text) } else { format!("'{text}'") }
}

/// Keys and certificates have many lines; they stay as they are.
fn paragraphs(text: &str) -> String {
    let plain = |letter: char| letter == '\n' || letter == '\t' || !letter.is_control();
    if text.contains('\n') && !text.contains("''") && !text.ends_with('\'') && text.chars().all(plain) {
        format!("'''\n{text}'''")
    } else {
        quoted(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn edited(name: &str, value: &[u8]) -> Edited {
        Edited {
            name: name.into(),
            kind: "api_key".into(),
            principal: "app".into(),
            scope: r#"{"n":"it's"}"#.into(),
            expires: value.len().is_multiple_of(2).then_some(1_800_000_000),
            value: Zeroizing::new(value.to_vec()),
        }
    }

    #[test]
    fn what_is_rendered_parses_to_the_same() {
        let values: [&[u8]; 14] = [
            b"",
            b"sk_live",
            b"quote\" back\\slash 'single'",
            b"-----BEGIN-----\nabc\n-----END-----\n",
            b"\n",
            b"\nstarts with a line end",
            b"a\n'",
            b"a\n''' b",
            b"a\r\nb\rc\n",
            b"\x00\x01\x7f\x1b",
            b"\xff\xfe",
            b"tab\tand\nline",
            "é \u{85} \u{2028} \u{1f511}".as_bytes(),
            b"# not a comment\n[[credential]]",
        ];
        let all: Vec<_> =
            values.iter().enumerate().map(|(n, value)| edited(&format!("n\"{n}\u{7f}"), value)).collect();
        for notice in ["", "line 7: no\nand more"] {
            assert_eq!(parse(&render(&all, notice)).unwrap(), all);
        }
        let choice = render_choice(all.get(1).unwrap(), all.get(12));
        assert_eq!(parse(&choice).unwrap().as_slice(), all.get(1..2).unwrap());
        let text = render(&all, "old");
        assert_eq!(*with_notice(&text, "new"), *render(&all, "new"));
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| parse(text).unwrap_err().to_string();
        assert!(message("[[credential]]\nname = \"a\nvalue=1").starts_with("line 2: "));
        assert!(
            message("[[credential]]\nname='a'\nvalue='b'\nexpires='soon'").contains("expires: write a date")
        );
        assert_eq!(message("[[credential]]\nvalue = \"v\""), "credential 1: it has no name");
        assert_eq!(message("[[credential]]\nname = \"a\""), "\"a\": it has no value");
        assert!(message("[[credential]]\nname='a'\nvalue='b'\nkin='x'").contains("kin"));
        assert!(message("[[credential]]\nname='a'\nvalue='b'\nbase64='eA=='").contains("both"));
        assert!(message("[[credential]]\nname='a'\nbase64='!'").contains("base64"));
        assert!(message("[[credential]]\nname='a'\nvalue=7").contains("value must be a text"));
        assert!(message("credential = 7").contains("credential"));
        assert!(message("[other]").contains("other"));
        for secret in ["[[credential]]\nname='a'\nvalue='s3cr", "[[credential]]\nname='a'\nvalue=s3cr3t"] {
            assert!(!message(secret).contains("s3cr"), "a message quotes a value");
        }
    }

    #[test]
    fn line_ends_of_an_editor_do_not_get_into_values() {
        let all = [edited("a", b"line\nline\n"), edited("b", b"has\r\nboth")];
        let windows = format!("\u{feff}{}", render(&all, "").replace('\n', "\r\n"));
        let (text, is_text) = from_editor(windows.as_bytes());
        assert!(is_text);
        assert_eq!(parse(&text).unwrap(), all);
        assert!(!from_editor(b"\xff").1);
    }

    #[test]
    fn giving_up() {
        assert!(is_given_up("") && is_given_up("# a\n\n  # b\n"));
        assert!(!is_given_up("# a\n[[credential]]"));
    }
}
