//! A question whose answer does not appear on the screen.
//!
//! The answer is a line, or all that is pasted: a terminal that knows bracketed paste says where a paste starts and ends.
//! Where it does not, the command refuses several lines at once, and none of them reaches the shell.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::termios::{self, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::interrupt;

/// How long one wait for input lasts, before the next look for a signal.
const PAUSE: Duration = Duration::from_millis(50);
/// What comes within this time after the end of a line was not typed.
const NOT_TYPED: Duration = Duration::from_millis(100);
/// More than the longest value: what is longer is refused later.
const MAX_ANSWER: usize = (1 << 20) + 16;
const START_PASTE: &[u8] = b"\x1b[200~";
const END_PASTE: &[u8] = b"\x1b[201~";
/// Asks a terminal to mark what is pasted, and not to do so any more.
const MARK_PASTE: &[u8] = b"\x1b[?2004h";
const UNMARK_PASTE: &[u8] = b"\x1b[?2004l";

/// The terminal of the prompt that is open.
static OPEN: Mutex<Option<Terminal>> = Mutex::new(None);

/// Asks. None without a terminal.
pub(crate) fn ask(prompt: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let Ok(mut tty) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let Ok(before) = termios::tcgetattr(&tty) else { return Ok(None) };
    let Ok(own) = tty.try_clone() else { return Ok(None) };
    let _restored = Restored;
    let terminal = Terminal { tty: own, before, prompt: prompt.to_owned() };
    // A signal that comes before the terminal is in its place would not give it back; one that comes now waits for the lock.
    let hidden = with_open(|open| open.insert(terminal).hide()).unwrap_or(Ok(()));
    hidden.map_err(Error::io("the terminal"))?;
    let answer = read(&mut tty);
    if answer.is_err() {
        let _ = termios::tcflush(&tty, QueueSelector::IFlush);
    }
    let _ = tty.write_all(b"\n");
    answer.map(Some)
}

/// Asks for a line that appears on the screen. None without a terminal, or at the end of its input.
pub(crate) fn line(question: &str) -> Result<Option<String>, Error> {
    let Ok(mut tty) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    // What came before the question is no answer to it.
    let _ = termios::tcflush(&tty, QueueSelector::IFlush);
    tty.write_all(question.as_bytes()).map_err(Error::io("the terminal"))?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while bytes.last() != Some(&b'\n') {
        interrupt::check()?;
        if !is_ready(&tty, PAUSE)? {
            continue;
        }
        match tty.read(&mut buffer) {
            Ok(0) | Err(_) => {
                interrupt::check()?;
                return Ok(None);
            }
            Ok(count) => bytes.extend(buffer.iter().take(count)),
        }
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Gives the terminal back as it was, because the process ends or stops.
pub(crate) fn restore() {
    with_open(|open| {
        if let Some(terminal) = open {
            terminal.restore();
        }
    });
}

/// Asks again after the process was stopped.
pub(crate) fn resume() {
    with_open(|open| {
        if let Some(terminal) = open {
            let _ = terminal.hide();
        }
    });
}

/// A terminal, and how it was.
struct Terminal {
    tty: File,
    before: Termios,
    prompt: String,
}

impl Terminal {
    fn hide(&self) -> io::Result<()> {
        let mut modes = self.before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What came before the question is no answer to it.
        retry_on_intr(|| termios::tcsetattr(&self.tty, OptionalActions::Flush, &modes))?;
        if marks_paste() {
            (&self.tty).write_all(MARK_PASTE)?;
        }
        (&self.tty).write_all(self.prompt.as_bytes())
    }

    fn restore(&self) {
        if marks_paste() {
            let _ = (&self.tty).write_all(UNMARK_PASTE);
        }
        let _ = retry_on_intr(|| termios::tcsetattr(&self.tty, OptionalActions::Now, &self.before));
    }
}

/// Restores the terminal when it is dropped.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        restore();
        with_open(|open| *open = None);
    }
}

/// None if the lock is broken: no code panics while it holds it.
fn with_open<T>(work: impl FnOnce(&mut Option<Terminal>) -> T) -> Option<T> {
    OPEN.lock().ok().map(|mut open| work(&mut open))
}

fn marks_paste() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

