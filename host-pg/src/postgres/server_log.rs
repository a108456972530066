//! Lines of the server's log that no client sees, and that are one record: without the statement, which may hold a value
//! in the clear, and without the callers' CONTEXT.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;

use pgrx::{PgLogLevel, pg_sys};

/// Writes a line. Ends a statement that someone wants to end, as every report of the server does.
pub(crate) fn write(message: &str) {
    let message = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
    let level = PgLogLevel::LOG_SERVER_ONLY as c_int;
    // SAFETY: the calls that the server's `ereport` stands for, in their order, with strings that end with a zero byte and
    // outlive them. The guard turns an error into a panic, which passes no frame of the server.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            if errstart(level, core::ptr::null()) {
                errmsg_internal(c"%s".as_ptr(), message.as_ptr());
                errhidestmt(true);
                errhidecontext(true);
                errfinish(FILE.as_ptr(), 0, c"write".as_ptr());
            }
        });
    }
}

const FILE: &CStr = c"server_log.rs";

unsafe extern "C-unwind" {
    // Not among the bindings of pgrx, or only behind a guard of their own each.
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errhidestmt(hide: bool) -> c_int;
    fn errhidecontext(hide: bool) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}
