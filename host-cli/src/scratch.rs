//! The text that a person edits: in a private folder, in memory where the system has such a folder. It is there only
//! while the editor runs.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::error::Error;

const PREFIX: &str = "omni-credentials-";
/// How often a new folder is lost to another process that sweeps, before that is an error.
const ATTEMPTS: u32 = 8;

/// The folder that exists now.
static CURRENT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A private folder with the text in it; what an editor leaves next to the text goes with it.
pub(crate) struct Scratch {
    file: PathBuf,
    _folder: TempDir,
    /// The folder, locked as long as its process lives.
    _lock: File,
}

impl Scratch {
    /// Writes the text to a new folder.
    pub(crate) fn write(text: &str) -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            let folder = folder()?;
            let Ok(lock) = lock(folder.path()) else { continue };
            if let Ok(mut current) = CURRENT.lock() {
                *current = Some(folder.path().to_owned());
            }
            let file = folder.path().join("credentials.toml");
            let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
            opened
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(Error::io("the text to be edited"))?;
            return Ok(Self { file, _folder: folder, _lock: lock });
        }
        Err(Error::io("a temporary folder")(io::ErrorKind::NotFound.into()))
    }

    /// The file with the text.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The text, and removes it.
    pub(crate) fn take(self) -> Result<Zeroizing<Vec<u8>>, Error> {
        Ok(Zeroizing::new(fs::read(&self.file).map_err(Error::io("the edited text"))?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(mut current) = CURRENT.lock() {
            *current = None;
        }
    }
}

/// Removes the text, because the process ends at once.
pub(crate) fn remove() {
    if let Ok(current) = CURRENT.lock()
        && let Some(folder) = current.as_ref()
    {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Removes what processes left that were killed.
pub(crate) fn sweep() {
    let account = rustix::process::geteuid().as_raw();
    for place in places() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
            let private = |it: fs::Metadata| it.is_dir() && it.uid() == account && it.mode() & 0o077 == 0;
            if !ours || !entry.metadata().is_ok_and(private) {
                continue;
            }
            // Its process has ended: a living one holds the lock.
            if let Ok(_lock) = lock(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Locks a folder, which must still exist then, until the file is closed.
fn lock(folder: &Path) -> io::Result<File> {
    let opened = File::open(folder)?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    if opened.metadata()?.ino() == fs::symlink_metadata(folder)?.ino() {
        Ok(opened)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn folder() -> Result<TempDir, Error> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700));
    let mut made = Err(io::ErrorKind::NotFound.into());
    for place in places() {
        made = builder.tempdir_in(place);
        if made.is_ok() {
            break;
        }
    }
    made.map_err(Error::io("a temporary folder"))
}

/// The folders to use, best first.
fn places() -> impl Iterator<Item = PathBuf> {
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let temporary = std::path::absolute(std::env::temp_dir()).ok();
    named.into_iter().chain([PathBuf::from("/dev/shm")]).chain(temporary)
}
