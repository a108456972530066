//! From a master secret to the key that wraps a keyring, the KEK (§3).

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use crate::costs::Costs;
use crate::derive::{Key, derive_salted, label};
use crate::entropy::random;
use crate::{Entropy, Error, limits, primitives};

/// What a generated master key starts with.
pub const GENERATED_PREFIX: &str = "omck1_";

/// A fresh generated master key (§3.1): `omck1_` and 48 characters.
///
/// ```
/// # use omni_credentials_core::{Entropy, Error};
/// use omni_credentials_core::kdf::{GENERATED_PREFIX, generate_master_key};
///
/// # struct Source;
/// # impl Entropy for Source {
/// #     fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> { out.fill(7); Ok(()) }
/// # }
/// let key = generate_master_key(&mut Source)?;
/// assert!(key.starts_with(GENERATED_PREFIX.as_bytes()) && key.len() == 54);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of the entropy source.
pub fn generate_master_key(entropy: &mut impl Entropy) -> Result<Zeroizing<Vec<u8>>, Error> {
    let key = Zeroizing::new(random::<32>(entropy)?);
    let mut bytes = Zeroizing::new([0; 36]);
    for (to, from) in bytes.iter_mut().zip(key.iter().chain(&generated_check(&key))) {
        *to = *from;
    }
    let text = Zeroizing::new(Base64UrlUnpadded::encode_string(&*bytes));
    Ok(Zeroizing::new([GENERATED_PREFIX.as_bytes(), text.as_bytes()].concat()))
}

/// How the KEK of a keyring comes about; stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kdf {
    Argon2id(Costs),
    Hkdf,
}

/// A master secret of good form.
pub(crate) enum MasterSecret<'a> {
    /// 32 random bytes, from a generated key.
    Generated(Key),
    Password(&'a [u8]),
}

impl<'a> MasterSecret<'a> {
    pub(crate) fn parse(secret: &'a [u8]) -> Result<Self, Error> {
        if secret.is_empty() || secret.len() > limits::SECRET_BYTES {
            return Err(Error::InvalidMasterSecret);
        }
        match secret.strip_prefix(GENERATED_PREFIX.as_bytes()) {
            None => Ok(Self::Password(secret)),
            Some(text) => parse_generated(text).map(Self::Generated).ok_or(Error::InvalidMasterSecret),
        }
    }

    /// How a new keyring is to derive its KEK from this secret.
    pub(crate) fn kdf(&self, costs: Option<Costs>) -> Result<Kdf, Error> {
        match self {
            Self::Generated(_) => Ok(Kdf::Hkdf),
            Self::Password(_) => costs.unwrap_or(Costs::DEFAULT).checked().map(Kdf::Argon2id),
        }
    }

    /// The KEK. A secret of the other sort cannot be the right one.
    pub(crate) fn kek(&self, kdf: Kdf, salt: &[u8; 16]) -> Result<Key, Error> {
        match (self, kdf) {
            (Self::Generated(key), Kdf::Hkdf) => derive_salted(key, salt, &[label::KEK]),
            (Self::Password(password), Kdf::Argon2id(costs)) => {
                let mut kek = Zeroizing::new([0; 32]);
                primitives::argon2id_into(password, salt, costs, &mut *kek)?;
                Ok(kek)
            }
            _ => Err(Error::WrongMasterSecret),
        }
    }
}

fn parse_generated(text: &[u8]) -> Option<Key> {
    if text.len() != 48 {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 36]);
    if Base64UrlUnpadded::decode(text, &mut *bytes).ok()?.len() != bytes.len() {
        return None;
    }
    let (key, check) = bytes.split_first_chunk::<32>()?;
    bool::from(generated_check(key).ct_eq(check)).then(|| Zeroizing::new(*key))
}

/// The check of a generated key: the first 4 bytes of SHA-256 over prefix and key.
fn generated_check(key: &[u8; 32]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(GENERATED_PREFIX).chain_update(key).finalize();
    let mut check = [0; 4];
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}
