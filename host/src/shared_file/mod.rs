//! Files that several processes and hosts share.
//!
//! A writer takes the [`Lock`], reads ([`Lock::read`]), works out the new contents, writes them ([`Lock::stage`]) and
//! makes them visible with [`Staged::publish`]. All of that happens in one [`Place`], whose path is resolved once.
//! Readers need no lock: they see the old file or the new one, whole.

mod holder;
mod lock;
mod place;
mod staged;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::Error;
pub use crate::error::FileFault;
pub use lock::Lock;
pub use place::Place;
pub use staged::Staged;

/// Reads a regular file of at most `max_bytes`. Symbolic links of any account are followed: this is for files
/// that the user of this process names. [`Place::read`] is for a server.
///
/// # Errors
///
/// [`Error::File`]: a missing file or folder, what is not a regular file (nothing is read from it, and a
/// pipe does not block), a longer file.
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened
        .map_err(|error| match io_fault(&error) {
            FileFault::NotFound if !folder_of(path).exists() => FileFault::NoFolder,
            fault => fault,
        })
        .and_then(|file| read_opened(file, max_bytes))
        .map(|(bytes, _)| bytes)
        .map_err(|fault| Error::File { path: path.to_owned(), fault })
}

/// Which version of a file a process saw: its length, and when it was modified in nanoseconds. Not its inode, which
/// some file systems of containers number differently each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    length: i64,
    modified: (i64, i64),
}

fn read_opened(file: File, max_bytes: u64) -> Result<(Vec<u8>, Version), FileFault> {
    let metadata = file.metadata().map_err(|error| io_fault(&error))?;
    if metadata.is_dir() {
        return Err(FileFault::IsDirectory);
    }
    if !metadata.is_file() {
        return Err(FileFault::NotRegular);
    }
    // From before it is read: what is written meanwhile makes another version.
    let version = Version {
        length: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(max_bytes)).unwrap_or(0));
    // It may grow while it is read, so the length that counts is that of what was read.
    let read = file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes);
    let read = read.map_err(|error| io_fault(&error))?;
    if u64::try_from(read).is_ok_and(|read| read <= max_bytes) {
        Ok((bytes, version))
    } else {
        Err(FileFault::TooLong { max: max_bytes })
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn fault_of(error: rustix::io::Errno) -> FileFault {
    io_fault(&error.into())
}

fn io_fault(error: &io::Error) -> FileFault {
    match error.kind() {
        ErrorKind::NotFound => FileFault::NotFound,
        ErrorKind::NotADirectory => FileFault::NoFolder,
        ErrorKind::IsADirectory => FileFault::IsDirectory,
        ErrorKind::PermissionDenied => FileFault::NoPermission,
        ErrorKind::ReadOnlyFilesystem => FileFault::ReadOnly,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FileFault::NoSpace,
        _ if error.raw_os_error() == Some(libc::ELOOP) => FileFault::LinkLoop,
        _ if error.raw_os_error() == Some(libc::ENXIO) => FileFault::NotRegular,
        _ => FileFault::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn fault<T: std::fmt::Debug>(result: Result<T, Error>) -> FileFault {
        match result.unwrap_err() {
            Error::File { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"1234").unwrap();
        assert_eq!(read(&path, 4), Ok(b"1234".to_vec()));
        assert_eq!(fault(read(&path, 3)), FileFault::TooLong { max: 3 });
        symlink("file", folder.path().join("link")).unwrap();
        assert_eq!(read(&folder.path().join("link"), u64::MAX), Ok(b"1234".to_vec()));
    }

    #[test]
    fn says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(fault(read(folder.path(), 9)), FileFault::IsDirectory);
        assert_eq!(fault(read(&at("none"), 9)), FileFault::NotFound);
        assert_eq!(fault(read(&at("none/file"), 9)), FileFault::NoFolder);
        fs::write(at("file"), b"").unwrap();
        assert_eq!(fault(read(&at("file/file"), 9)), FileFault::NoFolder);
        assert_eq!(fault(read(Path::new("/dev/null"), 9)), FileFault::NotRegular);
        let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(fault(read(&at("socket"), 9)), FileFault::NotRegular);
        drop(socket);
        symlink("loop", at("loop")).unwrap();
        assert_eq!(fault(read(&at("loop"), 9)), FileFault::LinkLoop);
    }
}
