//! Queries that see what the running query sees.
//!
//! The SPI of pgrx takes a new snapshot for each query once the transaction has an id. Code inside a query that asks about
//! a row of that query would then look for it among later rows.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;

/// A prepared query that is only asked whether it gives a row.
pub(crate) struct Question {
    plan: pg_sys::SPIPlanPtr,
}

impl Question {
    /// Prepares a query with arguments of these types.
    pub(crate) fn prepare(sql: &str, types: &[pg_sys::Oid]) -> Result<Self, Error> {
        let sql = std::ffi::CString::new(sql).map_err(|_| refused(pg_sys::SPI_ERROR_ARGUMENT))?;
        let count = i32::try_from(types.len()).map_err(|_| refused(pg_sys::SPI_ERROR_PARAM))?;
        let mut types = types.to_vec();
        Spi::connect(|_| {
            // SAFETY: SPI is connected, `sql` NUL-terminated, and `types` has `count` entries. SPI_prepare gives null and a
            // code where it fails; a plan that is kept stays valid until it is freed.
            let plan = unsafe {
                let plan = pg_sys::SPI_prepare(sql.as_ptr(), count, types.as_mut_ptr());
                if plan.is_null() {
                    return Err(refused(pg_sys::SPI_result));
                }
                pg_sys::SPI_keepplan(plan);
                plan
            };
            Ok(Self { plan })
        })
    }

    /// Whether there is such a row, with the caller's rights, under the active snapshot: that of the running query.
    pub(crate) fn asked(&self, arguments: &[DatumWithOid<'_>]) -> Result<bool, Error> {
        Spi::connect(|_| {
            let null = pg_sys::Datum::null();
            let given = |argument: &DatumWithOid<'_>| argument.datum().map(|datum| datum.sans_lifetime());
            let (mut values, nulls): (Vec<_>, Vec<_>) = arguments
                .iter()
                .map(|argument| match given(argument) {
                    Some(datum) => (datum, NOT_NULL),
                    None => (null, NULL),
                })
                .unzip();
            // SAFETY: SPI is connected, the plan is kept, and both arrays have an entry for each of its arguments: the count is
            // checked first. `true` is for a read-only query, which takes the active snapshot as it is.
            unsafe {
                if usize::try_from(pg_sys::SPI_getargcount(self.plan)) != Ok(values.len()) {
                    return Err(refused(pg_sys::SPI_ERROR_ARGUMENT));
                }
                let code = pg_sys::SPI_execute_plan(self.plan, values.as_mut_ptr(), nulls.as_ptr(), true, 1);
                if code != pg_sys::SPI_OK_SELECT as core::ffi::c_int {
                    return Err(refused(code));
                }
                Ok(pg_sys::SPI_processed > 0)
            }
        })
    }

    /// The same under a snapshot of this moment: for a row that the running query fetched again, because another session
    /// had changed it.
    pub(crate) fn asked_now(&self, arguments: &[DatumWithOid<'_>]) -> Result<bool, Error> {
        // SAFETY: the snapshot is pushed and popped here; after an error the end of the (sub)transaction pops it.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) }
        let found = self.asked(arguments);
        // SAFETY: as above.
        unsafe { pg_sys::PopActiveSnapshot() }
        found
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // SAFETY: the plan was kept by `prepare`, and is freed once.
        unsafe { pg_sys::SPI_freeplan(self.plan) };
    }
}

/// Whether the running query may meet rows that are newer than its snapshot: one that locks rows in READ COMMITTED.
pub(crate) fn may_meet_newer_rows() -> bool {
    // SAFETY: reads variables of the running transaction.
    unsafe {
        pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as core::ffi::c_int && !pg_sys::IsInParallelMode()
    }
}

const NULL: core::ffi::c_char = core::ffi::c_char::from_ne_bytes([b'n']);
const NOT_NULL: core::ffi::c_char = core::ffi::c_char::from_ne_bytes([b' ']);

fn refused(code: core::ffi::c_int) -> Error {
    Error::Internal(format!("unexpected answer from SPI: {code}"))
}
