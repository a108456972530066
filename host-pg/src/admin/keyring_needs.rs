//! Which keyrings the values of an instance need, and the history's: those that may not be deleted or overwritten.
//!
//! A keyring is needed where a value has its key in no other keyring. One that does not open here is needed where a value has
//! its key in no keyring that does: no one can tell then. A credentials file needs none, because it has its own in it.

use std::collections::{BTreeSet, HashMap};

use omni_credentials_host::{self as host, Digest, Keyring};
use pgrx::pg_sys;

use crate::error::{Error, Unreadable};
use crate::instance::{self, Handle};
use crate::keys::keyring_search::{Holder, Lack, Search};
use crate::keys::modules;
use crate::postgres::heap::{Table, Visibility};
use crate::postgres::tables;
use crate::postgres::varlena::Detoasted;
use crate::rows::every::every_row;
use crate::rows::history::{every_version, table_if_kept};

/// Why a keyring may not go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Values have their key in no other keyring.
    Sealed,
    /// It does not open here, and values have their key in no keyring that does.
    Unknown,
    /// Values have a format that no one here can read.
    UnknownFormat,
}

impl Need {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Sealed => "values here are sealed with its keys",
            Self::Unknown => {
                "it does not open here, and no keyring that does has the keys of all values: they may be sealed with its keys"
            }
            Self::UnknownFormat => "values here have an unknown format and may be sealed with its keys",
        }
    }
}

/// What is needed while a statement deletes keyrings. No one else changes values or keyrings meanwhile.
pub(super) struct Needs {
    table: pg_sys::Oid,
    versions: Option<pg_sys::Oid>,
    search: Search,
    /// The places of the keyrings by what they are, whatever their ids; copies have the place of the first one.
    places: HashMap<(Digest, Vec<u8>), usize>,
    /// How many keyrings are left with the bytes of the one at a place.
    left: HashMap<usize, usize>,
    found: Option<Found>,
}

/// What a pass over all values found.
#[derive(Clone, Default)]
struct Found {
    /// One keyring for each value that has its key.
    holders: BTreeSet<usize>,
    /// A value has its key in no keyring that opens.
    unknown_key: bool,
    /// To every keyring that opens, a value is none. Another module may know it.
    malformed: bool,
    unknown_format: bool,
}

impl Needs {
    /// Of an instance as it is now. Writers wait from here on, and so does everyone who asks the same: of two sessions that each
    /// delete one of two keyrings with the same keys, the second one sees what the first did. That takes no lock on the keyrings
    /// themselves. Both sessions have one that conflicts with any that would do, and would wait for each other.
    pub(super) fn of(schema: pg_sys::Oid) -> Result<Self, Error> {
        let table = instance::of_schema(schema)?.borrow().table;
        drop(Table::open(table, pg_sys::ShareRowExclusiveLock)?);
        Self::of_locked(&instance::of_table_now(table)?)
    }

    fn of_locked(handle: &Handle) -> Result<Self, Error> {
        // One that is lost may be somewhere, and its versions need keyrings.
        let versions = table_if_kept(handle, pg_sys::ShareRowExclusiveLock)?.map(|table| table.oid());
        let instance = handle.borrow();
        let keyrings = instance.keyrings_apart();
        let (mut places, mut left) = (HashMap::new(), HashMap::<usize, usize>::new());
        for keyring in &keyrings.loaded {
            places.entry((keyring.stored.module, keyring.stored.bytes.clone())).or_insert(keyring.first);
            left.entry(keyring.first).and_modify(|count| *count = count.saturating_add(1)).or_insert(1);
        }
        let search = Search::new(keyrings, left.keys().copied().collect());
        Ok(Self { table: instance.table, versions, search, places, left, found: None })
    }

