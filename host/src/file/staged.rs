use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{FileFault, folder_of, into_fault, resolve, sync_folder};
use crate::Error;

/// New contents of a file: written and synced, not yet visible. Dropped, they are discarded.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    temporary: Option<PathBuf>,
}

impl Staged {
    /// Writes `bytes` to a new file of mode 0600 beside `path` and syncs it. Where `path` is a symbolic
    /// link, the file it points at is the one that will be replaced.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; nothing is left behind.
    pub fn write(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let path = resolve(path)?;
        let staged = write(&path, bytes);
        staged.map_err(|fault| Error::File { path, fault })
    }

    /// Replaces the file, in one step that survives a crash once this returns.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; where the rename failed, the file is as it was.
    pub fn publish(mut self) -> Result<(), Error> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let result = fs::rename(&temporary, &self.path);
        if result.is_err() {
            self.temporary = Some(temporary);
        }
        result
            .and_then(|()| sync_folder(&self.path))
            .map_err(|error| Error::File { path: self.path.clone(), fault: into_fault(&self.path)(error) })
    }

    /// The file that will be replaced, with links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Removes what was staged for `path` and neither published nor discarded, because its writer died.
/// Only for who holds the lock of `path`: nobody else stages anything then.
pub(super) fn sweep(path: &Path) {
    let Some(prefix) = path.file_name().map(prefix) else { return };
    let Ok(folder) = fs::read_dir(folder_of(path)) else { return };
    for file in folder.flatten() {
        let name = file.file_name();
        let random = name.as_bytes().strip_prefix(prefix.as_slice());
        if random.and_then(|rest| rest.strip_suffix(b".tmp")).is_some_and(|random| random.len() == 16) {
            let _ = fs::remove_file(file.path());
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<Staged, FileFault> {
    if path.is_dir() {
        return Err(FileFault::IsDirectory);
    }
    let temporary = temporary(path).map_err(into_fault(path))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .map_err(into_fault(path))?;
    let staged = Staged { path: path.to_owned(), temporary: Some(temporary) };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(into_fault(path))?;
    Ok(staged)
}

/// A new name beside `path`, of the sort that [`sweep`] removes.
pub(super) fn temporary(path: &Path) -> io::Result<PathBuf> {
    let mut name = prefix(path.file_name().ok_or(io::ErrorKind::IsADirectory)?);
    let random = getrandom::u64().map_err(io::Error::other)?;
    name.extend_from_slice(format!("{random:016x}.tmp").as_bytes());
    Ok(folder_of(path).join(OsStr::from_bytes(&name)))
}

/// What the names of all files staged for a file start with. Names have at most 255 bytes.
fn prefix(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let mut prefix = vec![b'.'];
    prefix.extend_from_slice(name.get(..200).unwrap_or(name));
    prefix.push(b'.');
    prefix
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

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
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["file"]);
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
        assert_eq!(into_fault(Path::new("/dev/full"))(error), FileFault::NoSpace);
    }
}
