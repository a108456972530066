//! Derived keys shared by the backends of a server, so that not every connection pays for Argon2id.
//!
//! A small table in shared memory: in the server's main segment where the library is in shared_preload_libraries, and
//! from Postgres 17 on otherwise in a segment of its own. Without either, every backend derives its keys itself.
//!
//! What it changes: a derived key lives as long as the server does and not as long as the backend that derived it, and
//! every process of the server maps the memory it is in. Those processes run as one user, inherit the master secret in
//! their environment and can derive the same key from it, so anyone who can read the table could have had the key before.
//! What the program of a variable with `_COMMAND` printed is kept here as well, for it is to run once: as the value of a
//! variable would be in the environment of all these processes.
//!
//! An entry is found by a salted digest over master secret, module and keyring, so that SQL reaches a shared key only by
//! way of what it could derive it from. The memory is left out of core dumps where the system allows it, and is never
//! backed by a file on disk.

use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, Ordering};

use omni_credentials_host::secret::MAX_READ;
use omni_credentials_host::{Digest, Kek};
use pgrx::pg_sys;
use pgrx::prelude::*;
use zeroize::{Zeroize, Zeroizing};

#[cfg(any(feature = "pg17", feature = "pg18"))]
use crate::postgres::attempt::attempt;

/// Keys that are remembered; the one used longest ago makes room.
const ENTRIES: usize = 64;
/// More variables than servers have. The program of one more runs whenever its secret is needed.
const PRINTED: usize = 16;
const NAME: &core::ffi::CStr = c"omni_credentials keys";
const PAGE: usize = 4096;

#[repr(C)]
struct Table {
    lock: pg_sys::LWLock,
    /// Random, of this server's run.
    salt: [u8; 32],
    clock: u64,
    entries: [Entry; ENTRIES],
    printed: [Printed; PRINTED],
}

#[repr(C)]
struct Entry {
    /// The clock when it was last used; 0 for an empty one.
    used: u64,
    id: [u8; 32],
    kek: [u8; 32],
}

/// What a program printed for a variable.
#[repr(C)]
struct Printed {
    /// Zeros for an unused one.
    id: [u8; 32],
    /// The process that runs the program; 0 if none does.
    runner: i32,
    /// 0 until the program has printed a secret.
    length: u32,
    secret: [u8; MAX_READ],
}

/// Whose turn it is to run a program.
pub(super) enum Turn {
    /// No one's: the secret is known.
    Known(Zeroizing<Vec<u8>>),
    /// The caller's, until [`end_turn`].
    Mine,
    /// That of a process of the same parallel query.
    Of(i32),
}

/// The table in the main segment; the postmaster sets it and backends inherit it.
static MAIN: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());

thread_local! {
    /// The table as this backend found it.
    static FOUND: Cell<Option<*mut Table>> = const { Cell::new(None) };
}

/// Asks for memory while the server starts. Called once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: _PG_init runs in the postmaster's only thread, which is the one to set hooks; each hook calls the one
    // that it replaces.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(on_request);
            PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
            pg_sys::shmem_startup_hook = Some(on_startup);
        }
    }
}

/// Whether there is a table to share keys in.
pub(crate) fn is_available() -> bool {
    table().is_some()
}

/// The KEK with this id, if a backend of this server has kept it.
pub(crate) fn find(id: &Digest) -> Option<Kek> {
    locked(|table| {
        let id = salted(&table.salt, id);
        table.clock = table.clock.saturating_add(1);
        let clock = table.clock;
        let entry = table.entries.iter_mut().find(|entry| entry.used != 0 && entry.id == id)?;
        entry.used = clock;
        Some(Kek::from_bytes(&entry.kek))
    })
    .flatten()
}

