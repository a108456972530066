//! What a role may see of the history: a version of a credential that it could see now, by the policies of the credentials.

use pgrx::datum::DatumWithOid;
use pgrx::{FromDatum, fcinfo, pg_sys};

use crate::error::{Error, given, or_raise};
use crate::instance::{self, Handle};
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::Visit;
use crate::postgres::policies::{self, Found, Rows, Source};
use crate::postgres::tables::{credentials, versions};
use crate::postgres::varlena::{Detoasted, copied, jsonb_equal};
use crate::postgres::{catalog, encoding};
use crate::rows::columns::Fields;
use crate::rows::history;
use crate::rows::open::may_see_values;
use crate::rows::statement::{IDENTITY_MATCHES, arguments, qualified};

raw_function!(versions_seen_wrapper, pg_finfo_versions_seen_wrapper, versions_seen);

/// `versions_seen(store oid, name text, kind anyenum, principal regrole, scope jsonb, version bigint) returns setof record`.
/// What is NULL may be anything. With a version: that one of the one credential that there is, or an error.
///
/// # Safety
/// Called by Postgres with these types.
unsafe fn versions_seen(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the function has these arguments, of these types. The server gives a set-returning function a ReturnSetInfo,
    // or raises an error in InitMaterializedSRF. The descriptor that is set is compared with what the query says.
    unsafe {
        pg_sys::InitMaterializedSRF(fcinfo, pg_sys::MAT_SRF_USE_EXPECTED_DESC);
        let result = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let argument =
            |n| (!fcinfo::pg_arg_is_null(fcinfo, n)).then(|| fcinfo::pg_getarg_datum_raw(fcinfo, n));
        let store = argument(0).map(catalog::oid);
        let wanted = Wanted {
            name: argument(1),
            kind: argument(2),
            principal: argument(3),
            scope: argument(4),
            version: argument(5).and_then(|version| i64::from_datum(version, false)),
        };
        let memory = (*(*result).econtext).ecxt_per_query_memory;
        let rows = Rows::of_result((*result).setResult);
        let found = given(store, "store").and_then(|store| wanted.find(&instance::of_table(store)?, &rows));
        let before = pg_sys::MemoryContextSwitchTo(memory);
        (*result).setDesc = pg_sys::CreateTupleDescCopy(or_raise(found));
        pg_sys::MemoryContextSwitchTo(before);
    }
    pg_sys::Datum::null()
}

/// Visits the versions that the caller may see: fields, sealed value and version. None for a role that may not read values.
pub(crate) fn each_version(
    handle: &Handle,
    mut visit: impl FnMut(&Fields, pg_sys::Datum, i64) -> Result<(), Error>,
) -> Result<(), Error> {
    if !may_see_values(handle) {
        return Ok(());
    }
    let rows = Rows::new();
    let descriptor = select(handle, "", &[], &rows)?;
    // SAFETY: the rows are of the descriptor.
    unsafe {
        rows.each(descriptor, |found| {
            if let Some((fields, sealed)) = fields_of(found) {
                visit(&fields, sealed, number(found))?;
            }
            Ok(Visit::Continue)
        })
    }
}

/// Whether the caller may see a version with this identity and sealed value.
pub(crate) fn sees_version(handle: &Handle, fields: &Fields, sealed: pg_sys::Datum) -> Result<bool, Error> {
    if handle.borrow().table_of_versions(pg_sys::AccessShareLock)?.is_none() {
        return Ok(false);
    }
    let rows = Rows::new();
    let filter = format!("where {IDENTITY_MATCHES} and value operator(pg_catalog.=) $5");
    select(handle, &filter, &arguments(fields, Some(sealed)), &rows)?;
    Ok(!rows.is_empty())
}

/// What is asked for; `None` for anything.
struct Wanted {
    name: Option<pg_sys::Datum>,
    kind: Option<pg_sys::Datum>,
    principal: Option<pg_sys::Datum>,
    scope: Option<pg_sys::Datum>,
    version: Option<i64>,
}

impl Wanted {
    /// Puts what there is into `rows`.
    fn find(&self, handle: &Handle, rows: &Rows) -> Result<pg_sys::TupleDesc, Error> {
        let columns = [
            ("name", self.name, pg_sys::TEXTOID),
            ("kind", self.kind, self.kind.map_or(pg_sys::InvalidOid, catalog::enum_type)),
            ("principal", self.principal, pg_sys::REGROLEOID),
            ("scope", self.scope, pg_sys::JSONBOID),
        ];
        let (mut conditions, mut arguments) = (Vec::new(), Vec::new());
        for (column, value, of) in columns {
            if let Some(value) = value {
                conditions
                    .push(format!("{column} operator(pg_catalog.=) ${}", arguments.len().saturating_add(1)));
                // SAFETY: an argument of the declared type, which lives as long as the call.
                arguments.push(unsafe { DatumWithOid::new(value, of) });
            }
        }
        let mut filter =
            if conditions.is_empty() { String::new() } else { format!("where {}", conditions.join(" and ")) };
        let Some(version) = self.version else {
            return select(handle, &filter, &arguments, rows);
        };
        let name = given(self.name, "name")?;
        filter.push_str(
            " order by version using operator(pg_catalog.>), valid_until using operator(pg_catalog.>)",
        );
        let all = Rows::new();
        let descriptor = select(handle, &filter, &arguments, &all)?;
        // SAFETY: the datum of a text, and rows of the descriptor.
        let outcome = unsafe { pick(&all, descriptor, version, rows) }?;
        // SAFETY: as above.
        let name = || crate::error::display_name(&encoding::to_utf8(unsafe { Detoasted::new(name) }.bytes()));
        match outcome {
            Picked::One => Ok(descriptor),
            Picked::None => {
                Err(Error::NoSuchVersion { name: name(), version, schema: handle.borrow().schema_name() })
            }
            Picked::Several => Err(Error::SeveralCredentials { name: name() }),
        }
    }
}

