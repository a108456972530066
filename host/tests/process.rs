//! What the runtime does to its process: nothing that stays.
//!
//! One test in a program of its own, for it looks at the whole process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::STRIPE;
use omni_credentials_host::{Config, Digest, Runtime};

/// Everything about signals: the handler of each, the alternate stack and what is blocked.
#[derive(Debug, PartialEq)]
struct Signals {
    handlers: BTreeMap<i32, (usize, i32)>,
    stack: (usize, usize, i32),
    blocked: String,
}

fn signals() -> Signals {
    let mut handlers = BTreeMap::new();
    for signal in 1..=64 {
        // SAFETY: an all-zero `sigaction` is a valid value, and a null new action only asks; the
        // pointer is to a local that outlives the call.
        let (answer, action) = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(signal, std::ptr::null(), &raw mut action), action)
        };
        if answer == 0 {
            handlers.insert(signal, (action.sa_sigaction, action.sa_flags));
        }
    }
    // SAFETY: as above: a null new stack only asks.
    let stack = unsafe {
        let mut stack: libc::stack_t = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
        (stack.ss_sp as usize, stack.ss_size, stack.ss_flags)
    };
    // Of this thread: the one that starts the tests blocks all signals for a moment. Not what is queued, for other processes
    // of the account count there.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let masks = ["SigBlk:", "SigIgn:", "SigCgt:"];
    let blocked = status.lines().filter(|line| masks.iter().any(|mask| line.starts_with(mask))).collect();
    Signals { handlers, stack, blocked }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// A line of /proc/self/status, in KiB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn nothing_stays() {
    let wasm = common::wasm(common::MODULES[0]);
    let evil = common::wasm("hostile/recursion");
    let bomb = common::wasm("hostile/memory-bomb-touched");
    let folder = tempfile::tempdir().unwrap();
    let (signals_before, threads_before) = (signals(), threads());
    assert!(signals_before.handlers.len() > 30);

    let config = Config { cache_dir: Some(folder.path().to_owned()), ..Config::default() };
    let runtime = Runtime::new(config).unwrap();
    let module = runtime.load(&wasm, &Digest::of(&wasm)).unwrap();
    let cheap = module.create_keyring(b"one", common::CHEAP).unwrap();
    let mut keyring = module.unlock(&cheap.keyring, &cheap.kek).unwrap();
    let sealed = keyring.seal(&STRIPE, None, b"value").unwrap();
    keyring.open(&STRIPE, None, &sealed).unwrap();

    // A key derivation of 64 MiB, and what is left of it. The heap of the test itself moves a bit.
    let (resident, address_space) = (memory("VmRSS:"), memory("VmSize:"));
    let costly = module.create_keyring(b"one", None).unwrap();
    module.derive_kek(b"one", &costly.keyring).unwrap();
    assert!(memory("VmHWM:") > resident + 60_000, "the derivation took its memory");
    assert!(memory("VmRSS:") < resident + 2_000, "{resident} KiB before, {} after", memory("VmRSS:"));
    assert!(memory("VmSize:") < address_space + 2_000, "its address space is given back");

    // Traps and refused memory take other ways through the engine.
    let evil = runtime.load(&evil, &Digest::of(&evil)).unwrap();
    evil.unlock(b"", &cheap.kek).unwrap().open(&STRIPE, None, b"").unwrap_err();
    let bomb = runtime.load(&bomb, &Digest::of(&bomb)).unwrap();
    bomb.derive_kek(b"", b"").unwrap_err();
    assert!(memory("VmRSS:") < resident + 4_000, "{resident} KiB before, {} after", memory("VmRSS:"));

    assert_eq!(threads(), threads_before);
    assert_eq!(signals(), signals_before);

    drop((keyring, module, evil, bomb, runtime));
    assert_eq!(threads(), threads_before);
    assert_eq!(signals(), signals_before);
}
