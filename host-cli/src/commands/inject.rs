//! Templates: a text with the values of credentials in it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use omni_credentials_host::Entry;
use zeroize::Zeroizing;

use crate::args::Selection;
use crate::context::Context;
use crate::error::Error;
use crate::store::Store;
use crate::{find, input, output};

/// Longest template.
const LONGEST: u64 = 16 << 20;
const START: &str = "{{";
const END: &str = "}}";
const SCHEME: &str = "omni://";

pub(crate) fn run(context: &Context, path: Option<&Path>, to: Option<&Path>) -> Result<(), Error> {
    let text = template(path)?;
    let mut store = Store::read(context)?;
    // All of them are found before a secret is asked for, and all open before anything is written.
    let mut pieces = Vec::new();
    for piece in parse(&text)? {
        pieces.push(match piece {
            Piece::Text(text) => (text, None),
            Piece::Credential { name, selection } => {
                ("", Some(find::only_one(&mut store, &name, &selection)?))
            }
        });
    }
    let filled = fill(context, store, &pieces)?;
    match to {
        None => output::write(&filled),
        Some(path) => write(path, &filled).map_err(Error::io(path.display().to_string())),
    }
}

fn template(path: Option<&Path>) -> Result<String, Error> {
    let bytes = input::bytes(path, LONGEST)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Error::Meaningless(format!("the template is longer than {LONGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Error::Meaningless("the template is not UTF-8".to_owned()))
}

fn fill(
    context: &Context,
    store: Store,
    pieces: &[(&str, Option<Entry>)],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut filled = Zeroizing::new(Vec::new());
    if pieces.iter().all(|(_, entry)| entry.is_none()) {
        pieces.iter().for_each(|(text, _)| filled.extend_from_slice(text.as_bytes()));
        return Ok(filled);
    }
    let mut opened = store.unlock(context)?;
    for (text, entry) in pieces {
        filled.extend_from_slice(text.as_bytes());
        if let Some(entry) = entry {
            filled.extend_from_slice(&opened.value_of(entry)?);
        }
    }
    Ok(filled)
}

/// Replaces a file, or makes one that no other user can read.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A piece of a template.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    Credential { name: String, selection: Selection },
}

/// `{{ omni://NAME }}`, with `?kind=…&principal=…&scope=…` behind the name where it takes more to tell credentials apart.
/// What else stands between such braces belongs to other templates.
fn parse(text: &str) -> Result<Vec<Piece<'_>>, Error> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(start) = rest.get(from..).and_then(|text| text.find(START)).map(|at| at + from) {
        let (before, inside) = rest.split_at(start);
        let Some(inside) = inside.get(START.len()..) else { break };
        let reference = inside.trim_start().strip_prefix(SCHEME);
        let Some(reference) = reference else {
            from = start + START.len();
            continue;
        };
        let (reference, after) =
            reference.split_once(END).ok_or_else(|| wrong("a {{ omni:// is not closed"))?;
        pieces.push(Piece::Text(before));
        pieces.push(credential(reference.trim())?);
        (rest, from) = (after, 0);
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn credential(reference: &str) -> Result<Piece<'static>, Error> {
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
                return Err(wrong(
                    "a reference has kind, principal and scope behind its ?, and nothing else",
                ));
            }
        }
    }
    Ok(Piece::Credential { name: decoded(name)?, selection })
}

/// Percent-encoding (RFC 3986).
fn decoded(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or_else(|| wrong("a % in a reference has no two digits behind it"))?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong("a reference is not UTF-8"))
}

fn wrong(what: &str) -> Error {
    Error::Meaningless(format!("the template: {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn references_are_found() {
        let named = |name: &str| Piece::Credential { name: name.to_owned(), selection: Selection::default() };
        assert_eq!(parse("").unwrap(), [Piece::Text("")]);
        assert_eq!(parse("{{ other }} {").unwrap(), [Piece::Text("{{ other }} {")]);
        assert_eq!(
            parse("a={{ omni://a }}\n{{x}}{{omni://b%20c}}!").unwrap(),
            [Piece::Text("a="), named("a"), Piece::Text("\n{{x}}"), named("b c"), Piece::Text("!")]
        );
        let (kind, scope) = (Some("api_key".to_owned()), Some("{\"a\":1}".to_owned()));
        let selection = Selection { kind, principal: None, scope };
        assert_eq!(
            parse("{{ omni://a?kind=api_key&scope={%22a%22:1} }}").unwrap().into_iter().nth(1).unwrap(),
            Piece::Credential { name: "a".to_owned(), selection }
        );
        for bad in ["{{ omni://a", "{{ omni://a%2 }}", "{{ omni://a?x=1 }}", "{{ omni://%ff }}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
