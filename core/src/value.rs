//! Sealed values (§5).

use zeroize::Zeroize;

use crate::bytes::{Reader, push_lp};
use crate::derive::label;
use crate::slots::KeyId;
use crate::suite::{Cipher, Suite, TAG};
use crate::{CanonicalIdentity, Entropy, Error, Failure, Identity, Keyring, limits};

const VERSION: u8 = 1;
/// Lengths show only as multiples of this.
const BUCKET: usize = 32;
/// What ends a value before its zeros (ISO/IEC 7816-4).
const END: u8 = 0x80;
/// Version, suite and key id.
const HEADER: usize = 10;

impl<S: Suite> Keyring<S> {
    /// Seals a value of 0 to 1 MiB under the current key with a fresh nonce.
    ///
    /// # Errors
    /// Those of [`Identity::canonical`], [`Error::ValueTooLarge`], those of the entropy source.
    pub fn seal(
        &self,
        identity: &Identity<'_>,
        value: &[u8],
        entropy: &mut impl Entropy,
    ) -> Result<Vec<u8>, Failure> {
        let identity = identity.canonical()?;
        if value.len() > limits::VALUE_BYTES {
            return Err(Failure::found(Error::ValueTooLarge, value.len() as u64));
        }
        let header = header::<S>(self.current_id());
        let padded = (value.len() / BUCKET + 1) * BUCKET;
        let mut out = Vec::with_capacity(HEADER + Cipher::<S>::NONCE + padded + TAG);
        out.extend_from_slice(&header);
        out.resize(HEADER + Cipher::<S>::NONCE, 0);
        let (_, nonce) = out.split_at_mut(HEADER);
        entropy.fill(nonce)?;
        out.extend_from_slice(value);
        out.push(END);
        out.resize(HEADER + Cipher::<S>::NONCE + padded, 0);
        let (front, buffer) = out.split_at_mut(HEADER + Cipher::<S>::NONCE);
        let (_, nonce) = front.split_at(HEADER);
        let tag = self.value_cipher(self.current_id())?.seal(nonce, &aad(&header, &identity), buffer)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// Those of [`Identity::canonical`]; [`Error::UnknownVersion`], [`Error::UnknownSuite`],
    /// [`Error::Malformed`] and [`Error::UnknownKey`] for the sealed bytes; [`Error::NotAuthentic`] for
    /// anything but the value sealed for this very identity.
    pub fn open(&self, identity: &Identity<'_>, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
        self.open_canonical(&identity.canonical()?, sealed)
    }

    /// Whether a sealed value was sealed under the current key. Authenticates nothing.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`], [`Error::UnknownSuite`], [`Error::Malformed`].
    pub fn is_current(&self, sealed: &[u8]) -> Result<bool, Failure> {
        Ok(Parts::parse::<S>(sealed)?.key_id == self.current_id())
    }

    pub(crate) fn open_canonical(
        &self,
        identity: &CanonicalIdentity<'_>,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let parts = Parts::parse::<S>(sealed)?;
        let cipher = self.value_cipher(parts.key_id)?;
        let mut value = parts.ciphertext.to_vec();
        let aad = aad(&header::<S>(parts.key_id), identity);
        cipher.open(parts.nonce, &aad, &mut value, parts.tag)?;
        match unpadded(&value) {
            Some(len) => {
                value.truncate(len);
                Ok(value)
            }
            None => {
                value.zeroize();
                Err(Error::Malformed.into())
            }
        }
    }
}

/// Checks the shape of a sealed value: what can be said without a key.
pub(crate) fn check<S: Suite>(sealed: &[u8]) -> Result<(), Failure> {
    Parts::parse::<S>(sealed).map(drop)
}

/// A sealed value taken apart.
struct Parts<'a> {
    key_id: &'a KeyId,
    nonce: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Parts<'a> {
    fn parse<S: Suite>(sealed: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader(sealed);
        match reader.u8()? {
            VERSION => {}
            other => return Err(Failure::found(Error::UnknownVersion, other.into())),
        }
        match reader.u8()? {
            id if id == S::ID => {}
            other => return Err(Failure::found(Error::UnknownSuite, other.into())),
        }
        let key_id = reader.array()?;
        let nonce = reader.take(Cipher::<S>::NONCE)?;
        let (ciphertext, tag) = reader.0.split_last_chunk().ok_or(Error::Malformed)?;
        let shape = !ciphertext.is_empty()
            && ciphertext.len().is_multiple_of(BUCKET)
            && ciphertext.len() <= limits::VALUE_BYTES + BUCKET;
        if !shape {
            return Err(Error::Malformed.into());
        }
        Ok(Self { key_id, nonce, ciphertext, tag })
    }
}

fn header<S: Suite>(id: &KeyId) -> [u8; HEADER] {
    let [a, b, c, d, e, f, g, h] = *id;
    [VERSION, S::ID, a, b, c, d, e, f, g, h]
}

fn aad(header: &[u8; HEADER], identity: &CanonicalIdentity<'_>) -> Vec<u8> {
    let fields = [identity.name, identity.kind, identity.principal, &identity.scope];
    let len: usize = fields.iter().map(|field| field.len()).sum();
    let mut aad = Vec::with_capacity(label::VALUE.len() + HEADER + len + 6 * 4);
    push_lp(&mut aad, &[label::VALUE]);
    push_lp(&mut aad, &[header]);
    for field in fields {
        push_lp(&mut aad, &[field.as_bytes()]);
    }
    aad
}

/// The length of the value in an authenticated buffer; `None` where a faulty writer padded it otherwise.
fn unpadded(padded: &[u8]) -> Option<usize> {
    let end = padded.iter().rposition(|byte| *byte != 0)?;
    let last_bucket = padded.len().checked_sub(BUCKET)?;
    (padded.get(end) == Some(&END) && end >= last_bucket && end <= limits::VALUE_BYTES).then_some(end)
}
