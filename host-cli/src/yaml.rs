//! YAML as Rails reads it, without what a value could lose on the way: what is neither text nor a whole number, true or
//! false has no text of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::nested::Node;

/// How deep names may be within names.
const MAX_DEPTH: usize = 64;
/// How many nodes all aliases together may stand for.
const MAX_ALIASED: usize = 100_000;
/// The key that takes over the names of another mapping.
const MERGE: &str = "<<";

/// The one document of a text; none if it is empty. An error says the line, and never a value.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, String> {
    let mut reader = Reader::default();
    for next in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = next.map_err(|error| wrong(error.marker(), "it is not YAML"))?;
        reader.take(event).map_err(|what| wrong(&span.start, what))?;
    }
    Ok(reader.root)
}

fn wrong(place: &Marker, what: &str) -> String {
    format!("line {}: {what}", place.line())
}

#[derive(Default)]
struct Reader {
    /// What has been begun, from the outside in.
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    aliased: usize,
    root: Option<Node>,
}

/// A mapping or a list that has not ended yet.
struct Open {
    anchor: usize,
    names: Vec<(String, Node)>,
    /// What is taken over from other mappings.
    merged: Vec<(String, Node)>,
    elements: Vec<Node>,
    next: Next,
}

/// What comes next in it.
enum Next {
    Key,
    Of(String),
    Merged,
    Element,
}

impl Reader {
    fn take(&mut self, event: Event<'_>) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if style == ScalarStyle::Plain && text == MERGE && self.at_key() {
                    return self.expect(Next::Merged);
                }
                if self.at_key() {
                    return self.expect(Next::Of(text.into_owned()));
                }
                self.add(anchor, scalar(&text, style, tag.as_ref()))
            }
            Event::MappingStart(anchor, tag) => self.begin(anchor, tag.as_ref(), Next::Key),
            Event::SequenceStart(anchor, tag) => self.begin(anchor, tag.as_ref(), Next::Element),
            Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, mut names, merged, .. }) => {
                    // Its own names win, and of what is merged the first.
                    for (name, node) in merged {
                        if names.iter().all(|(own, _)| *own != name) {
                            names.push((name, node));
                        }
                    }
                    self.add(anchor, Node::Names(names))
                }
                None => Err("it is not YAML"),
            },
            Event::SequenceEnd => match self.open.pop() {
                Some(Open { anchor, elements, .. }) => self.add(anchor, Node::List(elements)),
                None => Err("it is not YAML"),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).ok_or("an alias stands within what it is for")?;
                let (size, depth) = extent(node);
                self.aliased = self.aliased.saturating_add(size);
                if self.aliased > MAX_ALIASED || depth + self.open.len() > MAX_DEPTH {
                    return Err("its aliases stand for too much");
                }
                let node = node.clone();
                self.add(0, node)
            }
            Event::DocumentStart(_) if self.root.is_some() => Err("there is a second document"),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn at_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { next: Next::Key, .. }))
    }

    fn expect(&mut self, next: Next) -> Result<(), &'static str> {
        if let Some(open) = self.open.last_mut() {
            open.next = next;
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, tag: Option<&Cow<'_, Tag>>, next: Next) -> Result<(), &'static str> {
        if self.at_key() {
            return Err("a name is no text");
        }
        if self.open.len() >= MAX_DEPTH {
            return Err("it is nested too deep");
        }
        if tag.is_some() {
            return Err("it has a tag, which only its own program understands");
        }
        self.open.push(Open { anchor, names: Vec::new(), merged: Vec::new(), elements: Vec::new(), next });
        Ok(())
    }

    /// Puts a node where it stands.
    fn add(&mut self, anchor: usize, node: Node) -> Result<(), &'static str> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match std::mem::replace(&mut open.next, Next::Key) {
            Next::Key => return Err("a name is no text"),
            Next::Of(name) => open.names.push((name, node)),
            Next::Merged => merge(&mut open.merged, node)?,
            Next::Element => {
                open.elements.push(node);
                open.next = Next::Element;
            }
        }
        Ok(())
    }
}

/// What `<<` takes over: the names of a mapping, or of several in a list.
fn merge(merged: &mut Vec<(String, Node)>, node: Node) -> Result<(), &'static str> {
    match node {
        Node::Names(names) => {
            for (name, node) in names {
                if merged.iter().all(|(known, _)| *known != name) {
                    merged.push((name, node));
                }
            }
            Ok(())
        }
        Node::List(elements) if !elements.iter().any(|it| matches!(it, Node::List(_))) => {
            elements.into_iter().try_for_each(|element| merge(merged, element))
        }
        _ => Err("what << takes over is no mapping"),
    }
}

