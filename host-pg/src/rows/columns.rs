//! The columns of a credential: in a row of the view or the table, and as the fields that its value is bound to.

use pgrx::{FromDatum, IntoDatum, pg_sys};

use crate::error::{Error, Unreadable, display_name};
use crate::postgres::heap::Row;
use crate::postgres::tables::credentials;
use crate::postgres::trigger::Call;
use crate::postgres::varlena::Detoasted;
use crate::postgres::{catalog, encoding};

/// The fields of a credential that its value is bound to, as datums of a row.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) name: pg_sys::Datum,
    pub(crate) kind: pg_sys::Datum,
    pub(crate) principal: pg_sys::Datum,
    pub(crate) scope: pg_sys::Datum,
    /// A timestamptz.
    pub(crate) expires_at: Option<pg_sys::Datum>,
}

impl Fields {
    /// When the credential expires, in seconds since 1970.
    pub(crate) fn expires(&self) -> Result<Option<u64>, Unreadable> {
        let Some(datum) = self.expires_at else { return Ok(None) };
        // SAFETY: the datum of a timestamptz, which is a number of microseconds and no pointer.
        let micros = unsafe { i64::from_datum(datum, false) }.unwrap_or(i64::MAX);
        // Infinity is no whole second, either.
        let whole = (micros % SECOND == 0).then_some(micros / SECOND + EPOCH);
        let seconds = whole.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map(Some).ok_or(Unreadable::InvalidExpiry)
    }

    /// Whether the credential had expired when the transaction began.
    pub(crate) fn has_expired(&self) -> bool {
        // SAFETY: the datum of a timestamptz, and the clock of the running transaction.
        let at = self.expires_at.and_then(|datum| unsafe { i64::from_datum(datum, false) });
        // SAFETY: as above.
        at.is_some_and(|at| at <= unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
    }

    /// The timestamptz of an expiry; `None` for one that the server cannot hold.
    pub(crate) fn expiry(expires: u64) -> Option<pg_sys::Datum> {
        let seconds = i64::try_from(expires).ok()?.checked_sub(EPOCH)?;
        seconds.checked_mul(SECOND)?.into_datum()
    }

    /// Whether two rows are of the same credential.
    pub(crate) fn is_same_credential(&self, other: &Self) -> bool {
        same_bytes(self.name, other.name)
            && self.kind.value() == other.kind.value()
            && self.principal.value() == other.principal.value()
            && same_bytes(self.scope, other.scope)
    }

    /// Whether both expire at the same time, or both do not.
    pub(crate) fn has_same_expiry(&self, other: &Self) -> bool {
        self.expires_at.map(|datum| datum.value()) == other.expires_at.map(|datum| datum.value())
    }

    /// The principal's oid.
    pub(crate) fn principal_oid(&self) -> pg_sys::Oid {
        catalog::oid(self.principal)
    }

    /// The credential's name, for messages: quoted, control characters escaped, and cut where it is very long.
    pub(crate) fn display_name(&self) -> String {
        // SAFETY: `name` is the datum of a text column.
        let name = unsafe { Detoasted::new(self.name) };
        display_name(&encoding::to_utf8(name.bytes()))
    }

    /// The identity and the sealed value of a row of `encrypted_credentials`, read under a check of its columns. The owner
    /// of the table can have let one of them be NULL, which is an error.
    pub(crate) fn required_of_row(row: &Row) -> Result<(Self, pg_sys::Datum), Error> {
        let fields = Self {
            name: row.required_raw(credentials::NAME)?,
            kind: row.required_raw(credentials::KIND)?,
            principal: row.required_raw(credentials::PRINCIPAL)?,
            scope: row.required_raw(credentials::SCOPE)?,
            expires_at: row.raw(credentials::EXPIRES_AT),
        };
        Ok((fields, row.required_raw(credentials::VALUE)?))
    }

    /// The same, with `None` where one of them is NULL.
    pub(crate) fn of_row(row: &Row) -> Option<(Self, pg_sys::Datum)> {
        let fields = Self {
            name: row.raw(credentials::NAME)?,
            kind: row.raw(credentials::KIND)?,
            principal: row.raw(credentials::PRINCIPAL)?,
            scope: row.raw(credentials::SCOPE)?,
            expires_at: row.raw(credentials::EXPIRES_AT),
        };
        Some((fields, row.raw(credentials::VALUE)?))
    }
}

/// Whether two varlena datums hold the same bytes. Neither is NULL.
pub(crate) fn same_bytes(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: both are non-null datums of the same varlena type.
    let (a, b) = unsafe { (Detoasted::new(a), Detoasted::new(b)) };
    a.bytes() == b.bytes()
}

/// A second in microseconds, the unit of a timestamptz.
const SECOND: i64 = 1_000_000;
/// 2000-01-01T00:00:00Z, from which a timestamptz counts, in seconds since 1970.
const EPOCH: i64 = 946_684_800;

/// The six columns of a view or table row; `None` for NULL.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) tuple: pg_sys::HeapTuple,
    pub(crate) name: Option<pg_sys::Datum>,
    pub(crate) value: Option<pg_sys::Datum>,
    kind: Option<pg_sys::Datum>,
    principal: Option<pg_sys::Datum>,
    scope: Option<pg_sys::Datum>,
    expires_at: Option<pg_sys::Datum>,
}

