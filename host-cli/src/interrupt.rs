//! Signals. The first SIGINT, SIGTERM, SIGHUP or SIGQUIT is remembered, and the work ends at its next safe point: locks
//! are freed and temporary files removed on the way out. The second ends the process. Before the process ends or stops, the
//! terminal is as it was before a prompt, and no edited text is left.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use omni_credentials_host::Ticker;
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::exit::Exit;
use crate::{prompt, scratch};

/// A signal came; its number.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) i32);

/// The signal that came; 0 while there was none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// Nothing is held that had to be given back, and a system call waits for a person or a pipe.
static BLOCKING: AtomicBool = AtomicBool::new(false);
/// The terminal belongs to an editor: SIGINT and SIGQUIT are meant for that.
static ATTENDED: Mutex<bool> = Mutex::new(false);
/// A signal has come that the listening thread has not dealt with yet.
static UNHEARD: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// How often to look whether the listening thread has dealt with it.
const PAUSE: Duration = Duration::from_millis(1);
/// The program that `exec --mask` runs; 0 if none does.
static PROGRAM: AtomicI32 = AtomicI32::new(0);
static TICKER: OnceLock<Ticker> = OnceLock::new();

/// Starts to listen.
pub(crate) fn listen() -> io::Result<()> {
    let ignored = ignored();
    let heard = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP];
    let heard: Vec<_> = heard.into_iter().filter(|signal| !ignored.contains(signal)).collect();
    for signal in &heard {
        flag::register(*signal, Arc::clone(&UNHEARD))?;
    }
    let mut signals = Signals::new(heard)?;
    thread::spawn(move || {
        loop {
            let came = signals.wait();
            let attended = ATTENDED.lock().unwrap_or_else(PoisonError::into_inner);
            UNHEARD.store(false, Ordering::SeqCst);
            came.for_each(|signal| hear(signal, *attended));
        }
    });
    Ok(())
}

/// Ends calls of crypto modules, too. For the one runtime of the process.
pub(crate) fn tick(ticker: Ticker) {
    let _ = TICKER.set(ticker);
}

/// For the runtime, before each call: a signal that came before a sandbox was made would go unnoticed in it.
pub(crate) fn remind() {
    if requested()
        && let Some(ticker) = TICKER.get()
    {
        ticker.tick();
    }
}

/// Whether to stop.
pub(crate) fn requested() -> bool {
    SIGNAL.load(Ordering::SeqCst) != 0
}

/// For use between the steps of long work.
pub(crate) fn check() -> Result<(), Interrupted> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(Interrupted(signal)),
    }
}

/// For work that ended because of a signal.
pub(crate) fn interrupted() -> Interrupted {
    check().err().unwrap_or(Interrupted(SIGINT))
}

/// Runs what may block for long and holds nothing: a signal ends the process at once.
pub(crate) fn blocking<T>(wait: impl FnOnce() -> io::Result<T>) -> Result<io::Result<T>, Interrupted> {
    BLOCKING.store(true, Ordering::SeqCst);
    let result = check().map(|()| wait());
    BLOCKING.store(false, Ordering::SeqCst);
    result
}

/// The signals that the caller lets this process ignore, as nohup does. They stay ignored, here and in the program that
/// `exec` becomes.
fn ignored() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|signal| mask >> (signal - 1) & 1 == 1).collect()
}

/// From now on, signals are for this program. `resized` is called when the terminal has another size.
pub(crate) fn is_for(program: Pid, resized: impl Fn() + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let heard = [SIGUSR1, SIGUSR2, SIGCONT, SIGALRM, SIGWINCH];
    let mut signals = Signals::new(heard.into_iter().filter(|signal| !ignored.contains(signal)))?;
    PROGRAM.store(program.as_raw_nonzero().get(), Ordering::SeqCst);
    thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGWINCH {
                resized();
            }
            pass_on(signal);
        }
    });
    // One that came before.
    if let Err(Interrupted(signal)) = check() {
        pass_on(signal);
    }
    Ok(())
}

/// The program has ended, and its number may be another one's soon.
pub(crate) fn is_for_none() {
    PROGRAM.store(0, Ordering::SeqCst);
}

/// Sends a signal to the program that is between this process and its caller, if there is one. What comes from the keyboard
/// has reached it already.
fn pass_on(signal: i32) -> bool {
    let Some(program) = Pid::from_raw(PROGRAM.load(Ordering::SeqCst)) else { return false };
    let from_keyboard = [SIGINT, SIGQUIT, SIGTSTP].contains(&signal) && is_in_foreground();
    if !from_keyboard && let Some(signal) = Signal::from_named_raw(signal) {
        let _ = kill_process(program, signal);
    }
    true
}

/// Whether the keyboard's signals reach this process, and with it the program.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

/// Runs what takes care of SIGINT and SIGQUIT itself. One that came before its end is not for this process even if the
/// listening thread gets to it later.
pub(crate) fn attended<T>(run: impl FnOnce() -> T) -> T {
    *ATTENDED.lock().unwrap_or_else(PoisonError::into_inner) = true;
    let result = run();
    loop {
        let mut attended = ATTENDED.lock().unwrap_or_else(PoisonError::into_inner);
        if !UNHEARD.load(Ordering::SeqCst) {
            *attended = false;
            return result;
        }
        drop(attended);
        thread::sleep(PAUSE);
    }
}

/// What the listening thread does with a signal.
fn hear(signal: i32, attended: bool) {
    if signal == SIGTSTP {
        pass_on(signal);
        prompt::restore();
        let _ = low_level::emulate_default_handler(signal);
        prompt::resume();
        pass_on(SIGCONT);
        return;
    }
    if pass_on(signal) || (attended && [SIGINT, SIGQUIT].contains(&signal)) {
        return;
    }
    let before = SIGNAL.swap(signal, Ordering::SeqCst);
    if before != 0 || BLOCKING.load(Ordering::SeqCst) {
        prompt::restore();
        scratch::remove();
        process::exit(Exit::Signal(signal).status().into());
    }
    if let Some(ticker) = TICKER.get() {
        ticker.tick();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_signal_for_an_editor_is_not_for_the_command_later() {
        listen().unwrap();
        for _ in 0..20 {
            // It comes when the editor has as good as ended, before the listening thread can have seen it.
            attended(|| low_level::raise(SIGINT)).unwrap();
            while UNHEARD.load(Ordering::SeqCst) {
                thread::sleep(PAUSE);
            }
            thread::sleep(PAUSE);
            assert!(!requested(), "the signal was for the editor");
        }
    }
}
