//! The rows of `credential_file_stores`.

use omni_credentials_host::Digest;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use crate::error::Error;
use crate::heap::{Row, Table, Visit, datum};

/// A registered file.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) filename: String,
    /// The highest generation seen.
    pub(super) generation: Option<i64>,
    /// The file's digest when file and table agreed on `base`.
    pub(super) file_digest: Option<Vec<u8>>,
    /// What they agreed on.
    pub(super) base: Vec<u8>,
    /// The digest of the file that the last commit wrote, until it is seen in place: a crash can come between.
    pub(super) pending_digest: Option<Vec<u8>>,
    /// The base that goes with it.
    pub(super) pending_base: Option<Vec<u8>>,
}

/// The table with its lock: who holds it is the one session that synchronises the copy's files.
pub(super) struct Registry {
    table: Table,
}

impl Registry {
    /// Whether the copy in `schema` has any file store. Takes no lasting lock.
    pub(super) fn is_empty(schema: pg_sys::Oid) -> Result<bool, Error> {
        match Table::open_in(schema, c"credential_file_stores", pg_sys::AccessShareLock)? {
            Some(table) => table.is_empty(),
            None => Ok(true),
        }
    }

    /// Opens the registry of the copy in `schema`, waiting for other sessions that synchronise its files.
    pub(super) fn lock(schema: pg_sys::Oid) -> Result<Self, Error> {
        let table = Table::open_in(schema, c"credential_file_stores", pg_sys::ShareRowExclusiveLock)?
            .ok_or_else(|| Error::NotAnInstance { relation: crate::heap::schema_name(schema) })?;
        Ok(Self { table })
    }

    /// All registered files, by name.
    pub(super) fn all(&self) -> Result<Vec<Store>, Error> {
        let mut stores = Vec::new();
        self.table.scan(|row| {
            stores.push(Store::from_row(row));
            Ok(Visit::Continue)
        })?;
        stores.sort_by(|a, b| a.filename.cmp(&b.filename));
        Ok(stores)
    }

    /// One registered file.
    pub(super) fn find(&self, filename: &str) -> Result<Option<Store>, Error> {
        Ok(self.all()?.into_iter().find(|store| store.filename == filename))
    }

    /// Registers a file.
    pub(super) fn insert(&self, store: &Store) -> Result<(), Error> {
        self.table.insert(&mut store.columns())
    }

    /// Stores what is now known of a file.
    pub(super) fn update(&self, store: &Store) -> Result<(), Error> {
        self.table.scan(|row| {
            if row.get::<String>(0).as_deref() != Some(store.filename.as_str()) {
                return Ok(Visit::Continue);
            }
            self.table.update(row, &mut store.columns())?;
            Ok(Visit::Stop)
        })
    }
}

impl Store {
    /// What file and table last agreed on, given the file as it is now: what the last commit wrote counts only if it
    /// is in place.
    pub(super) fn settle(&mut self, file: Option<&[u8]>) {
        let digest = file.map(|bytes| Digest::of(bytes).as_bytes().to_vec());
        if digest.is_some() && self.pending_digest == digest {
            if let Some(base) = self.pending_base.take() {
                self.base = base;
            }
            self.file_digest = self.pending_digest.take();
        }
    }

    fn from_row(row: &Row) -> Self {
        Self {
            filename: row.get(0).unwrap_or_default(),
            generation: row.get(1),
            file_digest: row.get(3),
            base: row.get(4).unwrap_or_default(),
            pending_digest: row.get(5),
            pending_base: row.get(6),
        }
    }

    fn columns(&self) -> [Option<pg_sys::Datum>; 7] {
        // SAFETY: GetCurrentTimestamp reads the clock.
        let now = TimestampWithTimeZone::try_from(unsafe { pg_sys::GetCurrentTimestamp() }).ok();
        [
            datum(self.filename.as_str()),
            self.generation.and_then(datum),
            now.and_then(datum),
            self.file_digest.as_deref().and_then(datum),
            datum(self.base.as_slice()),
            self.pending_digest.as_deref().and_then(datum),
            self.pending_base.as_deref().and_then(datum),
        ]
    }
}
