use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::holder::Holder;
use super::{FileFault, into_fault, resolve, staged};
use crate::Error;

/// How long to wait between two looks at a lock that another holds.
const PAUSE: Duration = Duration::from_millis(10);
/// How many deaths in the middle of a takeover, one after another, do not need a person.
const TAKEOVERS: u32 = 3;
/// A lock file is shorter than this.
const MAX_LOCK_FILE: u64 = 4096;

/// The right to replace a file, shared by all hosts and processes: the file `NAME.lock` beside it,
/// created exclusively and removed on drop. It holds who holds the lock.
///
/// # A lock whose holder died
///
/// is taken over when the holder certainly ran on this machine and is certainly gone (see the text
/// of the lock file: process id and start, boot, namespace, machine). Without care two processes could both
/// find it stale, one remove it and take the lock, and the other then remove the new lock. So a stale lock may be
/// removed only by a process that created `NAME.lock.takeover` exclusively and then, with that in hand,
/// found the lock stale: as the holder is gone, nobody else can remove the lock in
/// between, and none can create it while it is there. A process that dies in the few system calls
/// of a takeover leaves `NAME.lock.takeover` behind, which is then taken over in the same way, by
/// `NAME.lock.takeover.takeover`, and so on for a few levels.
///
/// A lock file appears with its text in it (it is linked into place), so that whoever dies while making one
/// leaves nothing that stands in the way.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    lock: PathBuf,
    holder: Holder,
}

impl Lock {
    /// Takes the lock of `path`, waiting up to `timeout` for whoever holds it. While waiting,
    /// `interrupt` is asked every few milliseconds, and true ends the wait.
    ///
    /// Also removes what writers that died had staged and not published.
    ///
    /// # Errors
    ///
    /// [`Error::File`]: [`Locked`](FileFault::Locked) when the time is up,
    /// [`Interrupted`](FileFault::Interrupted), and whatever keeps a file from being created.
    pub fn acquire(path: &Path, timeout: Duration, interrupt: Option<fn() -> bool>) -> Result<Self, Error> {
        let path = resolve(path)?;
        let lock = with_suffix(&path, ".lock");
        let holder = Holder::current();
        match wait(&path, &lock, &holder, timeout, interrupt) {
            Ok(()) => {
                // Nobody else may stage now: what is there is from the dead, or the lock of somebody who waits,
                // and who then makes another.
                staged::sweep(&path);
                Ok(Self { path, lock, holder })
            }
            Err(fault) => Err(Error::File { path, fault }),
        }
    }

    /// Whether somebody holds the lock of `path`. A lock whose holder is certainly gone is held by nobody.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where that cannot be seen.
    pub fn is_held(path: &Path) -> Result<bool, Error> {
        let path = resolve(path)?;
        let lock = with_suffix(&path, ".lock");
        match read_holder(&lock) {
            Ok(found) => Ok(!found.is_some_and(|holder| holder.is_gone())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::File { fault: into_fault(&lock)(error), path }),
        }
    }

    /// The file that is locked, with links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A forked child must not free its parent's lock, and a lock that a person removed may by
        // now be somebody else's.
        if self.holder.is_this_process()
            && read_holder(&self.lock).is_ok_and(|it| it.as_ref() == Some(&self.holder))
        {
            let _ = fs::remove_file(&self.lock);
        }
    }
}

fn wait(
    path: &Path,
    lock: &Path,
    holder: &Holder,
    timeout: Duration,
    interrupt: Option<fn() -> bool>,
) -> Result<(), FileFault> {
    let started = Instant::now();
    loop {
        if create(path, lock, holder).map_err(into_fault(lock))? {
            return Ok(());
        }
        let found = match read_holder(lock) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(into_fault(lock)(error)),
            Ok(found) => found,
        };
        let stale = found.as_ref().is_some_and(Holder::is_gone);
        if stale && take_over(path, lock, holder, TAKEOVERS).map_err(into_fault(lock))? {
            continue;
        }
        if interrupt.is_some_and(|interrupt| interrupt()) {
            return Err(FileFault::Interrupted);
        }
        if started.elapsed() >= timeout {
            // A takeover that somebody died in is what stands in the way of a stale lock.
            let lock = if stale { with_suffix(lock, ".takeover") } else { lock.to_owned() };
            let holder = found.map_or_else(|| "an unknown process".to_owned(), |found| found.name());
            return Err(FileFault::Locked { holder, lock });
        }
        thread::sleep(PAUSE);
    }
}

/// Creates a lock file for `path`; false when there is one.
fn create(path: &Path, lock: &Path, holder: &Holder) -> io::Result<bool> {
    if lock.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let temporary = staged::temporary(path)?;
    let linked = write_new(&temporary, holder).and_then(|()| fs::hard_link(&temporary, lock));
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // Swept by a takeover in between: try again. A folder that is missing shows at the next look.
        Err(error) if error.kind() == ErrorKind::NotFound && path.parent().is_some_and(Path::exists) => {
            Ok(false)
        }
        Err(error) if has_no_links(&error) => match write_new(lock, holder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn write_new(path: &Path, holder: &Holder) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(holder.to_string().as_bytes()).inspect_err(|_| {
        // Ours, and of no use to anybody: there is no space for its few bytes.
        let _ = fs::remove_file(path);
    })
}

/// Whether the file system has no hard links. A link to a file of one's own is refused for no other reason.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK))
}

