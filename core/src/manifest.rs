//! What a document held at a time, 32 bytes a live record (§8).

use blake2::Blake2b;
use blake2::digest::Digest;
use blake2::digest::consts::U16;

use crate::bytes::push_lp;
use crate::{Error, OwnedIdentity};

/// A hash of 16 bytes.
pub(crate) type Hash = [u8; 16];

const ENTRY: usize = 32;

/// Sorted pairs: an identity, and the sealed value it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest(Vec<(Hash, Hash)>);

impl Manifest {
    /// # Errors
    /// [`Error::Malformed`] for a length that is no multiple of 32 or for entries out of order.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (chunks, rest) = bytes.as_chunks::<ENTRY>();
        let pairs: Option<Vec<_>> = chunks.iter().map(pair).collect();
        let pairs = pairs.ok_or(Error::Malformed)?;
        if !rest.is_empty() || !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Error::Malformed);
        }
        Ok(Self(pairs))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(identity, sealed)| [identity, sealed]).flatten().copied().collect()
    }

    /// The hash of the sealed value that this identity had.
    pub(crate) fn sealed(&self, identity: &Hash) -> Option<&Hash> {
        let at = self.0.binary_search_by(|entry| entry.0.cmp(identity)).ok()?;
        self.0.get(at).map(|entry| &entry.1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Hash, Hash)> {
        self.0.iter()
    }
}

impl FromIterator<(Hash, Hash)> for Manifest {
    fn from_iter<I: IntoIterator<Item = (Hash, Hash)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| pair.0);
        Self(pairs)
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

/// BLAKE2b-128.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    Blake2b::<U16>::digest(bytes).into()
}

fn pair(entry: &[u8; ENTRY]) -> Option<(Hash, Hash)> {
    let (identity, sealed) = entry.split_first_chunk()?;
    Some((*identity, sealed.try_into().ok()?))
}
