//! Rows of one table under the policies of another.
//!
//! The history of an instance is shown to those who may see the credentials, as the policies of the credentials say now. A
//! copy of the policies could be an old one, and the expression of one may mean something else on another table. So the
//! server itself finds out which conditions hold for the caller on the guarded table, and those very expressions are put
//! on the query of the other one, whose first columns are the same.

use std::ffi::CString;

use pgrx::datum::DatumWithOid;
use pgrx::{PgList, pg_sys};

use crate::error::Error;
use crate::postgres::catalog;
use crate::postgres::heap::{self, Visit};

/// Rows in memory, or in a temporary file where there are many. The server frees them with the memory context in which they
/// were made.
pub(crate) struct Rows {
    store: *mut pg_sys::Tuplestorestate,
}

/// A row that was found, until the next one is fetched.
pub(crate) struct Found {
    slot: *mut pg_sys::TupleTableSlot,
}

/// A query of one table, and the table.
pub(crate) struct Source<'a> {
    pub(crate) table: pg_sys::Oid,
    /// `select ... from only table`, with qualified names and operators.
    pub(crate) sql: &'a str,
    /// The role whose right to the table counts.
    pub(crate) owner: pg_sys::Oid,
}

impl Rows {
    /// No row yet.
    pub(crate) fn new() -> Self {
        // SAFETY: made in the current memory context, which the current resource owner goes with.
        Self { store: unsafe { pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem) } }
    }

    /// # Safety
    /// `store` is the one that a function gives as its result.
    pub(crate) unsafe fn of_result(store: *mut pg_sys::Tuplestorestate) -> Self {
        Self { store }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        // SAFETY: the store is valid.
        unsafe { pg_sys::tuplestore_tuple_count(self.store) == 0 }
    }

    /// Adds a row that was found elsewhere, of the same descriptor.
    pub(crate) fn push(&self, found: &Found) {
        // SAFETY: store and slot are valid.
        unsafe { pg_sys::tuplestore_puttupleslot(self.store, found.slot) }
    }

    /// Visits every row.
    ///
    /// # Safety
    /// The rows are of the descriptor.
    pub(crate) unsafe fn each(
        &self,
        descriptor: pg_sys::TupleDesc,
        mut visit: impl FnMut(&Found) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        // SAFETY: see above. The slot is dropped here, or after an error with its memory context.
        unsafe {
            let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
            let found = Found { slot };
            let next = || {
                pg_sys::tuplestore_gettupleslot(self.store, true, false, slot)
                    .then(|| pg_sys::slot_getallattrs(slot))
            };
            let result = heap::each(next, |()| visit(&found));
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            result
        }
    }
}

impl Found {
    /// A column, counted from 0; `None` for NULL.
    pub(crate) fn raw(&self, column: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the slot is valid, and all its columns are there (`each`).
        unsafe {
            let slot = &*self.slot;
            if usize::try_from(slot.tts_nvalid).is_ok_and(|count| column < count)
                && !*slot.tts_isnull.add(column)
            {
                Some(*slot.tts_values.add(column))
            } else {
                None
            }
        }
    }
}

/// Runs a query, which shows a row where the policies of `guarded` would show the caller one with the same first `shared`
/// columns. What is asked beside the policies is whether the caller may read `guarded`.
///
/// # Safety
/// The first `shared` columns of both tables have the same types, and the caller keeps a lock on both.
pub(crate) unsafe fn select_as_guarded(
    source: &Source<'_>,
    guarded: pg_sys::Oid,
    shared: usize,
    arguments: &[DatumWithOid<'_>],
    rows: &Rows,
) -> Result<pg_sys::TupleDesc, Error> {
    // SAFETY: see above; what is made here is of the current memory context.
    unsafe {
        let conditions = conditions(guarded, shared)?;
        let query = analyzed(source.table, source.sql, arguments, Rewrite::No)?;
        let entry = only_entry(query)?;
        (*entry).securityQuals = pg_sys::copyObjectImpl(conditions.quals.cast()).cast();
        (*query).hasSubLinks |= conditions.has_sublinks;
        check_as(query, entry, source.owner);
        run(query, source.sql, arguments, rows)
    }
}

/// What the policies of a table ask of a row that the current user reads.
struct Conditions {
    quals: *mut pg_sys::List,
    has_sublinks: bool,
}

/// # Safety
/// The caller keeps a lock on the table.
unsafe fn conditions(guarded: pg_sys::Oid, shared: usize) -> Result<Conditions, Error> {
    let sql = format!("select from only {}", catalog::qualified(guarded)?);
    // SAFETY: see above.
    unsafe {
        let query = analyzed(guarded, &sql, &[], Rewrite::Yes)?;
        let quals = (*only_entry(query)?).securityQuals;
        for variable in PgList::<pg_sys::Var>::from_pg(pg_sys::pull_vars_of_level(quals.cast(), 0)).iter_ptr()
        {
            // A row as a whole, the columns of the system and those that someone added are others in the other table.
            let number = usize::try_from((*variable).varattno);
            if !number.is_ok_and(|number| (1..=shared).contains(&number)) {
                return Err(Error::PolicyNotForHistory { table: catalog::qualified_name(guarded) });
            }
        }
        Ok(Conditions { quals, has_sublinks: (*query).hasSubLinks })
    }
}

/// Whether the server puts the policies of a table into a query of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rewrite {
    Yes,
    /// Nor asks `row_security` whether a query without them is an error.
    No,
}

