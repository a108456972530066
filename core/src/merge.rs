//! Three-way merge (§8), a pure function of base, ours and theirs.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::rc::Rc;
use std::slice;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::file::Record;
use crate::manifest::{self, Hash, Manifest};
use crate::suite::Suite;
use crate::{Document, Error, Failure, Keyring, OwnedIdentity, limits};

/// Who wins where both sides changed a credential in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Neither side: the conflicts are reported, and the merged document keeps what ours has.
    Neither,
    /// Ours.
    Ours,
    /// Theirs.
    Theirs,
}

/// What a merge found. Nothing was written: the caller writes the document.
#[must_use]
pub struct Merged<S: Suite> {
    /// The merged document, with the keyring and generation of theirs. It has no seal yet.
    pub document: Document<S>,
    /// What ours must take over to hold what the merged document holds.
    to_ours: Vec<Rc<Record>>,
    /// What theirs must take over.
    to_theirs: Vec<Rc<Record>>,
    /// Changed on both sides in different ways; with a preference, the preferred side won.
    pub conflicts: Vec<OwnedIdentity>,
}

impl<S: Suite> Merged<S> {
    /// What ours must take over: identity, and the sealed value or `None` for a deletion.
    #[must_use]
    pub fn to_ours(&self) -> impl ExactSizeIterator<Item = (&OwnedIdentity, Option<&[u8]>)> {
        self.to_ours.iter().map(|record| (&record.identity, record.sealed.as_deref()))
    }

    /// What theirs must take over.
    #[must_use]
    pub fn to_theirs(&self) -> impl ExactSizeIterator<Item = (&OwnedIdentity, Option<&[u8]>)> {
        self.to_theirs.iter().map(|record| (&record.identity, record.sealed.as_deref()))
    }
}

/// Merges. `base` is a manifest of what both sides last agreed on; with `ours_complete`, a record that `base`
/// has and ours lacks was deleted by ours. Theirs deletes by tombstone only.
///
/// # Errors
/// [`Error::Malformed`] for a base that is no manifest, [`Error::TooManyRecords`].
pub fn merge<S: Suite>(
    base: &[u8],
    ours: &Document<S>,
    theirs: &Document<S>,
    ours_complete: bool,
    keyring: &Keyring<S>,
    prefer: Preference,
) -> Result<Merged<S>, Failure> {
    let base = Manifest::parse(base)?;
    let (mut records, mut to_ours, mut to_theirs, mut conflicts) = (vec![], vec![], vec![], vec![]);
    for pair in Pairs::of(ours, theirs) {
        // Nearly all records of nearly all merges: the base has no say, so nothing is hashed.
        if let (Some(ours), Some(theirs)) = (pair.ours, pair.theirs)
            && (Rc::ptr_eq(ours, theirs) || ours.sealed == theirs.sealed)
        {
            records.push(Rc::clone(theirs));
            continue;
        }
        let before = base.sealed(&manifest::identity_hash(pair.identity()));
        let our_side = Side::new(pair.ours, before, ours_complete);
        let their_side = Side::new(pair.theirs, before, false);
        let (winner, conflict) = resolve(pair, our_side, their_side, keyring, prefer);
        if conflict {
            conflicts.push(pair.identity().clone());
        }
        let sealed = match winner {
            Side::Lacking => continue,
            Side::Deleted { .. } => None,
            Side::Live { sealed, .. } => Some(sealed),
        };
        let record = pair.record_of(sealed);
        if !our_side.holds(sealed, ours_complete) {
            to_ours.push(Rc::clone(&record));
        }
        if !their_side.holds(sealed, false) {
            to_theirs.push(Rc::clone(&record));
        }
        records.push(record);
    }
    if records.len() > limits::FILE_RECORDS {
        return Err(Error::TooManyRecords.into());
    }
    let keyring = theirs.keyring_bytes().to_vec();
    let document = Document::from_parts(keyring, theirs.generation(), records, None)?;
    Ok(Merged { document, to_ours, to_theirs, conflicts })
}

/// The manifest that both sides now agree on: records that are the same in both, and for the others what
/// `base` said. Ours is taken to be complete: what it lacks and theirs holds as deleted is agreed to be gone.
///
/// # Errors
/// [`Error::Malformed`] for a base that is not a manifest.
pub fn agreed<S: Suite>(base: &[u8], ours: &Document<S>, theirs: &Document<S>) -> Result<Vec<u8>, Failure> {
    let base = Manifest::parse(base)?;
    let mut agreements: Vec<(Hash, Option<Hash>)> = Pairs::of(ours, theirs)
        .filter_map(|pair| {
            let sealed = match (pair.ours.map(|ours| &ours.sealed), pair.theirs.map(|theirs| &theirs.sealed))
            {
                (Some(Some(ours)), Some(Some(theirs))) if ours == theirs => Some(manifest::hash(ours)),
                (None | Some(None), Some(None)) => None,
                _ => return None,
            };
            Some((manifest::identity_hash(pair.identity()), sealed))
        })
        .collect();
    agreements.sort_unstable();
    let kept =
        base.iter().filter(|entry| agreements.binary_search_by(|other| other.0.cmp(&entry.0)).is_err());
    let agreed: Manifest = kept
        .copied()
        .chain(agreements.iter().filter_map(|&(identity, sealed)| Some((identity, sealed?))))
        .collect();
    Ok(agreed.to_bytes())
}

