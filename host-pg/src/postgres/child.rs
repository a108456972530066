//! A child process of the server, before the server has any of its own.

use std::io::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Does some work in a child process and waits for it, whatever becomes of it. So the server keeps nothing of the memory that
/// the work takes, and a crash there is none of the server's.
///
/// # Safety
/// This process has one thread, and no shared memory and no process of the server yet: it is loading
/// `shared_preload_libraries`. The work raises no error of Postgres.
pub(crate) unsafe fn in_child(work: impl FnOnce()) {
    // SAFETY: with one thread, no lock is held in the child by a thread that is not there.
    match unsafe { libc::fork() } {
        -1 => {}
        0 => {
            // SAFETY: a system call that changes this child alone.
            #[cfg(target_os = "linux")]
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            let _ = catch_unwind(AssertUnwindSafe(work));
            // SAFETY: ends the child, and runs nothing that the server has registered for its own end.
            unsafe { libc::_exit(0) }
        }
        // SAFETY: waits for the child made above; where it ended is of no interest.
        child => while unsafe { libc::waitpid(child, ptr::null_mut(), 0) } == -1 && was_interrupted() {},
    }
}

fn was_interrupted() -> bool {
    Error::last_os_error().kind() == ErrorKind::Interrupted
}
