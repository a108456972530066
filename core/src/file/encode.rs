//! From a document to bytes (§7).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};

use super::{Document, Record};
use crate::suite::Suite;
use crate::{Error, Failure, expiry, json, limits};

/// First line, without the version.
pub(super) const SIGNATURE: &str = "omni-credentials ";
/// The version of the format.
pub(super) const VERSION: u64 = 1;
/// Version of the seal.
pub(super) const SEAL_VERSION: u8 = 1;
/// Bytes that a line of base64 stands for: 64 characters.
pub(super) const BASE64_BYTES: usize = 48;

/// About as long as a record of a short value is, and header and trailer.
const RECORD: usize = 256;
const TRAILER: usize = 1024;

/// The file, and the keyed hash in its seal.
pub(super) fn file<S: Suite>(
    document: &Document<S>,
    generation: u64,
    key: &[u8; 32],
) -> Result<(Vec<u8>, [u8; 32]), Failure> {
    // What is known of the length; growing would copy what there is again and again.
    let known: usize = document.records.iter().map(|record| record.text().map_or(RECORD, <[u8]>::len)).sum();
    let capacity = known.saturating_add(TRAILER).min(limits::FILE_BYTES);
    let mut out = Limited { bytes: Vec::with_capacity(capacity), total: 0 };
    body(document, generation, &mut |piece| out.push(piece))?;
    let mut seal = vec![SEAL_VERSION, S::ID];
    seal.extend_from_slice(&document.current);
    let hash: [u8; 32] = keyed_hash(key)?.chain_update(&out.bytes).finalize().into_bytes().into();
    seal.extend_from_slice(&hash);
    out.push(b"  seal ");
    let mut line = [0; 64];
    out.push(encode(&seal, &mut line)?);
    out.push(b"\n");
    if out.total > limits::FILE_BYTES {
        return Err(Failure::found(Error::FileTooLarge, out.total as u64));
    }
    Ok((out.bytes, hash))
}

/// The keyed hash of every byte before the seal's line.
pub(super) fn seal<S: Suite>(
    document: &Document<S>,
    generation: u64,
    key: &[u8; 32],
) -> Result<[u8; 32], Failure> {
    let mut mac = keyed_hash(key)?;
    body(document, generation, &mut |piece| mac.update(piece))?;
    Ok(mac.finalize().into_bytes().into())
}

fn keyed_hash(key: &[u8; 32]) -> Result<Blake2bMac<U32>, Error> {
    Blake2bMac::new_from_slice(key).map_err(|_| Error::Other)
}

/// Every byte before the seal's line, piece by piece.
fn body<S: Suite>(document: &Document<S>, generation: u64, out: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
    out(format!("{SIGNATURE}{VERSION}\nkeyring\n").as_bytes());
    base64(&document.keyring, "  ", out)?;
    for record in &document.records {
        block(record, generation, out)?;
    }
    let (records, since) = (document.records.len(), document.deletions_since);
    out(format!("\nend\n  records {records}\n  generation {generation}\n  deletions-since {since}\n")
        .as_bytes());
    Ok(())
}

fn block(record: &Record, generation: u64, out: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
    if let Some(text) = record.text() {
        out(text);
        return Ok(());
    }
    let identity = &record.identity;
    let mut text = String::from(if record.sealed.is_some() { "\ncredential " } else { "\ndeleted " });
    json::push_string(&mut text, &identity.name);
    text.push_str("\n  kind ");
    json::push_string(&mut text, &identity.kind);
    text.push_str("\n  principal ");
    json::push_string(&mut text, &identity.principal);
    text.push_str("\n  scope ");
    text.push_str(&identity.scope);
    text.push('\n');
    if let Some(expires) = record.expires {
        text.push_str(&format!("  expires {}\n", expiry::to_text(expires).ok_or(Error::InvalidExpiry)?));
    }
    if let Some(deletion) = record.deletion() {
        text.push_str(&format!("  generation {}\n", deletion.generation().unwrap_or(generation)));
    }
    out(text.as_bytes());
    if let Some(sealed) = &record.sealed {
        out(b"  value\n");
        base64(sealed, "    ", out)?;
    }
    Ok(())
}

/// Lines of 64 characters.
fn base64(bytes: &[u8], indent: &str, out: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
    let mut line = [0; 64];
    for chunk in bytes.chunks(BASE64_BYTES) {
        out(indent.as_bytes());
        out(encode(chunk, &mut line)?);
        out(b"\n");
    }
    Ok(())
}

/// Up to 48 bytes, which are up to 64 characters.
fn encode<'a>(bytes: &[u8], line: &'a mut [u8; 64]) -> Result<&'a [u8], Error> {
    let length = STANDARD.encode_slice(bytes, &mut *line).map_err(|_| Error::Other)?;
    line.get(..length).ok_or(Error::Other)
}

/// Keeps bytes up to the longest file, and counts all.
struct Limited {
    bytes: Vec<u8>,
    total: usize,
}

impl Limited {
    fn push(&mut self, piece: &[u8]) {
        self.total = self.total.saturating_add(piece.len());
        if self.total <= limits::FILE_BYTES {
            self.bytes.extend_from_slice(piece);
        }
    }
}
