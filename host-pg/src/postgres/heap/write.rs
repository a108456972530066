//! Writing rows of a table that has nothing which direct writing would pass over.

use std::cell::Cell;

use pgrx::{IntoDatum, pg_sys};

use super::column::{attribute, name_of};
use super::{Row, Table};
use crate::error::Error;
use crate::postgres::{catalog, invalidation, shape};

thread_local! {
    /// The table that was found plain last, and the definitions that were in force then.
    static PLAIN: Cell<Option<(pg_sys::Oid, u64)>> = const { Cell::new(None) };
}

impl Table {
    /// Inserts a row. `columns` are the values of the table's columns in order, `None` for NULL. Columns that follow,
    /// of an instance made by a later version, get NULL; one made by an earlier version may lack those that are NULL.
    pub(crate) fn insert(&self, columns: &[Option<pg_sys::Datum>]) -> Result<(), Error> {
        self.must_be_plain()?;
        let (mut values, mut nulls) = self.fit(columns, |_| None)?;
        // SAFETY: both arrays have one entry for each attribute of the descriptor (`fit`); the
        // relation is open with a lock that allows writing, taken by the caller of `open`.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.descriptor(), values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::CatalogTupleInsert(self.relation, tuple);
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    }

    /// Replaces a row under the scan. Columns that follow the given ones keep their values.
    pub(crate) fn update(&self, row: &Row, columns: &[Option<pg_sys::Datum>]) -> Result<(), Error> {
        self.must_be_plain()?;
        let (mut values, mut nulls) = self.fit(columns, |column| row.raw(column))?;
        // SAFETY: as in `insert`; `row.tuple` is the version that the scan saw, and the caller holds a lock that
        // keeps other writers away, so its ctid is still the newest version.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.descriptor(), values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::CatalogTupleUpdate(self.relation, &raw mut (*row.tuple).t_self, tuple);
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    }

    /// Removes a row under the scan.
    pub(crate) fn delete(&self, row: &Row) -> Result<(), Error> {
        self.must_be_plain()?;
        // SAFETY: as in `update`.
        unsafe {
            pg_sys::CatalogTupleDelete(self.relation, &raw mut (*row.tuple).t_self);
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    }

    /// Removes a row under the scan, unless another session has just removed it.
    pub(crate) fn delete_if_there(&self, row: &Row) -> Result<(), Error> {
        self.must_be_plain()?;
        let mut failure = pg_sys::TM_FailureData::default();
        // SAFETY: as in `update`. The function waits for a session that is about to change the row.
        let result = unsafe {
            let result = pg_sys::heap_delete(
                self.relation,
                &raw mut (*row.tuple).t_self,
                pg_sys::GetCurrentCommandId(true),
                core::ptr::null_mut(),
                true,
                &raw mut failure,
                false,
            );
            pg_sys::CommandCounterIncrement();
            result
        };
        use pg_sys::TM_Result as R;
        match result {
            R::TM_Ok | R::TM_Deleted => Ok(()),
            _ => Err(Error::ConcurrentChange {
                what: format!("table {}", catalog::qualified_name(self.oid())),
            }),
        }
    }

    /// Tells every backend, at commit, to read this table again.
    pub(crate) fn announce_change(&self) {
        // SAFETY: the relation is open.
        unsafe { pg_sys::CacheInvalidateRelcache(self.relation) }
    }

    /// Fails where the table has anything that direct writing would pass over.
    pub(crate) fn must_be_plain(&self) -> Result<(), Error> {
        if self.plain.get() {
            return Ok(());
        }
        let known = (self.oid(), invalidation::generation());
        // SAFETY: the relation is open, with a lock that the caller of `open` took to write.
        let obstacle = unsafe {
            // Rules, triggers, constraints and indexes do not change without a word to every backend.
            if PLAIN.get() == Some(known) {
                shape::relative(self.relation)
            } else {
                shape::obstacle(self.relation)
            }
        };
        if let Some(problem) = obstacle {
            return Err(self.misfit(&problem));
        }
        PLAIN.set(Some(known));
        self.plain.set(true);
        Ok(())
    }

    /// One value for each column of the table; `rest` gives those that are not in `columns`.
    fn fit(
        &self,
        columns: &[Option<pg_sys::Datum>],
        rest: impl Fn(usize) -> Option<pg_sys::Datum>,
    ) -> Result<(Vec<pg_sys::Datum>, Vec<bool>), Error> {
        // SAFETY: the relation is open.
        let natts = usize::try_from(unsafe { (*self.descriptor()).natts }).unwrap_or(0);
        if columns.iter().skip(natts).any(Option::is_some) {
            return Err(Error::Internal(format!(
                "table {} has {natts} columns, not {}",
                catalog::relation_name(self.oid()),
                columns.len()
            )));
        }
        let value = |column: usize| columns.get(column).copied().unwrap_or_else(|| rest(column));
        let fitted: Vec<_> = (0..natts).map(value).collect();
        for (place, value) in fitted.iter().enumerate() {
            // SAFETY: `place` is below `natts`.
            let attribute = unsafe { attribute(self.descriptor(), place) };
            // The server may read a column that is NOT NULL without looking for a NULL; and what it would compute for
            // an additional one is not computed here.
            let additional = place >= columns.len();
            // SAFETY: a lookup in the cache of types, for the type of a column.
            let constrained = || unsafe { pg_sys::DomainHasConstraints(attribute.atttypid) };
            let refused = !attribute.attisdropped
                && (attribute.attgenerated != 0
                    || (attribute.attnotnull && (additional || value.is_none()))
                    || (additional && value.is_none() && constrained()));
            if refused {
                return Err(self.misfit(&format!("its column {} cannot be NULL", name_of(attribute))));
            }
        }
        Ok(fitted.into_iter().map(|c| (c.unwrap_or(pg_sys::Datum::null()), c.is_none())).unzip())
    }
}

/// A datum for `Table::insert`.
pub(crate) fn datum<T: IntoDatum>(value: T) -> Option<pg_sys::Datum> {
    value.into_datum()
}
