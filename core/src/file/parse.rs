//! From bytes to a document (§7).

use std::cmp::Ordering;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr2;

use super::encode::{BASE64_BYTES, SEAL_VERSION};
use super::lines::{Lines, decimal};
use super::{Deletion, Document, Record, Text};
use crate::bytes::Reader;
use crate::slots::KeyId;
use crate::suite::Suite;
use crate::{Error, Failure, OwnedIdentity, expiry, identity, json, limits, scope, value};

/// Longest line of base64.
const BASE64_LINE: usize = 64;

pub(super) fn parse<S: Suite>(file: &Rc<Vec<u8>>) -> Result<Document<S>, Failure> {
    let mut lines = Lines::open(file)?;
    let mut document = head::<S>(&mut lines, file)?;
    let count = lines.field("  records ")?;
    let count = decimal(count).ok_or_else(|| lines.fail(Error::BadSyntax))?;
    let records = document.records.len() as u64;
    let mismatch = lines.fail(Failure::found(Error::CountMismatch, records));
    let generation = lines.field("  generation ")?;
    document.generation = decimal(generation).ok_or_else(|| lines.fail(Error::BadSyntax))?;
    let since = lines.field("  deletions-since ")?;
    document.deletions_since = decimal(since).ok_or_else(|| lines.fail(Error::BadSyntax))?;
    let (since, generation) = (document.deletions_since, document.generation);
    let mut deletions = document.records.iter().filter_map(|record| record.deletion()?.generation());
    let contradiction =
        since > generation || deletions.any(|deletion| deletion <= since || deletion > generation);
    let contradiction = contradiction.then(|| lines.fail(Error::NotCanonical));
    let text = lines.field("  seal ")?;
    // Not before the markers of a merge would have shown: git joins counts that are the same.
    if count != records {
        return Err(mismatch);
    }
    if let Some(failure) = contradiction {
        return Err(failure);
    }
    let seal = parse_seal::<S>(text).map_err(|failure| lines.fail(failure))?;
    if seal.0 != document.current {
        return Err(lines.fail(Error::NotCanonical));
    }
    document.seal = Some(seal);
    lines.end()?;
    Ok(document)
}

pub(super) fn parse_unsealed<S: Suite>(file: &Rc<Vec<u8>>) -> Result<Document<S>, Failure> {
    let mut lines = Lines::open(file)?;
    let mut document = head::<S>(&mut lines, file)?;
    // Whatever stands there now, what is written next is newer than each side of the merge.
    let trailer = lines.rest();
    let highest = |field: &str| trailer.lines().filter_map(|line| decimal(line.strip_prefix(field)?)).max();
    let deletions = document.records.iter().filter_map(|record| record.deletion()?.generation());
    document.generation = deletions.chain(highest("  generation ")).max().unwrap_or(0);
    document.deletions_since = highest("  deletions-since ").unwrap_or(0).min(document.generation);
    let since = Deletion::In(document.deletions_since);
    document.records.retain(|record| record.deletion().is_none_or(|deletion| deletion > since));
    Ok(document)
}

/// The header and the records, up to and with the line `end`.
fn head<S: Suite>(lines: &mut Lines<'_>, file: &Rc<Vec<u8>>) -> Result<Document<S>, Failure> {
    lines.expect("keyring")?;
    let keyring = base64(lines, "  ", Error::Malformed)?;
    let at = lines.fail(Error::Other).line;
    let mut document =
        Document::<S>::from_parts(keyring, 0, Vec::new(), None).map_err(|failure| failure.at(at))?;
    loop {
        let start = lines.offset();
        lines.expect("")?;
        let line = lines.line()?;
        let mut record = if let Some(name) = line.strip_prefix("credential ") {
            record::<S>(lines, name, true)?
        } else if let Some(name) = line.strip_prefix("deleted ") {
            record::<S>(lines, name, false)?
        } else if line == "end" {
            return Ok(document);
        } else {
            return Err(lines.unexpected(line));
        };
        let order = document.records.last().map(|last| last.identity.cmp(&record.identity));
        match order {
            None | Some(Ordering::Less) => {}
            Some(Ordering::Equal) => return Err(lines.fail(Error::DuplicateRecord)),
            Some(Ordering::Greater) => return Err(lines.fail(Error::Unsorted)),
        }
        if document.records.len() >= limits::FILE_RECORDS {
            return Err(lines.fail(Error::TooManyRecords));
        }
        // Only what is the one encoding of a record gets here, so it need not be encoded again.
        record.text = Some(Text { file: Rc::clone(file), range: start..lines.offset() });
        document.records.push(Rc::new(record));
    }
}

