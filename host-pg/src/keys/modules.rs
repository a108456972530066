//! Crypto modules of this backend: one engine, and each module loaded once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use omni_credentials_host::{self as host, Config, Digest, Module, Runtime};
use pgrx::pg_sys;

use crate::error::Error;
use crate::postgres::catalog::Extension;
use crate::postgres::child::in_child;
use crate::postgres::heap::{self, Table, Visibility, Visit};
use crate::postgres::interrupt;
use crate::postgres::tables::crypto_modules;
use crate::settings;

/// The default module's bytes and their digest; `build.rs` finds them.
pub(crate) static BUILTIN: &[u8] = include_bytes!(env!("OMNI_CREDENTIALS_BUILTIN_MODULE"));

const BUILTIN_DIGEST: &str = env!("OMNI_CREDENTIALS_BUILTIN_DIGEST");

struct Modules {
    runtime: Runtime,
    /// Where the runtime keeps what is compiled.
    cache: PathBuf,
    loaded: HashMap<Digest, Module>,
    builtin: Digest,
    /// Whether this backend uses them: what the server made ready before it forked has nothing of a backend yet.
    in_use: bool,
}

impl Modules {
    fn new() -> Result<Self, Error> {
        let cache = settings::cache_directory();
        let runtime = Runtime::new(Config {
            cache_dir: Some(cache.clone()),
            interrupt: Some(interrupt::wanted),
            before_call: Some(interrupt::arm),
            warn: Some(|message| pgrx::log!("omni_credentials: {message}")),
        })
        .map_err(module_error)?;
        let builtin = BUILTIN_DIGEST.parse().map_err(module_error)?;
        Ok(Self { runtime, cache, loaded: HashMap::new(), builtin, in_use: false })
    }

    fn release_unused(&mut self) {
        self.loaded.retain(|_, module| module.is_shared());
    }
}

thread_local! {
    static MODULES: RefCell<Option<Modules>> = const { RefCell::new(None) };
}

/// Called once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: called from _PG_init, in the only thread; the callback is a plain C function that calls nothing of the server.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction), core::ptr::null_mut());
        if pg_sys::process_shared_preload_libraries_in_progress {
            make_ready();
        }
    }
}

/// Makes what no session has a part in before the server forks: the engine, and the code of the default module. No module
/// runs, so there is no timeout to register; and there is no thread. The engine keeps the copy of the artifact open, which is
/// sealed against any change and read through its mapping only. A failure does not stop the server: every backend tries
/// again, and says what is wrong.
///
/// # Safety
/// As for [`in_child`].
unsafe fn make_ready() {
    let made = std::panic::catch_unwind(|| {
        let mut modules = Modules::new().ok()?;
        let builtin = modules.builtin;
        // The first hash asks the processor what it can do. In a virtual machine that takes longer than many hashes.
        std::hint::black_box(Digest::of(&[]));
        if settings::require_allowed(&builtin).is_ok() {
            let runtime = &modules.runtime;
            let module = runtime.load_cached(&builtin).or_else(|| {
                // The first start on this machine: no backend after it could give the server what it compiles.
                // SAFETY: promised by the caller; a module that is compiled writes to the log at most.
                unsafe { in_child(|| drop(runtime.load(BUILTIN, &builtin))) };
                runtime.load_cached(&builtin)
            });
            modules.loaded.extend(module.map(|module| (builtin, module)));
        }
        Some(modules)
    });
    MODULES.set(made.ok().flatten());
}

/// Memory for large values is kept for the next one of the same transaction.
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _: *mut core::ffi::c_void) {
    use pg_sys::XactEvent as E;
    let ends = [
        E::XACT_EVENT_COMMIT,
        E::XACT_EVENT_ABORT,
        E::XACT_EVENT_PREPARE,
        E::XACT_EVENT_PARALLEL_COMMIT,
        E::XACT_EVENT_PARALLEL_ABORT,
    ];
    if ends.contains(&event) {
        // Nothing here may fail. Modules are in use only where an error is on its way out, and then the next end does it.
        let _ = MODULES.try_with(|slot| {
            if let Ok(slot) = slot.try_borrow()
                && let Some(modules) = &*slot
            {
                modules.runtime.release_large();
            }
        });
    }
}

/// The digest of the default module.
pub(crate) fn builtin_digest() -> Result<Digest, Error> {
    with_modules(|modules| Ok(modules.builtin))
}

/// The module with this digest, loaded on first use: from the library for the default one, otherwise from
/// `crypto_modules`. Its bytes are only looked at where this machine has no compiled artifact yet.
pub(crate) fn module(digest: &Digest) -> Result<Module, Error> {
    settings::require_allowed(digest)?;
    with_modules(|modules| {
        if let Some(module) = modules.loaded.get(digest) {
            return Ok(module.clone());
        }
        let mut missing = None;
        let fetched = modules.runtime.load_with(digest, || {
            if *digest == modules.builtin {
                return Ok(BUILTIN.to_vec());
            }
            installed(digest).map_err(|error| {
                missing = Some(error);
                host::Error::NotADigest
            })
        });
        let module = match (fetched, missing) {
            (_, Some(error)) => return Err(error),
            (fetched, None) => fetched.map_err(module_error)?,
        };
        modules.release_unused();
        modules.loaded.insert(*digest, module.clone());
        Ok(module)
    })
}

