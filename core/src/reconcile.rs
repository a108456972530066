//! Reconciling two sides (§8): a pure function of what they last agreed on, ours and theirs.

mod keyrings;
mod records;

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::file::{Deletion, Record};
use crate::manifest::{self, Manifest};
use crate::suite::Suite;
use crate::{Document, Entropy, Entry, Failure, Keyring, OwnedIdentity};

pub use keyrings::Wrapping;
use records::Pairs;

/// Who wins where both sides changed a credential in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Neither side: the conflicts are reported, and the document is not to be used.
    Neither,
    /// Ours.
    Ours,
    /// Theirs.
    Theirs,
}

/// Why a credential is in conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Both sides changed its value.
    BothChanged,
    /// Ours deleted it, theirs changed it.
    OursDeleted,
    /// Theirs deleted it, ours changed it.
    TheirsDeleted,
    /// One side has it and the other deleted it, and what they last agreed on is not known.
    AncestorUnknown,
    /// One side lacks it and has forgotten deletions made since both sides agreed, so that this may be one of them.
    DeletionForgotten,
    /// The sides hold different bytes for one version of it, and neither opens.
    Unreadable,
}

/// One of the two sides.
pub struct Side<'a, S: Suite> {
    /// What it holds.
    pub document: &'a Document<S>,
    /// Its keyring. Where the secret of that one is not at hand: the other side's, which must then have all its keys.
    pub keyring: &'a Keyring<S>,
}

/// What was found. Nothing was written: the caller writes the document.
#[must_use]
pub struct Reconciled<S: Suite> {
    /// What both sides are to hold, with the keyring in its header. It has no seal yet.
    pub document: Document<S>,
    /// The keyring, unlocked.
    pub keyring: Keyring<S>,
    /// Under whose master secret the keyring is.
    pub wrapping: Wrapping,
    /// What ours must take over to hold what the document holds.
    to_ours: Vec<Rc<Record>>,
    /// What theirs must take over.
    to_theirs: Vec<Rc<Record>>,
    /// Changed on both sides in different ways; with a preference, the preferred side won.
    pub conflicts: Vec<(OwnedIdentity, Reason)>,
}

impl<S: Suite> Reconciled<S> {
    /// What ours must take over.
    #[must_use]
    pub fn to_ours(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.to_ours.iter().map(|record| record.entry())
    }

    /// What theirs must take over.
    #[must_use]
    pub fn to_theirs(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.to_theirs.iter().map(|record| record.entry())
    }
}

/// Reconciles. `ancestor` is a manifest of what both sides last agreed on, or empty where that is not known. With
/// `ours_complete` (a table), a record that the ancestor has and ours lacks was deleted by ours. Otherwise a side
/// deletes by tombstone only.
///
/// # Errors
/// [`Error::Malformed`] for an ancestor that is no manifest; [`Error::WrongMasterSecret`] where the side whose master
/// secret counts came without its own keyring; [`Error::UnknownKey`] where a side came without its own keyring and has
/// a key that the other lacks; those of [`Keyring::unite`]; [`Error::TooManyRecords`].
///
/// [`Error::Malformed`]: crate::Error::Malformed
/// [`Error::WrongMasterSecret`]: crate::Error::WrongMasterSecret
/// [`Error::UnknownKey`]: crate::Error::UnknownKey
/// [`Error::TooManyRecords`]: crate::Error::TooManyRecords
pub fn reconcile<S: Suite>(
    ancestor: &[u8],
    ours: &Side<'_, S>,
    theirs: &Side<'_, S>,
    ours_complete: bool,
    prefer: Preference,
    entropy: &mut impl Entropy,
) -> Result<Reconciled<S>, Failure> {
    let ancestor = if ancestor.is_empty() { None } else { Some(Manifest::parse(ancestor)?) };
    let (keyring, wrapping) = keyrings::united(ancestor.as_ref(), ours, theirs, prefer, entropy)?;
    let rules = records::Rules {
        ancestor: ancestor.as_ref(),
        ours: ours.document,
        theirs: theirs.document,
        ours_complete,
        prefer,
        keyring: &keyring,
    };
    let found = rules.apply()?;
    let document = Document::reconciled(ours.document, theirs.document, keyring.to_bytes(), found.records)?;
    Ok(Reconciled {
        document,
        keyring,
        wrapping,
        to_ours: found.to_ours,
        to_theirs: found.to_theirs,
        conflicts: found.conflicts,
    })
}