/// Keeps a KEK for the other backends.
pub(crate) fn keep(id: &Digest, kek: &Kek) {
    locked(|table| {
        let id = salted(&table.salt, id);
        table.clock = table.clock.saturating_add(1);
        let known = table.entries.iter().position(|entry| entry.used != 0 && entry.id == id);
        let oldest =
            || table.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used).map(|(at, _)| at);
        if let Some(entry) = known.or_else(oldest).and_then(|at| table.entries.get_mut(at)) {
            entry.kek.zeroize();
            entry.used = table.clock;
            entry.id = id;
            entry.kek.copy_from_slice(kek.as_bytes());
        }
    });
}

/// The secret that a program printed for the variable with this id.
pub(super) fn find_secret(id: &Digest) -> Option<Zeroizing<Vec<u8>>> {
    of_variable(id, |printed| printed.secret()).flatten()
}

/// Keeps what a program printed, until the server stops.
pub(super) fn keep_secret(id: &Digest, secret: &[u8]) {
    of_variable(id, |printed| {
        if let Some(room) = printed.secret.get_mut(..secret.len()) {
            room.copy_from_slice(secret);
            printed.length = u32::try_from(secret.len()).unwrap_or(0);
        }
    });
}

/// Asks for the turn to run a program. The caller holds the lock for it, which keeps out all but the processes of the same
/// parallel query.
pub(super) fn take_turn(id: &Digest) -> Turn {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let turn = of_variable(id, |printed| {
        if let Some(secret) = printed.secret() {
            return Turn::Known(secret);
        }
        if printed.runner == 0 || printed.runner == me {
            printed.runner = me;
            return Turn::Mine;
        }
        Turn::Of(printed.runner)
    });
    turn.unwrap_or(Turn::Mine)
}

/// Ends the turn of a process, if it has it.
pub(super) fn end_turn(id: &Digest, process: i32) {
    of_variable(id, |printed| {
        if printed.runner == process {
            printed.runner = 0;
        }
    });
}

impl Printed {
    fn secret(&self) -> Option<Zeroizing<Vec<u8>>> {
        let length = usize::try_from(self.length).ok().filter(|length| *length > 0)?;
        self.secret.get(..length).map(|secret| Zeroizing::new(secret.to_vec()))
    }
}

/// Works on the entry of a variable, a new one if there is none yet; `None` where there is no room.
fn of_variable<T>(id: &Digest, f: impl FnOnce(&mut Printed) -> T) -> Option<T> {
    locked(|table| {
        let id = salted(&table.salt, id);
        let known = table.printed.iter().position(|printed| printed.id == id);
        let at = known.or_else(|| table.printed.iter().position(|printed| printed.id == [0; 32]))?;
        let printed = table.printed.get_mut(at)?;
        printed.id = id;
        Some(f(printed))
    })
    .flatten()
}

