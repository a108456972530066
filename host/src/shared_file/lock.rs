use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::holder::Holder;
use super::{FileFault, Place, Staged, Version, fault_of, io_fault, staged};
use crate::Error;

/// How long to wait between two looks at a lock that another holds.
const PAUSE: Duration = Duration::from_millis(10);
/// How many deaths in the middle of a takeover, one after another, do not need a person.
const TAKEOVERS: u32 = 3;
/// How many takeovers there can be in one wait without a pause between them.
const MAX_TAKEOVERS: u32 = 2 * TAKEOVERS + 2;
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
/// found the lock stale: as the holder is gone, no other process can remove the lock in
/// between, and none can create it while it is there. A process that dies in the few system calls
/// of a takeover leaves `NAME.lock.takeover` behind, which is then taken over in the same way, by
/// `NAME.lock.takeover.takeover`, and so on for a few levels.
///
/// A lock file appears with its text in it (it is linked into place), so that a process that dies while making one
/// leaves nothing that stands in the way.
#[derive(Debug)]
pub struct Lock {
    place: Place,
    lock: OsString,
    holder: Holder,
    /// Which version of the file was read last, if any: the one that new contents were made from.
    read: Cell<Option<Option<Version>>>,
}

impl Lock {
    /// Takes the lock of `path`, waiting up to `timeout` for its holder. While waiting,
    /// `interrupt` is asked every few milliseconds, and true ends the wait.
    ///
    /// Also removes what writers that died had staged and not published.
    ///
    /// # Errors
    ///
    /// [`Error::File`]: [`Locked`](FileFault::Locked) when the time is up,
    /// [`Interrupted`](FileFault::Interrupted), and whatever keeps a file from being created.
    pub fn acquire(path: &Path, timeout: Duration, interrupt: Option<fn() -> bool>) -> Result<Self, Error> {
        Self::acquire_at(Place::open(path)?, timeout, interrupt)
    }

    /// Takes the lock of a file whose path is resolved already.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_at(
        place: Place,
        timeout: Duration,
        interrupt: Option<fn() -> bool>,
    ) -> Result<Self, Error> {
        let lock = with_suffix(place.name(), ".lock");
        let holder = Holder::current();
        match wait(&place, &lock, &holder, timeout, interrupt) {
            Ok(()) => {
                // No one else may stage now: what exists is from the dead, or the lock of a process that waits,
                // and that then makes another.
                staged::sweep(&place);
                Ok(Self { place, lock, holder, read: Cell::new(None) })
            }
            Err(fault) => Err(place.error(fault)),
        }
    }

    /// Whether a process holds the lock of a file. A lock whose holder is certainly gone is not held.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where that cannot be seen.
    pub fn is_held(place: &Place) -> Result<bool, Error> {
        match read_holder(place, &with_suffix(place.name(), ".lock")) {
            Ok(found) => Ok(!found.is_some_and(|holder| holder.is_gone(place.is_local()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(place.error(io_fault(&error))),
        }
    }

    /// Reads the file that is locked.
    ///
    /// # Errors
    ///
    /// Those of [`Place::read`].
    pub fn read(&self, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let read = self.place.read_version(max_bytes);
        self.read.set(match &read {
            Ok((_, version)) => Some(Some(*version)),
            Err(FileFault::NotFound) => Some(None),
            Err(_) => None,
        });
        read.map(|(bytes, _)| bytes).map_err(|fault| self.place.error(fault))
    }

    /// Writes new contents beside the file that is locked. They take its place only while it is the version that
    /// [`read`](Self::read) gave last: other programs, such as git, do not take the lock.
    ///
    /// # Errors
    ///
    /// Those of [`Staged::write`].
    pub fn stage(&self, bytes: &[u8]) -> Result<Staged, Error> {
        Ok(Staged::write_at(&self.place, bytes)?.in_place_of(self.read.get()))
    }

    /// The file that is locked, without links.
    pub fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A forked child must not free its parent's lock, and a lock that a person removed may by
        // now belong to another process.
        if self.holder.is_this_process()
            && read_holder(&self.place, &self.lock).is_ok_and(|it| it.as_ref() == Some(&self.holder))
        {
            let _ = self.place.remove_file(&self.lock);
        }
    }
}

/// Every round but those of a takeover ends the wait, or asks `interrupt`, looks at the clock and pauses, whatever other processes do.
fn wait(
    place: &Place,
    lock: &OsStr,
    holder: &Holder,
    timeout: Duration,
    interrupt: Option<fn() -> bool>,
) -> Result<(), FileFault> {
    let started = Instant::now();
    let mut takeovers = MAX_TAKEOVERS;
    loop {
        if create(place, lock, holder)? {
            return Ok(());
        }
        let found = match read_holder(place, lock) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => None,
            Err(error) => return Err(io_fault(&error)),
            Ok(found) => found,
        };
        let stale = found.as_ref().is_some_and(|found| found.is_gone(place.is_local()));
        // Each takeover removes one file that a dead process left.
        if stale && takeovers > 0 && take_over(place, lock, holder, TAKEOVERS)? {
            takeovers -= 1;
            continue;
        }
        if interrupt.is_some_and(|interrupt| interrupt()) {
            return Err(FileFault::Interrupted);
        }
        if started.elapsed() >= timeout {
            // A takeover that a process died in is what stands in the way of a stale lock.
            let lock = if stale { with_suffix(lock, ".takeover") } else { lock.to_owned() };
            let holder = found.map_or_else(|| "an unknown process".to_owned(), |found| found.name());
            return Err(FileFault::Locked { holder, lock: place.sibling(&lock) });
        }
        thread::sleep(PAUSE);
    }
}

