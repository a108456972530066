//! Visiting the rows of a table, in the order of its storage or along an index.

use pgrx::pg_sys;

use super::{Row, Table, Version};
use crate::error::Error;
use crate::postgres::shape;

/// Which rows there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// What is committed now, and what this transaction wrote: newer than the snapshot of a REPEATABLE READ
    /// transaction, because a key or a setting counts as it is, not as it was.
    Now,
    /// What the running statement sees.
    BySnapshot,
}

/// What a visitor wants next.
#[derive(PartialEq, Eq)]
pub(crate) enum Visit {
    Continue,
    Stop,
}

/// A column, counted from 0, that an index entry has to have this value in, by this operator of equality.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(crate) column: usize,
    pub(crate) equal: u32,
    pub(crate) value: pg_sys::Datum,
}

impl Table {
    /// Visits every row as it is now.
    pub(crate) fn scan(&self, visit: impl FnMut(&Row) -> Result<Visit, Error>) -> Result<(), Error> {
        self.scan_as(Visibility::Now, visit)
    }

    /// Visits every row.
    pub(crate) fn scan_as(
        &self,
        seen: Visibility,
        mut visit: impl FnMut(&Row) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        self.scan_versions(seen, |_| false, |_, row| visit(row))
    }

    /// Visits every row, in the order of the storage, except for those of which `skip` wants to see the version alone.
    pub(crate) fn scan_versions(
        &self,
        seen: Visibility,
        mut skip: impl FnMut(Version) -> bool,
        mut visit: impl FnMut(Version, &Row) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        // SAFETY: the relation is open and locked. Without a snapshot the scan takes a catalog snapshot, which is
        // fresh for a relation without a syscache, and allowed in parallel mode; the active one outlives the
        // function call that we are in. An error raised in between is cleaned up by the resource owner.
        unsafe {
            let snapshot = match seen {
                Visibility::BySnapshot if pg_sys::ActiveSnapshotSet() => pg_sys::GetActiveSnapshot(),
                _ => core::ptr::null_mut(),
            };
            let scan = pg_sys::systable_beginscan(
                self.relation,
                pg_sys::InvalidOid,
                false,
                snapshot,
                0,
                core::ptr::null_mut(),
            );
            let next = || Some(pg_sys::systable_getnext(scan)).filter(|tuple| !tuple.is_null());
            let result = each(next, |tuple| {
                let version = Version::of(tuple);
                if skip(version) {
                    return Ok(Visit::Continue);
                }
                visit(version, &Row::deform(tuple, self.descriptor()))
            });
            pg_sys::systable_endscan(scan);
            result
        }
    }

    /// Visits the rows that are now and have these values in the first of the columns that a unique index is over, from the
    /// last entry of the index to the first.
    pub(crate) fn scan_backward(
        &self,
        index: &[usize],
        keys: &[Key],
        mut visit: impl FnMut(&Row) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        let index = self.index_over(index)?;
        let mut scan_keys = Vec::with_capacity(keys.len());
        for key in keys {
            let mut scan_key = pg_sys::ScanKeyData::default();
            // SAFETY: fills the key in; the value is of the column's type, which the caller checked, and outlives the scan.
            unsafe {
                pg_sys::ScanKeyInit(
                    &raw mut scan_key,
                    number_of(key.column),
                    pg_sys::StrategyNumber::try_from(pg_sys::BTEqualStrategyNumber).unwrap_or_default(),
                    key.equal.into(),
                    key.value,
                );
            }
            scan_keys.push(scan_key);
        }
        let count = i32::try_from(scan_keys.len()).unwrap_or(0);
        // SAFETY: the table is open and locked, and the index one of its own, a btree over columns (`index_over`). Without a
        // snapshot the scan takes a fresh one, as in `scan_as`. An error raised in between is cleaned up by the resource owner.
        unsafe {
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let index = pg_sys::index_open(index, lock);
            let null = core::ptr::null_mut();
            let scan =
                pg_sys::systable_beginscan_ordered(self.relation, index, null, count, scan_keys.as_mut_ptr());
            let backward = pg_sys::ScanDirection::BackwardScanDirection;
            let next =
                || Some(pg_sys::systable_getnext_ordered(scan, backward)).filter(|tuple| !tuple.is_null());
            let result = each(next, |tuple| visit(&Row::deform(tuple, self.descriptor())));
            pg_sys::systable_endscan_ordered(scan);
            pg_sys::index_close(index, lock);
            result
        }
    }

    /// Fails unless there is the index that `scan_backward` goes along.
    pub(crate) fn must_have_index(&self, columns: &[usize]) -> Result<(), Error> {
        self.index_over(columns).map(drop)
    }

    /// A valid unique btree index over these columns, in this order and no others, ascending. One over text is in the
    /// collation "C".
    fn index_over(&self, columns: &[usize]) -> Result<pg_sys::Oid, Error> {
        // SAFETY: the relation is open with a lock. Each index is closed again and its lock kept.
        unsafe {
            let list = pg_sys::RelationGetIndexList(self.relation);
            for index in pgrx::PgList::<core::ffi::c_void>::from_pg(list).iter_oid() {
                let open = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
                let fits = shape::is_index_over(open, columns);
                pg_sys::index_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
                if fits {
                    return Ok(index);
                }
            }
        }
        Err(self.misfit("it has lost its unique index"))
    }

    /// Whether the table has no row.
    pub(crate) fn is_empty(&self) -> Result<bool, Error> {
        let mut empty = true;
        self.scan(|_| {
            empty = false;
            Ok(Visit::Stop)
        })?;
        Ok(empty)
    }
}

/// Visits one after another, until there is none left or the visitor wants no more. A cancelled query ends it in between.
pub(crate) fn each<T>(
    mut next: impl FnMut() -> Option<T>,
    mut visit: impl FnMut(T) -> Result<Visit, Error>,
) -> Result<(), Error> {
    while let Some(found) = next() {
        if visit(found)? == Visit::Stop {
            break;
        }
        pgrx::check_for_interrupts!();
    }
    Ok(())
}

/// The number that the server has for a column, which it counts from 1; no column's where there are not so many.
fn number_of(column: usize) -> pg_sys::AttrNumber {
    column.checked_add(1).and_then(|number| number.try_into().ok()).unwrap_or(pg_sys::AttrNumber::MAX)
}
