//! What a document held at a time: the version of each live record, the wrapping of its keyring and its generation.

use std::collections::BTreeMap;

use crate::bindings::exports::omni::credentials::types::{Error, Failure};
use crate::contents::{Contents, State};
use crate::identity::short;
use crate::keys::{self, split};
use crate::{aead, refuse};

const HEADER: usize = 16 + 8;
/// What changes start with. No manifest does: it starts with a hash.
const CHANGES: &[u8; 16] = b"changes in full:";

#[derive(Clone, Default, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) wrapping: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) versions: BTreeMap<[u8; 16], [u8; 16]>,
}

impl Manifest {
    pub(crate) fn of(contents: &Contents) -> Result<Self, Failure> {
        let live = contents.records.iter().filter_map(|(identity, state)| match state {
            State::Live(sealed) => Some((identity.digest(), version(&sealed.bytes))),
            State::Deleted(_) => None,
        });
        let wrapping = keys::wrapping_of(&contents.keyring)?;
        Ok(Self { wrapping, generation: contents.generation, versions: live.collect() })
    }

    /// A manifest. Of the changes before it, the last counts: it is all of what the manifest became.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let malformed = || refuse(Error::Malformed);
        let (mut rest, mut last) = (bytes, None);
        while let Some(after) = rest.strip_prefix(CHANGES) {
            let (length, after) = after.split_first_chunk().ok_or_else(malformed)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| malformed())?;
            let (changed, after) = after.split_at_checked(length).ok_or_else(malformed)?;
            (rest, last) = (after, Some(changed));
        }
        let plain = Self::parse_plain(rest)?;
        last.map_or(Ok(plain), Self::parse_plain)
    }

    fn parse_plain(bytes: &[u8]) -> Result<Self, Failure> {
        let malformed = || refuse(Error::Malformed);
        let (header, entries) = bytes.split_at_checked(HEADER).ok_or_else(malformed)?;
        let (wrapping, generation) = header.split_at(16);
        let parsed = Self {
            wrapping: wrapping.try_into().map_err(|_| malformed())?,
            generation: u64::from_be_bytes(generation.try_into().map_err(|_| malformed())?),
            versions: entries
                .chunks_exact(32)
                .filter_map(|entry| Some((*entry.first_chunk()?, *entry.last_chunk()?)))
                .collect(),
        };
        if parsed.to_bytes() == bytes { Ok(parsed) } else { Err(malformed()) }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let entries = self.versions.iter().flat_map(|(identity, version)| [*identity, *version].concat());
        self.wrapping.into_iter().chain(self.generation.to_be_bytes()).chain(entries).collect()
    }
}

/// Which version of a credential a sealed value is: its nonce, which sealing again keeps.
pub(crate) fn version(sealed: &[u8]) -> [u8; 16] {
    short(split(sealed).map_or(sealed, |(_, _, rest)| &rest[..aead::NONCE]))
}

/// What both sides agree on, once they have taken over what they could. Ours is complete.
pub(crate) fn agreed(
    ancestor: &[u8],
    ours: &Contents,
    theirs: &Contents,
    generation: u64,
) -> Result<Vec<u8>, Failure> {
    let before = if ancestor.is_empty() { Manifest::default() } else { Manifest::parse(ancestor)? };
    let wrapping = keys::wrapping_of(&theirs.keyring)?;
    let mut agreed = Manifest { wrapping, generation, versions: before.versions };
    for (identity, state) in &theirs.records {
        match (ours.records.get(identity), state) {
            (Some(State::Live(mine)), State::Live(sealed)) if mine == sealed => {
                agreed.versions.insert(identity.digest(), version(&sealed.bytes));
            }
            (None | Some(State::Deleted(_)), State::Deleted(_)) => {
                agreed.versions.remove(&identity.digest());
            }
            _ => {}
        }
    }
    Ok(agreed.to_bytes())
}

/// A manifest as changes: a module that is to be fast would list what changed.
pub(crate) fn as_changes(manifest: Vec<u8>) -> Vec<u8> {
    [CHANGES.as_slice(), &(manifest.len() as u32).to_be_bytes(), &manifest].concat()
}

/// What both sides agreed on, where it is not known whether the file of `pending` came into place after `confirmed`.
pub(crate) fn settled(confirmed: &[u8], pending: &[u8], file: &Contents) -> Result<Vec<u8>, Failure> {
    if pending.is_empty() {
        return Ok(confirmed.to_vec());
    }
    let mut after = Manifest::parse(pending)?;
    if confirmed.is_empty() {
        return Ok(pending.to_vec());
    }
    let (before, now) = (Manifest::parse(confirmed)?, Manifest::of(file)?);
    let before_too = |entry: &(&[u8; 16], &[u8; 16])| before.versions.get(entry.0) == Some(entry.1);
    let came =
        |entry: (&[u8; 16], &[u8; 16])| after.versions.get(entry.0) == Some(entry.1) && !before_too(&entry);
    if !now.versions.iter().any(came) {
        return Ok(confirmed.to_vec());
    }
    for (identity, version) in now.versions.iter().filter(before_too) {
        after.versions.insert(*identity, *version);
    }
    Ok(after.to_bytes())
}
