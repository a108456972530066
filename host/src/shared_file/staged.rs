use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, Gid, Mode, OFlags};

use super::{FileFault, Place, Version, fault_of, io_fault};
use crate::{Digest, Error};

/// A name of at most so many bytes is in the names of the files staged for it.
const MAX_PLAIN: usize = 200;
/// So many bytes of a longer name are, followed by `~` and the SHA-256 of the name. With 215 bytes that is longer than any
/// short name, so no two names share staged files.
const MAX_CUT: usize = 150;
const RANDOM_DIGITS: usize = 16;

/// New contents of a file: written and synced, not yet visible. Dropped, they are discarded.
#[derive(Debug)]
pub struct Staged {
    place: Place,
    temporary: Option<OsString>,
    /// What the new contents were made from; `None` where no one read the file.
    made_from: Option<Option<Version>>,
}

impl Staged {
    /// Writes `bytes` to a new file beside `path` and syncs it. It has the mode and, where this process may give it away,
    /// the group of the file that it will replace; mode 0600 where there is none. Links in `path` are resolved as
    /// [`Place::open`] does.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; nothing is left behind.
    pub fn write(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        Self::write_at(&Place::open(path)?, bytes)
    }

    pub(super) fn write_at(place: &Place, bytes: &[u8]) -> Result<Self, Error> {
        write(place, bytes).map_err(|fault| place.error(fault))
    }

    pub(super) fn in_place_of(mut self, made_from: Option<Option<Version>>) -> Self {
        self.made_from = made_from;
        self
    }

    /// Replaces the file, in one step that survives a crash once this returns. A link that took the file's place meanwhile
    /// is replaced, not followed.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; where the rename failed, the file is as it was. [`Changed`](FileFault::Changed) where it is no
    /// longer the version that the new contents were made from.
    pub fn publish(mut self) -> Result<(), Error> {
        if let Some(made_from) = self.made_from {
            let now = self.place.version().map_err(|error| self.place.error(fault_of(error)))?;
            if now != made_from {
                return Err(self.place.error(FileFault::Changed));
            }
        }
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let folder = self.place.folder();
        let result = rustix::fs::renameat(folder, &temporary, folder, self.place.name());
        if result.is_err() {
            self.temporary = Some(temporary);
        }
        result.and_then(|()| self.place.sync_folder()).map_err(|error| self.place.error(fault_of(error)))
    }

    /// The file that will be replaced, without links.
    pub fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = self.place.remove_file(temporary);
        }
    }
}

/// Removes what was staged for a file and neither published nor discarded, because its writer died.
/// Only for the holder of the file's lock: no one else stages anything then.
pub(super) fn sweep(place: &Place) {
    let prefix = prefix(place.name());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::openat(place.folder(), ".", flags, Mode::empty()).and_then(Dir::new) else {
        return;
    };
    for entry in folder.flatten() {
        let name = entry.file_name().to_bytes();
        let random = name.strip_prefix(prefix.as_slice()).and_then(|rest| rest.strip_suffix(b".tmp"));
        if random.is_some_and(|it| it.len() == RANDOM_DIGITS && it.iter().all(u8::is_ascii_hexdigit)) {
            let _ = place.remove_file(OsStr::from_bytes(name));
        }
    }
}

fn write(place: &Place, bytes: &[u8]) -> Result<Staged, FileFault> {
    let replaced = place.existing()?;
    let temporary = temporary(place)?;
    let mut file = place.create_file(&temporary, 0o600).map_err(fault_of)?;
    let staged = Staged { place: place.clone(), temporary: Some(temporary), made_from: None };
    if let Some(replaced) = replaced {
        let own = rustix::fs::fstat(&file).map_err(fault_of)?;
        let group = Gid::from_raw(replaced.st_gid);
        let kept = own.st_gid == replaced.st_gid || rustix::fs::fchown(&file, None, Some(group)).is_ok();
        let mode = replaced.st_mode & 0o777;
        // What the group may do is not given to another one, beyond what all may.
        let mode = if kept { mode } else { mode & (0o707 | ((mode & 0o007) << 3)) };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(fault_of)?;
    }
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| io_fault(&error))?;
    Ok(staged)
}

