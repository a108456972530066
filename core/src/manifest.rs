//! What a document held at a time (§8.1): the version of each live record, the wrapping of its keyring, its generation.

use std::collections::BTreeMap;

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
const CHANGES_MAGIC: &[u8; 4] = b"OCMC";
const VERSION: u8 = 1;
const ENTRY: usize = 32;
/// Magic, version, wrapping and generation.
const HEADER: usize = 4 + 1 + 16 + 8;
/// The same, and how many records changed and how many are gone.
const CHANGES_HEADER: usize = HEADER + 4 + 4;

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

    /// A manifest, after the changes that were made to it since.
    ///
    /// # Errors
    /// [`Error::Malformed`] for another header, a length that is not that of entries, or entries out of order.
    /// [`Error::UnknownVersion`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader(bytes);
        let mut changes = Changes::default();
        while reader.0.starts_with(CHANGES_MAGIC) {
            changes.read(&mut reader)?;
        }
        Ok(changes.applied_to(Self::parse_plain(reader)?))
    }

    fn parse_plain(mut reader: Reader<'_>) -> Result<Self, Error> {
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

    /// The changes that make this manifest the other one; empty where there are none.
    pub(crate) fn changes_to(&self, after: &Self) -> Vec<u8> {
        if self == after {
            return Vec::new();
        }
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        let mut old = self.entries.iter().peekable();
        for entry in &after.entries {
            while let Some((gone, _)) = old.next_if(|old| old.0 < entry.0) {
                removed.push(gone);
            }
            if old.next_if(|old| old.0 == entry.0) != Some(entry) {
                changed.push(entry);
            }
        }
        removed.extend(old.map(|(gone, _)| gone));
        let mut out = Vec::with_capacity(CHANGES_HEADER + changed.len() * ENTRY + removed.len() * 16);
        out.extend_from_slice(CHANGES_MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&after.wrapping);
        out.extend_from_slice(&after.generation.to_be_bytes());
        for count in [changed.len(), removed.len()] {
            // A document has far fewer records.
            out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
        }
        for (identity, version) in changed {
            out.extend_from_slice(identity);
            out.extend_from_slice(version);
        }
        for identity in removed {
            out.extend_from_slice(identity);
        }
        out
    }

    /// The version that this identity had.
    pub(crate) fn version(&self, identity: &Hash) -> Option<&Hash> {
        let at = self.entries.binary_search_by(|entry| entry.0.cmp(identity)).ok()?;
        self.entries.get(at).map(|entry| &entry.1)
    }
}

/// What changed since a manifest was made.
#[derive(Default)]
struct Changes {
    /// Wrapping and generation after the last of them.
    header: Option<(Hash, u64)>,
    /// The version of each identity that changed; `None` where it is gone.
    entries: BTreeMap<Hash, Option<Hash>>,
}

impl Changes {
    /// Adds one list of changes.
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        reader.array::<4>()?;
        if reader.u8()? != VERSION {
            return Err(Error::UnknownVersion);
        }
        self.header = Some((*reader.array()?, u64::from_be_bytes(*reader.array()?)));
        let counts = (reader.u32()?, reader.u32()?);
        let mut take = |count: u32, size: usize| {
            let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
            reader.take(length.ok_or(Error::Malformed)?)
        };
        let (changed, _) = take(counts.0, ENTRY)?.as_chunks::<ENTRY>();
        let (removed, _) = take(counts.1, 16)?.as_chunks::<16>();
        if !changed.is_sorted_by(|a, b| a.first_chunk::<16>() < b.first_chunk())
            || !removed.is_sorted_by(|a, b| a < b)
        {
            return Err(Error::Malformed);
        }
        for (identity, version) in changed.iter().filter_map(entry) {
            self.entries.insert(identity, Some(version));
        }
        for identity in removed {
            self.entries.insert(*identity, None);
        }
        Ok(())
    }

    fn applied_to(self, manifest: Manifest) -> Manifest {
        let Some((wrapping, generation)) = self.header else { return manifest };
        let mut entries = Vec::with_capacity(manifest.entries.len() + self.entries.len());
        let mut old = manifest.entries.into_iter().peekable();
        for (identity, version) in self.entries {
            while let Some(kept) = old.next_if(|old| old.0 < identity) {
                entries.push(kept);
            }
            old.next_if(|old| old.0 == identity);
            entries.extend(version.map(|version| (identity, version)));
        }
        entries.extend(old);
        Manifest { wrapping, generation, entries }
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
