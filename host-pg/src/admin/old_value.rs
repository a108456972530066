//! Opening a value that omni_credentials 0.2.0 sealed: with pgcrypto, under the secret of a variable of the environment.

use pgrx::{FromDatum, fcinfo, pg_sys};
use zeroize::Zeroize;

use crate::admin::owner::must_own;
use crate::error::{Error, given, or_raise};
use crate::instance;
use crate::keys::{allowed_variables, master_secret};
use crate::postgres::catalog::{self, Extension};
use crate::postgres::fmgr::raw_function;
use crate::rows::open::bytea;

raw_function!(open_old_value_wrapper, pg_finfo_open_old_value_wrapper, open_old_value);

/// `open_old_value(schema regnamespace, variable text, sealed bytea) returns text`. For the owner of the instance, who may
/// use the variable: that of the instance, where it is NULL.
///
/// # Safety
/// Called by Postgres with these types.
unsafe fn open_old_value(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let argument = |n| {
        // SAFETY: the function has three arguments.
        unsafe { (!fcinfo::pg_arg_is_null(fcinfo, n)).then(|| fcinfo::pg_getarg_datum_raw(fcinfo, n)) }
    };
    // SAFETY: the datum of a text that is not NULL.
    let variable = argument(1).and_then(|variable| unsafe { String::from_datum(variable, false) });
    or_raise(
        given(argument(0).map(catalog::oid), "schema")
            .and_then(|schema| open(schema, variable, given(argument(2), "sealed")?)),
    )
}

fn open(
    schema: pg_sys::Oid,
    variable: Option<String>,
    sealed: pg_sys::Datum,
) -> Result<pg_sys::Datum, Error> {
    let handle = instance::of_schema(schema)?;
    let (table, owners, own) = {
        let instance = handle.borrow();
        (instance.table, instance.owners.clone(), instance.variable().to_owned())
    };
    must_own(table)?;
    let variable = variable.unwrap_or(own);
    allowed_variables::must_be_allowed(&variable, &owners)?;
    let decrypt = decrypt_function().ok_or(Error::PgcryptoMissing)?;
    let secret = Secret::of(&master_secret::master_secret(&variable)?);
    // SAFETY: the function has these two arguments and gives a text, or raises an error.
    Ok(unsafe { pg_sys::OidFunctionCall2Coll(decrypt, pg_sys::DEFAULT_COLLATION_OID, sealed, secret.text) })
}

/// `pgp_sym_decrypt` of pgcrypto. Any role can own that extension, and put a function of its own into it: the secret is for
/// a function of a superuser.
fn decrypt_function() -> Option<pg_sys::Oid> {
    let function =
        Extension::named(c"pgcrypto")?.function("pgp_sym_decrypt(pg_catalog.bytea, pg_catalog.text)")?;
    catalog::owner_of_function(function).is_some_and(catalog::is_superuser).then_some(function)
}

/// The secret as a text of the server, overwritten when it is dropped.
struct Secret {
    text: pg_sys::Datum,
    length: usize,
}

impl Secret {
    fn of(secret: &[u8]) -> Self {
        // A bytea has the form of a text.
        Self { text: bytea(secret), length: secret.len() }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: made above with this length, in the memory context of the call, which outlives this.
        unsafe {
            let bytes = pgrx::varlena::vardata_4b(self.text.cast_mut_ptr()).cast_mut().cast::<u8>();
            core::slice::from_raw_parts_mut(bytes, self.length).zeroize();
        }
    }
}
