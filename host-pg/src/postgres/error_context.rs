//! Keeps values out of the CONTEXT of errors.
//!
//! An error that is raised while COPY puts a row into a view carries the line that COPY is at, with the value in the clear,
//! to the client and into the server's log. With `log_parameter_max_length_on_error` an error carries bound parameters,
//! and one inside PL/pgSQL the text of the statement.

use pgrx::{PgSqlErrorCode, pg_sys};

/// The callers' part of an error's CONTEXT, set aside.
///
/// There is no `Drop`: an error unwinds to the server before it is reported, and must not find the callers' part again. The
/// server's own handlers restore it where they catch the error.
#[must_use]
pub(crate) struct Hidden(*mut pg_sys::ErrorContextCallback);

impl Hidden {
    /// Sets the callers' part aside, until [`Hidden::restore`] or an error.
    pub(crate) fn begin() -> Self {
        // SAFETY: a variable of a backend, which has one thread. An empty list is what a statement starts with.
        unsafe {
            let callers = pg_sys::error_context_stack;
            pg_sys::error_context_stack = core::ptr::null_mut();
            Self(callers)
        }
    }

    /// Puts it back.
    pub(crate) fn restore(self) {
        // SAFETY: the callbacks are in frames of our callers, which are still there.
        unsafe { pg_sys::error_context_stack = self.0 }
    }
}

/// Runs SQL. If the server refuses it with that SQLSTATE while it executes the statement itself, the error gets the hint. An
/// error of what the statement calls, such as a trigger of the table's owner, stays as it is.
pub(crate) fn with_hint<T>(code: PgSqlErrorCode, hint: &core::ffi::CStr, run: impl FnOnce() -> T) -> T {
    let mut hint = Hint { callback: pg_sys::ErrorContextCallback::default(), code, text: hint.as_ptr() };
    // SAFETY: a variable of a backend, which has one thread. The entry lives on this frame, which `Popped` outlives
    // neither after a return nor where an error unwinds.
    let _popped = unsafe {
        let callers = pg_sys::error_context_stack;
        hint.callback.previous = callers;
        hint.callback.callback = Some(add_hint);
        hint.callback.arg = (&raw mut hint).cast();
        pg_sys::error_context_stack = &raw mut hint.callback;
        Popped(callers)
    };
    run()
}

/// An entry of the server's list, first, with what belongs to it.
#[repr(C)]
struct Hint {
    callback: pg_sys::ErrorContextCallback,
    code: PgSqlErrorCode,
    text: *const core::ffi::c_char,
}

struct Popped(*mut pg_sys::ErrorContextCallback);

impl Drop for Popped {
    fn drop(&mut self) {
        // SAFETY: the entries from here on are in frames of our callers, which are still there.
        unsafe { pg_sys::error_context_stack = self.0 }
    }
}

/// Runs while the server puts an error together, and must not fail.
unsafe extern "C-unwind" fn add_hint(hint: *mut core::ffi::c_void) {
    // SAFETY: `with_hint` is still running, since its entry is in the list. Between it and the error there is the entry of
    // SPI, and where something else is running inside the statement, more than that.
    unsafe {
        let hint = hint.cast::<Hint>();
        let newest = pg_sys::error_context_stack;
        let direct = !newest.is_null() && core::ptr::eq((*newest).previous.cast(), hint);
        if direct && usize::try_from(pg_sys::geterrcode()) == Ok((*hint).code as usize) {
            errhint(c"%s".as_ptr(), (*hint).text);
        }
    }
}

unsafe extern "C-unwind" {
    /// Not among the bindings of pgrx: a function with a variable number of arguments.
    fn errhint(format: *const core::ffi::c_char, ...) -> core::ffi::c_int;
}