    /// Why a keyring may not go, if it may not. Where it may, it counts as gone from here on.
    pub(super) fn of_keyring(&mut self, module: &Digest, bytes: &[u8]) -> Result<Option<Need>, Error> {
        let Some(place) = self.place(module, bytes) else { return Ok(None) };
        if self.left.get(&place).is_some_and(|left| *left > 1) {
            self.forget(module, bytes, place);
            return Ok(None);
        }
        let found = match self.found.clone() {
            Some(found) => found,
            None => {
                self.search.put_off(place);
                self.look(None)?.unwrap_or_default()
            }
        };
        if found.unknown_format {
            return Ok(Some(Need::UnknownFormat));
        }
        let opens = self.search.opens(place);
        if !opens && (found.unknown_key || (found.malformed && !self.search.has_sibling(place))) {
            return Ok(Some(Need::Unknown));
        }
        if found.holders.contains(&place) && self.look(Some(place))?.is_none() {
            return Ok(Some(Need::Sealed));
        }
        self.forget(module, bytes, place);
        Ok(None)
    }

    /// Whether a keyring that is not among these has every key that values need of one that is.
    pub(super) fn are_met_by(
        &mut self,
        module: &Digest,
        bytes: &[u8],
        new: &mut Keyring,
    ) -> Result<bool, Error> {
        let Some(place) = self.place(module, bytes) else { return Ok(true) };
        let mut met = true;
        self.every_value(|needs, sealed| {
            if met && matches!(needs.search.holder(sealed, Some(place))?, Holder::None(_)) {
                let is_missing =
                    needs.search.opens(place) && !needs.search.key_of(place, sealed)?.unwrap_or(true);
                met = is_missing
                    || match new.key_of(sealed) {
                        Ok(key) => key != host::KeyOf::Unknown,
                        Err(host::Error::Refused(failure)) => {
                            Unreadable::of(&failure) == Some(Unreadable::Malformed)
                        }
                        Err(error) => return Err(modules::module_error(error)),
                    };
            }
            Ok(())
        })?;
        Ok(met)
    }

    /// Passes over all values, and remembers what it found. With one keyring left out: `None` where a value needs it, and
    /// nothing is remembered then.
    fn look(&mut self, without: Option<usize>) -> Result<Option<Found>, Error> {
        let (mut found, mut needed) = (Found::default(), false);
        self.every_value(|needs, sealed| {
            if needed {
                return Ok(());
            }
            match needs.search.holder(sealed, without)? {
                Holder::Keyring(index) => {
                    found.holders.insert(index);
                }
                Holder::None(lack) => {
                    if let Some(without) = without
                        && needs.search.opens(without)
                    {
                        needed = needs.search.key_of(without, sealed)?.unwrap_or(false);
                    }
                    match lack {
                        Lack::Malformed => found.malformed = true,
                        Lack::Key => found.unknown_key = true,
                        Lack::Format => found.unknown_format = true,
                    }
                }
            }
            Ok(())
        })?;
        if needed {
            return Ok(None);
        }
        self.found = Some(found.clone());
        Ok(Some(found))
    }

    /// Whether a keyring was altered: no one can ever open it as it is.
    pub(super) fn is_altered(&mut self, module: &Digest, bytes: &[u8]) -> bool {
        self.place(module, bytes).is_some_and(|place| self.search.is_altered(place))
    }

    /// A keyring that is to be stored, unlocked; or why it does not open here.
    pub(super) fn unlock(&self, module: &Digest, bytes: &[u8]) -> Result<Keyring, Error> {
        self.search.unlock(module, bytes)
    }

    fn place(&self, module: &Digest, bytes: &[u8]) -> Option<usize> {
        self.places.get(&(*module, bytes.to_vec())).copied()
    }

    fn forget(&mut self, module: &Digest, bytes: &[u8], place: usize) {
        let left = self.left.entry(place).or_insert(1);
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.places.remove(&(*module, bytes.to_vec()));
            self.search.forget(place);
        }
    }

    fn every_value(
        &mut self,
        mut visit: impl FnMut(&mut Self, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let table = self.table;
        every_row(table, Visibility::Now, |_, sealed| {
            // SAFETY: the datum of a bytea that is not NULL.
            visit(self, unsafe { Detoasted::new(sealed) }.bytes())
        })?;
        let Some(versions) = self.versions else { return Ok(()) };
        let versions = Table::open(versions, pg_sys::AccessShareLock)?;
        versions.must_have(tables::versions::COLUMNS)?;
        every_version(&versions, Visibility::Now, |version| {
            // SAFETY: the datum of a bytea that is not NULL.
            visit(self, unsafe { Detoasted::new(version.sealed) }.bytes())
        })
    }
}
