//! Reading one value as text: what `get_credential` of each instance makes of the rows that it found.

use pgrx::{FromDatum, fcinfo, pg_sys};

use crate::error::{Error, display_name, or_raise};
use crate::postgres::encoding;
use crate::postgres::fmgr::{self, raw_function};
use crate::postgres::varlena::Detoasted;

raw_function!(text_of_one_wrapper, pg_finfo_text_of_one_wrapper, text_of_one);

/// `text_of_one(name text, found bigint, value bytea) returns text`.
///
/// # Safety
/// Called by Postgres with these types.
unsafe fn text_of_one(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let argument = |n| {
        // SAFETY: the function has three arguments.
        unsafe { (!fcinfo::pg_arg_is_null(fcinfo, n)).then(|| fcinfo::pg_getarg_datum_raw(fcinfo, n)) }
    };
    // SAFETY: the declared types, and not NULL.
    let name = argument(0).map(|name| unsafe { Detoasted::new(name) });
    // SAFETY: as above.
    let found = argument(1).and_then(|found| unsafe { i64::from_datum(found, false) });
    let text = or_raise(match (name, found) {
        (Some(name), Some(found)) => one(name.bytes(), found, argument(2)),
        _ => Err(Error::NullArgument { argument: "name" }),
    });
    match text {
        Some(text) => text,
        // SAFETY: as above.
        None => unsafe { fcinfo::pg_return_null(fcinfo) },
    }
}

/// The text; `None` for a value that does not open and that `omni_credentials.on_unreadable` makes NULL.
fn one(name: &[u8], found: i64, value: Option<pg_sys::Datum>) -> Result<Option<pg_sys::Datum>, Error> {
    let name = || display_name(&encoding::to_utf8(name));
    match found {
        1 => {}
        0 => return Err(Error::NoSuchCredential { name: name() }),
        _ => return Err(Error::SeveralCredentials { name: name() }),
    }
    let Some(value) = value else { return Ok(None) };
    // SAFETY: the datum of a bytea that is not NULL.
    let value = unsafe { Detoasted::new(value) };
    let is_text = core::str::from_utf8(value.bytes()).is_ok() && !value.bytes().contains(&0);
    let text = if is_text { fmgr::text(value.bytes()) } else { None };
    text.map(Some).ok_or_else(|| Error::NotText { name: name() })
}
