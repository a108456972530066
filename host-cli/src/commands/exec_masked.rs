//! `exec --mask`: the program's output passes through this process.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio, exit};

use omni_credentials_host::program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Resource, Rlimit, setrlimit};
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::low_level::emulate_default_handler;

use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt;
use crate::mask::{Masked, Values};

/// How long one wait lasts before the next look whether the program has ended, where something that it started keeps its
/// output open.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const READ: usize = 64 * 1024;

/// Runs the program and ends as it does. Where it cannot be started, gives the reason.
pub(super) fn run(command: &mut Command, values: &Values) -> Result<io::Error, Error> {
    let failed = || Error::io("the program's output");
    let (out_is_terminal, err_is_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
    // The program has a terminal where this process has one: a pseudo-terminal, one for both streams, which keeps their order.
    let terminal = if out_is_terminal || err_is_terminal {
        Some(like_ours(out_is_terminal).map_err(failed())?)
    } else {
        None
    };
    let slave = |of_ours: bool| match &terminal {
        Some((_, slave)) if of_ours => slave.try_clone().map(Stdio::from),
        _ => Ok(Stdio::piped()),
    };
    command.stdout(slave(out_is_terminal).map_err(failed())?);
    command.stderr(slave(err_is_terminal).map_err(failed())?);
    let mut child = match program::end_with_caller(command).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(error),
    };
    // What the command holds of the terminal would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let master = terminal.map(|(master, _)| master);
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(number) = number {
        let resized = master.as_ref().map(OwnedFd::try_clone).transpose().map_err(failed())?;
        interrupt::is_for(number, move || {
            if let Some(terminal) = &resized {
                let _ = take_size(terminal.as_fd(), out_is_terminal);
            }
        })
        .map_err(failed())?;
    }
    let mut streams = Vec::new();
    if let Some(master) = master {
        streams.push(Stream::new(File::from(master), out_is_terminal, values).map_err(failed())?);
    }
    if let Some(out) = child.stdout.take() {
        streams.push(Stream::new(File::from(OwnedFd::from(out)), true, values).map_err(failed())?);
    }
    if let Some(err) = child.stderr.take() {
        streams.push(Stream::new(File::from(OwnedFd::from(err)), false, values).map_err(failed())?);
    }
    let status = pass(&mut child, streams).map_err(failed())?;
    end_as(status)
}

/// A stream of the program's, and the one of this process that it goes to.
struct Stream<'a> {
    from: Option<File>,
    to_out: bool,
    masked: Masked<'a>,
}

impl<'a> Stream<'a> {
    fn new(from: File, to_out: bool, values: &'a Values) -> io::Result<Self> {
        fcntl_setfl(&from, fcntl_getfl(&from)? | OFlags::NONBLOCK)?;
        Ok(Self { from: Some(from), to_out, masked: Masked::new(values) })
    }

    /// Passes on what is there.
    fn pass(&mut self, buffer: &mut [u8]) {
        while let Some(from) = &mut self.from {
            match from.read(buffer) {
                Ok(0) => self.from = None,
                Ok(read) => {
                    let passed = self.masked.pass(buffer.get(..read).unwrap_or_default());
                    if self.write(&passed).is_err() {
                        // No one reads it any more: the program is to find out when it writes again.
                        self.from = None;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A pseudo-terminal that no process has open any more.
                Err(_) => self.from = None,
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if self.to_out {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        } else {
            io::stderr().lock().write_all(bytes)
        }
    }
}

/// Passes on what the program writes, until it has ended.
fn pass(child: &mut Child, mut streams: Vec<Stream<'_>>) -> io::Result<ExitStatus> {
    let mut buffer = vec![0; READ];
    let status = loop {
        let open: Vec<_> =
            streams.iter().filter_map(|stream| stream.from.as_ref()).map(AsFd::as_fd).collect();
        if open.is_empty() {
            break child.wait()?;
        }
        let mut waited: Vec<_> = open.iter().map(|it| PollFd::from_borrowed_fd(*it, PollFlags::IN)).collect();
        let _ = poll(&mut waited, Some(&TICK));
        let ended = child.try_wait()?;
        // All that it wrote before its end is there by now.
        for stream in &mut streams {
            stream.pass(&mut buffer);
        }
        if let Some(status) = ended {
            break status;
        }
    };
    interrupt::is_for_none();
    for stream in &mut streams {
        let rest = stream.masked.finish();
        let _ = stream.write(&rest);
    }
    Ok(status)
}

/// A pseudo-terminal that looks like the terminal of this process. It changes nothing in what passes through it: line ends
/// are for the real one to change.
fn like_ours(out: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let (master, slave) = program::pseudo_terminal()?;
    let mut modes = with_ours(out, |ours| tcgetattr(ours))?;
    modes.output_modes.remove(OutputModes::OPOST);
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    take_size(slave.as_fd(), out)?;
    Ok((master, slave))
}

fn take_size(terminal: BorrowedFd<'_>, out: bool) -> io::Result<()> {
    tcsetwinsize(terminal, with_ours(out, |ours| tcgetwinsize(ours))?)?;
    Ok(())
}

fn with_ours<T>(out: bool, f: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T>) -> io::Result<T> {
    Ok(if out { f(io::stdout().as_fd()) } else { f(io::stderr().as_fd()) }?)
}

/// Ends this process as the program ended: with its status, or by its signal.
fn end_as(status: ExitStatus) -> ! {
    if let Some(signal) = status.signal() {
        // The program has left a core, if one is wanted.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = emulate_default_handler(signal);
        exit(Exit::Signal(signal).status().into())
    }
    exit(status.code().unwrap_or(1))
}
