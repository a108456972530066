//! Files that several processes and hosts share.
//!
//! A writer takes the [`Lock`], reads, works out the new contents, writes them with [`Staged::write`],
//! and makes them visible with [`Staged::publish`]. Readers need no lock: they see the old file or
//! the new one, whole.

mod holder;
mod lock;
mod staged;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::Error;
pub use crate::error::FileFault;
pub use lock::Lock;
pub use staged::Staged;

/// Reads a regular file of at most `max_bytes`. Symbolic links are followed.
///
/// # Errors
///
/// [`Error::File`]: a missing file or folder, what is not a regular file (nothing is read from it, and a
/// pipe does not block), a longer file.
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let inner = || {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(into_fault(path))?;
        let metadata = file.metadata().map_err(into_fault(path))?;
        if metadata.is_dir() {
            return Err(FileFault::IsDirectory);
        }
        if !metadata.is_file() {
            return Err(FileFault::NotRegular);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(max_bytes)).unwrap_or(0));
        // It may grow while it is read, so the length that counts is that of what was read.
        let read =
            file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(into_fault(path))?;
        if u64::try_from(read).is_ok_and(|read| read <= max_bytes) {
            Ok(bytes)
        } else {
            Err(FileFault::TooLong { max: max_bytes })
        }
    };
    inner().map_err(|fault| Error::File { path: path.to_owned(), fault })
}

/// The file that `path` stands for: links are followed, so that whoever comes by another name locks
/// and replaces the same file. The file itself need not exist, its folder must.
///
/// # Errors
///
/// [`Error::File`].
pub fn resolve(path: &Path) -> Result<PathBuf, Error> {
    resolve_fault(path).map_err(|fault| Error::File { path: path.to_owned(), fault })
}

fn resolve_fault(path: &Path) -> Result<PathBuf, FileFault> {
    let mut path = path.to_owned();
    // A link may point at what does not exist yet, which `canonicalize` refuses.
    for _ in 0..40 {
        match path.canonicalize() {
            Ok(real) => return Ok(real),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(into_fault(&path)(error)),
            Err(_) => {}
        }
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => {
                let name = path.file_name().ok_or(FileFault::IsDirectory)?;
                let folder = folder_of(&path).canonicalize().map_err(into_fault(&path))?;
                return Ok(folder.join(name));
            }
        }
    }
    Err(FileFault::LinkLoop)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn into_fault(path: &Path) -> impl Fn(io::Error) -> FileFault {
    move |error| match error.kind() {
        ErrorKind::NotFound if !folder_of(path).exists() => FileFault::NoFolder,
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
        assert_eq!(fault(resolve(&at("loop"))), FileFault::LinkLoop);
    }

    #[test]
    fn resolves_links_to_what_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("deep")).unwrap();
        symlink("deep/file", real.join("link")).unwrap();
        symlink("link", real.join("link2")).unwrap();
        assert_eq!(resolve(&real.join("link2")).unwrap(), real.join("deep/file"));
        fs::write(real.join("deep/file"), b"x").unwrap();
        assert_eq!(resolve(&real.join("link2")).unwrap(), real.join("deep/file"));
        assert_eq!(resolve(&real.join("new")).unwrap(), real.join("new"));
        assert_eq!(fault(resolve(&real.join("none/new"))), FileFault::NoFolder);
    }
}