/// What a side says of a record, compared with the base.
#[derive(Clone, Copy)]
enum Side<'a> {
    /// Nothing at all: absence is never deletion.
    Lacking,
    Deleted {
        changed: bool,
    },
    Live {
        sealed: &'a [u8],
        changed: bool,
    },
}

impl<'a> Side<'a> {
    /// `complete`: what this side lacks of the base, it deleted.
    fn new(record: Option<&'a Rc<Record>>, before: Option<&Hash>, complete: bool) -> Self {
        match record.map(|record| record.sealed.as_deref()) {
            Some(Some(sealed)) => Self::Live { sealed, changed: before != Some(&manifest::hash(sealed)) },
            // A base without the record cannot tell a new tombstone from an old one: it gives way to a value.
            Some(None) => Self::Deleted { changed: before.is_some() },
            None if complete && before.is_some() => Self::Deleted { changed: true },
            None => Self::Lacking,
        }
    }

    fn changed(self) -> bool {
        match self {
            Self::Lacking => false,
            Self::Deleted { changed } | Self::Live { changed, .. } => changed,
        }
    }

    /// Whether this side holds that already. Where absence is deletion there is no tombstone to take over.
    fn holds(self, sealed: Option<&[u8]>, complete: bool) -> bool {
        match self {
            Self::Lacking => complete && sealed.is_none(),
            Self::Deleted { .. } => sealed.is_none(),
            Self::Live { sealed: own, .. } => sealed == Some(own),
        }
    }
}

/// Which side the merged document follows, and whether that is a conflict.
fn resolve<'a, S: Suite>(
    pair: Pair<'a>,
    ours: Side<'a>,
    theirs: Side<'a>,
    keyring: &Keyring<S>,
    prefer: Preference,
) -> (Side<'a>, bool) {
    let preferred = if prefer == Preference::Theirs { theirs } else { ours };
    match (ours, theirs) {
        (Side::Lacking, only) | (only, Side::Lacking) => (only, false),
        (Side::Deleted { .. }, Side::Deleted { .. }) => (ours, false),
        (Side::Live { sealed: a, .. }, Side::Live { sealed: b, .. }) if a == b => (ours, false),
        _ if !ours.changed() => (theirs, false),
        _ if !theirs.changed() => (ours, false),
        (Side::Live { sealed: a, .. }, Side::Live { sealed: b, .. }) if same_value(pair, a, b, keyring) => {
            // The same from either end: the one under the current key, then the lower bytes.
            let rank = |sealed| (!keyring.is_current(sealed).unwrap_or(false), sealed);
            (if rank(a) <= rank(b) { ours } else { theirs }, false)
        }
        _ => (preferred, true),
    }
}

/// Whether two sealed values open, and to the same bytes.
fn same_value<S: Suite>(pair: Pair<'_>, a: &[u8], b: &[u8], keyring: &Keyring<S>) -> bool {
    let identity = pair.identity().borrowed();
    let open = |sealed| keyring.open_canonical(&identity, sealed).map(Zeroizing::new);
    match (open(a), open(b)) {
        (Ok(a), Ok(b)) => a.ct_eq(&b).into(),
        _ => false,
    }
}

/// The records of one identity on both sides; at least one is there.
#[derive(Clone, Copy)]
struct Pair<'a> {
    ours: Option<&'a Rc<Record>>,
    theirs: Option<&'a Rc<Record>>,
    any: &'a Rc<Record>,
}

impl<'a> Pair<'a> {
    fn identity(self) -> &'a OwnedIdentity {
        &self.any.identity
    }

    /// The record of this state, one of the two sides' where they have it.
    fn record_of(self, sealed: Option<&[u8]>) -> Rc<Record> {
        let known =
            [self.ours, self.theirs].into_iter().flatten().find(|record| record.sealed.as_deref() == sealed);
        known.map_or_else(|| Rc::new(Record::new(self.identity().clone(), sealed)), Rc::clone)
    }
}

/// Iterates over two sorted lists of records in step, by identity.
struct Pairs<'a> {
    ours: Peekable<slice::Iter<'a, Rc<Record>>>,
    theirs: Peekable<slice::Iter<'a, Rc<Record>>>,
}

impl<'a> Pairs<'a> {
    fn of<S: Suite>(ours: &'a Document<S>, theirs: &'a Document<S>) -> Self {
        Self { ours: ours.records().iter().peekable(), theirs: theirs.records().iter().peekable() }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        let order = match (self.ours.peek(), self.theirs.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) if Rc::ptr_eq(ours, theirs) => Ordering::Equal,
            (Some(ours), Some(theirs)) => ours.identity.cmp(&theirs.identity),
        };
        let ours = if order.is_le() { self.ours.next() } else { None };
        let theirs = if order.is_ge() { self.theirs.next() } else { None };
        Some(Pair { ours, theirs, any: ours.or(theirs)? })
    }
}
