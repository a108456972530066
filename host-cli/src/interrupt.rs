//! Signals. The first SIGINT, SIGTERM, SIGHUP or SIGQUIT is remembered, and the work ends at its next safe point: locks
//! are freed and temporary files removed on the way out. The second ends the process. Before the process ends or stops, the
//! terminal is as it was before a prompt, and no edited text is left.

use std::io;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use omni_credentials_host::Ticker;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

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
static ATTENDED: AtomicBool = AtomicBool::new(false);
static TICKER: OnceLock<Ticker> = OnceLock::new();

/// Starts to listen.
pub(crate) fn listen() -> io::Result<()> {
    let ignored = ignored();
    let heard = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP];
    let mut signals = Signals::new(heard.into_iter().filter(|signal| !ignored.contains(signal)))?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGTSTP {
                prompt::restore();
                let _ = low_level::emulate_default_handler(signal);
                prompt::resume();
                continue;
            }
            if [SIGINT, SIGQUIT].contains(&signal) && ATTENDED.load(Ordering::SeqCst) {
                continue;
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

/// Runs what takes care of SIGINT and SIGQUIT itself.
pub(crate) fn attended<T>(run: impl FnOnce() -> T) -> T {
    ATTENDED.store(true, Ordering::SeqCst);
    let result = run();
    ATTENDED.store(false, Ordering::SeqCst);
    result
}
