//! Modules that misbehave: each is an ordinary error, and the next call works.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{CHEAP, STRIPE};
use omni_credentials_host::{Config, Digest, Error, ErrorCode, Failure, Kek, Module, Runtime};

/// A runtime that ends every call soon: the interrupt is always wanted, and a thread ticks.
fn impatient() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let config = Config { interrupt: Some(|| true), ..Config::default() };
        let runtime = Runtime::new(config).unwrap();
        let ticker = runtime.ticker();
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(50));
                ticker.tick();
            }
        });
        runtime
    })
}

fn load_into(runtime: &Runtime, name: &str) -> Result<Module, Error> {
    let wasm = common::wasm(&format!("hostile/{name}"));
    runtime.load(&wasm, &Digest::of(&wasm))
}

fn load(name: &str) -> Result<Module, Error> {
    load_into(common::runtime(), name)
}

fn kek() -> Kek {
    Kek::from_bytes(&[7; 32])
}

fn open(module: &Module) -> Result<(), Error> {
    module.unlock(b"", &kek())?.open(&STRIPE, None, b"").map(drop)
}

/// A trap in a call of this export, for any reason but those that have errors of their own.
fn is_trap(error: &Error) -> bool {
    matches!(error, Error::Trap { .. })
}

/// The host is as good as before: a module that ships works, and so does one that was just loaded.
fn next_call_works() {
    let module = common::load(common::MODULES[0]);
    let made = module.create_keyring(b"one", CHEAP).unwrap();
    let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
    let sealed = keyring.seal(&STRIPE, None, b"value").unwrap();
    assert_eq!(*keyring.open(&STRIPE, None, &sealed).unwrap(), b"value");
}

#[test]
fn an_empty_module_refuses() {
    let module = load("empty").unwrap();
    let refused = Error::Refused(Failure { code: ErrorCode::Other, line: 0, found: 0 });
    assert_eq!(open(&module), Err(refused));
    assert_eq!(module.describe().unwrap().name, "");
    assert!(matches!(module.check(), Err(Error::WrongContract { .. })));
}

#[test]
fn traps_are_errors_and_the_keyring_recovers() {
    for name in [
        "trap",
        "trap-in-post-return",
        "divide-by-zero",
        "out-of-bounds",
        "wrong-indirect-call",
        "recursion",
        "recursion-fat",
        "table-bomb",
        "entropy-bomb",
        "list-endless",
        "list-outside",
        "list-wrapping",
        "list-too-long",
        "result-outside",
        "result-unaligned",
        "result-of-no-case",
        "error-of-no-case",
        "handle-bomb",
    ] {
        let module = load(name).unwrap();
        let mut keyring = module.unlock(b"", &kek()).unwrap_or_else(|error| panic!("{name}: {error}"));
        for round in 1..4 {
            match keyring.open(&STRIPE, None, b"") {
                Err(Error::Trap { export, reason }) => {
                    assert_eq!(export, "encryption.keyring.open", "{name}");
                    assert!(!reason.is_empty() && reason.len() < 300, "{name}: {reason}");
                }
                // What is returned before the post-return function traps is not believed either.
                other => panic!("{name}: {other:?}"),
            }
            assert_eq!(keyring.instantiations(), round, "{name}");
        }
        next_call_works();
    }
}

