//! Keeps values out of the CONTEXT of errors.
//!
//! An error that is raised while COPY puts a row into a view carries the line that COPY is at, with the value in the clear,
//! to the client and into the server's log. With `log_parameter_max_length_on_error` an error carries bound parameters,
//! and one inside PL/pgSQL the text of the statement.

use pgrx::pg_sys;

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
