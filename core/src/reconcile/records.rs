//! The records of both sides, one identity after another (§8.3).

use std::cmp::{Ordering, Reverse};
use std::iter::Peekable;
use std::rc::Rc;
use std::slice;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Deletion, Preference, Reason};
use crate::file::{Record, Value};
use crate::manifest::{self, Hash, Manifest};
use crate::suite::Suite;
use crate::{Document, Failure, Keyring, OwnedIdentity, value};

/// What decides.
pub(super) struct Rules<'a, S: Suite> {
    /// What both last agreed on; `None` where that is not known.
    pub(super) ancestor: Option<&'a Manifest>,
    pub(super) ours: &'a Document<S>,
    pub(super) theirs: &'a Document<S>,
    pub(super) ours_complete: bool,
    pub(super) prefer: Preference,
    /// Opens both.
    pub(super) keyring: &'a Keyring<S>,
}

/// What comes of it.
#[derive(Default)]
pub(super) struct Found {
    pub(super) records: Vec<Rc<Record>>,
    pub(super) to_ours: Vec<Rc<Record>>,
    pub(super) to_theirs: Vec<Rc<Record>>,
    pub(super) conflicts: Vec<(OwnedIdentity, Reason)>,
}

impl<S: Suite> Rules<'_, S> {
    pub(super) fn apply(&self) -> Result<Found, Failure> {
        let mut found = Found::default();
        for pair in Pairs::of(self.ours, self.theirs) {
            // Nearly all records of nearly all files: the ancestor has no say, so nothing is hashed.
            if let (Some(ours), Some(theirs)) = (pair.ours, pair.theirs)
                && ours.sealed.is_some()
                && (Rc::ptr_eq(ours, theirs) || ours.value() == theirs.value())
            {
                found.records.push(Rc::clone(theirs));
                continue;
            }
            self.decide(pair, &mut found);
        }
        Ok(found)
    }

    fn decide(&self, pair: Pair<'_>, found: &mut Found) {
        let before = self.ancestor.and_then(|known| known.version(&manifest::identity_hash(pair.identity())));
        let ours = self.state::<true>(pair.ours, before);
        let theirs = self.state::<false>(pair.theirs, before);
        let (winner, conflict) = self.resolve(pair, ours, theirs);
        if let Some(reason) = conflict {
            found.conflicts.push((pair.identity().clone(), reason));
        }
        let record = match winner {
            State::Lacking { .. } => return,
            State::Live { value, .. } => pair.live(value),
            State::Deleted { .. } => match self.tombstone(pair) {
                Some(tombstone) => tombstone,
                None => return,
            },
        };
        let value = record.value();
        if !ours.holds(value, self.ours_complete) {
            found.to_ours.push(Rc::clone(&record));
        }
        if !theirs.holds(value, false) {
            found.to_theirs.push(Rc::clone(&record));
        }
        found.records.push(record);
    }

    /// What a side says of a record, compared with the ancestor.
    fn state<'a, const OURS: bool>(
        &self,
        record: Option<&'a Rc<Record>>,
        before: Option<&Hash>,
    ) -> State<'a> {
        let (document, complete) = if OURS { (self.ours, self.ours_complete) } else { (self.theirs, false) };
        match record.map(|record| record.value()) {
            Some(Some(value)) => {
                State::Live { value, changed: before != Some(&manifest::version::<S>(value.sealed)) }
            }
            // An older version of the file beside a table: its tombstones may be older than the record.
            Some(None) if !OURS && before.is_some() && self.theirs_is_older() => {
                State::Lacking { forgotten: false }
            }
            // An ancestor without the record cannot tell a new tombstone from an old one: it gives way to a value.
            Some(None) => State::Deleted { changed: before.is_some() },
            None if complete && before.is_some() => State::Deleted { changed: true },
            None => {
                let since = document.deletions_since();
                let forgotten = match self.ancestor {
                    _ if complete => false,
                    Some(ancestor) => before.is_some() && since > ancestor.generation,
                    None => since > 0,
                };
                State::Lacking { forgotten }
            }
        }
    }

    fn theirs_is_older(&self) -> bool {
        self.ours_complete
            && self.prefer != Preference::Theirs
            && self.ancestor.is_some_and(|ancestor| self.theirs.generation() < ancestor.generation)
    }

    /// Which state counts, and why that is a conflict where it is one.
    fn resolve<'a>(&self, pair: Pair<'a>, ours: State<'a>, theirs: State<'a>) -> (State<'a>, Option<Reason>) {
        let preferred = if self.prefer == Preference::Theirs { theirs } else { ours };
        match (ours, theirs) {
            (State::Lacking { forgotten: true }, State::Live { .. })
            | (State::Live { .. }, State::Lacking { forgotten: true }) => {
                // Without a preference nothing is lost: the value stays.
                let winner = match (self.prefer, ours) {
                    (Preference::Neither, State::Lacking { .. }) => theirs,
                    (Preference::Neither, _) => ours,
                    _ => preferred.or_deleted(),
                };
                (winner, Some(Reason::DeletionForgotten))
            }
            (State::Lacking { .. }, only) | (only, State::Lacking { .. }) => (only, None),
            (State::Deleted { .. }, State::Deleted { .. }) => (ours, None),
            (State::Live { value: a, .. }, State::Live { value: b, .. }) => {
                self.resolve_values(pair, (ours, a), (theirs, b), preferred)
            }
            _ if self.ancestor.is_none() => (preferred, Some(Reason::AncestorUnknown)),
            _ if !ours.changed() => (theirs, None),
            _ if !theirs.changed() => (ours, None),
            (State::Deleted { .. }, _) => (preferred, Some(Reason::OursDeleted)),
            (_, State::Deleted { .. }) => (preferred, Some(Reason::TheirsDeleted)),
        }
    }

    /// Two sealed values that are not the same bytes.
    fn resolve_values<'a>(
        &self,
        pair: Pair<'a>,
        (ours, a): (State<'a>, Value<'a>),
        (theirs, b): (State<'a>, Value<'a>),
        preferred: State<'a>,
    ) -> (State<'a>, Option<Reason>) {
        let one_version = value::version::<S>(a.sealed) == value::version::<S>(b.sealed);
        if !one_version && self.ancestor.is_some() {
            if !ours.changed() {
                return (theirs, None);
            }
            if !theirs.changed() {
                return (ours, None);
            }
        }
        let identity = pair.identity().borrowed();
        let open = |value: Value<'_>| {
            self.keyring.open_canonical(&identity, value.expires, value.sealed).map(Zeroizing::new)
        };
        match (open(a), open(b)) {
            (Ok(first), Ok(second)) if a.expires == b.expires && bool::from(first.ct_eq(&second)) => {
                // The same from either end: the one under the newer key, then the lower bytes.
                let rank = |value: Value<'a>| {
                    let key = value::key_id::<S>(value.sealed).ok().and_then(|id| self.keyring.rank(id));
                    (key, Reverse(value))
                };
                (if rank(a) >= rank(b) { ours } else { theirs }, None)
            }
            // One version sealed with two keys, of which one cannot be opened here: what opens is it.
            (Ok(_), Err(_)) if one_version => (ours, None),
            (Err(_), Ok(_)) if one_version => (theirs, None),
            (Err(_), Err(_)) if one_version => (preferred, Some(Reason::Unreadable)),
            _ => (preferred, Some(Reason::BothChanged)),
        }
    }

    /// The tombstone for a record that is deleted; `None` where both sides know and have forgotten it.
    ///
    /// Its generation is one that a reader who last saw the record alive has not seen.
    fn tombstone(&self, pair: Pair<'_>) -> Option<Rc<Record>> {
        let forgotten = self.ours.deletions_since().max(self.theirs.deletions_since());
        let deletion = |record: Option<&Rc<Record>>| record.and_then(|record| record.deletion());
        let lives = |record: Option<&Rc<Record>>| record.is_some_and(|record| record.sealed.is_some());
        let found = match (deletion(pair.ours), deletion(pair.theirs)) {
            (Some(ours), Some(theirs)) => ours.max(theirs),
            (Some(only), None) if lives(pair.theirs) => only.after(self.theirs.generation().max(forgotten)),
            (None, Some(only)) if lives(pair.ours) => only.after(self.ours.generation().max(forgotten)),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => Deletion::Pending,
        };
        if matches!(found, Deletion::In(generation) if generation <= forgotten) {
            return None;
        }
        Some(pair.tombstone(found))
    }
}

