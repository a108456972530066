//! What a host needs to start a program and stay between it and its caller.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the program killed when the calling thread ends, so that it never outlives a process that was killed.
pub fn end_with_caller(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes one system call, and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| {
            #[cfg(target_os = "linux")]
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    }
}

/// A new pseudo-terminal: what is written to the second file can be read from the first.
///
/// # Errors
///
/// The system's, where it has no more of them.
pub fn pseudo_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let mut name = [0; NAME];
    // SAFETY: each file is owned as soon as it was opened, and the name has room for its zero byte.
    unsafe {
        let master = opened(libc::posix_openpt(flags))?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&master);
        if libc::grantpt(raw) != 0
            || libc::unlockpt(raw) != 0
            || libc::ptsname_r(raw, name.as_mut_ptr(), name.len()) != 0
        {
            return Err(io::Error::last_os_error());
        }
        let slave = opened(libc::open(name.as_ptr(), flags))?;
        Ok((master, slave))
    }
}

/// More than the name of a terminal takes: `/dev/pts/` and a number.
const NAME: usize = 64;

/// # Safety
/// A new file that no one else has, or -1.
unsafe fn opened(file: libc::c_int) -> io::Result<OwnedFd> {
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}
