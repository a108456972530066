//! Running SQL that another role's objects take part in: as that role, and without a way back to the caller's rights.
//!
//! Maintenance by a superuser changes rows of a table that somebody else owns. The triggers, policies, defaults and
//! index expressions of that table are its owner's code. As for `REINDEX`, they run as the owner, in a security-restricted
//! operation: they cannot take the session's role, and leave nothing behind that would run later with the caller's rights.
//!
//! Policies do not hold there, not even with FORCE ROW LEVEL SECURITY, which an owner may put on itself: as for foreign
//! keys, no row may be left out because someone does not see it.

use pgrx::pg_sys;

use crate::error::Error;

/// What the running code may do, beside the rights of its role: statements that were planned in another context than this
/// one are not for it.
pub(crate) fn context() -> core::ffi::c_int {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: reads variables of the running transaction; the pointers are valid for the call.
    unsafe { pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context) }
    context
}

/// Runs `run` as `owner`, with a search path that no role can put anything into.
///
/// The role, the restriction and the settings of before are back when this returns. Where an error of the server unwinds
/// through it, the end of the (sub)transaction puts them back.
pub(crate) fn as_owner<T>(owner: pg_sys::Oid, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    let restricted = (pg_sys::SECURITY_RESTRICTED_OPERATION
        | pg_sys::SECURITY_LOCAL_USERID_CHANGE
        | pg_sys::SECURITY_NOFORCE_RLS) as core::ffi::c_int;
    // SAFETY: reads and sets variables of the running transaction. The pointers are valid for the call.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | restricted);
    }
    let result = with_safe_search_path(run);
    // SAFETY: `user` and `context` are those from above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) }
    result
}

/// Runs `run` with a search path that no role can put anything into. The one of before is back when this returns, or at
/// the end of the (sub)transaction.
pub(super) fn with_safe_search_path<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: sets a setting of the running transaction; the strings are NUL-terminated. PGC_S_SESSION and
    // GUC_ACTION_SAVE are what a function's SET clause uses: the setting ends with the nest level.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        level
    };
    let result = run();
    // SAFETY: `level` is the innermost one: what runs in between closes its own.
    unsafe { pg_sys::AtEOXact_GUC(false, level) }
    result
}