#[test]
fn every_export_may_trap() {
    let module = load("trap").unwrap();
    assert!(is_trap(&module.describe().unwrap_err()));
    assert!(is_trap(&module.create_keyring(b"one", None).unwrap_err()));
    assert!(is_trap(&module.derive_kek(b"one", b"").unwrap_err()));
    assert!(is_trap(&module.rewrap(b"", &kek(), b"two", None).unwrap_err()));
    assert!(is_trap(&module.generate_master_key().unwrap_err()));
    let mut keyring = module.unlock(b"", &kek()).unwrap();
    assert!(is_trap(&keyring.seal(&STRIPE, None, b"").unwrap_err()));
    assert!(is_trap(&keyring.seal(&STRIPE, None, &[0; 100_000]).unwrap_err()));
    assert!(is_trap(&keyring.key_of(b"").unwrap_err()));
    assert!(is_trap(&keyring.to_bytes().unwrap_err()));
    assert!(is_trap(&keyring.add_key().unwrap_err()));
    assert!(is_trap(&keyring.unite(b"", &kek()).unwrap_err()));
    let mut primitives = module.primitives().unwrap();
    assert!(is_trap(&primitives.aead_open(b"", b"", b"", b"").unwrap_err()));
    assert!(is_trap(&module.primitives().unwrap().hkdf_sha256(b"", b"", b"", 1).unwrap_err()));
    assert!(is_trap(&module.check().unwrap_err()));
    for file in [b"".as_slice(), b"omni-credentials 1\n"] {
        assert!(is_trap(&module.files().unwrap().create(file).unwrap_err()));
        assert!(is_trap(&module.files().unwrap().parse(file).unwrap_err()));
        assert!(is_trap(&module.files().unwrap().parse_unsealed(file).unwrap_err()));
    }
    // A store that trapped stays dead, and says so each time.
    let mut files = module.files().unwrap();
    assert!(is_trap(&files.parse(b"").unwrap_err()));
    assert!(is_trap(&files.unlock(b"", &kek()).unwrap_err()));
    next_call_works();
}

#[test]
fn traps_before_the_first_call() {
    assert!(is_trap(&open(&load("trap-in-start").unwrap()).unwrap_err()));
    assert!(is_trap(&open(&load("trap-in-unlock").unwrap()).unwrap_err()));
    assert!(is_trap(&open(&load("trap-in-realloc").unwrap()).unwrap_err()));
    next_call_works();
}

#[test]
fn memory_has_an_end() {
    for name in ["memory-bomb", "memory-bomb-touched"] {
        let module = load(name).unwrap();
        let expected = |export, limit_mib| Err(Error::OutOfMemory { export, limit_mib });
        assert_eq!(open(&module), expected("encryption.keyring.open", 8), "{name}");
        let derived = module.derive_kek(b"one", b"").map(drop);
        assert_eq!(derived, expected("key-derivation.derive-kek", 1024), "{name}");
        next_call_works();
    }
    let result = open(&load("memory-at-start").unwrap());
    assert_eq!(result, Err(Error::OutOfMemory { export: "instantiation", limit_mib: 8 }));
    next_call_works();
}

