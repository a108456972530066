//! A program that prints the master secret.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::passed_on::is_passed_on;
use super::words;

/// How long the program may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How much of its standard error is kept, in bytes: the end.
const MAX_PRINTED: usize = 1000;
/// How long to wait before looking again whether the program has ended, and whether to stop.
const TICK: Duration = Duration::from_millis(20);
/// Where programs are looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why a program gave no secret. Says nothing about what it wrote to standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandFailure {
    /// The program, as the command names it; empty if the command has none.
    pub program: String,
    /// What went wrong.
    pub fault: CommandFault,
    /// The end of what the program wrote to standard error, on one line.
    pub printed: String,
}

/// What can go wrong with a program that prints a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// The command cannot be split into words.
    #[error("the command {0}")]
    Malformed(&'static str),
    /// There is no such program.
    #[error("there is no such program")]
    NotFound,
    /// The program may not be executed.
    #[error("the program is not executable")]
    NotExecutable,
    /// The program could not be started or waited for.
    #[error("the program cannot be run: {0}")]
    CannotRun(String),
    /// It ended with another status than 0.
    #[error("the program ended with status {0}")]
    Status(i32),
    /// A signal ended it.
    #[error("the program was ended by signal {0}")]
    Signal(i32),
    /// It printed nothing, or a line end.
    #[error("the program printed nothing")]
    Silent,
    /// It printed more than a secret can be.
    #[error("the program printed more than {0} bytes")]
    TooLong(usize),
    /// It took too long, and was killed.
    #[error("the program did not end within {} seconds", TIME_LIMIT.as_secs())]
    TimedOut,
    /// The wait was ended because the caller's interrupt function asked for it. The program was killed.
    #[error("interrupted while waiting for the program")]
    Interrupted,
}

/// Runs a command and gives what it prints, at most `max` bytes. `variable` is not passed on to it.
pub(super) fn run(
    command: &OsStr,
    variable: &str,
    max: usize,
    interrupt: fn() -> bool,
) -> Result<Zeroizing<Vec<u8>>, CommandFailure> {
    let malformed = |why| failure("", CommandFault::Malformed(why));
    let words = words::split(command).map_err(malformed)?;
    let Some((program, arguments)) = words.split_first() else { return Err(malformed("is empty")) };
    let name = program.to_string_lossy();
    if program.is_empty() || (program.as_bytes().contains(&b'/') && !program.as_bytes().starts_with(b"/")) {
        let why = "names neither a program on the search path nor the absolute path of one";
        return Err(failure(&name, CommandFault::Malformed(why)));
    }
    let mut running = Running::start(program, arguments, variable).map_err(|error| {
        let fault = match error.kind() {
            ErrorKind::NotFound => CommandFault::NotFound,
            ErrorKind::PermissionDenied => CommandFault::NotExecutable,
            _ => CommandFault::CannotRun(error.to_string()),
        };
        failure(&name, fault)
    })?;
    let ended = running.wait(max, interrupt);
    let printed = one_line(&running.printed);
    let fault = match ended {
        Ok(status) if status.success() && running.secret.as_slice().trim_ascii().is_empty() => {
            CommandFault::Silent
        }
        Ok(status) if status.success() => return Ok(std::mem::take(&mut running.secret)),
        Ok(status) => match status.signal() {
            Some(signal) => CommandFault::Signal(signal),
            None => CommandFault::Status(status.code().unwrap_or(-1)),
        },
        Err(fault) => fault,
    };
    Err(CommandFailure { program: name.into_owned(), fault, printed })
}

/// A program that runs. Dropped before it has ended, it is killed, with all that it started in its session.
struct Running {
    child: Child,
    has_ended: bool,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    secret: Zeroizing<Vec<u8>>,
    printed: Vec<u8>,
}

