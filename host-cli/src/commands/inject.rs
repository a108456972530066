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
use crate::{find, input, output, reference};

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

/// `{{ omni://NAME }}`, where `NAME` is a [`mod@reference`]. What else stands between such braces belongs to other
/// templates.
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

fn credential(text: &str) -> Result<Piece<'static>, Error> {
    let (name, selection) = reference::parse(text).map_err(|what| wrong(&what))?;
    Ok(Piece::Credential { name, selection })
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
