//! What a document held at a time (§8.1): the version of each live record, the wrapping of its keyring, its generation.

use blake2::Blake2b;
use blake2::digest::Digest;
use blake2::digest::consts::U16;

use crate::bytes::{Reader, push_lp};
use crate::slots::Protection;
use crate::suite::Suite;
use crate::{Error, OwnedIdentity, value};

/// A hash of 16 bytes.
pub(crate) type Hash = [u8; 16];

const MAGIC: &[u8; 4] = b"OCMF";
const VERSION: u8 = 1;
const ENTRY: usize = 32;
/// Magic, version, wrapping and generation.
const HEADER: usize = 4 + 1 + 16 + 8;

/// What a document held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) wrapping: Hash,
    pub(crate) generation: u64,
    /// Identity and version, sorted by identity, no two alike.
    pub(crate) entries: Vec<(Hash, Hash)>,
}

impl Manifest {
    /// Of two entries of one identity the first counts. Takes a list, and no iterator of every kind: sorting is a large part of
    /// a module's code already.
    pub(crate) fn new(wrapping: Hash, generation: u64, mut entries: Vec<(Hash, Hash)>) -> Self {
        entries.sort_by_key(|entry| entry.0);
        entries.dedup_by_key(|entry| entry.0);
        Self { wrapping, generation, entries }
    }

    /// # Errors
    /// [`Error::Malformed`] for another header, a length that is not that of entries, or entries out of order.
    /// [`Error::UnknownVersion`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader(bytes);
        if reader.array::<4>()? != MAGIC {
            return Err(Error::Malformed);
        }
        if reader.u8()? != VERSION {
            return Err(Error::UnknownVersion);
        }
        let wrapping = *reader.array()?;
        let generation = u64::from_be_bytes(*reader.array()?);
        let (chunks, rest) = reader.0.as_chunks::<ENTRY>();
        let entries: Option<Vec<_>> = chunks.iter().map(entry).collect();
        let entries = entries.ok_or(Error::Malformed)?;
        if !rest.is_empty() || !entries.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Error::Malformed);
        }
        Ok(Self { wrapping, generation, entries })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.entries.len() * ENTRY);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.wrapping);
        out.extend_from_slice(&self.generation.to_be_bytes());
        for (identity, version) in &self.entries {
            out.extend_from_slice(identity);
            out.extend_from_slice(version);
        }
        out
    }

    /// The version that this identity had.
    pub(crate) fn version(&self, identity: &Hash) -> Option<&Hash> {
        let at = self.entries.binary_search_by(|entry| entry.0.cmp(identity)).ok()?;
        self.entries.get(at).map(|entry| &entry.1)
    }
}

pub(crate) fn identity_hash(identity: &OwnedIdentity) -> Hash {
    let fields = [&identity.name, &identity.kind, &identity.principal, &identity.scope];
    let mut bytes = Vec::with_capacity(fields.iter().map(|field| field.len() + 4).sum());
    for field in fields {
        push_lp(&mut bytes, &[field.as_bytes()]);
    }
    hash(&bytes)
}

/// Which version of a credential a sealed value is. The same for what was only sealed again.
pub(crate) fn version<S: Suite>(sealed: &[u8]) -> Hash {
    hash(value::version::<S>(sealed))
}

/// The wrapping of a keyring: another salt, another wrapping.
pub(crate) fn wrapping(protection: &Protection) -> Hash {
    hash(&[&protection.salt[..], &protection.kek_commitment].concat())
}

/// BLAKE2b-128.
fn hash(bytes: &[u8]) -> Hash {
    Blake2b::<U16>::digest(bytes).into()
}

fn entry(entry: &[u8; ENTRY]) -> Option<(Hash, Hash)> {
    let (identity, version) = entry.split_first_chunk()?;
    Some((*identity, version.try_into().ok()?))
}
