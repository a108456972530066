//! Messages for a person: on standard error and the terminal, never on standard output.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::{interrupt, prompt};

const RED: &str = "\x1b[1;31m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";
/// How often a progress line is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Says what went wrong, and what to do about it: to people or, with `--json`, to programs.
pub(crate) fn report(error: &Error, json: bool) {
    if error.is_silent() {
        return;
    }
    if json {
        return say(&serde_json::to_string(&Described::new(error)).unwrap_or_else(|_| error.to_string()));
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
    let answer = prompt::ask(prompt)?;
    Ok(answer.map(|mut answer| {
        take_line_end(&mut answer);
        answer
    }))
}

/// Takes the line end off that a file has at its end, or a paste.
pub(crate) fn take_line_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
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

/// An error with `--json`.
#[derive(Serialize)]
struct Described {
    error: String,
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(flatten)]
    refusal: Option<Refusal>,
}

/// What the crypto module refused.
#[derive(Serialize)]
struct Refusal {
    class: &'static str,
    line: u32,
    found: u64,
}

impl Described {
    fn new(error: &Error) -> Self {
        let refusal =
            error.refusal().map(|it| Refusal { class: it.code.name(), line: it.line, found: it.found });
        Self { error: error.to_string(), status: error.exit().status(), hint: error.hint(), refusal }
    }
}

fn say(text: &str) {
    // If standard error is closed, no one can read the message.
    let _ = writeln!(io::stderr(), "{text}");
}

fn coloured(colour: &str, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if !plain && io::stderr().is_terminal() { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
}
