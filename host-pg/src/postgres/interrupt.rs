//! Ends a call into a module when the server wants the backend back.
//!
//! A module can loop, and nothing outside it can stop it but the engine's epoch. Postgres's own timeout service moves
//! the epoch: a one-shot timeout is armed when a call begins and none is pending, its handler does nothing but
//! increment the epoch, and the engine then asks [`wanted`], which arms the next one. No thread, no signal handler of
//! our own, and an idle backend is woken at most once after a call.

use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::OnceLock;

use omni_credentials_host::Ticker;

/// Milliseconds between looks at the interrupt flags while a module runs.
const TICK_MS: core::ffi::c_int = 20;

/// The first id that extensions may take; it follows the server's own timeouts (utils/timeout.h).
#[cfg(any(feature = "pg15", feature = "pg16"))]
const USER_TIMEOUT: core::ffi::c_int = 12;
#[cfg(any(feature = "pg17", feature = "pg18"))]
const USER_TIMEOUT: core::ffi::c_int = 13;

// utils/timeout.h, which pgrx's headers leave out.
unsafe extern "C-unwind" {
    fn RegisterTimeout(id: core::ffi::c_int, handler: Option<unsafe extern "C" fn()>) -> core::ffi::c_int;
    fn enable_timeout_after(id: core::ffi::c_int, delay_ms: core::ffi::c_int);
    fn get_timeout_active(id: core::ffi::c_int) -> bool;
}

static TICKER: OnceLock<Ticker> = OnceLock::new();

thread_local! {
    static TIMEOUT: Cell<Option<core::ffi::c_int>> = const { Cell::new(None) };
}

/// Registers the timeout for this backend. `ticker` belongs to the one engine of the process.
pub(crate) fn register(ticker: Ticker) {
    if TICKER.set(ticker).is_ok() {
        // SAFETY: called once per process (OnceLock), from the main thread of a backend, after the timeout module
        // was initialised (a query is running). The handler is an `extern "C"` function that does not unwind.
        let id = unsafe { RegisterTimeout(USER_TIMEOUT, Some(on_timeout)) };
        TIMEOUT.set(Some(id));
    }
}

/// Makes ready for a call into a module: refuses one where the stack is nearly used up, and sees to it that the epoch
/// will move. Called before every call; cheap.
pub(crate) fn arm() {
    // SAFETY: looks at the stack pointer and raises an error, with no module frames on the stack.
    unsafe { pg_sys::check_stack_depth() };
    arm_timeout();
}

fn arm_timeout() {
    if let Some(id) = TIMEOUT.get() {
        // SAFETY: `id` was given by RegisterTimeout. Both functions only touch the timeout module's own state;
        // error recovery may have disarmed the timeout, which is why the state is asked for each time.
        unsafe {
            if !get_timeout_active(id) {
                enable_timeout_after(id, TICK_MS);
            }
        }
    }
}

/// Whether the server wants this backend to stop: asked by the engine when the epoch has moved. It never raises an
/// error, since module frames are on the stack; the interrupt is processed after they have unwound.
pub(crate) fn wanted() -> bool {
    arm_timeout();
    // SAFETY: these are flags that signal handlers set; reading them is a plain load of a `sig_atomic_t`. They are
    // honoured only where the server itself would honour them.
    unsafe {
        let pending = (&raw const pg_sys::InterruptPending).read_volatile() != 0;
        let cancel = (&raw const pg_sys::QueryCancelPending).read_volatile() != 0;
        let die = (&raw const pg_sys::ProcDiePending).read_volatile() != 0;
        let held = (&raw const pg_sys::InterruptHoldoffCount).read_volatile() != 0
            || (&raw const pg_sys::CritSectionCount).read_volatile() != 0;
        pending && !held && (cancel || die || transaction_timed_out())
    }
}

/// Whether `transaction_timeout` has run out. It ends the session, and has a flag of its own.
#[cfg(any(feature = "pg17", feature = "pg18"))]
fn transaction_timed_out() -> bool {
    // SAFETY: as in `wanted`.
    unsafe { (&raw const pg_sys::TransactionTimeoutPending).read_volatile() != 0 }
}

/// There is no such setting yet.
#[cfg(any(feature = "pg15", feature = "pg16"))]
fn transaction_timed_out() -> bool {
    false
}

/// Runs in the SIGALRM handler: async-signal-safe, because all it does is an atomic increment.
unsafe extern "C" fn on_timeout() {
    if let Some(ticker) = TICKER.get() {
        ticker.tick();
    }
}
