//! Whether the file that a commit wrote came into place.
//!
//! The rename follows the commit, so no table can say that it happened: the next transaction finds out. Where the file
//! is what the commit wrote, that is easy. Where somebody has edited it since, it is not: the edit may have been made
//! to the new file, or to the old one after a crash had kept the rename from happening. So a note is left once a file is
//! in place: the digest of what was written, in a folder of the data directory. A note that is missing or says another
//! digest tells nothing, which is why it may be lost at any time.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use omni_credentials_host::Digest;
use pgrx::pg_sys;

/// Left out by base backups, as every folder whose name starts like this: another machine has other files.
const FOLDER: &str = "pgsql_tmp_omni_credentials_files";

/// Where the note for one file of one instance is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Note(PathBuf);

impl Note {
    /// The note for `filename` as registered in the table `registry`.
    pub(super) fn of(registry: pg_sys::Oid, filename: &str) -> Self {
        // SAFETY: MyDatabaseId is set before a session runs anything, and does not change.
        let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
        let name = format!("{database}-{}-{}", registry.to_u32(), Digest::of(filename.as_bytes()));
        Self(crate::postgres::catalog::data_directory().join(FOLDER).join(name))
    }

    /// Whether the file with this digest is known to have been in place.
    pub(super) fn says(&self, digest: &[u8]) -> bool {
        fs::read(&self.0).is_ok_and(|noted| noted == digest)
    }

    /// Notes that the file with this digest is in place.
    pub(super) fn write(&self, digest: &[u8]) {
        if let Some(folder) = self.0.parent() {
            let _ = DirBuilder::new().mode(0o700).create(folder);
        }
        // Without the note the next synchronisation is more careful, so a failure needs no answer.
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.0);
        let _ = opened.and_then(|mut file| file.write_all(digest));
    }

    /// Forgets what was noted.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}
