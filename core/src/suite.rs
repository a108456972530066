//! Algorithm suites (§2): which AEAD seals.

use aead::array::Array;
use aead::consts::{U16, U32};
use aead::{AeadCore, AeadInOut, KeyInit};
use chacha20poly1305::aead;

use crate::Error;

/// Bytes of a key, of every suite.
pub(crate) const KEY: usize = 32;
/// Bytes of a tag, of every suite.
pub(crate) const TAG: usize = 16;

/// An algorithm suite. A module has exactly one.
pub trait Suite: 'static {
    /// The number that stands in sealed values and keyrings.
    const ID: u8;
    /// The name in FORMAT.md.
    const NAME: &'static str;
    /// The AEAD: a 32-byte key, a 16-byte tag.
    type Aead: AeadInOut<TagSize = U16> + KeyInit<KeySize = U32> + Clone;
}

/// Suite 1: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03).
#[derive(Debug)]
pub enum XChaCha20Poly1305 {}

impl Suite for XChaCha20Poly1305 {
    const ID: u8 = 1;
    const NAME: &'static str = "xchacha20poly1305";
    type Aead = chacha20poly1305::XChaCha20Poly1305;
}

/// Suite 2: AES-256-GCM-SIV (RFC 8452).
///
/// In WebAssembly there are no AES instructions, so that AES runs bit-sliced ("fixslice"), without tables.
#[derive(Debug)]
pub enum Aes256GcmSiv {}

impl Suite for Aes256GcmSiv {
    const ID: u8 = 2;
    const NAME: &'static str = "aes256gcmsiv";
    type Aead = aes_gcm_siv::Aes256GcmSiv;
}

/// The suite's AEAD under one key; the key is zeroized on drop by the cipher's crate.
pub(crate) struct Cipher<S: Suite>(S::Aead);

impl<S: Suite> Clone for Cipher<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Suite> Cipher<S> {
    pub(crate) const NONCE: usize = nonce_len::<S>();

    pub(crate) fn new(key: &[u8; KEY]) -> Self {
        Self(S::Aead::new(key.into()))
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG], Error> {
        let nonce = <&Array<u8, _>>::try_from(nonce).map_err(|_| Error::Malformed)?;
        let tag = self.0.encrypt_inout_detached(nonce, aad, buffer.into()).map_err(|_| Error::Other)?;
        Ok(tag.into())
    }

    /// Decrypts in place what authenticates. The tag is compared in constant time by the cipher's crate.
    pub(crate) fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Error> {
        let nonce = <&Array<u8, _>>::try_from(nonce).map_err(|_| Error::Malformed)?;
        self.0.decrypt_inout_detached(nonce, aad, buffer.into(), tag.into()).map_err(|_| Error::NotAuthentic)
    }
}

/// Bytes of the suite's nonce.
const fn nonce_len<S: Suite>() -> usize {
    <<S::Aead as AeadCore>::NonceSize as aead::array::typenum::Unsigned>::USIZE
}
