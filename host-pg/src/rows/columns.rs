//! The columns of a credential: in a row of the view or the table, and as the fields that its value is bound to.

use pgrx::pg_sys;

use crate::error::{Error, display_name};
use crate::postgres::catalog;
use crate::postgres::heap::Row;
use crate::postgres::tables::credentials;
use crate::postgres::trigger::Call;
use crate::postgres::varlena::Detoasted;

/// The fields of a credential that its value is bound to, as datums of a row.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) name: pg_sys::Datum,
    pub(crate) kind: pg_sys::Datum,
    pub(crate) principal: pg_sys::Datum,
    pub(crate) scope: pg_sys::Datum,
}

impl Fields {
    /// The principal's oid.
    pub(crate) fn principal_oid(&self) -> pg_sys::Oid {
        catalog::oid(self.principal)
    }

    /// The credential's name, for messages: quoted, control characters escaped, and cut where it is very long.
    pub(crate) fn display_name(&self) -> String {
        // SAFETY: `name` is the datum of a text column.
        let name = unsafe { Detoasted::new(self.name) };
        display_name(name.bytes())
    }

    /// The identity and the sealed value of a row of `encrypted_credentials`, read under a check of its columns. The owner
    /// of the table can have let one of them be NULL, which is an error.
    pub(crate) fn required_of_row(row: &Row) -> Result<(Self, pg_sys::Datum), Error> {
        let fields = Self {
            name: row.required_raw(credentials::NAME)?,
            kind: row.required_raw(credentials::KIND)?,
            principal: row.required_raw(credentials::PRINCIPAL)?,
            scope: row.required_raw(credentials::SCOPE)?,
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
        };
        Some((fields, row.raw(credentials::VALUE)?))
    }
}

/// The five columns of a view or table row; `None` for NULL.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) tuple: pg_sys::HeapTuple,
    pub(crate) name: Option<pg_sys::Datum>,
    pub(crate) value: Option<pg_sys::Datum>,
    kind: Option<pg_sys::Datum>,
    principal: Option<pg_sys::Datum>,
    scope: Option<pg_sys::Datum>,
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

    /// The identity; no column of it may be NULL.
    pub(crate) fn fields(&self) -> Result<Fields, Error> {
        let present = |datum: Option<pg_sys::Datum>, field| datum.ok_or(Error::NullField { field });
        Ok(Fields {
            name: present(self.name, "name")?,
            kind: present(self.kind, "kind")?,
            principal: present(self.principal, "principal")?,
            scope: present(self.scope, "scope")?,
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
        })
    }
}