/// What a side says of a record, compared with the ancestor.
#[derive(Clone, Copy)]
enum State<'a> {
    /// Nothing at all: absence is never deletion. `forgotten`: it may be a deletion that the side has forgotten.
    Lacking {
        forgotten: bool,
    },
    Deleted {
        changed: bool,
    },
    Live {
        value: Value<'a>,
        changed: bool,
    },
}

impl State<'_> {
    fn changed(self) -> bool {
        match self {
            Self::Lacking { .. } => false,
            Self::Deleted { changed } | Self::Live { changed, .. } => changed,
        }
    }

    /// A side that is preferred and lacks a record that it may have deleted, has deleted it.
    fn or_deleted(self) -> Self {
        if let Self::Lacking { .. } = self { Self::Deleted { changed: true } } else { self }
    }

    /// Whether this side holds that already. Where absence is deletion there is no tombstone to take over.
    fn holds(self, value: Option<Value<'_>>, complete: bool) -> bool {
        match self {
            Self::Lacking { .. } => complete && value.is_none(),
            Self::Deleted { .. } => value.is_none(),
            Self::Live { value: own, .. } => value == Some(own),
        }
    }
}

/// The records of one identity on both sides; at least one is there.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) ours: Option<&'a Rc<Record>>,
    pub(super) theirs: Option<&'a Rc<Record>>,
    any: &'a Rc<Record>,
}

impl<'a> Pair<'a> {
    pub(super) fn identity(self) -> &'a OwnedIdentity {
        &self.any.identity
    }

    /// The record of this value, one of the two sides' where they have it.
    fn live(self, value: Value<'_>) -> Rc<Record> {
        self.known(|record| record.value() == Some(value))
            .unwrap_or_else(|| Rc::new(Record::new(self.identity().clone(), Some(value))))
    }

    fn tombstone(self, deletion: Deletion) -> Rc<Record> {
        self.known(|record| record.deletion() == Some(deletion))
            .unwrap_or_else(|| Rc::new(Record::deleted(self.identity().clone(), deletion)))
    }

    fn known(self, is_it: impl Fn(&Record) -> bool) -> Option<Rc<Record>> {
        [self.ours, self.theirs].into_iter().flatten().find(|record| is_it(record)).map(Rc::clone)
    }
}

/// Iterates over two sorted lists of records in step, by identity.
pub(super) struct Pairs<'a> {
    ours: Peekable<slice::Iter<'a, Rc<Record>>>,
    theirs: Peekable<slice::Iter<'a, Rc<Record>>>,
}

impl<'a> Pairs<'a> {
    pub(super) fn of<S: Suite>(ours: &'a Document<S>, theirs: &'a Document<S>) -> Self {
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
