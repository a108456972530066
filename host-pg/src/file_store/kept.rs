//! What a backend keeps of the file that it wrote last, so that its next commit need not parse the file and read every row.
//!
//! Nothing of it is believed without proof. The file is read again under its lock and compared byte by byte. The table is
//! scanned again, and a row counts as known if its very version was seen: then its contents are the same. Keys are not kept.

use std::cell::RefCell;

use omni_credentials_host::{Digest, Document, Files};
use pgrx::pg_sys;

use super::table::Seen;

/// The longest file that is kept. With its records in the sandbox it takes about six times as much memory.
const MAX_BYTES: usize = 4 << 20;
/// Records that changed since the file was parsed. They are rendered again at each write, the others are copied.
const MAX_CHANGED: usize = 1_000;

/// A file and what it is a mirror of.
pub(super) struct Kept {
    pub(super) filename: String,
    pub(super) file: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) module: Digest,
    pub(super) keyring: Vec<u8>,
    pub(super) files: Files,
    /// What `file` says, in `files`.
    pub(super) document: Document,
    /// How many of its records changed since it was parsed.
    pub(super) changed: usize,
    /// The rows of the table: exactly the live records of `document`.
    pub(super) rows: Seen,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

impl Kept {
    /// What is kept for a file of a table.
    pub(super) fn take(table: pg_sys::Oid, filename: &str) -> Option<Self> {
        let is_it = |kept: &mut Kept| kept.filename == filename && kept.rows.is_of(table);
        KEPT.with_borrow_mut(|kept| kept.take_if(is_it))
    }

    /// Keeps it instead of what was kept so far, unless it takes too much memory or has changed too much.
    pub(super) fn put(self) {
        if self.file.len() <= MAX_BYTES && self.changed <= MAX_CHANGED {
            KEPT.set(Some(self));
        }
    }
}
