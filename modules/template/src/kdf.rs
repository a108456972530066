//! From a master secret to the KEK: Argon2id for passwords, HKDF-SHA-256 for generated keys.

use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64UrlUnpadded, Encoding};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::bindings::exports::omni::credentials::key_derivation;
use crate::bindings::exports::omni::credentials::types::{Error, Failure};
use crate::{random, refuse};

/// Most memory that is derived with, in KiB.
pub(crate) const MEMORY_KIB: u32 = 262_144;
/// What a generated key starts with.
const PREFIX: &[u8] = b"omck1_";

pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Argon2id costs, as a keyring stores them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Costs {
    const DEFAULT: Self = Self { memory_kib: 65_536, passes: 3, lanes: 4 };
}

impl From<key_derivation::Costs> for Costs {
    fn from(costs: key_derivation::Costs) -> Self {
        Self { memory_kib: costs.memory_kib, passes: costs.passes, lanes: costs.lanes }
    }
}

/// A master secret, told apart.
pub(crate) enum Secret<'a> {
    Password(&'a [u8]),
    Generated(Key),
}

impl<'a> Secret<'a> {
    pub(crate) fn parse(secret: &'a [u8]) -> Result<Self, Failure> {
        let invalid = || refuse(Error::InvalidMasterSecret);
        if !(1..=4096).contains(&secret.len()) {
            return Err(invalid());
        }
        let Some(encoded) = secret.strip_prefix(PREFIX) else { return Ok(Self::Password(secret)) };
        let mut bytes = Zeroizing::new([0; 36]);
        let decoded = Base64UrlUnpadded::decode(encoded, bytes.as_mut()).map_err(|_| invalid())?;
        let (key, found) = decoded.split_first_chunk::<32>().ok_or_else(invalid)?;
        if found == check(key) { Ok(Self::Generated(Zeroizing::new(*key))) } else { Err(invalid()) }
    }

    /// The costs that a new keyring for it has; a generated key has none.
    pub(crate) fn costs(&self, wanted: Option<Costs>) -> Option<Costs> {
        matches!(self, Self::Password(_)).then(|| wanted.unwrap_or(Costs::DEFAULT))
    }

    /// The KEK. A secret of the other sort is a wrong one.
    pub(crate) fn kek(&self, salt: &[u8], costs: Option<Costs>) -> Result<Key, Failure> {
        let mut kek = Zeroizing::new([0; 32]);
        match (self, costs) {
            (Self::Password(secret), Some(costs)) => argon2id(secret, salt, costs, kek.as_mut())?,
            (Self::Generated(key), None) => hkdf(key.as_ref(), salt, b"example kek", kek.as_mut())?,
            _ => return Err(refuse(Error::WrongMasterSecret)),
        }
        Ok(kek)
    }
}

/// A fresh generated key, with a check against slips of the pen.
pub(crate) fn generate() -> Result<Vec<u8>, Failure> {
    let key: Key = Zeroizing::new(random()?);
    let bytes = Zeroizing::new([&key[..], &check(&key)].concat());
    let encoded = Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes));
    Ok([PREFIX, encoded.as_bytes()].concat())
}

/// A key for one purpose.
pub(crate) fn subkey(key: &[u8; 32], purpose: &[u8]) -> Result<Key, Failure> {
    let mut out = Zeroizing::new([0; 32]);
    hkdf(key, &[], purpose, out.as_mut())?;
    Ok(out)
}

pub(crate) fn hkdf(ikm: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) -> Result<(), Failure> {
    Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, out).map_err(|_| refuse(Error::InvalidArgument))
}

/// Argon2id, within limits that are checked before memory is taken.
pub(crate) fn argon2id(password: &[u8], salt: &[u8], costs: Costs, out: &mut [u8]) -> Result<(), Failure> {
    let Costs { memory_kib, passes, lanes } = costs;
    let bounds = (1..=4).contains(&lanes) && (1..=16).contains(&passes);
    if !bounds || !(8 * lanes..=MEMORY_KIB).contains(&memory_kib) {
        return Err(refuse(Error::KdfOutOfBounds));
    }
    let wrong = |_| refuse(Error::InvalidArgument);
    let params = Params::new(memory_kib, passes, lanes, Some(out.len())).map_err(wrong)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, out)
        .map_err(wrong)
}

fn check(key: &[u8; 32]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(PREFIX).chain_update(key).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}
