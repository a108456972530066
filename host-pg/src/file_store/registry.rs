//! The rows of `credentials_files`.

use omni_credentials_host::{Digest, Files};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::agreed::{Agreed, News};
use super::file_error;
use super::published::Note;
use crate::error::Error;
use crate::postgres::catalog::{self, Extension};
use crate::postgres::heap::{Row, Table, Visit, datum};
use crate::postgres::tables::{file_store_key, files};

/// A registered file.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) filename: String,
    /// The highest generation seen.
    pub(super) generation: Option<i64>,
    /// When that was; for display only.
    pub(super) synchronized_at: Option<i64>,
    /// How many records of the file the table did not have then.
    pub(super) unloaded: i32,
    /// The file's digest when file and table agreed on `base`.
    pub(super) file_digest: Option<Vec<u8>>,
    /// What they agreed on.
    pub(super) base: Agreed,
    /// The digest of the file that the last commit wrote, until it is known to have come into place: a crash can come
    /// between commit and rename.
    pub(super) pending_digest: Option<Vec<u8>>,
    /// What they agree on once it has.
    pub(super) pending: Option<News>,
    /// Whether a dump brought the row. Then no one asked this server to write the file, and what was agreed on says
    /// nothing of this table: the rows may not have come along, which must not look as if they had been deleted.
    pub(super) suspended: bool,
    /// Whether the table has no place for changes, because an earlier version made it.
    pub(super) whole_only: bool,
}

/// What a file turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    /// The one that this instance last read or wrote, byte for byte.
    Known,
    /// The one before the last commit: a crash kept the new one from coming into place.
    Behind,
    /// Someone else wrote it.
    Foreign,
}

/// The table with its lock: who holds it is the one session that synchronises the instance's files.
pub(super) struct Registry {
    table: Table,
    /// The key of the marks. Without it no row counts as written here.
    key: Option<Vec<u8>>,
}

const NAME: &core::ffi::CStr = c"credentials_files";
impl Registry {
    /// Whether the instance in `schema` has any file store. Takes no lasting lock.
    pub(super) fn is_empty(schema: pg_sys::Oid) -> Result<bool, Error> {
        match Table::open_in(schema, NAME, pg_sys::AccessShareLock)? {
            Some(table) => table.is_empty(),
            None => Ok(true),
        }
    }

    /// Opens the registry of the instance in `schema`, waiting for other sessions that synchronise its files.
    pub(super) fn lock(schema: pg_sys::Oid) -> Result<Self, Error> {
        Self::open(schema, pg_sys::ShareRowExclusiveLock)
    }

    /// Opens the registry of the instance in `schema` to look at it.
    pub(super) fn look(schema: pg_sys::Oid) -> Result<Self, Error> {
        Self::open(schema, pg_sys::AccessShareLock)
    }

    fn open(schema: pg_sys::Oid, lock: u32) -> Result<Self, Error> {
        let table = Table::open_in(schema, NAME, lock)?
            .ok_or_else(|| Error::NotAnInstance { relation: catalog::schema_name(schema) })?;
        let made_with =
            [files::PENDING_CHANGES, files::WRITTEN_AS].into_iter().find(|it| table.has_column(*it));
        let count = made_with.map_or(files::WRITTEN_AS, |last| last.saturating_add(1));
        table.must_have(files::COLUMNS.get(..count).unwrap_or(files::COLUMNS))?;
        Ok(Self { table, key: mark_key()? })
    }

    /// The role that owns the table, and so has the last word on which files are written.
    pub(super) fn owner(&self) -> pg_sys::Oid {
        self.table.owner()
    }

    /// All registered files, by name.
    pub(super) fn all(&self) -> Result<Vec<Store>, Error> {
        let mut stores = Vec::new();
        self.table.scan(|row| {
            stores.push(self.store(row)?);
            Ok(Visit::Continue)
        })?;
        stores.sort_by(|a, b| a.filename.cmp(&b.filename));
        Ok(stores)
    }

    /// One registered file.
    pub(super) fn find(&self, filename: &str) -> Result<Option<Store>, Error> {
        Ok(self.all()?.into_iter().find(|store| store.filename == filename))
    }

