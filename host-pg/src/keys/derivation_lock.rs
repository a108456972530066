//! One derivation for all sessions: Argon2id takes a fifth of a second and 64 MiB, and a server that was just started meets
//! all its clients at once. The first session derives, and the others wait for it and find the key in shared memory.

use omni_credentials_host::Digest;
use pgrx::pg_sys;

/// The lock for deriving the KEK of one keyring, or for the program that prints a master secret. `pg_locks` shows it: its tag
/// is a digest of module and keyring, or of the name of a variable, and of no secret. It is a heavyweight lock, so that a
/// session that waits can be cancelled, and an error releases it.
#[must_use]
pub(super) struct DerivationLock {
    tag: pg_sys::LOCKTAG,
}

impl DerivationLock {
    /// Waits for other sessions that derive the KEK of the same keyring.
    pub(super) fn acquire(module: &Digest, keyring: &[u8]) -> Self {
        let named = [module.as_bytes().as_slice(), Digest::of(keyring).as_bytes().as_slice()].concat();
        // SAFETY: set before a session runs anything.
        Self::of(unsafe { pg_sys::MyDatabaseId }, &Digest::of(&named))
    }

    /// Waits for other sessions, of any database, that run the program of the same variable.
    pub(super) fn for_variable(id: &Digest) -> Self {
        Self::of(pg_sys::InvalidOid, id)
    }

    fn of(database: pg_sys::Oid, digest: &Digest) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        let tag = pg_sys::LOCKTAG {
            locktag_field1: database.to_u32(),
            locktag_field2: u32::from_be_bytes([a, b, c, d]),
            locktag_field3: u32::from_be_bytes([e, f, g, h]),
            locktag_field4: NOT_OF_SQL,
            locktag_type: ADVISORY,
            locktag_lockmethodid: USER_LOCKS,
        };
        // SAFETY: the tag is complete, and a transaction is in progress whose end releases the lock after an error.
        unsafe {
            pg_sys::LockAcquire(&raw const tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false, false)
        };
        Self { tag }
    }

    /// Lets the next session go on.
    pub(super) fn release(self) {
        // SAFETY: acquired with this tag and mode, for the transaction.
        unsafe { pg_sys::LockRelease(&raw const self.tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false) };
    }
}

/// `LOCKTAG_ADVISORY` and `USER_LOCKMETHOD` of storage/lock.h.
const ADVISORY: u8 = 10;
const USER_LOCKS: u8 = 2;
/// The last field of a tag that SQL can lock is 1 or 2, by the number of keys. So no role can stand in the way.
const NOT_OF_SQL: u16 = 3;
