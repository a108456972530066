//! Sealed values (§5).

use zeroize::{Zeroize, Zeroizing};

use crate::bytes::{Reader, push_lp};
use crate::derive::label;
use crate::expiry::{self, Expires};
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
/// Bytes of the longest nonce of a suite.
const LONGEST_NONCE: usize = 24;

impl<S: Suite> Keyring<S> {
    /// Seals a value of 0 to 1 MiB under the current key with a fresh nonce.
    ///
    /// # Errors
    /// Those of [`Identity::canonical`], [`Error::InvalidExpiry`], [`Error::ValueTooLarge`], those of the entropy source.
    pub fn seal(
        &self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        value: &[u8],
        entropy: &mut impl Entropy,
    ) -> Result<Vec<u8>, Failure> {
        let identity = self.canonical(identity)?;
        expiry::check(expires)?;
        if value.len() > limits::VALUE_BYTES {
            return Err(Failure::found(Error::ValueTooLarge, value.len() as u64));
        }
        let mut nonce = [0; LONGEST_NONCE];
        let nonce = nonce.get_mut(..Cipher::<S>::NONCE).ok_or(Error::Other)?;
        entropy.fill(nonce)?;
        self.sealed(&identity, expires, nonce, value)
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// Those of [`Identity::canonical`]; [`Error::InvalidExpiry`]; [`Error::UnknownVersion`], [`Error::UnknownSuite`],
    /// [`Error::Malformed`] and [`Error::UnknownKey`] for the sealed bytes; [`Error::NotAuthentic`] for
    /// anything but the value sealed for this very identity and expiry.
    pub fn open(
        &self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.open_owned(identity, expires, sealed.to_vec())
    }

    /// The same in the buffer of the sealed value.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub fn open_owned(
        &self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let identity = self.canonical(identity)?;
        expiry::check(expires)?;
        self.open_in_place(&identity, expires, sealed)
    }

    /// Seals again, under the current key, what was sealed for this identity and expiry. It stays the same version of the
    /// credential (§5): the nonce is kept, and a value of the current key comes back as it is.
    ///
    /// The bytes are determined by the value, the nonce and the current key: every other writer gets the same.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub fn reseal(
        &self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let identity = self.canonical(identity)?;
        expiry::check(expires)?;
        let value = Zeroizing::new(self.open_canonical(&identity, expires, sealed)?);
        let parts = Parts::parse::<S>(sealed)?;
        if parts.key_id == self.current_id() {
            return Ok(sealed.to_vec());
        }
        self.sealed(&identity, expires, parts.nonce, &value)
    }

    /// Under the current key. One nonce is for one identity, expiry and value only, whatever the key.
    fn sealed(
        &self,
        identity: &CanonicalIdentity<'_>,
        expires: Expires,
        nonce: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let header = header::<S>(self.current_id());
        let padded = (value.len() / BUCKET + 1) * BUCKET;
        let mut out = Vec::with_capacity(HEADER + nonce.len() + padded + TAG);
        out.extend_from_slice(&header);
        out.extend_from_slice(nonce);
        out.extend_from_slice(value);
        out.push(END);
        out.resize(HEADER + nonce.len() + padded, 0);
        let (_, buffer) = out.split_at_mut(HEADER + nonce.len());
        let tag =
            self.value_cipher(self.current_id())?.seal(nonce, &aad(&header, identity, expires), buffer)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    pub(crate) fn open_canonical(
        &self,
        identity: &CanonicalIdentity<'_>,
        expires: Expires,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.open_in_place(identity, expires, sealed.to_vec())
    }

    fn open_in_place(
        &self,
        identity: &CanonicalIdentity<'_>,
        expires: Expires,
        mut sealed: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let key_id = Parts::parse::<S>(&sealed)?.key_id;
        let cipher = self.value_cipher(key_id)?;
        let aad = aad(&header::<S>(key_id), identity, expires);
        // The shape is as it should be; so none of these is missing.
        let start = HEADER + Cipher::<S>::NONCE;
        let (before, rest) = sealed.split_at_mut_checked(start).ok_or(Error::Malformed)?;
        let nonce = before.get(HEADER..).ok_or(Error::Malformed)?;
        let (buffer, tag) = rest.split_last_chunk_mut().ok_or(Error::Malformed)?;
        cipher.open(nonce, &aad, buffer, tag)?;
        let length = unpadded(buffer);
        // The value goes to the front; what it was copied from is wiped.
        if let Some(length) = length {
            sealed.copy_within(start..start + length, 0);
        }
        if let Some(rest) = sealed.get_mut(length.unwrap_or(0)..) {
            rest.zeroize();
        }
        sealed.truncate(length.unwrap_or(0));
        if length.is_some() { Ok(sealed) } else { Err(Error::Malformed.into()) }
    }
}