    /// One file that must be registered; `schema` is the instance's.
    pub(super) fn registered(&self, filename: &str, schema: pg_sys::Oid) -> Result<Store, Error> {
        self.find(filename)?.ok_or_else(|| Error::FileNotRegistered {
            filename: filename.to_owned(),
            schema: catalog::schema_name(schema),
        })
    }

    /// Registers a file.
    pub(super) fn insert(&self, store: &Store) -> Result<(), Error> {
        self.table.insert(&self.columns(store))
    }

    /// Stores what is now known of a file. A manifest that stays the same is not written again.
    pub(super) fn update(&self, store: &Store) -> Result<(), Error> {
        self.with_row(store, |row| {
            let mut columns = self.columns(store);
            if row.get::<Vec<u8>>(files::BASE).as_ref() == Some(&store.base.base)
                && let Some(base) = columns.get_mut(files::BASE)
            {
                *base = row.raw(files::BASE);
            }
            self.table.update(row, &columns)
        })
    }

    /// Forgets a file.
    pub(super) fn delete(&self, store: &Store) -> Result<(), Error> {
        self.with_row(store, |row| self.table.delete(row))
    }

    /// The note for a registered file.
    pub(super) fn note(&self, store: &Store) -> Note {
        Note::of(self.table.oid(), &store.filename)
    }

    /// Has a store that suspended be kept up to date from now on: as if file and table met for the first time.
    pub(super) fn resume(&self, store: &mut Store) -> Result<(), Error> {
        store.suspended = false;
        self.update(store)
    }

    fn store(&self, row: &Row) -> Result<Store, Error> {
        let store = Store::from_row(row, !self.table.has_column(files::PENDING_CHANGES))?;
        // Where the column is missing, nothing can be said, and the row counts.
        if !self.table.has_column(files::WRITTEN_AS)
            || row
                .get(files::WRITTEN_AS)
                .is_some_and(|mark| self.mark(row.writer(), &store.filename) == Some(mark))
        {
            return Ok(store);
        }
        let Store { filename, generation, synchronized_at, whole_only, .. } = store;
        Ok(Store { filename, generation, synchronized_at, suspended: true, whole_only, ..Store::default() })
    }

    fn columns(&self, store: &Store) -> Vec<Option<pg_sys::Datum>> {
        let mut columns = Vec::from(store.columns());
        if self.table.has_column(files::WRITTEN_AS) {
            // SAFETY: a transaction that may write is in progress: the caller is about to.
            let writer = unsafe { pg_sys::GetCurrentTransactionId() };
            columns.push(self.mark(writer.into(), &store.filename).and_then(datum));
        }
        if self.table.has_column(files::PENDING_CHANGES) {
            let changes = Some(&store.base.changes).filter(|changes| !changes.is_empty());
            columns.push(changes.and_then(|changes| datum(changes.as_slice())));
            columns.push(match &store.pending {
                Some(News::Changes(changes)) => datum(changes.as_slice()),
                Some(News::Whole(_)) | None => None,
            });
        }
        columns
    }

    /// What a row that a transaction writes into this table is marked with: only code that reads the key can compute it. No
    /// dump carries transactions or the key, and a database made with another one as its template has another oid.
    fn mark(&self, writer: u32, filename: &str) -> Option<i64> {
        // SAFETY: set before a session runs anything.
        let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
        let mut marked = self.key.clone()?;
        for number in [database, self.table.oid().to_u32(), writer] {
            marked.extend_from_slice(&number.to_be_bytes());
        }
        marked.extend_from_slice(filename.as_bytes());
        Digest::of(&marked).as_bytes().first_chunk().copied().map(i64::from_be_bytes)
    }

    fn with_row(&self, store: &Store, mut with: impl FnMut(&Row) -> Result<(), Error>) -> Result<(), Error> {
        self.table.scan(|row| {
            if row.get::<String>(files::FILENAME).as_deref() != Some(store.filename.as_str()) {
                return Ok(Visit::Continue);
            }
            with(row)?;
            Ok(Visit::Stop)
        })
    }
}

/// The key of the marks in this database.
fn mark_key() -> Result<Option<Vec<u8>>, Error> {
    let Some(table) = Extension::find().and_then(|extension| extension.table(c"file_store_key")) else {
        return Ok(None);
    };
    let table = Table::open(table, pg_sys::AccessShareLock)?;
    table.must_have(file_store_key::COLUMNS)?;
    let mut key = None;
    table.scan(|row| {
        key = row.get(file_store_key::KEY);
        Ok(Visit::Stop)
    })?;
    Ok(key)
}

