//! Functions that take Postgres's call as it is, and text and jsonb results: what pgrx's typed arguments cannot say.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

use crate::postgres::encoding;

/// Exports `$body` under the C symbol `$symbol`, which the files in `sql` name.
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

/// A text result, from UTF-8 into the encoding of the database. What is not UTF-8 came from the database, and goes back as
/// it is.
pub(crate) struct Text(pub(crate) Vec<u8>);

/// A jsonb result, made from its text by Postgres itself, so that numbers keep their digits.
pub(crate) struct Jsonb(pub(crate) Vec<u8>);

/// text from UTF-8; `None` where the encoding of the database lacks a character.
pub(crate) fn text(text: &[u8]) -> Option<pg_sys::Datum> {
    let text = encoding::to_server(text)?;
    let length = i32::try_from(text.len()).ok()?;
    // SAFETY: the function copies `length` bytes.
    Some(pg_sys::Datum::from(unsafe { pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), length) }))
}

/// jsonb from its text in UTF-8; an error is raised where it is none, and `None` given where the encoding of the database
/// lacks a character.
pub(crate) fn jsonb(text: &[u8]) -> Option<pg_sys::Datum> {
    let text = std::ffi::CString::new(encoding::to_server(text)?).ok()?;
    // SAFETY: jsonb_in takes a NUL-terminated string and copies what it keeps.
    unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))])
    }
}

/// Makes a type of a SQL result from a function that gives its datum.
macro_rules! sql_result {
    ($type:ty, $name:literal, $oid:expr, $make:path) => {
        impl IntoDatum for $type {
            fn into_datum(self) -> Option<pg_sys::Datum> {
                $make(&self.0)
            }

            fn type_oid() -> pg_sys::Oid {
                $oid
            }
        }

        // SAFETY: the datum is of the type, as IntoDatum makes it.
        unsafe impl BoxRet for $type {
            unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
                // SAFETY: as above.
                unsafe { fcinfo.return_optional_datum(self.into_datum()) }
            }
        }

        // SAFETY: it is the type that IntoDatum makes.
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = $name;
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($name));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
                Ok(ReturnsRef::One(SqlMappingRef::literal($name)));
        }
    };
}

sql_result!(Text, "text", pg_sys::TEXTOID, text);
sql_result!(Jsonb, "jsonb", pg_sys::JSONBOID, jsonb);

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
