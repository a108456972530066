//! Replaces values in a stream of bytes.
//!
//! What could be the beginning of a value is held back until the next bytes tell, so that a value is found however it is
//! written. At each place the longest value counts. A value that begins inside of another one and ends after it is found,
//! too: its end tells a part of it.

use zeroize::Zeroizing;

/// A value of fewer bytes is too common to be replaced.
const SHORTEST_VALUE: usize = 4;
/// A line of a value of several lines is replaced on its own if it has as many bytes.
const SHORTEST_LINE: usize = 8;

/// What is replaced.
#[derive(Default)]
pub(crate) struct Values {
    patterns: Vec<Pattern>,
    /// Where patterns that start with a byte are.
    by_first: Vec<Vec<usize>>,
}

struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    shown: String,
}

impl Values {
    /// Has a value replaced. False if it is too short for that.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        if value.len() < SHORTEST_VALUE {
            return false;
        }
        let shown = format!("[{}]", String::from_utf8_lossy(name).escape_debug());
        self.push(value, &shown);
        if value.contains(&b'\n') {
            for line in value.split(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                // Lines around a key are the same in all of them.
                if line.len() >= SHORTEST_LINE && !line.starts_with(b"-----") {
                    self.push(line, &shown);
                }
            }
        }
        true
    }

    fn push(&mut self, bytes: &[u8], shown: &str) {
        let Some(first) = bytes.first() else { return };
        if self.patterns.iter().any(|pattern| *pattern.bytes == bytes) {
            return;
        }
        if self.by_first.is_empty() {
            self.by_first = vec![Vec::new(); usize::from(u8::MAX) + 1];
        }
        if let Some(places) = self.by_first.get_mut(usize::from(*first)) {
            places.push(self.patterns.len());
        }
        self.patterns.push(Pattern { bytes: Zeroizing::new(bytes.to_vec()), shown: shown.to_owned() });
    }
}

/// One stream.
pub(crate) struct Masked<'a> {
    values: &'a Values,
    /// What came and is not passed on yet.
    held: Zeroizing<Vec<u8>>,
    /// What is known of the values that start where `held` does.
    front: Option<Front>,
    /// The last value that was found, where it goes on in `held`.
    found: Option<Found>,
}

/// A value that was found, and not passed over yet.
struct Found {
    index: usize,
    /// How many of its bytes are still to come.
    left: usize,
}

/// The values that may start at a place.
struct Front {
    /// Those whose first `compared` bytes are there, and that are longer than that.
    open: Vec<usize>,
    compared: usize,
    /// The longest one that is there as a whole.
    whole: Option<usize>,
}

impl<'a> Masked<'a> {
    pub(crate) fn new(values: &'a Values) -> Self {
        Self { values, held: Zeroizing::default(), front: None, found: None }
    }

    /// What can be passed on after these bytes came.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.take(false)
    }

    /// What is left at the end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.take(true)
    }

    fn take(&mut self, at_end: bool) -> Vec<u8> {
        let mut passed = Vec::with_capacity(self.held.len());
        let mut place = 0;
        while let Some(rest) = self.held.get(place..).filter(|rest| !rest.is_empty()) {
            let front = self.front.take().unwrap_or_else(|| self.values.start(rest, self.found.as_ref()));
            let front = self.values.front(rest, front);
            if !front.open.is_empty() && !at_end {
                self.front = Some(front);
                break;
            }
            if let Some((index, pattern)) =
                front.whole.and_then(|index| Some((index, self.values.patterns.get(index)?)))
            {
                passed.extend_from_slice(pattern.shown.as_bytes());
                self.found = Some(Found { index, left: pattern.bytes.len() });
            }
            match &mut self.found {
                Some(found) => {
                    found.left = found.left.saturating_sub(1);
                    if found.left == 0 {
                        self.found = None;
                    }
                }
                None => passed.extend(rest.first()),
            }
            place += 1;
        }
        let taken = place.min(self.held.len());
        self.held.drain(..taken);
        passed
    }
}

impl Values {
    /// The values that may start with the first byte of `rest`; inside of one that was found, others that end after it.
    fn start(&self, rest: &[u8], found: Option<&Found>) -> Front {
        let first = rest.first().map_or(0, |first| usize::from(*first));
        let mut open = self.by_first.get(first).cloned().unwrap_or_default();
        if let Some(found) = found {
            open.retain(|index| {
                let longer = self.patterns.get(*index).is_some_and(|it| it.bytes.len() > found.left);
                *index != found.index && longer
            });
        }
        Front { open, compared: 0, whole: None }
    }