impl Store {
    /// Works out what file and table last agreed on, given the file as it is now.
    pub(super) fn resolve_state(
        &mut self,
        note: &Note,
        digest: &Digest,
        files: &mut Files,
        file: &[u8],
    ) -> Result<FileState, Error> {
        let digest = digest.as_bytes();
        if let Some(pending) = self.pending_digest.as_deref() {
            if pending == digest || note.says(pending) {
                self.base = self.expected();
                self.pending = None;
                self.file_digest = self.pending_digest.take();
            } else if self.file_digest.as_deref() == Some(digest) {
                return Ok(FileState::Behind);
            } else {
                // A file that does not parse here says nothing: it is of another suite, or refused later on.
                if let Ok(document) = files.parse(file) {
                    let settled = files
                        .settled(&self.base.to_bytes(), &self.expected().to_bytes(), document)
                        .map_err(|error| file_error(&self.filename, error))?;
                    if settled != self.base.to_bytes() {
                        self.base = Agreed::on(
                            files.fold(&settled).map_err(|error| file_error(&self.filename, error))?,
                        );
                    }
                }
                (self.pending, self.pending_digest) = (None, None);
            }
        }
        let known = self.file_digest.as_deref() == Some(digest);
        Ok(if known { FileState::Known } else { FileState::Foreign })
    }

    /// The digest of the file that this instance wrote or checked last.
    pub(super) fn written(&self) -> Option<&Vec<u8>> {
        self.pending_digest.as_ref().or(self.file_digest.as_ref())
    }

    /// What file and table agree on once that file is in place.
    pub(super) fn agreed(&self) -> Vec<u8> {
        match &self.pending_digest {
            Some(_) => self.expected().to_bytes(),
            None => self.base.to_bytes(),
        }
    }

    /// What file and table agree on once the pending file is in place.
    fn expected(&self) -> Agreed {
        self.pending.as_ref().map(|news| self.base.after(news)).unwrap_or_default()
    }

    /// The highest generation seen.
    pub(super) fn known_generation(&self) -> u64 {
        self.generation.and_then(|generation| u64::try_from(generation).ok()).unwrap_or(0)
    }

    /// Notes a generation that the file has or had. Going back to an older file does not make this lower.
    pub(super) fn saw_generation(&mut self, generation: u64) {
        self.generation = Some(i64::try_from(generation.max(self.known_generation())).unwrap_or(i64::MAX));
    }

    fn from_row(row: &Row, whole_only: bool) -> Result<Self, Error> {
        // Without the columns, others may be in their place.
        let changes = |column| if whole_only { None } else { row.get::<Vec<u8>>(column) };
        Ok(Self {
            filename: row.required(files::FILENAME)?,
            generation: row.get(files::GENERATION),
            synchronized_at: row.raw(files::SYNCHRONIZED_AT).map(|datum| datum.value() as i64),
            unloaded: row.required(files::UNLOADED)?,
            file_digest: row.get(files::FILE_DIGEST),
            base: Agreed {
                base: row.required(files::BASE)?,
                changes: changes(files::BASE_CHANGES).unwrap_or_default(),
            },
            pending_digest: row.get(files::PENDING_DIGEST),
            pending: match changes(files::PENDING_CHANGES) {
                Some(changes) => Some(News::Changes(changes)),
                None => row.get(files::PENDING_BASE).map(News::Whole),
            },
            suspended: false,
            whole_only,
        })
    }

    fn columns(&self) -> [Option<pg_sys::Datum>; 8] {
        // SAFETY: GetCurrentTimestamp reads the clock.
        let now = TimestampWithTimeZone::try_from(unsafe { pg_sys::GetCurrentTimestamp() }).ok();
        [
            datum(self.filename.as_str()),
            self.generation.and_then(datum),
            now.and_then(datum),
            datum(self.unloaded),
            self.file_digest.as_deref().and_then(datum),
            datum(self.base.base.as_slice()),
            self.pending_digest.as_deref().and_then(datum),
            match &self.pending {
                Some(News::Whole(base)) => datum(base.as_slice()),
                Some(News::Changes(_)) | None => None,
            },
        ]
    }
}
