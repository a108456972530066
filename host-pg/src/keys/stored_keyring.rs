//! A keyring as `credentials_keyrings` has it.

use omni_credentials_host::Digest;
use pgrx::datum::Uuid;
use pgrx::pg_sys;

use crate::error::Error;
use crate::keys::modules;
use crate::postgres::catalog;
use crate::postgres::heap::{self, Table, Visibility, Visit, datum};
use crate::postgres::tables::keyrings;

/// A keyring as stored. A row is never changed: a changed keyring is a new row. So two servers that replicate to each other
/// and both change a keyring have both results.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredKeyring {
    /// Random, so that no two servers make rows that collide.
    pub(crate) id: Uuid,
    /// Counts up with each keyring that supersedes those before it.
    pub(crate) number: i32,
    pub(crate) module: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl StoredKeyring {
    /// Opens the table of keyrings.
    pub(crate) fn table(keyrings: pg_sys::Oid, lock: u32) -> Result<Table, Error> {
        let table = Table::open(keyrings, lock)?;
        table.must_have(keyrings::COLUMNS)?;
        Ok(table)
    }

    /// Reads the keyrings in a table. The current one comes first, then its equals, then those that are superseded, from the
    /// highest number to the lowest. The order is the same on each server that has these rows.
    pub(crate) fn read_all(keyrings: pg_sys::Oid, seen: Visibility) -> Result<Vec<Self>, Error> {
        let mut stored = Vec::new();
        Self::table(keyrings, pg_sys::AccessShareLock)?.scan_as(seen, |row| {
            stored.push(Self {
                id: row.required(keyrings::ID)?,
                number: row.required(keyrings::NUMBER)?,
                module: modules::digest_of_column(row, keyrings::MODULE)?,
                bytes: row.required(keyrings::KEYRING)?,
            });
            Ok(Visit::Continue)
        })?;
        stored.sort_by_key(|keyring| std::cmp::Reverse((keyring.number, keyring.id)));
        if let Some(current) = stored.first().cloned() {
            // Stable: only what another server made with another module at the same time is put behind.
            stored.sort_by_key(|keyring| !keyring.is_equal_of(&current));
        }
        Ok(stored)
    }

    /// A row for the table.
    pub(crate) fn row(number: i32, module: &Digest, bytes: &[u8]) -> [Option<pg_sys::Datum>; 4] {
        // SAFETY: the function of the server for new ids, which takes no arguments and gives a uuid.
        let id = unsafe { pgrx::direct_function_call_as_datum(pg_sys::gen_random_uuid, &[]) };
        [datum(number), datum(module.as_bytes().as_slice()), datum(bytes), id]
    }

    /// Whether neither of two keyrings supersedes the other: two servers made them without knowing of each other. Together
    /// they are one, and their union can take the place of both.
    pub(crate) fn is_equal_of(&self, other: &Self) -> bool {
        (self.number, self.module) == (other.number, other.module)
    }

    /// Whether both are the same keyring, in two rows.
    pub(crate) fn is_copy_of(&self, other: &Self) -> bool {
        (self.module, &self.bytes) == (other.module, &other.bytes)
    }

    /// Whether this is the keyring in a row under the scan.
    pub(crate) fn is_in(&self, row: &heap::Row) -> bool {
        row.get::<Uuid>(keyrings::ID) == Some(self.id)
    }

    /// Fails where the row has changed since it was read.
    pub(crate) fn must_be_as_in(&self, row: &heap::Row, schema: pg_sys::Oid) -> Result<(), Error> {
        if row.get::<Vec<u8>>(keyrings::KEYRING).as_deref() == Some(self.bytes.as_slice()) {
            Ok(())
        } else {
            let what = format!("the keyring of schema {}", catalog::schema_name(schema));
            Err(Error::ConcurrentChange { what })
        }
    }
}
