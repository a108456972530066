//! What the columns of a table have to be: the owner can change them.

use pgrx::pg_sys;

use crate::error::Error;
use crate::postgres::catalog;

/// What a column is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// This very type.
    Is(pg_sys::Oid),
    /// Any enum.
    Enum,
}

/// A column that a table must have.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    of: Type,
}

/// Fails unless the first columns of a row's descriptor are these, by name and by type. `relation` is named in the error.
///
/// # Safety
/// `descriptor` is valid.
pub(crate) unsafe fn check_columns(
    relation: pg_sys::Oid,
    descriptor: pg_sys::TupleDesc,
    columns: &[Column],
) -> Result<(), Error> {
    // SAFETY: see above.
    let natts = usize::try_from(unsafe { (*descriptor).natts }).unwrap_or(0);
    for (place, column) in columns.iter().enumerate() {
        // SAFETY: `place` is below `natts`.
        let fits = place < natts && unsafe { column.fits(attribute(descriptor, place)) };
        if !fits {
            return Err(Error::WrongShape {
                table: catalog::qualified_name(relation),
                problem: format!("column {} is not {} {}", place.saturating_add(1), column.name, column.of),
            });
        }
    }
    Ok(())
}

impl Column {
    /// A column of this name and type.
    pub(crate) const fn new(name: &'static str, of: Type) -> Self {
        Self { name, of }
    }

    /// Whether a column of a query's result has this type.
    pub(crate) fn is_of(&self, found: pg_sys::Oid) -> bool {
        self.of.is(found)
    }

    fn fits(&self, attribute: &pg_sys::FormData_pg_attribute) -> bool {
        !attribute.attisdropped
            && attribute.attgenerated == 0
            && name_of(attribute) == self.name
            && self.of.is(attribute.atttypid)
    }
}

impl Type {
    fn is(self, found: pg_sys::Oid) -> bool {
        match self {
            Self::Is(oid) => found == oid,
            // SAFETY: a syscache lookup by oid; a type that does not exist is no enum.
            Self::Enum => unsafe { pg_sys::type_is_enum(found) },
        }
    }
}

impl core::fmt::Display for Type {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Is(oid) => f.write_str(&catalog::type_name(*oid)),
            Self::Enum => f.write_str("of an enum"),
        }
    }
}

/// The error for a row of a query's result with a NULL in a column, counted from 0, that was made NOT NULL.
pub(crate) fn is_null(relation: pg_sys::Oid, column: usize) -> Error {
    misfit_of_row(relation, column, "is NULL")
}

/// The error for a column of a query's result that is not of the type that the table was made with.
pub(crate) fn wrong_type(relation: pg_sys::Oid, column: &Column) -> Error {
    Error::WrongShape {
        table: catalog::qualified_name(relation),
        problem: format!("its column {} is not {}", column.name, column.of),
    }
}

/// The error for a row with something wrong in a column, counted from 0.
pub(super) fn misfit_of_row(relation: pg_sys::Oid, column: usize, problem: &str) -> Error {
    let column = catalog::column_name(relation, column);
    Error::WrongShape {
        table: catalog::qualified_name(relation),
        problem: format!("column {column} of a row {problem}"),
    }
}

/// # Safety
/// `descriptor` is valid and has more than `place` columns.
pub(super) unsafe fn attribute<'a>(
    descriptor: pg_sys::TupleDesc,
    place: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: see above; the attribute lives as long as the descriptor, which its relation keeps while it is open.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        &*(*descriptor).attrs.as_ptr().add(place)
    }
    // SAFETY: as above. From Postgres 18 on, the attributes follow the compact ones, one for each column.
    #[cfg(feature = "pg18")]
    unsafe {
        let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
        let attributes =
            (*descriptor).compact_attrs.as_ptr().add(natts).cast::<pg_sys::FormData_pg_attribute>();
        &*attributes.add(place)
    }
}

/// A column's name, as far as it is text of the database.
pub(super) fn name_of(attribute: &pg_sys::FormData_pg_attribute) -> std::borrow::Cow<'_, str> {
    // SAFETY: a name is NUL-terminated within its array.
    unsafe { core::ffi::CStr::from_ptr((&raw const attribute.attname.data).cast()) }.to_string_lossy()
}
