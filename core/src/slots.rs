//! The bytes of a keyring (§4): reading and writing them, without any key.

use crate::bytes::Reader;
use crate::kdf::{Costs, Kdf};
use crate::suite::{Cipher, KEY, Suite, TAG};
use crate::{Error, Failure, limits};

/// The id of a data key.
pub(crate) type KeyId = [u8; 8];

const MAGIC: &[u8; 4] = b"OCKR";
const VERSION: u8 = 1;
const ARGON2ID: u8 = 1;
const HKDF: u8 = 2;
const MAC: usize = 32;
/// Bytes of a wrapped data key.
pub(crate) const WRAPPED: usize = KEY + TAG;

/// How the KEK comes about and is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) kdf: Kdf,
    pub(crate) salt: [u8; 16],
    pub(crate) kek_commitment: [u8; 32],
}

/// A data key as it is stored: wrapped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    /// 1 for the first key of a keyring, and one more than the highest for each that is added.
    pub(crate) number: u32,
    pub(crate) id: KeyId,
    pub(crate) commitment: [u8; 32],
    pub(crate) nonce: Vec<u8>,
    pub(crate) wrapped: [u8; WRAPPED],
}

/// A keyring of good shape. Nothing is authenticated yet.
#[derive(Debug)]
pub(crate) struct StoredKeyring<'a> {
    pub(crate) protection: Protection,
    /// Sorted by id, never empty.
    pub(crate) slots: Vec<Slot>,
    /// Every byte before the HMAC.
    pub(crate) body: &'a [u8],
    pub(crate) mac: &'a [u8; MAC],
}

impl<'a> StoredKeyring<'a> {
    /// Shape, version, suite and bounds, in the order of §4.
    pub(crate) fn parse<S: Suite>(bytes: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader(bytes);
        if reader.array::<4>()? != MAGIC {
            return Err(Error::Malformed.into());
        }
        match reader.u8()? {
            VERSION => {}
            other => return Err(Failure::found(Error::UnknownVersion, other.into())),
        }
        match reader.u8()? {
            id if id == S::ID => {}
            other => return Err(Failure::found(Error::UnknownSuite, other.into())),
        }
        let kdf = match reader.u8()? {
            ARGON2ID => {
                let (memory_kib, passes, lanes) = (reader.u32()?, reader.u32()?, reader.u32()?);
                Kdf::Argon2id(Costs { memory_kib, passes, lanes }.checked()?)
            }
            HKDF => Kdf::Hkdf,
            _ => return Err(Error::Malformed.into()),
        };
        let (salt, kek_commitment) = (*reader.array()?, *reader.array()?);
        let count = usize::from(reader.u16()?);
        if !(1..=limits::KEYRING_KEYS).contains(&count) {
            return Err(Error::Malformed.into());
        }
        let slots = (0..count).map(|_| Slot::read::<S>(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let sorted = slots.is_sorted_by(|a, b| a.id < b.id);
        if !sorted || slots.iter().any(|slot| slot.number == 0) || reader.0.len() != MAC {
            return Err(Error::Malformed.into());
        }
        let (body, mac) = bytes.split_last_chunk().ok_or(Error::Malformed)?;
        Ok(Self { protection: Protection { kdf, salt, kek_commitment }, slots, body, mac })
    }

    /// The id of the current key.
    pub(crate) fn current(&self) -> Result<KeyId, Error> {
        current(&self.slots).map(|slot| slot.id).ok_or(Error::Malformed)
    }
}

/// The slot of the current key: the highest number, and of several that were added at the same time the highest id.
pub(crate) fn current<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> Option<&'a Slot> {
    slots.into_iter().max_by_key(|slot| (slot.number, slot.id))
}

impl Slot {
    fn read<S: Suite>(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            number: reader.u32()?,
            id: *reader.array()?,
            commitment: *reader.array()?,
            nonce: reader.take(Cipher::<S>::NONCE)?.to_vec(),
            wrapped: *reader.array()?,
        })
    }
}

/// Every byte of a keyring before its HMAC.
pub(crate) fn body<'a, S: Suite>(
    protection: &Protection,
    slots: impl ExactSizeIterator<Item = &'a Slot>,
) -> Vec<u8> {
    let size = slots.len() * (44 + Cipher::<S>::NONCE + WRAPPED);
    let mut out = Vec::with_capacity(128 + size);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, S::ID]);
    match protection.kdf {
        Kdf::Argon2id(costs) => {
            out.push(ARGON2ID);
            for cost in [costs.memory_kib, costs.passes, costs.lanes] {
                out.extend_from_slice(&cost.to_be_bytes());
            }
        }
        Kdf::Hkdf => out.push(HKDF),
    }
    out.extend_from_slice(&protection.salt);
    out.extend_from_slice(&protection.kek_commitment);
    // Counted while they are written, so that the number is that of the slots which follow it. A keyring holds 256.
    let (mut count, mut written) = (0, Vec::with_capacity(size));
    for (number, slot) in (1..=u16::MAX).zip(slots) {
        count = number;
        written.extend_from_slice(&slot.number.to_be_bytes());
        written.extend_from_slice(&slot.id);
        written.extend_from_slice(&slot.commitment);
        written.extend_from_slice(&slot.nonce);
        written.extend_from_slice(&slot.wrapped);
    }
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&written);
    out
}