/// A record whose first line has been read.
fn record<S: Suite>(lines: &mut Lines<'_>, name: &str, live: bool) -> Result<Record, Failure> {
    let name = string(lines, name, limits::NAME_BYTES, Error::InvalidName)?;
    let kind = lines.field("  kind ")?;
    let kind = string(lines, kind, limits::KIND_BYTES, Error::InvalidKind)?;
    let principal = lines.field("  principal ")?;
    let principal = string(lines, principal, limits::PRINCIPAL_BYTES, Error::InvalidPrincipal)?;
    let text = lines.field("  scope ")?;
    let scope = scope::canonical(text.as_bytes()).map_err(|failure| lines.fail(failure))?;
    if scope != text {
        return Err(lines.fail(Error::NotCanonical));
    }
    let identity = OwnedIdentity { name, kind, principal, scope: scope.into_owned() };
    if !live {
        let generation = lines.field("  generation ")?;
        let generation =
            decimal(generation).filter(|it| *it > 0).ok_or_else(|| lines.fail(Error::BadSyntax))?;
        return Ok(Record::deleted(identity, Deletion::In(generation)));
    }
    let expires = match lines.field_if("  expires ")? {
        Some(text) => Some(expiry::parse(text).ok_or_else(|| lines.fail(Error::BadSyntax))?),
        None => None,
    };
    lines.expect("  value")?;
    let sealed = base64(lines, "    ", Error::Malformed)?;
    value::check::<S>(&sealed).map_err(|failure| lines.fail(failure))?;
    Ok(Record::live(identity, expires, sealed))
}

/// A JSON string in canonical form, of a field's length.
fn string(lines: &Lines<'_>, text: &str, most: usize, invalid: Error) -> Result<String, Failure> {
    // Nearly every string: nothing in it is escaped, and a line holds no control characters.
    let plain = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    if let Some(plain) = plain.filter(|plain| memchr2(b'"', b'\\', plain.as_bytes()).is_none()) {
        return identity::text(plain.as_bytes(), most).map(str::to_owned).ok_or_else(|| lines.fail(invalid));
    }
    let value: String = serde_json::from_str(text).map_err(|_| lines.fail(Error::BadSyntax))?;
    identity::text(value.as_bytes(), most).ok_or_else(|| lines.fail(invalid))?;
    let mut canonical = String::with_capacity(text.len());
    json::push_string(&mut canonical, &value);
    if canonical == text { Ok(value) } else { Err(lines.fail(Error::NotCanonical)) }
}

/// Lines of base64, all of 64 characters but the last. None at all is `empty`.
fn base64(lines: &mut Lines<'_>, indent: &str, empty: Error) -> Result<Vec<u8>, Failure> {
    // Two lines are a value of less than 32 bytes.
    let mut out = Vec::with_capacity(2 * BASE64_BYTES);
    let mut bytes = [0; BASE64_BYTES];
    let mut last = false;
    while let Some(text) = lines.field_if(indent)? {
        if last || text.is_empty() || text.len() > BASE64_LINE {
            return Err(lines.fail(Error::NotCanonical));
        }
        let decoded = decode(text, &mut bytes).map_err(|error| lines.fail(error))?;
        out.extend_from_slice(decoded);
        last = decoded.len() < BASE64_BYTES;
    }
    // What a merge left in the middle of a value is no damage to the value.
    if lines.at_marker() {
        return Err(lines.line().map_or_else(|failure| failure, |line| lines.unexpected(line)));
    }
    if out.is_empty() { Err(lines.fail(empty)) } else { Ok(out) }
}

/// A line of base64, padded and canonical.
fn decode<'a>(text: &str, bytes: &'a mut [u8; BASE64_BYTES]) -> Result<&'a [u8], Error> {
    let length = STANDARD.decode_slice(text, bytes).map_err(|_| Error::BadSyntax)?;
    bytes.get(..length).ok_or(Error::Other)
}

/// Version, suite, key id and keyed hash.
fn parse_seal<S: Suite>(text: &str) -> Result<(KeyId, [u8; 32]), Failure> {
    let mut bytes = [0; BASE64_BYTES];
    let mut reader = Reader(decode(text, &mut bytes)?);
    match reader.u8()? {
        SEAL_VERSION => {}
        other => return Err(Failure::found(Error::UnknownVersion, other.into())),
    }
    match reader.u8()? {
        id if id == S::ID => {}
        other => return Err(Failure::found(Error::UnknownSuite, other.into())),
    }
    let seal = (*reader.array()?, *reader.array()?);
    if reader.0.is_empty() { Ok(seal) } else { Err(Error::Malformed.into()) }
}