/// Parses and analyzes one query, as for the current user.
///
/// # Safety
/// The caller keeps a lock on the table.
unsafe fn analyzed(
    table: pg_sys::Oid,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    rewrite: Rewrite,
) -> Result<*mut pg_sys::Query, Error> {
    let text = text(sql)?;
    let mut types: Vec<_> = arguments.iter().map(DatumWithOid::oid).collect();
    let count = i32::try_from(types.len()).map_err(|_| unexpected())?;
    // SAFETY: the text is NUL-terminated, and copied into the memory context, which the trees refer to; `types` has `count`
    // entries.
    unsafe {
        let text = pg_sys::pstrdup(text.as_ptr());
        let parsed = PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(text));
        let statement = parsed.get_ptr(0).ok_or_else(unexpected)?;
        let (types, null) = (types.as_mut_ptr(), core::ptr::null_mut());
        let query = if rewrite == Rewrite::Yes {
            let queries = pg_sys::pg_analyze_and_rewrite_fixedparams(statement, text, types, count, null);
            let queries = PgList::<pg_sys::Query>::from_pg(queries);
            queries.get_ptr(0).filter(|_| queries.len() == 1).ok_or_else(unexpected)?
        } else {
            pg_sys::parse_analyze_fixedparams(statement, text, types, count, null)
        };
        if parsed.len() != 1 {
            return Err(unexpected());
        }
        // The name was that of this table when it was looked up.
        if (*only_entry(query)?).relid == table { Ok(query) } else { Err(unexpected()) }
    }
}

/// The one relation of a query.
///
/// # Safety
/// `query` is valid.
unsafe fn only_entry(query: *mut pg_sys::Query) -> Result<*mut pg_sys::RangeTblEntry, Error> {
    // SAFETY: see above.
    unsafe {
        let entries = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
        entries
            .get_ptr(0)
            .filter(|entry| entries.len() == 1 && (**entry).rtekind == pg_sys::RTEKind::RTE_RELATION)
            .ok_or_else(unexpected)
    }
}

/// Has the right to the relation of a query checked as that of another role.
///
/// # Safety
/// `entry` is the one of `query`.
#[cfg(not(feature = "pg15"))]
unsafe fn check_as(query: *mut pg_sys::Query, _: *mut pg_sys::RangeTblEntry, role: pg_sys::Oid) {
    // SAFETY: see above.
    unsafe {
        for info in PgList::<pg_sys::RTEPermissionInfo>::from_pg((*query).rteperminfos).iter_ptr() {
            (*info).checkAsUser = role;
        }
    }
}

/// # Safety
/// As above.
#[cfg(feature = "pg15")]
unsafe fn check_as(_: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry, role: pg_sys::Oid) {
    // SAFETY: see above.
    unsafe { (*entry).checkAsUser = role }
}

/// Plans and runs a query of the current user into a tuple store.
///
/// # Safety
/// `query` is an analyzed and rewritten SELECT with these arguments.
unsafe fn run(
    query: *mut pg_sys::Query,
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    rows: &Rows,
) -> Result<pg_sys::TupleDesc, Error> {
    let text = text(sql)?;
    // SAFETY: see above. The function is called by a running query, which has an active snapshot. What an error leaves is
    // cleaned up with the memory and the resource owner of that query.
    unsafe {
        let text = pg_sys::pstrdup(text.as_ptr());
        let parameters = parameters(arguments)?;
        let plan = pg_sys::pg_plan_query(query, text, 0, parameters);
        let receiver = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestTuplestore);
        let null = core::ptr::null_mut();
        pg_sys::SetTuplestoreDestReceiverParams(
            receiver,
            rows.store,
            pg_sys::CurrentMemoryContext,
            false,
            null,
            core::ptr::null(),
        );
        let running = pg_sys::CreateQueryDesc(
            plan,
            text,
            pg_sys::GetActiveSnapshot(),
            core::ptr::null_mut(),
            receiver,
            parameters,
            core::ptr::null_mut(),
            0,
        );
        pg_sys::ExecutorStart(running, 0);
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        #[cfg(feature = "pg18")]
        pg_sys::ExecutorRun(running, forward, 0);
        #[cfg(not(feature = "pg18"))]
        pg_sys::ExecutorRun(running, forward, 0, true);
        let descriptor = pg_sys::CreateTupleDescCopy((*running).tupDesc);
        pg_sys::ExecutorFinish(running);
        pg_sys::ExecutorEnd(running);
        pg_sys::FreeQueryDesc(running);
        if let Some(destroy) = (*receiver).rDestroy {
            destroy(receiver);
        }
        Ok(descriptor)
    }
}

/// # Safety
/// The arguments outlive the query.
unsafe fn parameters(arguments: &[DatumWithOid<'_>]) -> Result<pg_sys::ParamListInfo, Error> {
    let count = i32::try_from(arguments.len()).map_err(|_| unexpected())?;
    // SAFETY: the list has room for `count` parameters.
    unsafe {
        let list = pg_sys::makeParamList(count);
        for (place, argument) in arguments.iter().enumerate() {
            let datum = argument.datum().map(|datum| datum.sans_lifetime());
            *(*list).params.as_mut_ptr().add(place) = pg_sys::ParamExternData {
                value: datum.unwrap_or(pg_sys::Datum::null()),
                isnull: datum.is_none(),
                pflags: u16::try_from(pg_sys::PARAM_FLAG_CONST).unwrap_or_default(),
                ptype: argument.oid(),
            };
        }
        Ok(list)
    }
}

fn text(sql: &str) -> Result<CString, Error> {
    CString::new(sql).map_err(|_| unexpected())
}

fn unexpected() -> Error {
    Error::Internal("a query of the history was not understood by the server".to_owned())
}
