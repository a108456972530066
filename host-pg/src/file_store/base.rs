//! What file and table last agreed on: the base of a three-way merge.
//!
//! Manifests are sorted entries of 32 bytes, 16 for an identity and 16 for its sealed value (FORMAT.md, section 8.1).

use std::collections::{BTreeMap, BTreeSet};

const ENTRY: usize = 32;
const IDENTITY: usize = 16;

/// The base where it is not known whether the file that the last commit wrote (`pending`) came into place before
/// somebody edited the file, given what the file holds now.
///
/// A sealed value is random, so one that only `pending` has shows that it did. Then `pending` counts, except for records
/// that the file has as they were in `confirmed`: those count as not changed by the file, so that the commit wins.
pub(super) fn resolve_state(confirmed: &[u8], pending: &[u8], file: &[u8]) -> Vec<u8> {
    let (before, after) = (entries(confirmed), entries(pending));
    let file = entries(file);
    let came_into_place = file.iter().any(|(identity, sealed)| {
        after.get(identity) == Some(sealed) && before.get(identity) != Some(sealed)
    });
    if !came_into_place {
        return confirmed.to_vec();
    }
    let mut settled = after;
    for (identity, sealed) in &file {
        if before.get(identity) == Some(sealed) {
            settled.insert(identity, sealed);
        }
    }
    bytes(&settled)
}

/// The base against an older version of the file: only what the file still shows. Its tombstones may be older than the
/// records that they would delete, and a base that lacks a record lets the record win.
pub(super) fn without_deletions(base: &[u8], file: &[u8]) -> Vec<u8> {
    let live: BTreeSet<&[u8]> = entries(file).into_keys().collect();
    let mut kept = entries(base);
    kept.retain(|identity, _| live.contains(identity));
    bytes(&kept)
}

fn entries(manifest: &[u8]) -> BTreeMap<&[u8], &[u8]> {
    manifest.chunks_exact(ENTRY).map(|entry| entry.split_at(IDENTITY)).collect()
}

fn bytes(entries: &BTreeMap<&[u8], &[u8]>) -> Vec<u8> {
    entries.iter().flat_map(|(identity, sealed)| [*identity, *sealed]).flatten().copied().collect()
}
