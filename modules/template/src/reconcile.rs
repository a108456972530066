//! What `reconcile` in `wit/file-store.wit` describes; FORMAT.md of omni_credentials has the rules as tables.

use std::collections::BTreeSet;

use crate::bindings::exports::omni::credentials::file_store::{
    Conflict, Entry, Preference, Reason, Wrapping,
};
use crate::bindings::exports::omni::credentials::types::{Error, Failure};
use crate::contents::{Contents, PENDING, Records, State, entry};
use crate::identity::Canonical;
use crate::keys::{self, Keys, Sealed, split};
use crate::manifest::{Manifest, version};
use crate::refuse;

/// One side: what it holds, and its keyring or the other side's.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) contents: &'a Contents,
    pub(crate) keys: &'a Keys,
}

/// `reconciled` of the contract, before its contents and keyring become resources.
pub(crate) struct Reconciled {
    pub(crate) contents: Contents,
    pub(crate) keys: Keys,
    pub(crate) wrapping: Wrapping,
    pub(crate) to_ours: Vec<Entry>,
    pub(crate) to_theirs: Vec<Entry>,
    pub(crate) conflicts: Vec<Conflict>,
}

pub(crate) fn reconcile(
    ancestor: &[u8],
    ours: Side<'_>,
    theirs: Side<'_>,
    ours_complete: bool,
    prefer: Preference,
) -> Result<Reconciled, Failure> {
    let ancestor = if ancestor.is_empty() { None } else { Some(Manifest::parse(ancestor)?) };
    let (keys, wrapping) = unite(ancestor.as_ref(), ours, theirs, prefer)?;
    let (mine, yours) = (ours.contents, theirs.contents);
    let mut contents = Contents {
        keyring: keys.to_bytes()?,
        generation: mine.generation.max(yours.generation),
        deletions_since: mine.deletions_since.max(yours.deletions_since),
        ..Contents::default()
    };
    // An older file beside a table: its tombstones may be older than what they would delete.
    let put_back = ours_complete
        && !matches!(prefer, Preference::Theirs)
        && ancestor.as_ref().is_some_and(|known| yours.generation < known.generation);
    let mut conflicts = Vec::new();
    let all: BTreeSet<&Canonical> = mine.records.keys().chain(yours.records.keys()).collect();
    for identity in all {
        let a = Says::of(mine, identity, ancestor.as_ref(), ours_complete, false);
        let b = Says::of(yours, identity, ancestor.as_ref(), false, put_back);
        let known = ancestor.is_some();
        let (winner, reason) = decide(identity, &a, &b, known, prefer, &keys);
        if let Some(reason) = reason {
            conflicts.push(Conflict { identity: identity.to_contract(), reason });
        }
        let state = match winner {
            Says::Lacking { .. } => continue,
            Says::Live { sealed, .. } => State::Live(sealed.clone()),
            Says::Deleted { .. } => State::Deleted(deletion(identity, mine, yours)),
        };
        // Both know of it, and have forgotten when.
        if !matches!(state, State::Deleted(when) if when <= contents.deletions_since) {
            contents.records.insert(identity.clone(), state);
        }
    }
    let news = |side: &Records, complete: bool| {
        let differs = |identity: &Canonical, state: &State| match (side.get(identity), state) {
            (None, State::Deleted(_)) => !complete,
            (Some(State::Deleted(_)), State::Deleted(_)) => false,
            (has, _) => has != Some(state),
        };
        contents.records.iter().filter(|(identity, state)| differs(identity, state)).map(entry).collect()
    };
    let (to_ours, to_theirs) = (news(&mine.records, ours_complete), news(&yours.records, false));
    contents.limit()?;
    Ok(Reconciled { contents, keys, wrapping, to_ours, to_theirs, conflicts })
}

/// The keyring of both. The side that changed its wrapping leads.
fn unite(
    ancestor: Option<&Manifest>,
    ours: Side<'_>,
    theirs: Side<'_>,
    prefer: Preference,
) -> Result<(Keys, Wrapping), Failure> {
    let (mine, yours) = (wrapping(ours)?, wrapping(theirs)?);
    let before = ancestor.map(|known| known.wrapping);
    // A file that came with the other side's keyring.
    let locked = |side: Side<'_>, own| Ok::<_, Failure>(side.keys.wrapping() != own);
    let (found, ours_lead) = if mine == yours {
        (Wrapping::Same, true)
    } else if before == Some(mine) {
        (Wrapping::Theirs, false)
    } else if before == Some(yours) {
        (Wrapping::Ours, true)
    } else {
        let ours = match prefer {
            Preference::Ours => true,
            Preference::Theirs => false,
            Preference::Neither => locked(theirs, yours)?,
        };
        (Wrapping::Conflict, ours)
    };
    let (lead, own, other, others) =
        if ours_lead { (ours, mine, theirs, yours) } else { (theirs, yours, ours, mine) };
    if locked(lead, own)? {
        return Err(refuse(Error::WrongMasterSecret));
    }
    let mut keys = lead.keys.clone();
    if !locked(other, others)? {
        keys.unite(other.keys)?;
    } else if !keys::ids(&other.contents.keyring)?.iter().all(|id| keys.key(*id).is_ok()) {
        return Err(refuse(Error::UnknownKey));
    }
    Ok((keys, found))
}