/// Checks the shape of a sealed value: what can be said without a key.
pub(crate) fn check<S: Suite>(sealed: &[u8]) -> Result<(), Failure> {
    Parts::parse::<S>(sealed).map(drop)
}

/// The id of the key that sealed a value.
pub(crate) fn key_id<S: Suite>(sealed: &[u8]) -> Result<&KeyId, Failure> {
    Parts::parse::<S>(sealed).map(|parts| parts.key_id)
}

/// Which version of a credential a sealed value is: its nonce, which sealing again keeps. The key does not matter.
/// Bytes of another shape are a version of their own.
pub(crate) fn version<S: Suite>(sealed: &[u8]) -> &[u8] {
    Parts::parse::<S>(sealed).map_or(sealed, |parts| parts.nonce)
}

/// What stands before the ciphertext of a sealed value.
struct Parts<'a> {
    key_id: &'a KeyId,
    nonce: &'a [u8],
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
        let (ciphertext, _): (_, &[u8; TAG]) = reader.0.split_last_chunk().ok_or(Error::Malformed)?;
        let shape = !ciphertext.is_empty()
            && ciphertext.len().is_multiple_of(BUCKET)
            && ciphertext.len() <= limits::VALUE_BYTES + BUCKET;
        if !shape {
            return Err(Error::Malformed.into());
        }
        Ok(Self { key_id, nonce })
    }
}

fn header<S: Suite>(id: &KeyId) -> [u8; HEADER] {
    let [a, b, c, d, e, f, g, h] = *id;
    [VERSION, S::ID, a, b, c, d, e, f, g, h]
}

fn aad(header: &[u8; HEADER], identity: &CanonicalIdentity<'_>, expires: Expires) -> Vec<u8> {
    let fields = [identity.name, identity.kind, identity.principal, &identity.scope];
    let len: usize = fields.iter().map(|field| field.len()).sum();
    let mut aad = Vec::with_capacity(label::VALUE.len() + HEADER + len + 8 + 7 * 4);
    push_lp(&mut aad, &[label::VALUE]);
    push_lp(&mut aad, &[header]);
    for field in fields {
        push_lp(&mut aad, &[field.as_bytes()]);
    }
    match expires {
        Some(expires) => push_lp(&mut aad, &[&expires.to_be_bytes()]),
        None => push_lp(&mut aad, &[]),
    }
    aad
}

/// The length of the value in an authenticated buffer; `None` where a faulty writer padded it otherwise.
fn unpadded(padded: &[u8]) -> Option<usize> {
    let mut rest = padded;
    // Eight zeros at once.
    while let Some((before, last)) = rest.split_last_chunk()
        && u64::from_ne_bytes(*last) == 0
    {
        rest = before;
    }
    let end = rest.iter().rposition(|byte| *byte != 0)?;
    let last_bucket = padded.len().checked_sub(BUCKET)?;
    (padded.get(end) == Some(&END) && end >= last_bucket && end <= limits::VALUE_BYTES).then_some(end)
}