#[test]
fn a_store_is_counted_as_a_whole() {
    let result = open(&load("memories-together").unwrap());
    assert_eq!(result, Err(Error::OutOfMemory { export: "instantiation", limit_mib: 8 }));
    for (name, what) in [
        ("memories-too-many", "memory"),
        ("tables-too-many", "table"),
        ("table-at-start", "table"),
        ("instances-too-many", "instance"),
    ] {
        match open(&load(name).unwrap()) {
            Err(Error::Trap { export: "instantiation", reason }) => {
                assert!(reason.contains(what), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    next_call_works();
}

#[test]
fn loops_end_when_asked() {
    for name in ["loop", "loop-in-realloc", "loop-in-post-return", "loop-in-start", "loop-asking-for-entropy"]
    {
        let module = load_into(impatient(), name).unwrap();
        for _ in 0..3 {
            assert_eq!(open(&module), Err(Error::Interrupted), "{name}");
        }
        next_call_works();
    }
    let module = load_into(impatient(), "loop-filling-memory").unwrap();
    assert_eq!(module.derive_kek(b"", b"").map(drop), Err(Error::Interrupted));
    assert_eq!(module.check(), Err(Error::Interrupted));
    next_call_works();
}

static WANTED: AtomicBool = AtomicBool::new(false);

#[test]
fn a_tick_without_a_wish_changes_nothing_and_a_wish_is_not_lost() {
    let interrupt: fn() -> bool = || WANTED.load(Ordering::SeqCst);
    let runtime = Runtime::new(Config { interrupt: Some(interrupt), ..Config::default() }).unwrap();
    let wasm = common::wasm(common::MODULES[0]);
    let module = runtime.load(&wasm, &Digest::of(&wasm)).unwrap();
    let made = module.create_keyring(b"one", CHEAP).unwrap();
    let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
    let sealed = keyring.seal(&STRIPE, None, b"value").unwrap();
    let ticker = runtime.ticker();
    for _ in 0..1000 {
        ticker.tick();
        keyring.open(&STRIPE, None, &sealed).unwrap();
    }
    assert_eq!(keyring.instantiations(), 1);
    // The tick comes between two calls; the next call is the one that ends.
    WANTED.store(true, Ordering::SeqCst);
    ticker.tick();
    assert_eq!(keyring.open(&STRIPE, None, &sealed).map(drop), Err(Error::Interrupted));
    WANTED.store(false, Ordering::SeqCst);
    assert_eq!(*keyring.open(&STRIPE, None, &sealed).unwrap(), b"value");
    assert_eq!(keyring.instantiations(), 2);
}

#[test]
fn absurd_answers_are_not_believed() {
    let derived = load("list-endless").unwrap().derive_kek(b"", b"").map(drop);
    assert!(is_trap(&derived.unwrap_err()));
    let derived = load("kek-too-short").unwrap().derive_kek(b"", b"").map(drop);
    assert!(matches!(derived, Err(Error::WrongContract { .. })), "{derived:?}");
    for name in ["description-not-utf8", "description-endless", "result-outside", "result-unaligned"] {
        assert!(is_trap(&load(name).unwrap().describe().unwrap_err()), "{name}");
    }
    for name in ["entries-endless", "entries-many"] {
        let mut files = load(name).unwrap().files().unwrap();
        let document = files.create(b"").unwrap();
        match files.entries(document) {
            Err(Error::Trap { .. }) => {}
            other => panic!("{name}: {:?}", other.map(|entries| entries.len())),
        }
    }
    next_call_works();
}

#[test]
fn resources_are_the_hosts() {
    assert!(is_trap(&open(&load("handle-made-up").unwrap()).unwrap_err()));
    assert!(is_trap(&open(&load("handle-dropped-before-return").unwrap()).unwrap_err()));
    let module = load("handle-returned-twice").unwrap();
    let mut files = module.files().unwrap();
    files.unlock(b"", &kek()).unwrap();
    assert!(is_trap(&files.unlock(b"", &kek()).unwrap_err()));
    next_call_works();
}

#[test]
fn lies_fail_the_check() {
    let module = load("constant-value").unwrap();
    assert_eq!(*module.unlock(b"", &kek()).unwrap().open(&STRIPE, None, b"").unwrap(), [0; 32]);
    assert!(module.check().is_err());
}

#[test]
fn other_imports_are_refused_by_name() {
    for (name, import) in [
        ("imports-a-clock", "clock"),
        ("imports-a-function", "run-command"),
        ("imports-more-of-random", "wasi:random/random@0.2.3#get-random-u64"),
        ("imports-random-of-wasi-0-4", "wasi:random/random@0.4.0"),
        ("imports-the-types", "omni:credentials/types@1.0.0"),
    ] {
        match load(name).err() {
            Some(Error::ForbiddenImport(found)) => assert!(found.contains(import), "{found}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn entropy_of_wasi_0_3_is_given() {
    let module = load("imports-random-of-wasi-0-3").unwrap();
    assert_eq!(module.imports(), ["wasi:random/random@0.3.1#get-random-bytes"]);
    let given = || *module.derive_kek(b"secret", b"").unwrap().as_bytes();
    assert_ne!(given(), given());
}

#[test]
fn other_contracts_are_refused_by_name() {
    for (name, export) in [
        ("lacks-an-interface", "omni:credentials/primitives"),
        ("lacks-a-function", "key-of"),
        ("has-another-type", "type mismatch"),
        ("is-of-another-version", "omni:credentials/"),
    ] {
        match load(name).and_then(|module| module.check()).err() {
            Some(Error::WrongContract { detail, .. }) => assert!(detail.contains(export), "{name}: {detail}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
