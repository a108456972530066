use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::keyring::Unlocked;

/// The work store of the large value that was sealed or opened last, for the next one of the same keyring: to make one and
/// give its memory back takes a fifth of the time that a value of 256 KiB does. At most one, until
/// [`Runtime::release_large`](crate::Runtime::release_large) is called or its keyring is dropped.
#[derive(Default)]
pub(crate) struct LastLarge(Mutex<Option<(u64, Unlocked)>>);

impl LastLarge {
    /// Takes the store of this keyring out.
    pub(crate) fn take(&self, keyring: u64) -> Option<Unlocked> {
        self.slot().take_if(|(owner, _)| *owner == keyring).map(|(_, store)| store)
    }

    /// Keeps a store whose last call went well, instead of the one that is kept.
    pub(crate) fn keep(&self, keyring: u64, store: Unlocked) {
        let before = self.slot().replace((keyring, store));
        drop(before);
    }

    /// Drops what is kept.
    pub(crate) fn release(&self) {
        let kept = self.slot().take();
        drop(kept);
    }

    fn slot(&self) -> MutexGuard<'_, Option<(u64, Unlocked)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
