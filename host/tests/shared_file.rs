//! The lock of a file between processes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use omni_credentials_host::shared_file::{Lock, Staged, read};

const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: usize = 4;
const ROUNDS: usize = 50;

/// Runs this test again, in another process, with a role to play.
fn actor(test: &str, role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("OMNI_TEST_ROLE", role)
        .env("OMNI_TEST_FILE", path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn role() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var("OMNI_TEST_ROLE").ok()?, std::env::var_os("OMNI_TEST_FILE")?.into()))
}

fn count(path: &Path) -> usize {
    String::from_utf8(read(path, 100).unwrap()).unwrap().parse().unwrap()
}

/// Reads, adds one, writes: without a lock, additions are lost.
fn add_one(path: &Path) {
    let _lock = Lock::acquire(path, PATIENCE, None).unwrap();
    let next = count(path) + 1;
    Staged::write(path, next.to_string().as_bytes()).unwrap().publish().unwrap();
}

#[test]
fn no_update_is_lost() {
    if let Some((_, path)) = role() {
        (0..ROUNDS).for_each(|_| add_one(&path));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count");
    fs::write(&path, "0").unwrap();
    let writers: Vec<_> = (0..WRITERS).map(|_| actor("no_update_is_lost", "writer", &path)).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert_eq!(count(&path), WRITERS * ROUNDS);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no lock and no temporary file is left");
}

#[test]
fn no_update_is_lost_when_writers_die() {
    if let Some((role, path)) = role() {
        if role == "victim" {
            // Dies with the lock in hand and a file half way.
            let lock = Lock::acquire(&path, PATIENCE, None).unwrap();
            let staged = Staged::write(&path, b"999999").unwrap();
            std::mem::forget((lock, staged));
            std::process::abort();
        }
        (0..ROUNDS).for_each(|_| add_one(&path));
        return;
    }
    let test = "no_update_is_lost_when_writers_die";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count");
    fs::write(&path, "0").unwrap();
    let writers: Vec<_> = (0..WRITERS).map(|_| actor(test, "writer", &path)).collect();
    for _ in 0..10 {
        assert!(!actor(test, "victim", &path).wait().unwrap().success());
    }
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    add_one(&path);
    assert_eq!(count(&path), WRITERS * ROUNDS + 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what the dead staged is swept");
}