/// Drops the code of modules that no unlocked keyring works with: a long-lived backend meets many, and each keeps a
/// megabyte. Where one of them is wanted after all, it is loaded again.
pub(crate) fn release_unused() {
    MODULES.with_borrow_mut(|slot| slot.as_mut().map(Modules::release_unused));
}

/// Loads a component that is not installed, for a look at it.
pub(crate) fn candidate(wasm: &[u8], digest: &Digest) -> Result<Module, Error> {
    settings::require_allowed(digest)?;
    with_modules(|modules| modules.runtime.load(wasm, digest).map_err(module_error))
}

/// Keeps a module from being removed until the end of the transaction, which is about to refer to it.
pub(crate) fn pin(digest: &Digest) -> Result<(), Error> {
    if *digest == builtin_digest()? {
        return Ok(());
    }
    let missing = || Error::ModuleMissing { digest: digest.to_string() };
    // Removing takes a lock that conflicts with this one.
    let table = table(pg_sys::RowShareLock)?.ok_or_else(missing)?;
    if find(&table, Visibility::Now, digest, |_| ())?.is_some() { Ok(()) } else { Err(missing()) }
}

/// `crypto_modules`, if the extension is installed in this database.
pub(crate) fn table(lock: u32) -> Result<Option<Table>, Error> {
    let Some(table) = Extension::find().and_then(|extension| extension.table(c"crypto_modules")) else {
        return Ok(None);
    };
    let table = Table::open(table, lock)?;
    table.must_have(crypto_modules::COLUMNS)?;
    Ok(Some(table))
}

/// Turns a failure of the runtime, not of the data, into an error.
pub(crate) fn module_error(error: host::Error) -> Error {
    match error {
        host::Error::Interrupted => Error::Interrupted,
        host::Error::DigestMismatch { expected, found } => {
            Error::ModuleDigest { expected: expected.to_string(), found: found.to_string() }
        }
        host::Error::FailedCheck(_)
        | host::Error::ForbiddenImport(_)
        | host::Error::NotAComponent(_)
        | host::Error::WrongContract { .. } => Error::ModuleRefused { reason: error.to_string() },
        host::Error::SystemMemory(reason) => Error::SystemMemory { reason },
        host::Error::NoExecutableMemory(reason) => Error::NoExecutableMemory { reason },
        other => Error::ModuleFailed { reason: other.to_string() },
    }
}

fn with_modules<T>(f: impl FnOnce(&mut Modules) -> Result<T, Error>) -> Result<T, Error> {
    MODULES.with_borrow_mut(|slot| {
        // What was made ready is of no use where the setting has changed since.
        if slot.as_ref().is_some_and(|made| !made.in_use && made.cache != settings::cache_directory()) {
            *slot = None;
        }
        let modules = match slot {
            Some(modules) => modules,
            None => slot.insert(Modules::new()?),
        };
        if !modules.in_use {
            interrupt::register(modules.runtime.ticker());
            modules.in_use = true;
        }
        f(modules)
    })
}

/// The modules in `crypto_modules` that may run on this server.
pub(crate) fn all_installed() -> Result<Vec<Digest>, Error> {
    let mut digests = Vec::new();
    if let Some(table) = table(pg_sys::AccessShareLock)? {
        table.scan(|row| {
            let digest = digest_of_column(row, crypto_modules::DIGEST)?;
            digests.extend(settings::require_allowed(&digest).is_ok().then_some(digest));
            Ok(Visit::Continue)
        })?;
    }
    Ok(digests)
}

/// The bytes of an installed module.
fn installed(digest: &Digest) -> Result<Vec<u8>, Error> {
    let missing = || Error::ModuleMissing { digest: digest.to_string() };
    let table = table(pg_sys::AccessShareLock)?.ok_or_else(missing)?;
    let wasm = |seen| find(&table, seen, digest, |row| row.get::<Vec<u8>>(crypto_modules::WASM));
    match wasm(Visibility::Now)? {
        Some(wasm) => wasm,
        // Removed after the running statement's snapshot was taken, in which rows may still need it.
        None => wasm(Visibility::BySnapshot)?.flatten(),
    }
    .ok_or_else(missing)
}

/// What `take` takes from the row of a module; `None` where there is no such row.
fn find<T>(
    table: &Table,
    seen: Visibility,
    digest: &Digest,
    take: impl Fn(&heap::Row) -> T,
) -> Result<Option<T>, Error> {
    let mut found = None;
    table.scan_as(seen, |row| {
        if row.get::<Vec<u8>>(crypto_modules::DIGEST).as_deref() == Some(digest.as_bytes()) {
            found = Some(take(row));
            return Ok(Visit::Stop);
        }
        Ok(Visit::Continue)
    })?;
    Ok(found)
}

/// The digest in a column.
pub(crate) fn digest_of_column(row: &heap::Row, column: usize) -> Result<Digest, Error> {
    let bytes: Vec<u8> = row.required(column)?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| row.misfit(column, "is not 32 bytes long"))?;
    Ok(Digest::from_bytes(bytes))
}