impl Running {
    fn start(program: &OsStr, arguments: &[OsString], variable: &str) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", DEFAULT_PATH);
        command.envs(std::env::vars_os().filter(|(name, value)| {
            name.to_str().is_some_and(|name| {
                is_passed_on(name) && !is_of(name, variable) && !(name == "PATH" && value.is_empty())
            })
        }));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec the closure makes system calls, and neither allocates nor takes a lock.
        unsafe { command.pre_exec(detach) };
        let mut child = command.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let running =
            Self { child, has_ended: false, out, err, secret: Zeroizing::default(), printed: Vec::new() };
        let pipes = [running.out.as_ref().map(AsFd::as_fd), running.err.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        }
        Ok(running)
    }

    /// Reads what it prints until it has ended.
    fn wait(&mut self, max: usize, interrupt: fn() -> bool) -> Result<ExitStatus, CommandFault> {
        let started = Instant::now();
        // Reserved at once: a vector that grows leaves copies behind.
        self.secret.reserve(max.saturating_add(READ));
        loop {
            if interrupt() {
                return Err(CommandFault::Interrupted);
            }
            if started.elapsed() > TIME_LIMIT {
                return Err(CommandFault::TimedOut);
            }
            let ended = self.child.try_wait().map_err(|error| cannot_run(&error))?;
            self.has_ended |= ended.is_some();
            self.read(max)?;
            if let Some(status) = ended {
                return Ok(status);
            }
            self.sleep();
        }
    }

    /// Reads what can be read at once.
    fn read(&mut self, max: usize) -> Result<(), CommandFault> {
        let mut buffer = Zeroizing::new([0; READ]);
        while let Some(read) = take(&mut self.out, &mut buffer).map_err(|error| cannot_run(&error))? {
            self.secret.extend_from_slice(read);
            if self.secret.len() > max {
                return Err(CommandFault::TooLong(max));
            }
        }
        // As much as fits into a pipe: a program that never stops does not keep this loop busy.
        for _ in 0..64 {
            let Some(read) = take(&mut self.err, &mut buffer).map_err(|error| cannot_run(&error))? else {
                break;
            };
            self.printed.extend_from_slice(read);
            let excess = self.printed.len().saturating_sub(MAX_PRINTED);
            self.printed.drain(..excess);
        }
        Ok(())
    }

    /// Waits until it prints something, or for a while. A signal ends the wait.
    fn sleep(&self) {
        let pipes = [self.out.as_ref().map(AsFd::as_fd), self.err.as_ref().map(AsFd::as_fd)];
        let mut pipes: Vec<_> =
            pipes.iter().flatten().map(|pipe| PollFd::from_borrowed_fd(*pipe, PollFlags::IN)).collect();
        let tick = Timespec::try_from(TICK).ok();
        let _ = poll(&mut pipes, tick.as_ref());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            // It is not waited for yet, so that its number is still its own.
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// How much is read at a time.
const READ: usize = 4096;

/// What can be read from a pipe at once; none at its end, after which it is closed.
fn take<'a, P: Read>(pipe: &mut Option<P>, buffer: &'a mut [u8; READ]) -> io::Result<Option<&'a [u8]>> {
    let Some(open) = pipe else { return Ok(None) };
    match open.read(buffer) {
        Ok(0) => {
            *pipe = None;
            Ok(None)
        }
        Ok(read) => Ok(buffer.get(..read)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs in the new process: gives it a session of its own, so that it can be killed with what it starts and cannot ask at
/// the caller's terminal; ends it with the caller; and leaves it none of the caller's files.
fn detach() -> io::Result<()> {
    // SAFETY: system calls that take numbers and change nothing but this process, which is about to become another program.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        #[cfg(target_os = "linux")]
        {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let (first, last) = (FIRST_FILE, libc::c_uint::MAX);
            if libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) == 0 {
                return Ok(());
            }
        }
        // An older system. The standard library's own pipe must stay open until the program is there.
        for file in FIRST_FILE..MAX_FILES {
            libc::fcntl(file.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
    Ok(())
}

/// The first file that is none of input, output and errors.
const FIRST_FILE: libc::c_uint = 3;
const MAX_FILES: libc::c_uint = 65_536;

/// Whether a variable belongs to the secret.
fn is_of(name: &str, variable: &str) -> bool {
    name.strip_prefix(variable).is_some_and(|ending| ["", "_FILE", "_COMMAND"].contains(&ending))
}

fn cannot_run(error: &io::Error) -> CommandFault {
    CommandFault::CannotRun(error.to_string())
}

fn failure(program: &str, fault: CommandFault) -> CommandFailure {
    CommandFailure { program: program.to_owned(), fault, printed: String::new() }
}

/// Text of a program for one line of a message.
fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<_> =
        text.split(|it: char| it.is_whitespace() || is_unseen(it)).filter(|it| !it.is_empty()).collect();
    words.join(" ")
}

/// Whether a character shows nothing, or changes how others are shown, such as their order.
fn is_unseen(it: char) -> bool {
    it.is_control()
        || matches!(it, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