fn read(tty: &mut File) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut line = Line::default();
    let mut buffer = Zeroizing::new([0; 4096]);
    loop {
        interrupt::check()?;
        if !is_ready(tty, PAUSE)? {
            continue;
        }
        let count = match tty.read(buffer.as_mut_slice()) {
            // The terminal is gone. A signal comes with that.
            Ok(0) | Err(_) => {
                interrupt::check()?;
                return Ok(line.bytes);
            }
            Ok(count) => count,
        };
        let mut bytes = buffer.iter().take(count);
        if bytes.any(|byte| line.push(*byte)) {
            if bytes.next().is_none() && !is_ready(tty, NOT_TYPED)? {
                return Ok(line.bytes);
            }
            discard(tty, &mut buffer)?;
            return Err(Error::SeveralLines);
        }
    }
}

/// Reads what still comes of a paste, so that no shell runs it.
fn discard(tty: &mut File, buffer: &mut Zeroizing<[u8; 4096]>) -> Result<(), Error> {
    while is_ready(tty, NOT_TYPED)? {
        interrupt::check()?;
        if !tty.read(buffer.as_mut_slice()).is_ok_and(|count| count > 0) {
            break;
        }
    }
    Ok(())
}

fn is_ready(tty: &File, wait: Duration) -> Result<bool, Error> {
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    match poll(&mut [PollFd::from_borrowed_fd(tty.as_fd(), PollFlags::IN)], Some(&wait)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(Error::io("the terminal")(error.into())),
    }
}

/// A line as it is typed and pasted.
#[derive(Default)]
struct Line {
    bytes: Zeroizing<Vec<u8>>,
    is_pasting: bool,
    /// An escape sequence that is not complete.
    escape: Vec<u8>,
}

impl Line {
    /// Takes a byte; true at the end of the line.
    fn push(&mut self, byte: u8) -> bool {
        if !self.escape.is_empty() {
            self.escape.push(byte);
            if self.is_escape_complete() {
                self.end_escape();
            }
            return false;
        }
        match byte {
            0x1b => self.escape.push(byte),
            _ if self.is_pasting => self.add(&[byte]),
            b'\n' | b'\r' | 0x04 => return true,
            0x7f | 0x08 => self.erase(),
            // Control-U.
            0x15 => self.bytes.clear(),
            b'\t' | 0x20.. => self.add(&[byte]),
            _ => {}
        }
        false
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.bytes.len() < MAX_ANSWER {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Takes the last character back.
    fn erase(&mut self) {
        while self.bytes.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
    }

    fn is_escape_complete(&self) -> bool {
        match self.escape.as_slice() {
            [_, b'[' | b'O'] => false,
            [_, b'[' | b'O', .., last] => matches!(last, 0x40..=0x7e) || self.escape.len() > 32,
            _ => true,
        }
    }

    /// A key such as an arrow means nothing here. In a paste, every byte is part of the value.
    fn end_escape(&mut self) {
        let escape = std::mem::take(&mut self.escape);
        match escape.as_slice() {
            START_PASTE => self.is_pasting = true,
            END_PASTE => self.is_pasting = false,
            other if self.is_pasting => self.add(other),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut line = Line::default();
        bytes.iter().any(|byte| line.push(*byte)).then(|| line.bytes.to_vec())
    }

    #[test]
    fn lines_can_be_corrected() {
        assert_eq!(typed(b"abc"), None);
        assert_eq!(typed(b"ab\x7fc\n").as_deref(), Some(b"ac".as_slice()));
        assert_eq!(typed("xé\x7f\x7fy\r".as_bytes()).as_deref(), Some(b"y".as_slice()));
        assert_eq!(typed(b"wrong\x15right\n").as_deref(), Some(b"right".as_slice()));
        assert_eq!(typed(b"a\x1b[Db\x1bOPc\x1b[1;5Cd\x01\n").as_deref(), Some(b"abcd".as_slice()));
        assert_eq!(typed(b"\x04").as_deref(), Some(b"".as_slice()));
    }

    #[test]
    fn pastes_are_taken_as_they_are() {
        let pasted = b"a\x1b[200~1\n2\x1b[31m\x7f\x04\n\x1b[201~b\n";
        assert_eq!(typed(pasted).as_deref(), Some(b"a1\n2\x1b[31m\x7f\x04\nb".as_slice()));
    }
}