/// A new name beside the file, of the sort that [`sweep`] removes.
pub(super) fn temporary(place: &Place) -> Result<OsString, FileFault> {
    let mut name = OsStr::from_bytes(&prefix(place.name())).to_owned();
    let random = getrandom::u64().map_err(|error| FileFault::Other(error.to_string()))?;
    name.push(format!("{random:0RANDOM_DIGITS$x}.tmp"));
    Ok(name)
}

/// What the names of all files staged for a file start with. Names have at most 255 bytes.
fn prefix(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let mut prefix = vec![b'.'];
    if name.len() <= MAX_PLAIN {
        prefix.extend_from_slice(name);
    } else {
        prefix.extend_from_slice(name.get(..MAX_CUT).unwrap_or(name));
        prefix.extend_from_slice(format!("~{}", Digest::of(name)).as_bytes());
    }
    prefix.push(b'.');
    prefix
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn fault<T: std::fmt::Debug>(result: Result<T, Error>) -> FileFault {
        match result.unwrap_err() {
            Error::File { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn is_visible_when_published() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"old").unwrap();
        let staged = Staged::write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        staged.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn keeps_mode_and_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        Staged::write(&path, b"new").unwrap().publish().unwrap();
        assert_eq!(mode(), 0o600);
        let given_away = std::os::unix::fs::chown(&path, None, Some(65534)).is_ok();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4664)).unwrap();
        Staged::write(&path, b"newer").unwrap().publish().unwrap();
        assert_eq!(mode(), 0o664, "neither the umask nor set-user-id");
        let group = std::os::unix::fs::MetadataExt::gid(&fs::metadata(&path).unwrap());
        assert_eq!(group == 65534, given_away);
    }

    #[test]
    fn replaces_a_link_that_came_later() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"old").unwrap();
        fs::write(at("precious"), b"precious").unwrap();
        let place = Place::open(&at("file")).unwrap();
        let staged = Staged::write_at(&place, b"new").unwrap();
        fs::remove_file(at("file")).unwrap();
        symlink("precious", at("file")).unwrap();
        assert_eq!(fault(Staged::write_at(&place, b"newer")), FileFault::Link);
        staged.publish().unwrap();
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
        assert!(!at("file").is_symlink());
        assert_eq!(names(folder.path()), ["file", "precious"]);
    }

    #[test]
    fn long_names_do_not_share_staged_files() {
        let folder = tempfile::tempdir().unwrap();
        let place = |last: &str| Place::open(&folder.path().join("n".repeat(210) + last)).unwrap();
        let staged = Staged::write_at(&place("a"), b"new").unwrap();
        sweep(&place("b"));
        assert_eq!(names(folder.path()).len(), 1);
        sweep(&place("a"));
        assert_eq!(names(folder.path()).len(), 0);
        drop(staged);
    }

    #[test]
    fn leaves_nothing_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        drop(Staged::write(&path, b"new").unwrap());
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn keeps_a_link_and_replaces_what_it_points_at() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        symlink("deep/file", folder.path().join("link")).unwrap();
        Staged::write(&folder.path().join("link"), b"new").unwrap().publish().unwrap();
        assert_eq!(fs::read(folder.path().join("deep/file")).unwrap(), b"new");
        assert!(folder.path().join("link").is_symlink());
        assert_eq!(names(&folder.path().join("deep")), ["file"]);
    }

    #[test]
    fn accepts_long_names_and_refuses_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        Staged::write(&path, b"new").unwrap().publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fault(Staged::write(folder.path(), b"new")), FileFault::IsDirectory);
        assert_eq!(fault(Staged::write(&folder.path().join("none/file"), b"")), FileFault::NoFolder);
    }

    #[test]
    fn a_failed_publish_discards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let staged = Staged::write(&path, b"new").unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(fault(staged.publish()), FileFault::IsDirectory);
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn reports_a_full_disk() {
        // Writing to /dev/full fails so; a file cannot be created beside it without being root, so
        // the conversion is what is tested.
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = full.write_all(b"x").unwrap_err();
        assert_eq!(io_fault(&error), FileFault::NoSpace);
    }
}