impl Columns {
    /// The row before the change: OLD of an update or a delete.
    pub(crate) fn old(call: &Call<'_>) -> Result<Self, Error> {
        Self::of(call, call.old_values()?)
    }

    /// The row after the change: NEW of an insert or an update.
    pub(crate) fn new(call: &Call<'_>) -> Result<Self, Error> {
        Self::of(call, call.new_values()?)
    }

    /// The row of an INSERT: NULL for kind, principal or scope stands for the default of the column, as many drivers write
    /// it. What RETURNING shows is the row with its defaults.
    pub(crate) fn inserted(call: &Call<'_>) -> Result<Self, Error> {
        let given = Self::new(call)?;
        let columns = [
            (credentials::KIND, given.kind),
            (credentials::PRINCIPAL, given.principal),
            (credentials::SCOPE, given.scope),
        ];
        let defaults: Vec<_> = columns
            .into_iter()
            .filter(|(_, given)| given.is_none())
            .filter_map(|(column, _)| Some((column, call.default_of(column)?)))
            .collect();
        if defaults.is_empty() {
            return Ok(given);
        }
        let replaced: Vec<_> = defaults.iter().map(|(column, value)| (*column, Some(*value))).collect();
        let filled = |column, given: Option<pg_sys::Datum>| {
            given.or_else(|| defaults.iter().find(|(of, _)| *of == column).map(|(_, value)| *value))
        };
        Ok(Self {
            tuple: call.with_columns(given.tuple, &replaced),
            kind: filled(credentials::KIND, given.kind),
            principal: filled(credentials::PRINCIPAL, given.principal),
            scope: filled(credentials::SCOPE, given.scope),
            ..given
        })
    }

    /// The identity and the expiry; no column of the identity may be NULL.
    pub(crate) fn fields(&self) -> Result<Fields, Error> {
        let present = |datum: Option<pg_sys::Datum>, field| datum.ok_or(Error::NullField { field });
        Ok(Fields {
            name: present(self.name, "name")?,
            kind: present(self.kind, "kind")?,
            principal: present(self.principal, "principal")?,
            scope: present(self.scope, "scope")?,
            expires_at: self.expires_at,
        })
    }

    /// The value; it may not be NULL.
    pub(crate) fn value(&self) -> Result<pg_sys::Datum, Error> {
        self.value.ok_or(Error::NullField { field: "value" })
    }

    fn of(
        call: &Call<'_>,
        (tuple, values): (pg_sys::HeapTuple, Vec<Option<pg_sys::Datum>>),
    ) -> Result<Self, Error> {
        call.must_have(credentials::COLUMNS)?;
        let at = |column: usize| values.get(column).copied().flatten();
        Ok(Self {
            tuple,
            name: at(credentials::NAME),
            value: at(credentials::VALUE),
            kind: at(credentials::KIND),
            principal: at(credentials::PRINCIPAL),
            scope: at(credentials::SCOPE),
            expires_at: at(credentials::EXPIRES_AT),
        })
    }
}
