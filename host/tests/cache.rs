//! The cache of compiled modules: what is kept, and what is never run.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{CHEAP, MODULES, STRIPE};
use omni_credentials_host::{Config, Digest, Error, Module, Runtime};

/// Loads the first module; says whether its bytes were asked for, which is to say compiled.
fn load(folder: &Path, warn: Option<fn(&str)>) -> (Module, bool) {
    let config = Config { cache_dir: Some(folder.to_owned()), warn, ..Config::default() };
    let wasm = common::wasm(MODULES[0]);
    let mut compiled = false;
    let module = Runtime::new(config)
        .unwrap()
        .load_with(&Digest::of(&wasm), || {
            compiled = true;
            Ok(wasm)
        })
        .unwrap();
    (module, compiled)
}

fn works(module: &Module) {
    let made = module.create_keyring(b"one", CHEAP).unwrap();
    let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
    let sealed = keyring.seal(&STRIPE, None, b"value").unwrap();
    assert_eq!(*keyring.open(&STRIPE, None, &sealed).unwrap(), b"value");
}

fn artifact(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let only = files.next().unwrap();
    assert_eq!(files.next(), None, "one artifact and no temporary file");
    only
}

fn unexpected(message: &str) {
    panic!("{message}");
}

#[test]
fn is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made/by/the/runtime");
    assert!(load(&folder, Some(unexpected)).1);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(artifact(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
    let (module, compiled) = load(&folder, Some(unexpected));
    assert!(!compiled);
    works(&module);
}

#[test]
fn a_failing_fetch_is_the_callers_error() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { cache_dir: Some(folder.path().to_owned()), ..Config::default() };
    let failure = Error::Engine("no such row".to_owned());
    let result = Runtime::new(config).unwrap().load_with(&Digest::of(b""), || Err(failure.clone()));
    assert_eq!(result.err(), Some(failure));
}

#[test]
fn damaged_artifacts_are_compiled_again_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    load(folder.path(), None);
    let path = artifact(folder.path());
    let good = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut longer = good.clone();
    longer.push(0);
    let damaged = [
        Vec::new(),
        good[..10].to_vec(),
        good[..60].to_vec(),
        good[..good.len() - 1].to_vec(),
        longer,
        flipped(0),
        flipped(15),
        flipped(20),
        flipped(48),
        flipped(good.len() / 2),
        flipped(good.len() - 1),
    ];
    for (case, bytes) in damaged.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let (module, compiled) = load(folder.path(), Some(unexpected));
        assert!(compiled, "case {case}");
        works(&module);
        assert!(!load(folder.path(), Some(unexpected)).1, "case {case} was replaced");
    }
}

#[test]
fn the_artifact_of_another_module_or_engine_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    load(folder.path(), None);
    let first = artifact(folder.path());
    let wasm = common::wasm(MODULES[1]);
    let second = Digest::of(&wasm);
    let name = first.file_name().unwrap().to_str().unwrap();
    let (_, engine) = name.split_once('-').unwrap();
    fs::copy(&first, folder.path().join(format!("{second}-{engine}"))).unwrap();
    let config = Config { cache_dir: Some(folder.path().to_owned()), ..Config::default() };
    let mut compiled = false;
    let module = Runtime::new(config)
        .unwrap()
        .load_with(&second, || {
            compiled = true;
            Ok(wasm)
        })
        .unwrap();
    assert!(compiled);
    assert_eq!(module.describe().unwrap().name, MODULES[1]);

    // An artifact of another engine has another name; given this one's name, its sum is wrong.
    let other = folder.path().join(name.replace(engine, "0123456789abcdef.native"));
    fs::rename(&first, &other).unwrap();
    assert!(load(folder.path(), None).1);
}

static WARNINGS: AtomicU32 = AtomicU32::new(0);

fn count(message: &str) {
    assert!(message.contains("compiles them again"), "{message}");
    WARNINGS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn what_others_can_write_is_not_run_and_said_once() {
    let warned = |folder: &Path| {
        WARNINGS.store(0, Ordering::Relaxed);
        let (module, compiled) = load(folder, Some(count));
        works(&module);
        assert!(compiled);
        WARNINGS.load(Ordering::Relaxed)
    };
    let folder = tempfile::tempdir().unwrap();
    load(folder.path(), None);
    let path = artifact(folder.path());

    fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
    assert_eq!(warned(folder.path()), 1);
    assert!(!load(folder.path(), Some(unexpected)).1, "and was replaced");

    let kept = folder.path().join("kept");
    fs::rename(&path, &kept).unwrap();
    symlink(&kept, &path).unwrap();
    assert_eq!(warned(folder.path()), 1);
    fs::remove_file(&kept).unwrap();
    assert!(!artifact(folder.path()).is_symlink());

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(warned(folder.path()), 1);
    fs::remove_dir(&path).unwrap();

    load(folder.path(), None);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o770)).unwrap();
    assert_eq!(warned(folder.path()), 1);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();

    let link = folder.path().with_extension("link");
    symlink(folder.path(), &link).unwrap();
    assert_eq!(warned(&link), 1);
    fs::remove_file(link).unwrap();

    // A folder that cannot be made.
    assert_eq!(warned(Path::new("/dev/null/cache")), 1);
    assert_eq!(warned(Path::new("/proc/cache")), 1);
}

#[test]
fn works_on_a_full_disk() {
    // A file size limit stands for it: writing fails in the middle of the artifact.
    let folder = tempfile::tempdir().unwrap();
    if let Some(folder) = std::env::var_os("OMNI_TEST_FULL") {
        WARNINGS.store(0, Ordering::Relaxed);
        let (module, compiled) = load(Path::new(&folder), Some(count));
        assert!(compiled);
        works(&module);
        assert_eq!(WARNINGS.load(Ordering::Relaxed), 1);
        return;
    }
    let test = std::env::current_exe().unwrap();
    let status = Command::new("sh")
        .args(["-c", "ulimit -f 64; trap '' XFSZ; exec \"$0\" --exact works_on_a_full_disk"])
        .arg(test)
        .env("OMNI_TEST_FULL", folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn processes_that_start_together_get_along() {
    let folder = tempfile::tempdir().unwrap();
    if let Some(folder) = std::env::var_os("OMNI_TEST_TOGETHER") {
        works(&load(Path::new(&folder), Some(unexpected)).0);
        return;
    }
    let children: Vec<_> = (0..4)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes_that_start_together_get_along"])
                .env("OMNI_TEST_TOGETHER", folder.path())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(!load(folder.path(), Some(unexpected)).1);
    artifact(folder.path());
}
