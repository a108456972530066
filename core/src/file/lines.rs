//! A file as lines, each checked before it is looked at.

use memchr::memchr;

use super::encode::{SIGNATURE, VERSION};
use crate::{Error, Failure, limits};

/// How lines begin that a merge left behind.
const MARKERS: [&str; 4] = ["<<<<<<<", "|||||||", "=======", ">>>>>>>"];

/// The lines after the first, which has been checked.
pub(super) struct Lines<'a> {
    /// Of the file.
    length: usize,
    rest: &'a str,
    /// The line that was read last, counted from 1.
    number: u32,
    /// A line that was read and put back.
    back: Option<&'a str>,
}

impl<'a> Lines<'a> {
    /// Size, first line, UTF-8.
    pub(super) fn open(file: &'a [u8]) -> Result<Self, Failure> {
        if file.len() > limits::FILE_BYTES {
            return Err(Failure::found(Error::FileTooLarge, file.len() as u64));
        }
        check_signature(file).map_err(|failure| failure.at(1))?;
        let text = str::from_utf8(file).map_err(|error| {
            let whole = file.get(..error.valid_up_to()).unwrap_or_default();
            // Half a character at the very end is a file that was cut off.
            let cause = if error.error_len().is_none() { Error::Truncated } else { Error::NotText };
            Failure::from(cause).at(line_count(whole) + 1)
        })?;
        let mut lines = Self { length: text.len(), rest: text, number: 0, back: None };
        lines.line()?;
        Ok(lines)
    }

    /// The next line, without its LF.
    pub(super) fn line(&mut self) -> Result<&'a str, Failure> {
        self.number = self.number.saturating_add(1);
        if let Some(line) = self.back.take() {
            return Ok(line);
        }
        let bytes = self.rest.as_bytes();
        let end = memchr(b'\n', bytes.get(..=limits::LINE_BYTES).unwrap_or(bytes));
        let Some((line, rest)) = end.and_then(|end| self.rest.split_at_checked(end)) else {
            let cut_off = self.rest.len() <= limits::LINE_BYTES;
            return Err(self.fail(if cut_off { Error::Truncated } else { Error::LineTooLong }));
        };
        self.rest = rest.strip_prefix('\n').unwrap_or(rest);
        // Without a way out in the middle, many bytes are looked at in one step.
        if !line.bytes().fold(false, |found, byte| found | (byte < b' ')) {
            return Ok(line);
        }
        match line.bytes().position(|byte| byte < b' ') {
            None => Ok(line),
            Some(at) if line.ends_with('\r') && at + 1 == line.len() => Err(self.fail(Error::CarriageReturn)),
            Some(_) => Err(self.fail(Error::NotText)),
        }
    }

    /// What follows `prefix` on the next line, which must start with it.
    pub(super) fn field(&mut self, prefix: &str) -> Result<&'a str, Failure> {
        let line = self.line()?;
        line.strip_prefix(prefix).ok_or_else(|| self.unexpected(line))
    }

    /// The next line, which must be this one.
    pub(super) fn expect(&mut self, expected: &str) -> Result<(), Failure> {
        let line = self.line()?;
        if line == expected { Ok(()) } else { Err(self.unexpected(line)) }
    }

    /// What follows `prefix` on the next line, if it starts with it.
    pub(super) fn field_if(&mut self, prefix: &str) -> Result<Option<&'a str>, Failure> {
        let line = self.line()?;
        if let Some(rest) = line.strip_prefix(prefix) {
            return Ok(Some(rest));
        }
        self.back = Some(line);
        self.number -= 1;
        Ok(None)
    }

    /// Whether a merge left the line that was put back.
    pub(super) fn at_marker(&self) -> bool {
        self.back.is_some_and(is_marker)
    }

    /// Nothing may follow.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let line = self.line()?;
        Err(self.unexpected(line))
    }

    /// Where the next line starts in the file.
    pub(super) fn offset(&self) -> usize {
        let back = self.back.map_or(0, |line| line.len() + 1);
        self.length - self.rest.len() - back
    }

    /// Everything that was not read yet.
    pub(super) fn rest(self) -> &'a str {
        self.rest
    }

    /// A failure at the line that was read last.
    pub(super) fn fail(&self, failure: impl Into<Failure>) -> Failure {
        failure.into().at(self.number)
    }

    /// The failure for a line that has no place here.
    pub(super) fn unexpected(&self, line: &str) -> Failure {
        self.fail(if is_marker(line) { Error::ConflictMarkers } else { Error::BadSyntax })
    }
}

fn is_marker(line: &str) -> bool {
    MARKERS.iter().any(|marker| line.starts_with(marker))
}

/// The first line. A file of another version says so even where nothing else of it can be read.
fn check_signature(file: &[u8]) -> Result<(), Failure> {
    let end = file.iter().take(64).position(|byte| *byte == b'\n');
    let line = file.get(..end.unwrap_or(file.len())).unwrap_or_default();
    if MARKERS.iter().any(|marker| line.starts_with(marker.as_bytes())) {
        return Err(Error::ConflictMarkers.into());
    }
    let first = format!("{SIGNATURE}{VERSION}");
    if end.is_none() && !line.is_empty() && first.as_bytes().starts_with(line) {
        return Err(Error::Truncated.into());
    }
    let version = line.strip_prefix(SIGNATURE.as_bytes()).ok_or(Error::NotACredentialsFile)?;
    let (version, carriage_return) = match version.strip_suffix(b"\r") {
        Some(version) => (version, true),
        None => (version, false),
    };
    match str::from_utf8(version).ok().and_then(decimal) {
        Some(VERSION) if carriage_return => Err(Error::CarriageReturn.into()),
        Some(VERSION) => Ok(()),
        Some(other) => Err(Failure::found(Error::UnknownVersion, other)),
        None => Err(Error::NotACredentialsFile.into()),
    }
}

/// A decimal integer without leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if digits && !leading_zero { text.parse().ok() } else { None }
}

fn line_count(bytes: &[u8]) -> u32 {
    let count = bytes.iter().filter(|byte| **byte == b'\n').count();
    u32::try_from(count).unwrap_or(u32::MAX)
}
