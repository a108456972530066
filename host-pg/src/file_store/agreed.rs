//! What file and table last agreed on: a manifest, and the changes since it was written.
//!
//! A manifest grows with the file, so a commit that wrote it would write as much for one row as for all. A commit that
//! changes little notes these changes; once there are many, they are folded into the manifest.

use omni_credentials_host::{self as host, Document, Files};

/// Longest list of changes: those of some eighty commits that change a row each. Writing the list at each commit then
/// costs about as much as writing the manifest of 10,000 records once in so many.
const MAX_CHANGES: usize = 6 * 1024;

/// A manifest with changes; empty where nothing is known.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) base: Vec<u8>,
    pub(super) changes: Vec<u8>,
}

/// What is agreed on from some time on.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum News {
    /// This manifest.
    Whole(Vec<u8>),
    /// What was agreed on before, with these changes.
    Changes(Vec<u8>),
}

impl Agreed {
    /// A manifest without changes.
    pub(super) fn on(base: Vec<u8>) -> Self {
        Self { base, changes: Vec::new() }
    }

    /// As the module takes it: the changes before the manifest, oldest first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.changes.as_slice(), &self.base].concat()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    /// The same after `news`.
    pub(super) fn after(&self, news: &News) -> Self {
        match news {
            News::Whole(base) => Self::on(base.clone()),
            News::Changes(changes) => {
                Self { base: self.base.clone(), changes: [self.changes.as_slice(), changes].concat() }
            }
        }
    }

    /// What both sides agree on from now on. Folds the changes so far if there is no room for more. Without `in_changes`
    /// it is always a whole manifest.
    pub(super) fn news(
        &mut self,
        files: &mut Files,
        ours: Document,
        theirs: Document,
        generation: u64,
        in_changes: bool,
    ) -> Result<News, host::Error> {
        let before = self.to_bytes();
        if self.is_empty() || !in_changes {
            return files.agreed(&before, ours, theirs, generation).map(News::Whole);
        }
        let changes = files.agreed_changes(&before, ours, theirs, generation)?;
        if changes.len() > MAX_CHANGES {
            return files.agreed(&before, ours, theirs, generation).map(News::Whole);
        }
        if self.changes.len().saturating_add(changes.len()) > MAX_CHANGES {
            *self = Self::on(files.fold(&before)?);
        }
        Ok(News::Changes(changes))
    }
}
