//! The Postgres extension: thin glue between SQL and a crypto module.
//!
//! Nothing here encrypts, derives a key or knows a format. Rows, roles and transactions become calls of the contract
//! in `wit/`, and its answers become rows, errors and files. `ARCHITECTURE.md` has the map.

#![allow(
    clippy::cast_possible_wrap,
    reason = "the server's headers give small constants as u32, and its functions take them as i32"
)]

mod check;
mod drop_guard;
mod error;
mod file_store;
mod heap;
mod identity;
mod instance;
mod instantiate;
mod interrupt;
mod keys;
mod module_guard;
mod modules;
mod open;
mod operations;
mod prune;
mod raw;
mod registry;
mod rights;
mod rings;
mod secret;
mod settings;
mod shared_keys;
mod stale;
mod statement;
mod trigger;
mod write;

use std::path::PathBuf;

use pgrx::pg_sys;
use pgrx::prelude::*;

pgrx::pg_module_magic!();

/// Called when the library is loaded.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::register();
    identity::register();
    stale::register();
    file_store::register();
    shared_keys::register();
}

/// The schema of the extension.
pub(crate) fn extension_schema() -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup with a NUL-terminated name; `missing_ok` is set.
    let oid = unsafe { pg_sys::get_namespace_oid(c"omni_credentials".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether a role may make copies of the store, and so may own one.
pub(crate) fn may_instantiate(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup by oid.
    if unsafe { pg_sys::superuser_arg(role) } {
        return true;
    }
    let signature = c"omni_credentials.instantiate(pg_catalog.regnamespace, pg_catalog.text, pg_catalog.int4, pg_catalog.int4, pg_catalog.int4)";
    // SAFETY: a catalog lookup by oid.
    function_oid(signature).is_some_and(|function| unsafe { may_execute(function, role) })
}

/// A function by its qualified signature.
pub(crate) fn function_oid(signature: &core::ffi::CStr) -> Option<pg_sys::Oid> {
    let signature = signature.to_str().ok().and_then(IntoDatum::into_datum)?;
    // SAFETY: to_regprocedure takes a text and gives an oid, or NULL where there is no such function.
    unsafe { pgrx::direct_function_call(pg_sys::to_regprocedure, &[Some(signature)]) }
}

/// The data directory.
pub(crate) fn data_directory() -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: DataDir is set before any library is loaded and never changes.
    let bytes = unsafe { core::ffi::CStr::from_ptr(pg_sys::DataDir) }.to_bytes();
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(feature = "pg15"))]
unsafe fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: a catalog lookup by oid.
    unsafe {
        pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, mode)
            == pg_sys::AclResult::ACLCHECK_OK
    }
}

#[cfg(feature = "pg15")]
unsafe fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: a catalog lookup by oid.
    unsafe { pg_sys::pg_proc_aclcheck(function, role, mode) == pg_sys::AclResult::ACLCHECK_OK }
}