/// What became of choosing a version.
#[derive(PartialEq, Eq)]
enum Picked {
    None,
    One,
    Several,
}

/// Takes one version from those of a credential, newest first: a positive number is its own, a negative one counts from
/// the newest.
///
/// # Safety
/// The rows are of the descriptor.
unsafe fn pick(
    all: &Rows,
    descriptor: pg_sys::TupleDesc,
    version: i64,
    rows: &Rows,
) -> Result<Picked, Error> {
    let (mut of, mut picked, mut place) = (None::<Identity>, Picked::None, 0_i64);
    // SAFETY: see above.
    unsafe {
        all.each(descriptor, |found| {
            let Some((fields, _)) = fields_of(found) else { return Ok(Visit::Continue) };
            if !of.get_or_insert_with(|| Identity::of(&fields)).is_of(&fields) {
                picked = Picked::Several;
                return Ok(Visit::Stop);
            }
            place = place.saturating_sub(1);
            if picked == Picked::None && (version == place || version == number(found)) {
                rows.push(found);
                picked = Picked::One;
            }
            Ok(Visit::Continue)
        })?;
    }
    Ok(picked)
}

/// The versions that the caller may see and that a condition chooses.
fn select(
    handle: &Handle,
    filter: &str,
    arguments: &[DatumWithOid<'_>],
    rows: &Rows,
) -> Result<pg_sys::TupleDesc, Error> {
    let guarded = handle.borrow().table;
    must_be_granted(handle)?;
    let table = history::table(handle, pg_sys::AccessShareLock)?;
    let sql = format!(
        "select name, value, kind, principal, scope, expires_at, version, valid_from, valid_until, changed_by, deleted \
         from only {} {filter}",
        qualified(table.oid())
    );
    let source = Source { table: table.oid(), sql: &sql, owner: table.owner() };
    // SAFETY: `history::table` compared the columns of both, and its locks are kept to the end of the transaction.
    unsafe { policies::select_as_guarded(&source, guarded, credentials::COLUMNS.len(), arguments, rows) }
}

/// Fails unless the caller may read the values, and the table of the credentials, all columns of it: a role that may change
/// credentials and not read them may read the table, and has nothing to do with what was there before.
fn must_be_granted(handle: &Handle) -> Result<(), Error> {
    let (table, schema) = {
        let instance = handle.borrow();
        (instance.table, instance.schema_name())
    };
    let mode = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    // SAFETY: catalog lookups by oid.
    let (user, may_read_table) = unsafe {
        let user = pg_sys::GetUserId();
        (user, pg_sys::pg_class_aclcheck(table, user, mode) == pg_sys::AclResult::ACLCHECK_OK)
    };
    if may_read_table && may_see_values(handle) {
        return Ok(());
    }
    let role = String::from_utf8_lossy(&catalog::role_name(user).unwrap_or_default()).into_owned();
    if may_read_table {
        return Err(Error::HistoryNotGranted { role, schema });
    }
    Err(Error::NotGranted { table: catalog::relation_name(table), privilege: "SELECT", role, schema })
}

fn fields_of(found: &Found) -> Option<(Fields, pg_sys::Datum)> {
    let fields = Fields {
        name: found.raw(credentials::NAME)?,
        kind: found.raw(credentials::KIND)?,
        principal: found.raw(credentials::PRINCIPAL)?,
        scope: found.raw(credentials::SCOPE)?,
        expires_at: found.raw(credentials::EXPIRES_AT),
    };
    Some((fields, found.raw(credentials::VALUE)?))
}

/// A version's number; 0, which none has, where it is NULL.
fn number(found: &Found) -> i64 {
    // SAFETY: the column is a bigint.
    found.raw(versions::VERSION).and_then(|version| unsafe { i64::from_datum(version, false) }).unwrap_or(0)
}

/// An identity that can be compared with those of other rows when its own is no longer there.
struct Identity {
    name: Vec<u8>,
    kind: pg_sys::Datum,
    principal: pg_sys::Datum,
    scope: pg_sys::Datum,
}

impl Identity {
    fn of(fields: &Fields) -> Self {
        // SAFETY: a text and a jsonb.
        let (name, scope) = unsafe { (Detoasted::new(fields.name), copied(fields.scope)) };
        Self { name: name.bytes().to_vec(), kind: fields.kind, principal: fields.principal, scope }
    }

    /// Whether it is that of a row. What the unique index of the credentials takes for one credential is one.
    fn is_of(&self, fields: &Fields) -> bool {
        // SAFETY: a text and two jsonbs.
        let (same_name, same_scope) = unsafe {
            (Detoasted::new(fields.name).bytes() == self.name, jsonb_equal(self.scope, fields.scope))
        };
        same_name
            && same_scope
            && self.kind.value() == fields.kind.value()
            && self.principal.value() == fields.principal.value()
    }
}