/// How many nodes it has, itself included, and how deep they are.
fn extent(node: &Node) -> (usize, usize) {
    let of_all = |inner: &mut dyn Iterator<Item = &Node>| {
        let joined = |(size, depth): (usize, usize), (more, deep): (usize, usize)| {
            (size.saturating_add(more), depth.max(deep))
        };
        let (size, depth) = inner.map(extent).fold((0, 0), joined);
        (size.saturating_add(1), depth + 1)
    };
    match node {
        Node::Text(_) | Node::Other => (1, 1),
        Node::Names(names) => of_all(&mut names.iter().map(|(_, node)| node)),
        Node::List(elements) => of_all(&mut elements.iter()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>) -> Node {
    let is_text = match tag {
        Some(tag) => tag.is_yaml_core_schema() && tag.suffix == "str",
        None => style != ScalarStyle::Plain || !is_other(text),
    };
    if is_text { Node::text(text) } else { Node::Other }
}

/// Whether Ruby makes of a text without quotes what has another text: nothing, yes and no, a symbol, a number that is not
/// written as Ruby writes it, a date or a time.
fn is_other(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    if matches!(text, "true" | "false") || is_whole(text) {
        return false;
    }
    matches!(lower.as_str(), "" | "~" | "null" | "yes" | "no" | "on" | "off" | "true" | "false")
        || (text.starts_with(':') && text.len() > 1)
        || is_number(&lower)
        || is_date(&lower)
}

/// A whole number as it is written everywhere.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text != "-0" && all(digits, |c| c.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'))
}

/// Numbers of YAML 1.1: `1_000`, `0x1f`, `017`, `1.5`, `.inf`, `1:30`.
fn is_number(lower: &str) -> bool {
    let unsigned = lower.strip_prefix(['+', '-']).unwrap_or(lower);
    let is_digit = |c: char| c.is_ascii_digit() || matches!(c, '_' | ',');
    if matches!(unsigned, ".inf" | ".nan") {
        return true;
    }
    for (prefix, is_of_it) in [("0x", is_hex as fn(char) -> bool), ("0b", is_binary)] {
        if unsigned.strip_prefix(prefix).is_some_and(|rest| all(rest, is_of_it)) {
            return true;
        }
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    if let Some((whole, fraction)) = unsigned.split_once('.') {
        let (fraction, exponent) = fraction.split_once('e').unwrap_or((fraction, "+0"));
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        return !(whole.is_empty() && fraction.is_empty())
            && whole.chars().all(|c| is_digit(c) || c == ':')
            && fraction.chars().all(is_digit)
            && all(exponent, |c| c.is_ascii_digit());
    }
    all(unsigned, is_digit) || (unsigned.contains(':') && unsigned.split(':').all(|part| all(part, is_digit)))
}

/// `2027-01-31`, also with a time after it.
fn is_date(lower: &str) -> bool {
    let (date, time) = lower.split_once(['t', ' ']).unwrap_or((lower, "0"));
    let mut parts = date.split('-');
    let mut is_part = |lengths: std::ops::RangeInclusive<usize>| {
        parts.next().is_some_and(|part| lengths.contains(&part.len()) && all(part, |c| c.is_ascii_digit()))
    };
    is_part(4..=4)
        && is_part(1..=2)
        && is_part(1..=2)
        && parts.next().is_none()
        && time.trim_start().starts_with(|c: char| c.is_ascii_digit())
}

fn is_hex(c: char) -> bool {
    c.is_ascii_hexdigit() || c == '_'
}

fn is_binary(c: char) -> bool {
    matches!(c, '0' | '1' | '_')
}

/// Whether a text has characters, and only such.
fn all(text: &str, is_of_it: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(is_of_it)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::nested::flatten;

    fn read(text: &str) -> Vec<(String, String)> {
        let Some(Node::Names(names)) = parse(text).unwrap() else { return Vec::new() };
        flatten(names).unwrap().into_iter().map(|(name, value)| (name, value.to_string())).collect()
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    #[test]
    fn what_rails_prints() {
        let text = "\u{feff}---\n# of the app\naws:\n  access_key_id: AKIA123\n  secret: \"a\\nb\"\nhosts:\n- one\n- n: 2\n\
            secret_key_base: 0123456789abcdef\npem: |\n  -----BEGIN\n  x\nfolded: 'it''s'\non: off_\nempty: ''\n";
        let expected = [
            ("aws.access_key_id", "AKIA123"),
            ("aws.secret", "a\nb"),
            ("hosts.0", "one"),
            ("hosts.1.n", "2"),
            ("secret_key_base", "0123456789abcdef"),
            ("pem", "-----BEGIN\nx\n"),
            ("folded", "it's"),
            ("on", "off_"),
            ("empty", ""),
        ];
        assert_eq!(read(text), pairs(expected));
        assert_eq!(read("a: 1\r\nb: x\r\n"), pairs([("a", "1"), ("b", "x")]));
    }

    #[test]
    fn anchors_aliases_and_merges() {
        let text = "base: &b {user: u, host: h}\nmore: &m {host: other, port: 1}\nprod:\n  <<: *b\n  host: own\n\
            both:\n  <<: [*m, *b]\ncopy: *b\nkey: &k s\nsame: *k\n";
        let expected = [
            ("base.user", "u"),
            ("base.host", "h"),
            ("more.host", "other"),
            ("more.port", "1"),
            ("prod.host", "own"),
            ("prod.user", "u"),
            ("both.host", "other"),
            ("both.port", "1"),
            ("both.user", "u"),
            ("copy.user", "u"),
            ("copy.host", "h"),
            ("key", "s"),
            ("same", "s"),
        ];
        assert_eq!(read(text), pairs(expected));
        assert_eq!(read("'<<': x"), pairs([("<<", "x")]));
    }

    #[test]
    fn only_what_keeps_its_text_is_a_value() {
        for text in [
            "a",
            "12e45",
            "1.2.3",
            "10.0.0.1",
            "0",
            "-7",
            "true",
            "false",
            "1234-5678",
            "2f9a",
            "0xyz",
            "+49 30 1",
            "!!str 1.50",
            "'1.50'",
            "\"\"",
            "a:b",
            "yesterday",
            "12:ab",
            "x_1",
            "2027-01-31-x",
            ".",
            "-.",
            "1e3",
        ] {
            let Some(Node::Names(names)) = parse(&format!("k: {text}")).unwrap() else { unreachable!() };
            assert!(flatten(names).is_ok(), "{text}");
        }
        for text in [
            "",
            "~",
            "null",
            "Null",
            "yes",
            "No",
            "ON",
            "off",
            "True",
            "1.50",
            "-.5",
            "1_000",
            "1,000",
            "+1",
            "007",
            "0x1F",
            "0b1",
            "-0",
            ".inf",
            "-.INF",
            ".nan",
            "1.5e+3",
            "12:30",
            "1:30:00.5",
            ":symbol",
            "2027-01-31",
            "2027-1-3 12:00:00",
            "2027-01-31T12:00:00Z",
            "!ruby/object:X a",
            "!!int 1",
            "!!binary aGk=",
        ] {
            let Some(Node::Names(names)) = parse(&format!("k: {text}")).unwrap() else { unreachable!() };
            let error = flatten(names).unwrap_err();
            assert!(error.starts_with("\"k\" is neither text"), "{text}: {error}");
        }
    }

    #[test]
    fn mistakes_name_their_line_and_no_value() {
        let deep = format!("k: {}", "[".repeat(100));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let many = format!("*a{}, ", n - 1).repeat(10);
            bomb.push_str(&format!("a{n}: &a{n} [{many}]\n"));
        }
        for (text, said) in [
            ("a: hunter2\nb: [hunter2\n", "it is not YAML"),
            ("a: hunter2\n\tb: 1\n", "it is not YAML"),
            ("a: *hunter2\n", "line 1: it is not YAML"),
            ("a: 1\n---\nb: hunter2\n", "line 2: there is a second document"),
            ("[hunter2]: 1\n", "line 1: a name is no text"),
            ("a: &a [*a]\n", "line 1: an alias stands within"),
            ("a: !ruby/hash {b: hunter2}\n", "line 1: it has a tag"),
            ("a: {<<: hunter2}\n", "line 1: what << takes over"),
            (&deep, "line 1: it is nested too deep"),
            (&bomb, "its aliases stand for too much"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said) && !error.contains("hunter2"), "{text}: {error}");
        }
        assert_eq!(parse("# nothing\n").unwrap(), None);
        assert_eq!(parse("").unwrap(), None);
    }
}
