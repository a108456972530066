//! Reading and writing the few rows that a role with access to credentials must not reach itself: keyrings,
//! configuration, modules, the state of file stores.
//!
//! Rows are scanned and stored directly, without SQL: no user is switched, no search_path is involved, and no
//! function, operator or trigger of anyone else can run.

mod column;
mod row;
mod scan;
mod write;

use std::cell::Cell;

use pgrx::pg_sys;

pub(crate) use column::{Column, Type, check_columns, is_null, wrong_type};
pub(crate) use row::{Row, Version};

pub(crate) use scan::{Key, Visibility, Visit, each};
pub(crate) use write::datum;

use crate::error::Error;
use crate::postgres::{catalog, shape};
use column::attribute;

/// An open relation, closed on drop; its lock stays until the end of the transaction.
pub(crate) struct Table {
    relation: pg_sys::Relation,
    /// Whether it was found to have nothing that direct writing would pass over. The lock of a table that is written keeps
    /// that so.
    plain: Cell<bool>,
}

impl Table {
    /// Opens a relation that must be an ordinary table, permanent and of the server's own kind of storage. With a lock
    /// that keeps writers away it is to be written, which a read-only transaction may not.
    pub(crate) fn open(oid: pg_sys::Oid, lock: u32) -> Result<Self, Error> {
        if lock >= pg_sys::ShareRowExclusiveLock {
            // SAFETY: takes a NUL-terminated text for its message.
            unsafe { pg_sys::PreventCommandIfReadOnly(c"a change of keys or file stores".as_ptr()) };
        }
        // SAFETY: the function takes any oid. It gives null where nothing has it, as when a table was dropped since it was
        // found, and raises an error for one that is not a table.
        let relation = unsafe { pg_sys::try_table_open(oid, lock as pg_sys::LOCKMODE) };
        if relation.is_null() {
            return Err(Error::NotAnInstance { relation: catalog::relation_name(oid) });
        }
        let table = Self { relation, plain: Cell::new(false) };
        // SAFETY: rd_rel of an open relation is valid.
        let form = unsafe { &*(*relation).rd_rel };
        let is = |byte: core::ffi::c_char, wanted: u8| u8::try_from(byte) == Ok(wanted);
        if !is(form.relkind, pg_sys::RELKIND_RELATION) {
            return Err(Error::NotAnInstance { relation: catalog::relation_name(oid) });
        }
        if !is(form.relpersistence, pg_sys::RELPERSISTENCE_PERMANENT) {
            return Err(table.misfit("it is not a permanent table"));
        }
        if form.relam != pg_sys::HEAP_TABLE_AM_OID {
            return Err(table.misfit("its access method is not heap"));
        }
        Ok(table)
    }

    /// Opens `schema`.`name`, or `None` where there is no such table.
    pub(crate) fn open_in(
        schema: pg_sys::Oid,
        name: &core::ffi::CStr,
        lock: u32,
    ) -> Result<Option<Self>, Error> {
        match catalog::relation_oid(schema, name) {
            Some(oid) => Self::open(oid, lock).map(Some),
            None => Ok(None),
        }
    }

    /// The relation's oid.
    pub(crate) fn oid(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*self.relation).rd_id }
    }

    /// The role that owns the table.
    pub(crate) fn owner(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*(*self.relation).rd_rel).relowner }
    }

    /// Fails unless the first columns are these: the owner of a table may change them, and what is read and written
    /// here is of the names and types that the table was made with.
    pub(crate) fn must_have(&self, columns: &[Column]) -> Result<(), Error> {
        // SAFETY: the descriptor of an open relation.
        unsafe { check_columns(self.oid(), self.descriptor(), columns) }
    }

    /// Fails unless a column, counted from 0, is of the same type in both tables.
    pub(crate) fn must_agree_with(&self, other: &Self, column: usize) -> Result<(), Error> {
        let type_of = |table: &Self| {
            // SAFETY: the column is there: `has_column`.
            table.has_column(column).then(|| unsafe { attribute(table.descriptor(), column) }.atttypid)
        };
        let wanted = type_of(other);
        if wanted.is_some() && type_of(self) == wanted {
            return Ok(());
        }
        let name = catalog::column_name(self.oid(), column);
        Err(self.misfit(&format!(
            "its column {name} is not of the type that it has in {}",
            catalog::qualified_name(other.oid())
        )))
    }

    /// Whether the table has this column, counted from 0: one that an earlier version made may not.
    pub(crate) fn has_column(&self, column: usize) -> bool {
        // SAFETY: the relation is open.
        usize::try_from(unsafe { (*self.descriptor()).natts }).is_ok_and(|natts| column < natts)
    }

    /// Whether a statement of this session that still runs changes its rows. What it has changed may not be seen yet, and the
    /// triggers after it may not have fired.
    pub(crate) fn is_being_changed(&self) -> bool {
        // SAFETY: the relation is open. This is one of its references; a statement that runs has others.
        let is_open = unsafe { (*self.relation).rd_refcnt } > 1;
        is_open && self.is_locked(pg_sys::RowExclusiveLock)
    }

    /// Whether this session has the lock that TRUNCATE takes.
    pub(crate) fn is_locked_for_truncate(&self) -> bool {
        self.is_locked(pg_sys::AccessExclusiveLock)
    }

    fn is_locked(&self, lock: u32) -> bool {
        // SAFETY: the relation is open.
        unsafe { pg_sys::CheckRelationLockedByMe(self.relation, lock as pg_sys::LOCKMODE, false) }
    }

    /// Whether a trigger of the extension is on it: a table that only has the name of one of ours has none.
    pub(crate) fn has_our_trigger(&self) -> bool {
        // SAFETY: the relation is open.
        unsafe { shape::has_trigger_of_extension(self.relation) }
    }

    /// The storage of the table: another one after `VACUUM FULL`, `CLUSTER` or `TRUNCATE`.
    pub(crate) fn storage(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*(*self.relation).rd_rel).relfilenode }
    }

    /// The error for a table that is not as it was made.
    fn misfit(&self, problem: &str) -> Error {
        Error::WrongShape { table: catalog::qualified_name(self.oid()), problem: problem.to_owned() }
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open.
        unsafe { (*self.relation).rd_att }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // After an error the resource owner has closed it already or will; `std::thread::panicking` tells that a
        // Postgres error is unwinding through us.
        if !std::thread::panicking() {
            // SAFETY: opened by us and closed once.
            unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}
