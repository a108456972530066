//! HKDF-SHA-256 (RFC 5869) and the labels that keep keys of different uses apart.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Error;

/// A 32-byte key or commitment.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// The labels of FORMAT.md. Each is used for one thing.
pub(crate) mod label {
    pub(crate) const KEK: &[u8] = b"omni_credentials/v1/kek";
    pub(crate) const KEK_COMMITMENT: &[u8] = b"omni_credentials/v1/kek-commitment";
    pub(crate) const KEYRING_MAC: &[u8] = b"omni_credentials/v1/keyring-mac";
    pub(crate) const KEY_COMMITMENT: &[u8] = b"omni_credentials/v1/key-commitment";
    pub(crate) const SLOT: &[u8] = b"omni_credentials/v1/slot";
    pub(crate) const VALUE: &[u8] = b"omni_credentials/v1/value";
    pub(crate) const FILE: &[u8] = b"omni_credentials/v1/file";
}

/// HKDF of 32 bytes with an empty salt; the info is the concatenation of `info`.
pub(crate) fn derive(ikm: &[u8; 32], info: &[&[u8]]) -> Result<Key, Error> {
    derive_salted(ikm, &[], info)
}

/// HKDF of 32 bytes.
pub(crate) fn derive_salted(ikm: &[u8; 32], salt: &[u8], info: &[&[u8]]) -> Result<Key, Error> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), ikm).expand_multi_info(info, &mut *key).map_err(|_| Error::Other)?;
    Ok(key)
}
