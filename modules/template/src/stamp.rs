//! Text that is authenticated as a whole: a body, and a last line with an HMAC-SHA-256 of all before it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::bindings::exports::omni::credentials::types::{Error, Failure};
use crate::refuse;

/// Characters of the last line.
const LINE: usize = 64;

/// The body with its last line.
pub(crate) fn put(key: &[u8; 32], mut body: Vec<u8>) -> Vec<u8> {
    body.push(b'\n');
    let mac = mac(key, &body).finalize().into_bytes();
    body.extend(hex::encode(mac).into_bytes());
    body
}

/// The body, without looking at the last line.
pub(crate) fn body(stamped: &[u8]) -> Result<&[u8], Failure> {
    let at = stamped.len().checked_sub(LINE + 1).ok_or_else(|| refuse(Error::Truncated))?;
    Ok(&stamped[..at])
}

/// Whether the last line belongs to all before it.
pub(crate) fn holds(key: &[u8; 32], stamped: &[u8]) -> bool {
    let Some(at) = stamped.len().checked_sub(LINE) else { return false };
    let (before, line) = stamped.split_at(at);
    // One way to write it: what decodes and encodes to something else was altered.
    let Ok(found) = hex::decode(line) else { return false };
    hex::encode(&found).as_bytes() == line && mac(key, before).verify_slice(&found).is_ok()
}

fn mac(key: &[u8; 32], bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!());
    mac.update(bytes);
    mac
}
