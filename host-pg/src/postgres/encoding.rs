//! Text of a database in the encoding of modules and files, UTF-8, and back.
//!
//! What a value is bound to must be exact: a name that cannot be converted is refused, and never replaced by another.

use std::borrow::Cow;

use pgrx::pg_sys;

/// Text of the database as UTF-8.
///
/// A database in UTF-8, and one in SQL_ASCII, which knows no encoding, may hold bytes that are not UTF-8, in the names of
/// roles for one. They are passed on as they are: the module refuses them. Where the server knows no conversion it
/// raises an error.
pub(crate) fn to_utf8(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(length) = foreign(text) else {
        return Cow::Borrowed(text);
    };
    // SAFETY: the function reads `length` bytes, and gives a NUL-terminated palloc'ed string, or the argument itself.
    unsafe {
        let given = text.as_ptr().cast();
        let converted = pg_sys::pg_server_to_any(given, length, pg_sys::pg_enc::PG_UTF8 as _);
        if core::ptr::eq(converted, given) {
            return Cow::Borrowed(text);
        }
        let owned = core::ffi::CStr::from_ptr(converted).to_bytes().to_vec();
        pg_sys::pfree(converted.cast());
        Cow::Owned(owned)
    }
}

/// UTF-8 as text of the database; `None` where its encoding lacks a character.
pub(crate) fn to_server(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(length) = foreign(text) else {
        return Some(Cow::Borrowed(text));
    };
    let room = text.len().checked_mul(MAX_GROWTH)?.checked_add(1)?;
    let mut converted = vec![0_u8; room];
    // SAFETY: both lengths are those of the buffers, and no character takes more than MAX_GROWTH times its bytes. With
    // `noError` the function stops where a character has no counterpart, and tells how far it came.
    let done = unsafe {
        let database = pg_sys::GetDatabaseEncoding();
        let utf8 = pg_sys::pg_enc::PG_UTF8 as core::ffi::c_int;
        let conversion = pg_sys::FindDefaultConversionProc(utf8, database);
        if conversion == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::pg_do_encoding_conversion_buf(
            conversion,
            utf8,
            database,
            text.as_ptr().cast_mut(),
            length,
            converted.as_mut_ptr(),
            i32::try_from(room).ok()?,
            true,
        )
    };
    if done != length {
        return None;
    }
    let end = converted.iter().position(|byte| *byte == 0)?;
    converted.truncate(end);
    Some(Cow::Owned(converted))
}

/// Whether SQL text, which is put together as UTF-8, can hold this name of the database.
pub(crate) fn fits_sql(name: &[u8]) -> bool {
    name.is_ascii() || (passes_utf8() && core::str::from_utf8(name).is_ok())
}

/// A character of UTF-8 has at most four bytes for one byte of another encoding, and at most four for one of its own
/// (`MAX_CONVERSION_GROWTH`).
const MAX_GROWTH: usize = 4;

/// The length of text that must be converted; `None` for what is the same in both encodings. Every encoding of a database
/// has ASCII as it is.
fn foreign(text: &[u8]) -> Option<i32> {
    if text.is_ascii() || passes_utf8() { None } else { i32::try_from(text.len()).ok() }
}

/// Whether the database keeps the bytes of UTF-8.
fn passes_utf8() -> bool {
    // SAFETY: reads a variable that is set before a session runs anything.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII]
        .into_iter()
        .any(|known| i32::try_from(known) == Ok(encoding))
}
