//! Functions that take Postgres's call as it is, and a jsonb result: what pgrx's typed arguments cannot say.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

/// Exports `$body` under the C symbol `$symbol`, which `sql/functions.sql` names.
macro_rules! raw_function {
    ($symbol:ident, $finfo:ident, $body:path) => {
        /// The calling convention of the function, for Postgres.
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub(crate) extern "C" fn $finfo() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
            const VERSION_1: ::pgrx::pg_sys::Pg_finfo_record =
                ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &VERSION_1
        }

        /// # Safety
        /// Called by Postgres, with the arguments that the SQL function declares.
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        #[::pgrx::pg_guard]
        pub(crate) unsafe extern "C-unwind" fn $symbol(
            fcinfo: ::pgrx::pg_sys::FunctionCallInfo,
        ) -> ::pgrx::pg_sys::Datum {
            // SAFETY: passed on unchanged.
            unsafe { $body(fcinfo) }
        }
    };
}
pub(crate) use raw_function;

/// A jsonb result, made from its text by Postgres itself, so that numbers keep their digits.
pub(crate) struct Jsonb(pub(crate) String);

/// jsonb from its text; an error is raised where it is none.
pub(crate) fn jsonb(text: &str) -> Option<pg_sys::Datum> {
    let text = std::ffi::CString::new(text).ok()?;
    // SAFETY: jsonb_in takes a NUL-terminated string and copies what it keeps.
    unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))])
    }
}

impl IntoDatum for Jsonb {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        jsonb(&self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: the datum is the jsonb that IntoDatum makes.
unsafe impl BoxRet for Jsonb {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_optional_datum(self.into_datum()) }
    }
}

// SAFETY: `jsonb` is the type that IntoDatum makes.
unsafe impl SqlTranslatable for Jsonb {
    const TYPE_IDENT: &'static str = "jsonb";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

/// A column of a query's result as it is. It lives as long as the result.
pub(crate) struct AnyDatum(pub(crate) pg_sys::Datum);

impl FromDatum for AnyDatum {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(Self(datum))
    }

    unsafe fn from_datum_in_memory_context(
        _: pgrx::PgMemoryContexts,
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Self> {
        // Not copied: a copy would need the type, and the caller is done with it before the next fetch.
        (!is_null).then_some(Self(datum))
    }
}

impl IntoDatum for AnyDatum {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::ANYELEMENTOID
    }

    fn is_compatible_with(_: pg_sys::Oid) -> bool {
        true
    }
}