/// The manifest that both sides now agree on: records that are the same in both, and for the others what
/// `ancestor` said. Ours is taken to be complete: what it lacks and theirs holds as deleted is agreed to be gone.
/// `generation` is that of the file of theirs.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) for an ancestor that is neither empty nor a manifest.
pub fn agreed<S: Suite>(
    ancestor: &[u8],
    ours: &Document<S>,
    theirs: &Document<S>,
    generation: u64,
) -> Result<Vec<u8>, Failure> {
    let before = if ancestor.is_empty() { Vec::new() } else { Manifest::parse(ancestor)?.entries };
    Ok(agreed_after(before, ours, theirs, generation).to_bytes())
}

/// The changes that make `ancestor` what [`agreed`] returns. They go before the ancestor's manifest, after the changes that
/// stand there already.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) for an ancestor that is no manifest; an empty one has nothing that could
/// change.
pub fn agreed_changes<S: Suite>(
    ancestor: &[u8],
    ours: &Document<S>,
    theirs: &Document<S>,
    generation: u64,
) -> Result<Vec<u8>, Failure> {
    let before = Manifest::parse(ancestor)?;
    let after = agreed_after(before.entries.clone(), ours, theirs, generation);
    Ok(before.changes_to(&after))
}

/// One manifest of a manifest and its changes.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) for what is no manifest.
pub fn fold(manifest: &[u8]) -> Result<Vec<u8>, Failure> {
    Ok(Manifest::parse(manifest)?.to_bytes())
}

fn agreed_after<S: Suite>(
    before: Vec<(manifest::Hash, manifest::Hash)>,
    ours: &Document<S>,
    theirs: &Document<S>,
    generation: u64,
) -> Manifest {
    let (mut entries, mut gone) = (Vec::new(), BTreeSet::new());
    for pair in Pairs::of(ours, theirs) {
        let Some(theirs) = pair.theirs else { continue };
        match (pair.ours.and_then(|record| record.value()), theirs.value()) {
            (Some(ours), Some(theirs)) if ours == theirs => {
                entries.push((manifest::identity_hash(pair.identity()), manifest::version::<S>(ours.sealed)));
            }
            (None, None) => {
                gone.insert(manifest::identity_hash(pair.identity()));
            }
            _ => {}
        }
    }
    // What is agreed now comes first, and the first of two counts.
    entries.extend(before.into_iter().filter(|(identity, _)| !gone.contains(identity)));
    Manifest::new(manifest::wrapping(theirs.protection()), generation, entries)
}

/// What both sides last agreed on, where it is not known whether a file that holds `pending` came into place after
/// `confirmed`, given what the file holds now.
///
/// A version is random, so one that only `pending` has shows that it did. Then `pending` counts, except for records that
/// the file has as they were in `confirmed`: those count as not changed by the file.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) for a manifest that is neither empty nor one.
pub fn settled<S: Suite>(confirmed: &[u8], pending: &[u8], file: &Document<S>) -> Result<Vec<u8>, Failure> {
    if pending.is_empty() {
        return Ok(confirmed.to_vec());
    }
    let after = Manifest::parse(pending)?;
    if confirmed.is_empty() {
        return Ok(pending.to_vec());
    }
    let before = Manifest::parse(confirmed)?;
    let now = file.entries_of_manifest();
    let came_into_place = now.iter().any(|(identity, version)| {
        after.version(identity) == Some(version) && before.version(identity) != Some(version)
    });
    if !came_into_place {
        return Ok(confirmed.to_vec());
    }
    let kept = now.iter().filter(|(identity, version)| before.version(identity) == Some(version));
    // Those that are kept come first, and the first of two counts.
    let entries = kept.chain(&after.entries).copied().collect();
    Ok(Manifest::new(after.wrapping, after.generation, entries).to_bytes())
}
