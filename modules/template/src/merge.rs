//! The three-way merge that `wit/file-store.wit` describes.

use std::collections::{BTreeMap, BTreeSet};

use crate::bindings::exports::omni::credentials::file_store::{Entry, Preference};
use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::contents::{Contents, Records, entry};
use crate::identity::{Canonical, short};
use crate::keys::{Keys, split};
use crate::refuse;

type Manifest = BTreeMap<[u8; 16], [u8; 16]>;

/// What a merge returns; `merged` of the contract, before its contents become a resource.
pub(crate) struct Merge {
    pub(crate) contents: Contents,
    pub(crate) to_ours: Vec<Entry>,
    pub(crate) to_theirs: Vec<Entry>,
    pub(crate) conflicts: Vec<Identity>,
}

pub(crate) fn merge(
    base: &[u8],
    ours: &Contents,
    theirs: &Contents,
    ours_complete: bool,
    keys: &Keys,
    prefer: Preference,
) -> Result<Merge, Failure> {
    let base = from_bytes(base)?;
    let (mut merged, mut conflicts) = (Records::new(), Vec::new());
    let all: BTreeSet<&Canonical> = ours.records.keys().chain(theirs.records.keys()).collect();
    for identity in all {
        let known = base.get(&identity.digest());
        let theirs = theirs.records.get(identity);
        let ours = match ours.records.get(identity) {
            // What a complete side lacks and the base has, it deleted.
            None if ours_complete && known.is_some() => Some(&None),
            ours => ours,
        };
        let changed = |side: &Option<Vec<u8>>| match side {
            Some(sealed) => known != Some(&short(sealed)),
            None => known.is_some(),
        };
        let chosen = match (ours, theirs) {
            (Some(ours), None) => ours,
            (None, Some(theirs)) => theirs,
            (Some(ours), Some(theirs)) if ours == theirs || !changed(theirs) => ours,
            (Some(ours), Some(theirs)) if !changed(ours) => theirs,
            (Some(ours), Some(theirs)) => match same_value(identity, ours, theirs, keys) {
                Some(chosen) => chosen,
                None => {
                    conflicts.push(identity.to_contract());
                    if matches!(prefer, Preference::Theirs) { theirs } else { ours }
                }
            },
            (None, None) => continue,
        };
        merged.insert(identity.clone(), chosen.clone());
    }
    let news = |side: &Records, complete: bool| {
        let differs = |identity: &Canonical, sealed: &Option<Vec<u8>>| match side.get(identity) {
            None => !(complete && sealed.is_none()),
            Some(has) => has != sealed,
        };
        merged.iter().filter(|(identity, sealed)| differs(identity, sealed)).map(entry).collect()
    };
    let (to_ours, to_theirs) = (news(&ours.records, ours_complete), news(&theirs.records, false));
    let contents = Contents {
        records: merged,
        keyring: theirs.keyring.clone(),
        generation: theirs.generation,
        file: None,
    };
    Ok(Merge { contents, to_ours, to_theirs, conflicts })
}

pub(crate) fn agreed(base: &[u8], ours: &Contents, theirs: &Contents) -> Result<Vec<u8>, Failure> {
    let mut agreed = from_bytes(base)?;
    for (identity, sealed) in &theirs.records {
        let mine = ours.records.get(identity).and_then(Option::as_ref);
        match (mine, sealed) {
            (Some(mine), Some(sealed)) if mine == sealed => {
                agreed.insert(identity.digest(), short(sealed));
            }
            (None, None) => {
                agreed.remove(&identity.digest());
            }
            _ => {}
        }
    }
    Ok(to_bytes(&agreed))
}

/// Two values that open to the same are no conflict: the one under the current key, else the lower bytes.
fn same_value<'a>(
    identity: &Canonical,
    ours: &'a Option<Vec<u8>>,
    theirs: &'a Option<Vec<u8>>,
    keys: &Keys,
) -> Option<&'a Option<Vec<u8>>> {
    let (a, b) = (ours.as_ref()?, theirs.as_ref()?);
    if keys.open(identity, a).ok()? != keys.open(identity, b).ok()? {
        return None;
    }
    let current = |sealed: &[u8]| split(sealed).is_ok_and(|(id, ..)| id == keys.current());
    let ours_first = match (current(a), current(b)) {
        (true, false) => true,
        (false, true) => false,
        _ => a < b,
    };
    Some(if ours_first { ours } else { theirs })
}

pub(crate) fn to_bytes(manifest: &Manifest) -> Vec<u8> {
    manifest.iter().flat_map(|(identity, sealed)| [*identity, *sealed].concat()).collect()
}

fn from_bytes(bytes: &[u8]) -> Result<Manifest, Failure> {
    let manifest: Manifest = bytes
        .chunks_exact(32)
        .filter_map(|entry| Some((*entry.first_chunk()?, *entry.last_chunk()?)))
        .collect();
    if to_bytes(&manifest) == bytes { Ok(manifest) } else { Err(refuse(Error::Malformed)) }
}
