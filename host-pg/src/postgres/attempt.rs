//! Calls of the server that may fail without failing the statement.

use std::panic::UnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

/// Runs `run`, and gives the message of the error that it raised, if any. A statement that someone wants to end ends.
///
/// A subtransaction would do the same, but a parallel worker cannot have one.
///
/// # Safety
/// `run` takes nothing but locks of shared memory and what belongs to a resource owner: an error in it leaves nothing else
/// behind. The caller holds no lock of shared memory.
pub(crate) unsafe fn attempt<T>(
    name: &'static core::ffi::CStr,
    run: impl FnOnce() -> T + UnwindSafe,
) -> Result<T, String> {
    // SAFETY: variables of a backend, which has one thread. The owner is made as a child of the present one: where this
    // function is left by an error, it is released with that.
    let (before, memory, own) = unsafe {
        let before = pg_sys::CurrentResourceOwner;
        let own = pg_sys::ResourceOwnerCreate(before, name.as_ptr());
        pg_sys::CurrentResourceOwner = own;
        (before, pg_sys::CurrentMemoryContext, own)
    };
    let outcome = PgTryBuilder::new(|| Ok(run()))
        .catch_others(|caught| match caught {
            CaughtError::PostgresError(error) if !ends_statement(error.sql_error_code()) => {
                Err(error.message().to_owned())
            }
            other => other.rethrow(),
        })
        .finally(|| {
            // SAFETY: what was there before.
            unsafe {
                pg_sys::CurrentResourceOwner = before;
                pg_sys::CurrentMemoryContext = memory;
            }
        })
        .execute();
    // SAFETY: in the order of the end of a subtransaction. Nothing that `run` took is in use after an error, and what it
    // keeps after a success it has given to the session.
    unsafe {
        if outcome.is_err() {
            pg_sys::LWLockReleaseAll();
        }
        use pg_sys::ResourceReleasePhase as Phase;
        for phase in [
            Phase::RESOURCE_RELEASE_BEFORE_LOCKS,
            Phase::RESOURCE_RELEASE_LOCKS,
            Phase::RESOURCE_RELEASE_AFTER_LOCKS,
        ] {
            pg_sys::ResourceOwnerRelease(own, phase, outcome.is_ok(), false);
        }
        pg_sys::ResourceOwnerDelete(own);
    }
    outcome
}

/// Whether an error means that the statement, or the session, is to end.
fn ends_statement(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode as C;
    matches!(
        code,
        C::ERRCODE_QUERY_CANCELED
            | C::ERRCODE_ADMIN_SHUTDOWN
            | C::ERRCODE_CRASH_SHUTDOWN
            | C::ERRCODE_OPERATOR_INTERVENTION
    )
}