/// Creates a lock file; false when there is one.
fn create(place: &Place, lock: &OsStr, holder: &Holder) -> Result<bool, FileFault> {
    match rustix::fs::statat(place.folder(), lock, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => return Ok(false),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(fault_of(error)),
    }
    let temporary = staged::temporary(place)?;
    let linked = write_new(place, &temporary, holder).and_then(|()| {
        Ok(rustix::fs::linkat(place.folder(), &temporary, place.folder(), lock, AtFlags::empty())?)
    });
    let _ = place.remove_file(&temporary);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // Swept by a takeover in between: try again. A folder that is removed does not come back.
        Err(error) if error.kind() == ErrorKind::NotFound && place.folder_exists() => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(FileFault::NoFolder),
        Err(error) if has_no_links(&error) => match write_new(place, lock, holder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(io_fault(&error)),
        },
        Err(error) => Err(io_fault(&error)),
    }
}

fn write_new(place: &Place, name: &OsStr, holder: &Holder) -> io::Result<()> {
    let mut file = place.create_file(name, 0o644)?;
    file.write_all(holder.to_string().as_bytes()).inspect_err(|_| {
        // Of no use to any process: there is no space for its few bytes.
        let _ = place.remove_file(name);
    })
}

/// Whether the file system has no hard links. A link to a file of one's own is refused for no other reason.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK))
}

/// Removes a stale lock, by the protocol described at [`Lock`]; false when another process does.
fn take_over(place: &Place, lock: &OsStr, holder: &Holder, levels: u32) -> Result<bool, FileFault> {
    let takeover = with_suffix(lock, ".takeover");
    let is_local = place.is_local();
    if !create(place, &takeover, holder)? {
        let stale = levels > 0
            && read_holder(place, &takeover).is_ok_and(|found| found.is_some_and(|it| it.is_gone(is_local)));
        return if stale { take_over(place, &takeover, holder, levels - 1) } else { Ok(false) };
    }
    let result = match read_holder(place, lock) {
        Ok(Some(found)) if found.is_gone(is_local) => place.remove_file(lock).map_err(Into::into),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    place.remove_file(&takeover).map_err(fault_of)?;
    result.map(|()| true).map_err(|error| io_fault(&error))
}

/// Who holds the lock; none while the holder is still writing (where there are no links), or for what is not a
/// lock file.
fn read_holder(place: &Place, lock: &OsStr) -> io::Result<Option<Holder>> {
    let file = File::from(place.open_file(lock)?);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    match file.take(MAX_LOCK_FILE).read_to_string(&mut text) {
        Ok(_) => Ok(Holder::parse(&text)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn is_held(path: &Path) -> bool {
        Lock::is_held(&Place::open(path).unwrap()).unwrap()
    }

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
        assert!(is_held(&folder.path().join("link")));
        drop(lock);
        assert!(!is_held(&path));
        drop(Lock::acquire(&path, NOW, None).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the link is left");
    }

    #[test]
    fn takes_over_from_the_dead_and_sweeps_what_they_staged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.lock"), stale()).unwrap();
        assert!(!is_held(&path));
        let mine = Staged::write(&path, b"half").unwrap();
        std::mem::forget(mine);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let lock = Lock::acquire(&path, NOW, None).unwrap();
        assert_eq!(
            read_holder(&Place::open(&path).unwrap(), OsStr::new("file.lock")).unwrap(),
            Some(Holder::current())
        );
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
            assert!(is_held(&path), "{text}");
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
    fn waits_no_longer_than_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // There is a lock, and it cannot be read: that is no reason to try without end.
        symlink("nowhere", folder.path().join("file.lock")).unwrap();
        assert!(matches!(fault(Lock::acquire(&path, NOW, None)), FileFault::Locked { .. }));
        assert_eq!(
            fault(Lock::acquire(&path, Duration::from_secs(60), Some(|| true))),
            FileFault::Interrupted
        );
        assert!(!folder.path().join("nowhere").exists());
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
