//! Keeps the engine from replacing a thread's alternate signal stack.
//!
//! Before the first call on a thread the engine gives it an alternate signal stack of 256 KiB, also
//! where signals are none of its business, unless the thread has one as large. So it is shown a
//! large one for that moment, and then the thread gets back what it had.

use std::cell::Cell;

use wasmtime::Engine;

/// What the engine takes for large enough. If a later version wants more, tests/process.rs fails.
const LARGE_ENOUGH: usize = 256 << 10;

thread_local! {
    static PREPARED: Cell<bool> = const { Cell::new(false) };
}

/// To be called on a thread before it calls into a module; all but the first time it costs a load.
#[inline]
pub(crate) fn keep_alternate_stack() {
    if !PREPARED.replace(true) {
        prepare();
    }
}

#[cold]
fn prepare() {
    // Never touched, unless a signal arrives right now; so it is address space and no memory.
    let mut stack: Vec<u8> = Vec::with_capacity(LARGE_ENOUGH);
    let shown = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: LARGE_ENOUGH };
    // SAFETY: all-zero bytes are a valid `stack_t`.
    let mut before: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call, and `shown` describes `LARGE_ENOUGH`
    // writable bytes that live until after the stack of before is back in place.
    let replaced = unsafe { libc::sigaltstack(&raw const shown, &raw mut before) } == 0;
    Engine::tls_eager_initialize();
    if replaced {
        // SAFETY: `before` is what the system said a moment ago. This fails only on a thread that runs on
        // the alternate stack at this very time, and then the first call would have failed too.
        let restored = unsafe { libc::sigaltstack(&raw const before, std::ptr::null_mut()) } == 0;
        if !restored {
            // Nothing may point at memory that is about to be freed.
            std::mem::forget(stack);
        }
    }
}