/// A table has no keyring but the one that it comes with.
fn wrapping(side: Side<'_>) -> Result<[u8; 16], Failure> {
    if side.contents.is_table { Ok(side.keys.wrapping()) } else { keys::wrapping_of(&side.contents.keyring) }
}

/// What a side says of a record, compared with the ancestor.
#[derive(Clone, Copy)]
enum Says<'a> {
    /// Nothing. It may have deleted the record and forgotten that.
    Lacking {
        forgotten: bool,
    },
    Deleted {
        changed: bool,
    },
    Live {
        sealed: &'a Sealed,
        changed: bool,
    },
}

impl<'a> Says<'a> {
    fn of(
        side: &'a Contents,
        identity: &Canonical,
        ancestor: Option<&Manifest>,
        complete: bool,
        put_back: bool,
    ) -> Self {
        let before = ancestor.and_then(|known| known.versions.get(&identity.digest()));
        match side.records.get(identity) {
            Some(State::Live(sealed)) => {
                Self::Live { sealed, changed: before != Some(&version(&sealed.bytes)) }
            }
            Some(State::Deleted(_)) if put_back && before.is_some() => Self::Lacking { forgotten: false },
            Some(State::Deleted(_)) => Self::Deleted { changed: before.is_some() },
            None if complete && before.is_some() => Self::Deleted { changed: true },
            None => {
                let unseen = match ancestor {
                    Some(known) => before.is_some() && side.deletions_since > known.generation,
                    None => side.deletions_since > 0,
                };
                Self::Lacking { forgotten: unseen && !complete }
            }
        }
    }

    fn changed(self) -> bool {
        matches!(self, Self::Deleted { changed: true } | Self::Live { changed: true, .. })
    }
}

/// Which side counts, and why that is a conflict where it is one.
fn decide<'a>(
    identity: &Canonical,
    ours: &Says<'a>,
    theirs: &Says<'a>,
    known: bool,
    prefer: Preference,
    keys: &Keys,
) -> (Says<'a>, Option<Reason>) {
    use Says::{Deleted, Lacking, Live};
    let preferred = if matches!(prefer, Preference::Theirs) { theirs } else { ours };
    match (ours, theirs) {
        (Lacking { forgotten: true }, live @ Live { .. })
        | (live @ Live { .. }, Lacking { forgotten: true }) => {
            let winner = match (prefer, preferred) {
                // Nothing is lost without having been asked.
                (Preference::Neither, _) => *live,
                (_, Lacking { .. }) => Deleted { changed: true },
                (_, preferred) => *preferred,
            };
            (winner, Some(Reason::DeletionForgotten))
        }
        (Lacking { .. }, only) | (only, Lacking { .. }) => (*only, None),
        (Deleted { .. }, Deleted { .. }) => (*ours, None),
        (Live { sealed: a, .. }, Live { sealed: b, .. }) if a == b => (*ours, None),
        (Live { sealed: a, .. }, Live { sealed: b, .. }) => {
            let one_version = version(&a.bytes) == version(&b.bytes);
            if known && !one_version && !(ours.changed() && theirs.changed()) {
                return (*if ours.changed() { ours } else { theirs }, None);
            }
            match (keys.open(identity, a), keys.open(identity, b)) {
                (Ok(first), Ok(second)) if first == second && a.expires == b.expires => {
                    let rank = |sealed: &Sealed| split(&sealed.bytes).ok().and_then(|(id, ..)| keys.rank(id));
                    let ours_first = rank(a).cmp(&rank(b)).then_with(|| b.cmp(a)).is_ge();
                    (*if ours_first { ours } else { theirs }, None)
                }
                (Ok(_), Err(_)) if one_version => (*ours, None),
                (Err(_), Ok(_)) if one_version => (*theirs, None),
                (Err(_), Err(_)) if one_version => (*preferred, Some(Reason::Unreadable)),
                _ => (*preferred, Some(Reason::BothChanged)),
            }
        }
        _ if !known => (*preferred, Some(Reason::AncestorUnknown)),
        _ if !ours.changed() => (*theirs, None),
        _ if !theirs.changed() => (*ours, None),
        (Deleted { .. }, _) => (*preferred, Some(Reason::OursDeleted)),
        (_, _) => (*preferred, Some(Reason::TheirsDeleted)),
    }
}

/// The generation of a deletion: one that a side which has the record alive has not seen.
fn deletion(identity: &Canonical, ours: &Contents, theirs: &Contents) -> u64 {
    let forgotten = ours.deletions_since.max(theirs.deletions_since);
    match (ours.records.get(identity), theirs.records.get(identity)) {
        (Some(State::Deleted(a)), Some(State::Deleted(b))) => *a.max(b),
        (Some(State::Deleted(when)), None) | (None, Some(State::Deleted(when))) => *when,
        (Some(State::Deleted(when)), Some(_)) if *when > theirs.generation.max(forgotten) => *when,
        (Some(_), Some(State::Deleted(when))) if *when > ours.generation.max(forgotten) => *when,
        _ => PENDING,
    }
}
