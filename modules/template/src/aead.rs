//! Sealing: XChaCha20-Poly1305. Another cipher goes here.

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};

use crate::bindings::exports::omni::credentials::types::{Error, Failure};
use crate::{random, refuse};

/// Longest value, in bytes.
pub(crate) const VALUE_BYTES: usize = 1 << 20;
/// Bytes of a nonce.
pub(crate) const NONCE: usize = 24;
/// Bytes of a tag.
pub(crate) const TAG: usize = 16;

/// Nonce, ciphertext, tag; the nonce is fresh.
pub(crate) fn seal(key: &[u8; 32], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Failure> {
    seal_with(key, random()?, aad, plaintext)
}

/// The same with a nonce that was used under other keys only.
pub(crate) fn seal_with(
    key: &[u8; 32],
    nonce: [u8; NONCE],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, Failure> {
    let mut buffer = plaintext.to_vec();
    let cipher = XChaCha20Poly1305::new(key.into());
    let tag = cipher
        .encrypt_inout_detached((&nonce).into(), aad, buffer.as_mut_slice().into())
        .map_err(|_| refuse(Error::Other))?;
    Ok([&nonce[..], &buffer, &tag].concat())
}

/// What was sealed under this key with these associated data.
pub(crate) fn open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Failure> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or_else(|| refuse(Error::Malformed))?;
    open_with(key, nonce, aad, rest)
}

/// The same with the nonce apart.
pub(crate) fn open_with(
    key: &[u8; 32],
    nonce: &[u8; NONCE],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, Failure> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or_else(|| refuse(Error::Malformed))?;
    let mut buffer = ciphertext.to_vec();
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(nonce.into(), aad, buffer.as_mut_slice().into(), tag.into())
        .map_err(|_| refuse(Error::NotAuthentic))?;
    Ok(buffer)
}