/// Removes a stale lock, by the protocol described at [`Lock`]; false when another is at it.
fn take_over(path: &Path, lock: &Path, holder: &Holder, levels: u32) -> io::Result<bool> {
    let takeover = with_suffix(lock, ".takeover");
    if !create(path, &takeover, holder)? {
        let stale =
            levels > 0 && read_holder(&takeover).is_ok_and(|found| found.is_some_and(|it| it.is_gone()));
        return if stale { take_over(path, &takeover, holder, levels - 1) } else { Ok(false) };
    }
    let result = match read_holder(lock) {
        Ok(Some(found)) if found.is_gone() => fs::remove_file(lock),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    fs::remove_file(&takeover)?;
    result.map(|()| true)
}

/// Who holds the lock; none while the holder is still writing (where there are no links), or for what is not a
/// lock file.
fn read_holder(lock: &Path) -> io::Result<Option<Holder>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(lock)?;
    let mut text = String::new();
    match file.take(MAX_LOCK_FILE).read_to_string(&mut text) {
        Ok(_) => Ok(Holder::parse(&text)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn fault(result: Result<Lock, Error>) -> FileFault {
        match result {
            Err(Error::File { fault, .. }) => fault,
            other => panic!("{other:?}"),
        }
    }

    /// The text of a lock that a process held which is gone now.
    fn stale() -> String {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let here = Holder::current().to_string();
        here.replace(&format!("pid {}\n", std::process::id()), &format!("pid {pid}\n"))
    }

    #[test]
    fn excludes_and_is_freed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        symlink("file", folder.path().join("link")).unwrap();
        let lock = Lock::acquire(&path, NOW, None).unwrap();
        match fault(Lock::acquire(&folder.path().join("link"), Duration::from_millis(30), None)) {
            FileFault::Locked { holder, lock } => {
                assert!(holder.starts_with(&format!("process {} on host ", std::process::id())), "{holder}");
                assert!(lock.ends_with("file.lock"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            fault(Lock::acquire(&path, Duration::from_secs(60), Some(|| true))),
            FileFault::Interrupted
        );
        assert!(Lock::is_held(&folder.path().join("link")).unwrap());
        drop(lock);
        assert!(!Lock::is_held(&path).unwrap());
        drop(Lock::acquire(&path, NOW, None).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the link is left");
    }

    #[test]
    fn takes_over_from_the_dead_and_sweeps_what_they_staged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.lock"), stale()).unwrap();
        assert!(!Lock::is_held(&path).unwrap());
        let mine = super::super::Staged::write(&path, b"half").unwrap();
        std::mem::forget(mine);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let lock = Lock::acquire(&path, NOW, None).unwrap();
        assert_eq!(read_holder(&folder.path().join("file.lock")).unwrap(), Some(Holder::current()));
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn leaves_what_it_cannot_judge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let lock = folder.path().join("file.lock");
        let elsewhere = stale().replace("\nhost ", "\nhost not-");
        for text in ["", "nonsense", "omni-credentials lock 1\n", elsewhere.as_str()] {
            fs::write(&lock, text).unwrap();
            assert!(matches!(fault(Lock::acquire(&path, NOW, None)), FileFault::Locked { .. }), "{text}");
            assert_eq!(fs::read_to_string(&lock).unwrap(), text);
            assert!(Lock::is_held(&path).unwrap(), "{text}");
        }
        fs::write(&lock, b"\xff").unwrap();
        assert!(matches!(fault(Lock::acquire(&path, NOW, None)), FileFault::Locked { .. }));
    }

    #[test]
    fn takes_over_a_takeover_that_was_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.lock"), stale()).unwrap();
        fs::write(folder.path().join("file.lock.takeover"), stale()).unwrap();
        fs::write(folder.path().join("file.lock.takeover.takeover"), stale()).unwrap();
        drop(Lock::acquire(&path, NOW, None).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_a_takeover_that_it_cannot_judge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.lock"), stale()).unwrap();
        fs::write(folder.path().join("file.lock.takeover"), "nonsense").unwrap();
        match fault(Lock::acquire(&path, NOW, None)) {
            FileFault::Locked { lock, .. } => assert!(lock.ends_with("file.lock.takeover")),
            other => panic!("{other:?}"),
        }
        assert!(folder.path().join("file.lock").exists());
    }

    #[test]
    fn a_lock_file_is_never_seen_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let lock = folder.path().join("file.lock");
        thread::scope(|scope| {
            scope.spawn(|| {
                (0..200).for_each(|_| drop(Lock::acquire(&path, Duration::from_secs(9), None).unwrap()));
            });
            for _ in 0..2000 {
                if let Ok(text) = fs::read_to_string(&lock) {
                    assert_eq!(Holder::parse(&text), Some(Holder::current()));
                }
            }
        });
    }

    #[test]
    fn frees_only_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let lock = Lock::acquire(&path, NOW, None).unwrap();
        fs::write(folder.path().join("file.lock"), "of somebody else").unwrap();
        drop(lock);
        assert!(folder.path().join("file.lock").exists());
    }

    #[test]
    fn needs_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(fault(Lock::acquire(&folder.path().join("none/file"), NOW, None)), FileFault::NoFolder);
    }
}