/// Works on the table with its lock held; `None` where there is no table. Nothing in `f` may raise an error.
fn locked<T>(f: impl FnOnce(&mut Table) -> T) -> Option<T> {
    let table = table()?;
    // SAFETY: the table is initialised, lives as long as this process, and is only touched with its lock held.
    unsafe {
        pg_sys::LWLockAcquire(&raw mut (*table).lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let result = f(&mut *table);
        pg_sys::LWLockRelease(&raw mut (*table).lock);
        Some(result)
    }
}

fn salted(salt: &[u8; 32], id: &Digest) -> [u8; 32] {
    let mut named = [0; 64];
    named[..32].copy_from_slice(salt);
    named[32..].copy_from_slice(id.as_bytes());
    *Digest::of(&named).as_bytes()
}

fn table() -> Option<*mut Table> {
    if let Some(table) = FOUND.get() {
        return (!table.is_null()).then_some(table);
    }
    let main = MAIN.load(Ordering::Acquire);
    let table = if main.is_null() { own_segment() } else { main };
    if !table.is_null() {
        // SAFETY: the table is initialised, and the name is a constant.
        unsafe { pg_sys::LWLockRegisterTranche(i32::from((*table).lock.tranche), NAME.as_ptr()) }
        leave_out_of_dumps(table);
    }
    FOUND.set(Some(table));
    (!table.is_null()).then_some(table)
}

/// Leaves the table out of core dumps of this process, and of those that it forks.
fn leave_out_of_dumps(table: *mut Table) {
    // SAFETY: the table has whole pages to itself. The advice changes nothing but core dumps, and may be refused.
    unsafe { libc::madvise(table.cast(), pages(size_of::<Table>()), libc::MADV_DONTDUMP) };
}

/// The table in a segment that the first backend makes; null where that is not possible, or not safe.
#[cfg(any(feature = "pg17", feature = "pg18"))]
fn own_segment() -> *mut Table {
    // SAFETY: both are set when the server starts and only read here.
    let usable = unsafe {
        // With `mmap` segments are files in the data directory, and a derived key must not get to a disk.
        pg_sys::IsUnderPostmaster && pg_sys::dynamic_shared_memory_type != DSM_IMPL_MMAP
    };
    if !usable {
        return core::ptr::null_mut();
    }
    let get = || {
        let mut found = false;
        // SAFETY: the name is NUL-terminated and short; the callback initialises what this size has room for. The segment
        // stays mapped for as long as the backend lives.
        unsafe { pg_sys::GetNamedDSMSegment(NAME.as_ptr(), SIZE, Some(initialise_segment), &raw mut found) }
    };
    // Where /dev/shm is full, this session derives its keys itself.
    // SAFETY: the function takes locks of shared memory, and segments that belong to a resource owner until they are the
    // session's. An entry without a segment, which an error may leave in the server's list, fails those who ask for it.
    match unsafe { attempt(NAME, get) } {
        Ok(memory) => aligned(memory),
        Err(reason) => {
            pgrx::log!("omni_credentials: this session shares no keys: {reason}");
            core::ptr::null_mut()
        }
    }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
fn own_segment() -> *mut Table {
    core::ptr::null_mut()
}

/// DSM_IMPL_MMAP of storage/dsm_impl.h.
#[cfg(any(feature = "pg17", feature = "pg18"))]
const DSM_IMPL_MMAP: core::ffi::c_int = 4;

/// Whole pages of the table's own, wherever the memory begins.
const SIZE: usize = pages(size_of::<Table>()) + PAGE;

const fn pages(size: usize) -> usize {
    size.div_ceil(PAGE) * PAGE
}

/// The first page border in memory of `SIZE` bytes.
fn aligned(memory: *mut core::ffi::c_void) -> *mut Table {
    let memory = memory.cast::<u8>();
    memory.wrapping_add(memory.align_offset(PAGE)).cast()
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
#[pg_guard]
unsafe extern "C-unwind" fn initialise_segment(memory: *mut core::ffi::c_void) {
    // SAFETY: memory of SIZE bytes that no one else uses yet.
    unsafe { initialise(aligned(memory)) }
}

/// # Safety
/// `table` has room for a table and for the rest of its last page, and no one else uses it yet.
unsafe fn initialise(table: *mut Table) {
    // SAFETY: see above; a table of zeros is an empty one. Where the system has no random bytes the ids go unsalted.
    unsafe {
        core::ptr::write_bytes(table, 0, 1);
        let salt = &raw mut (*table).salt;
        pg_sys::pg_strong_random(salt.cast(), size_of::<[u8; 32]>());
        pg_sys::LWLockInitialize(&raw mut (*table).lock, pg_sys::LWLockNewTrancheId());
    }
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

#[pg_guard]
unsafe extern "C-unwind" fn on_request() {
    // SAFETY: the postmaster calls this in its only thread.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(SIZE);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    // SAFETY: the postmaster calls this in its only thread, before any backend runs, at the start and again after a
    // crash; so there is no one to take the lock for.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let mut found = false;
        let table = aligned(pg_sys::ShmemInitStruct(NAME.as_ptr(), SIZE, &raw mut found));
        if !found {
            initialise(table);
        }
        // Here as well: the other processes of the server have this memory, too.
        leave_out_of_dumps(table);
        MAIN.store(table, Ordering::Release);
    }
}