    /// Which values start at the beginning of `rest`, of which a part may have been compared before.
    fn front(&self, rest: &[u8], mut front: Front) -> Front {
        let from = front.compared;
        let mut whole = front.whole;
        front.open.retain(|index| {
            let Some(pattern) = self.patterns.get(*index) else { return false };
            let until = pattern.bytes.len().min(rest.len());
            let is_same = pattern.bytes.get(from..until) == rest.get(from..until);
            if is_same && until == pattern.bytes.len() {
                let longest = whole.and_then(|index| self.patterns.get(index));
                if longest.is_none_or(|longest| longest.bytes.len() < until) {
                    whole = Some(*index);
                }
                return false;
            }
            is_same
        });
        Front { open: front.open, compared: rest.len(), whole }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn values(all: &[(&str, &str)]) -> Values {
        let mut values = Values::default();
        for (name, value) in all {
            values.add(name.as_bytes(), value.as_bytes());
        }
        values
    }

    /// The same for every way to cut the text into pieces of one length.
    fn masked(values: &Values, text: &str) -> String {
        let results: Vec<_> = (1..=text.len().max(1))
            .map(|length| {
                let mut stream = Masked::new(values);
                let mut passed = Vec::new();
                for piece in text.as_bytes().chunks(length) {
                    passed.extend(stream.pass(piece));
                }
                passed.extend(stream.finish());
                String::from_utf8(passed).unwrap()
            })
            .collect();
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        results[0].clone()
    }

    #[test]
    fn values_are_found_however_they_are_cut() {
        let all = values(&[("a", "secret"), ("b", "secrets of all"), ("c", "abab"), ("d", "cretin")]);
        for (text, expected) in [
            ("", ""),
            ("nothing", "nothing"),
            ("secret", "[a]"),
            ("a secret.", "a [a]."),
            ("secrets", "[a]s"),
            ("secrets of all", "[b]"),
            ("secrets of al", "[a]s of al"),
            ("secretsecret", "[a][a]"),
            ("secrecret", "secrecret"),
            ("secrsecret", "secr[a]"),
            ("secretin", "[a][d]"),
            ("secretins", "[a][d]s"),
            ("secreti", "[a]i"),
            ("cretinsecretinabab", "[d][a][d][c]"),
            ("ababab", "[c]ab"),
            ("aabab", "a[c]"),
            ("secre", "secre"),
        ] {
            assert_eq!(masked(&all, text), expected, "{text}");
        }
    }

    #[test]
    fn values_that_overlap() {
        let all = values(&[
            ("a", "abcdefgh"),
            ("b", "cdefghijkl"),
            ("c", "efgh"),
            ("d", "ijklmnop"),
            ("e", "abcd"),
        ]);
        for (text, expected) in [
            ("abcdefghijkl", "[a][b]"),
            ("abcdefghijklmnop", "[a][b][d]"),
            ("abcdefghijkx", "[a]ijkx"),
            ("abcdefghabcd", "[a][e]"),
            ("abcdefg", "[e]efg"),
            ("efghabcdefghijkl.", "[c][a][b]."),
        ] {
            assert_eq!(masked(&all, text), expected, "{text}");
        }
    }

    #[test]
    fn lines_of_a_value() {
        let key = "-----BEGIN KEY-----\nline one of it\nshort\r\nline two of it\n-----END KEY-----\n";
        let all = values(&[("key", key)]);
        assert_eq!(masked(&all, &format!("<{key}>")), "<[key]\n>");
        assert_eq!(masked(&all, key.trim_end()), "[key]");
        assert_eq!(masked(&all, "x line one of it\r\nshort"), "x [key]\r\nshort");
        assert_eq!(masked(&all, "-----BEGIN KEY-----\n"), "-----BEGIN KEY-----\n");
    }

    #[test]
    fn short_values_and_names() {
        let mut all = Values::default();
        assert!(
            !all.add(b"n", b"abc")
                && !all.add(b"n", b"")
                && !all.add(b"n", b"\r\n")
                && !all.add(b"n", b"abc\n")
        );
        assert!(all.add(b"a\nb", b"abcd"));
        assert_eq!(masked(&all, "abc abcd"), "abc [a\\nb]");
    }

    #[test]
    fn a_long_value_in_small_pieces() {
        let mut all = Values::default();
        let value = "x".repeat(1 << 20);
        assert!(all.add(b"n", value.as_bytes()));
        let mut stream = Masked::new(&all);
        let mut passed = Vec::new();
        for _ in 0..(1 << 20) {
            passed.extend(stream.pass(b"x"));
        }
        assert_eq!(passed, b"[n]");
    }
}
