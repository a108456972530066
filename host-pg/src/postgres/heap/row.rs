//! A row that a scan has found.

use pgrx::{FromDatum, pg_sys};

use super::column::misfit_of_row;
use crate::error::Error;

/// A row under the scan; its datums live as long as it does.
pub(crate) struct Row {
    pub(super) tuple: pg_sys::HeapTuple,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

/// Which version of which row a tuple is: where it is, and the transaction that wrote it. As long as the table has the same
/// storage, and for two billion transactions, it stays the same row with the same contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    block: u32,
    offset: u16,
    writer: u32,
}

impl Version {
    /// # Safety
    /// `tuple` is a valid tuple of a heap.
    pub(super) unsafe fn of(tuple: pg_sys::HeapTuple) -> Self {
        // SAFETY: a tuple of a heap has its place, and the transaction that wrote it in its header.
        let (place, writer) = unsafe { ((*tuple).t_self, (*(*tuple).t_data).t_choice.t_heap.t_xmin) };
        let block = (u32::from(place.ip_blkid.bi_hi) << 16) | u32::from(place.ip_blkid.bi_lo);
        Self { block, offset: place.ip_posid, writer: writer.into() }
    }
}

impl Row {
    /// # Safety
    /// `tuple` is valid, pinned for as long as the row lives, and of `descriptor`.
    pub(super) unsafe fn deform(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        // SAFETY: the arrays have one entry for each attribute of the descriptor; the function fills all of them.
        unsafe {
            let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
            let mut values = vec![pg_sys::Datum::null(); natts];
            let mut nulls = vec![true; natts];
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Self { tuple, values, nulls }
        }
    }

    /// A column by its place, counted from 0; `None` for NULL. The caller names the type it was created with.
    pub(crate) fn get<T: FromDatum>(&self, column: usize) -> Option<T> {
        let datum = self.raw(column)?;
        // SAFETY: the datum is not null and of the column's type; FromDatum copies or detoasts it.
        unsafe { T::from_datum(datum, false) }
    }

    /// A column that was made NOT NULL, by its place. The owner of the table can have taken that back.
    pub(crate) fn required<T: FromDatum>(&self, column: usize) -> Result<T, Error> {
        self.get(column).ok_or_else(|| self.misfit(column, "is NULL"))
    }

    /// The datum of such a column.
    pub(crate) fn required_raw(&self, column: usize) -> Result<pg_sys::Datum, Error> {
        self.raw(column).ok_or_else(|| self.misfit(column, "is NULL"))
    }

    /// The error for a column of this row that is not as the extension writes it.
    pub(crate) fn misfit(&self, column: usize, problem: &str) -> Error {
        // SAFETY: the tuple is valid and pinned (`deform`); a scan of a table sets the field.
        misfit_of_row(unsafe { (*self.tuple).t_tableOid }, column, problem)
    }

    /// The transaction that wrote this version of the row. Freezing and rewriting the table keep it.
    pub(crate) fn writer(&self) -> u32 {
        // SAFETY: the tuple is valid and pinned (`deform`), and one of a table, whose header has this field.
        unsafe { (*(*self.tuple).t_data).t_choice.t_heap.t_xmin }.into()
    }

    /// A column's datum; `None` for NULL.
    pub(crate) fn raw(&self, column: usize) -> Option<pg_sys::Datum> {
        match (self.values.get(column), self.nulls.get(column)) {
            (Some(datum), Some(false)) => Some(*datum),
            _ => None,
        }
    }
}
