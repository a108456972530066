//! The settings of the extension.

use omni_credentials_host::Digest;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::error::Error;
use crate::postgres::invalidation;

/// What reading an unreadable row gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PostgresGucEnum)]
pub(crate) enum OnUnreadable {
    /// An error that names the credential and the reason.
    #[name = c"error"]
    Error,
    /// NULL.
    #[name = c"null"]
    Null,
}

static ON_UNREADABLE: GucSetting<OnUnreadable> = GucSetting::<OnUnreadable>::new(OnUnreadable::Error);
static CACHE_DIRECTORY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ALLOWED_MODULES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static PRELOADED: OnceLock<bool> = OnceLock::new();
static WARN_EXPIRED: GucSetting<bool> = GucSetting::<bool>::new(false);
static LOG_READS: GucSetting<bool> = GucSetting::<bool>::new(false);
static CREATE_KEYS: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30_000);

/// Defines the settings. Called once, when the library is loaded.
pub(crate) fn register() {
    GucRegistry::define_enum_guc(
        c"omni_credentials.on_unreadable",
        c"What reading a credential that does not open gives: error or null.",
        c"An error names the credential and the reason. With null the other rows can be read.",
        &ON_UNREADABLE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"omni_credentials.cache_directory",
        c"Where compiled crypto modules are kept.",
        c"A folder of this machine, made with mode 0700. Empty: a folder in the data directory that base backups leave out.",
        &CACHE_DIRECTORY,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    // A library that is loaded by a session is too late for settings of the postmaster.
    // SAFETY: a flag of the server, read in its only thread.
    let starting = unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress };
    PRELOADED.get_or_init(|| starting);
    let when =
        c"With the library in shared_preload_libraries it changes with a restart only; otherwise it takes a reload.";
    // SAFETY: the hook only sets a flag.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"omni_credentials.allowed_modules",
            c"The crypto modules that may run, as SHA-256 digests separated by commas. Empty: all that are installed.",
            when,
            &ALLOWED_MODULES,
            if starting { GucContext::Postmaster } else { GucContext::Sighup },
            GucFlags::default(),
            None,
            Some(on_allowed_modules),
            None,
        );
    }
    GucRegistry::define_int_guc(
        c"omni_credentials.file_lock_timeout",
        c"How long a commit waits for another writer of a file store.",
        c"After that the transaction fails with SQLSTATE 55P03.",
        &LOCK_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"omni_credentials.warn_expired",
        c"Whether reading a credential that has expired gives a warning.",
        c"The value is given all the same.",
        &WARN_EXPIRED,
        GucContext::Userset,
        GucFlags::default(),
    );
    define_log_reads();
    GucRegistry::define_bool_guc(
        c"omni_credentials.create_keys",
        c"Whether this server makes keyrings and data keys.",
        c"Off on a subscriber of logical replication, whose keyrings come from the publisher.",
        &CREATE_KEYS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // A misspelt setting is an error, not one that no one reads.
    // SAFETY: the name is NUL-terminated and copied.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"omni_credentials".as_ptr()) }
}

/// A session that loads the library may have given the setting a value before, when the server knew no rule for it. The
/// server refuses that value now, and with it, it has forgotten what the configuration says. Then reads are logged.
fn define_log_reads() {
    let name = c"omni_credentials.log_reads";
    // SAFETY: the name is NUL-terminated; the answer is a string or null, and not kept.
    let was_given = unsafe { !pgrx::pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() };
    // SAFETY: the hook only stores a flag.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            c"Whether the server logs who reads which credential.",
            c"One line for each statement and credential, never with a value. The client does not see it.",
            &LOG_READS,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(on_log_reads),
            None,
        );
    }
    // The server assigns the default, and then what it accepts of what was given.
    let accepted = LOG_READS_ASSIGNED.swap(0, Ordering::Relaxed) > 1;
    LOG_READS_REFUSED.store(was_given && !accepted, Ordering::Relaxed);
}

static LOG_READS_ASSIGNED: AtomicU32 = AtomicU32::new(0);
static LOG_READS_REFUSED: AtomicBool = AtomicBool::new(false);

/// A value that the server accepts from now on counts.
unsafe extern "C-unwind" fn on_log_reads(_: bool, _: *mut core::ffi::c_void) {
    LOG_READS_ASSIGNED.fetch_add(1, Ordering::Relaxed);
    LOG_READS_REFUSED.store(false, Ordering::Relaxed);
}

/// A keyring may be unlocked whose module may no longer run.
unsafe extern "C-unwind" fn on_allowed_modules(_: *const core::ffi::c_char, _: *mut core::ffi::c_void) {
    invalidation::mark();
}

/// What to give for a row that does not open.
pub(crate) fn on_unreadable() -> OnUnreadable {
    ON_UNREADABLE.get()
}

/// Whether the library was loaded before the server forked.
pub(crate) fn is_preloaded() -> bool {
    PRELOADED.get() == Some(&true)
}

/// Whether to warn of what has expired.
pub(crate) fn warn_expired() -> bool {
    WARN_EXPIRED.get()
}

/// Whether to log who reads which credential.
pub(crate) fn log_reads() -> bool {
    LOG_READS.get() || LOG_READS_REFUSED.load(Ordering::Relaxed)
}

/// Fails where the configuration says that keys are made elsewhere.
pub(crate) fn may_create_keys(schema: impl FnOnce() -> String) -> Result<(), Error> {
    if CREATE_KEYS.get() { Ok(()) } else { Err(Error::KeysMadeElsewhere { schema: schema() }) }
}

/// Refuses a module that `omni_credentials.allowed_modules` leaves out. What is no digest in that list allows nothing.
pub(crate) fn require_allowed(digest: &Digest) -> Result<(), Error> {
    let allowed = match ALLOWED_MODULES.get() {
        Some(list) => {
            let list = list.to_string_lossy();
            let mut listed = list.split(',').map(str::trim).filter(|item| !item.is_empty()).peekable();
            listed.peek().is_none() || listed.any(|item| item.parse() == Ok(*digest))
        }
        None => true,
    };
    if allowed { Ok(()) } else { Err(Error::ModuleNotAllowed { digest: digest.to_string() }) }
}

/// How long to wait for another writer of a file.
pub(crate) fn file_lock_timeout() -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(LOCK_TIMEOUT.get()).unwrap_or(0))
}

/// Where native artifacts go.
pub(crate) fn cache_directory() -> PathBuf {
    match CACHE_DIRECTORY.get() {
        Some(set) if !set.is_empty() => PathBuf::from(set.to_string_lossy().into_owned()),
        // A base backup leaves out every folder whose name starts like this, so that code compiled for one machine
        // does not travel to another; and unlike base/pgsql_tmp it survives a restart.
        _ => crate::postgres::catalog::data_directory().join("pgsql_tmp_omni_credentials"),
    }
}
