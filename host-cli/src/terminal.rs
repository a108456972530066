//! Talking with a person: on standard error and the terminal, never on standard output.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::interrupt;
use crate::output::Object;

const RED: &str = "\x1b[1;31m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";
/// How often a progress line is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Says what went wrong, and what to do about it: to people or, with `--json`, to programs.
pub(crate) fn complain(error: &Error, json: bool) {
    if error.is_silent() {
        return;
    }
    if json {
        return say(&described(error).to_json());
    }
    say(&format!("{} {error}", coloured(RED, "error:")));
    if let Some(hint) = error.hint() {
        say(&format!("{} {hint}", coloured(CYAN, "hint:")));
    }
}

/// Tells something that is not what was asked for.
pub(crate) fn note(text: &str) {
    say(text);
}

/// Asks for something that does not appear on the screen. None without a terminal.
pub(crate) fn ask_hidden(prompt: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    // It reads ^C as a character and gives the terminal back before it reports it.
    let prompt = || rpassword::prompt_password(prompt);
    match interrupt::blocking(|| interrupt::attended(prompt))? {
        Ok(mut answer) => {
            let bytes = Zeroizing::new(answer.as_bytes().to_vec());
            answer.zeroize();
            interrupt::check()?;
            Ok(Some(bytes))
        }
        Err(error) => match error.kind() {
            ErrorKind::Interrupted => Err(interrupt::interrupted().into()),
            // ENXIO and its like: the process has no terminal.
            _ => Ok(None),
        },
    }
}

/// Asks twice for something new.
pub(crate) fn ask_new(prompt: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let Some(first) = ask_hidden(&format!("{prompt}: "))? else { return Ok(None) };
    let second = ask_hidden(&format!("{prompt}, again: "))?;
    if second.is_some_and(|second| second == first) { Ok(Some(first)) } else { Err(Error::SecretsDiffer) }
}

/// A line that shows how far long work has come; on a terminal only.
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    drawn: Option<Instant>,
    visible: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        // What takes no longer than one redraw shows nothing.
        Self { what, total, drawn: Some(Instant::now()), visible: false }
    }

    /// Says that `done` are done, and ends the work when a signal came.
    pub(crate) fn at(&mut self, done: usize) -> Result<(), Error> {
        interrupt::check()?;
        if self.drawn.is_some_and(|drawn| drawn.elapsed() >= REDRAW) && io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r{}: {done} of {}", self.what, self.total);
            self.drawn = Some(Instant::now());
            self.visible = true;
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.visible {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn described(error: &Error) -> Object {
    let mut object =
        Object::default().text("error", &error.to_string()).number("status", error.exit().status());
    if let Some(hint) = error.hint() {
        object = object.text("hint", &hint);
    }
    if let Some(refusal) = error.refusal() {
        object = object
            .text("class", refusal.code.name())
            .number("line", refusal.line)
            .number("found", refusal.found);
    }
    object
}

fn say(text: &str) {
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

fn coloured(colour: &str, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if !plain && io::stderr().is_terminal() { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
}
