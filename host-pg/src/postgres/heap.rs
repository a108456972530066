//! Reading and writing the few rows that a role with access to credentials must not reach itself: keyrings,
//! configuration, modules, the state of file stores.
//!
//! Rows are scanned and stored directly, without SQL: no user is switched, no search_path is involved, and no
//! function, operator or trigger of anyone else can run.

use std::cell::Cell;

use pgrx::pg_sys;
use pgrx::{FromDatum, IntoDatum};

use crate::error::Error;
use crate::postgres::{catalog, invalidation, shape};

/// An open relation, closed on drop; its lock stays until the end of the transaction.
pub(crate) struct Table {
    relation: pg_sys::Relation,
    /// Whether it was found to have nothing that direct writing would pass over. The lock of a table that is written keeps
    /// that so.
    plain: Cell<bool>,
}

/// A column, counted from 0, that an index entry has to have this value in, by this operator of equality.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(crate) column: usize,
    pub(crate) equal: u32,
    pub(crate) value: pg_sys::Datum,
}

/// A row under the scan; its datums live as long as it does.
pub(crate) struct Row {
    tuple: pg_sys::HeapTuple,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

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

/// Which version of which row a tuple is: where it is, and the transaction that wrote it. As long as the table has the same
/// storage, and for two billion transactions, it stays the same row with the same contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    block: u32,
    offset: u16,
    writer: u32,
}

/// Which rows there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// What is committed now, and what this transaction wrote: newer than the snapshot of a REPEATABLE READ
    /// transaction, because a key or a setting counts as it is, not as it was.
    Now,
    /// What the running statement sees.
    BySnapshot,
}

/// What a visitor wants next.
#[derive(PartialEq, Eq)]
pub(crate) enum Visit {
    Continue,
    Stop,
}

/// Visits one after another, until there is none left or the visitor wants no more. A cancelled query ends it in between.
pub(super) fn each<T>(
    mut next: impl FnMut() -> Option<T>,
    mut visit: impl FnMut(T) -> Result<Visit, Error>,
) -> Result<(), Error> {
    while let Some(found) = next() {
        if visit(found)? == Visit::Stop {
            break;
        }
        pgrx::check_for_interrupts!();
    }
    Ok(())
}

thread_local! {
    /// The table that was found plain last, and the definitions that were in force then.
    static PLAIN: Cell<Option<(pg_sys::Oid, u64)>> = const { Cell::new(None) };
}

impl Table {
    /// Opens a relation that must be an ordinary table, permanent and of the server's own kind of storage. With a lock
    /// that keeps writers away it is to be written, which a read-only transaction may not.
    pub(crate) fn open(oid: pg_sys::Oid, lock: u32) -> Result<Self, Error> {
        if lock >= pg_sys::ShareRowExclusiveLock {
            // SAFETY: takes a NUL-terminated text for its message.
            unsafe { pg_sys::PreventCommandIfReadOnly(c"a change of keys or file stores".as_ptr()) };
        }
        // SAFETY: the function takes any oid. It gives null where nothing has it, as when a table was dropped since it was
        // found, and raises an error for one that is not a table.
        let relation = unsafe { pg_sys::try_table_open(oid, lock as pg_sys::LOCKMODE) };
        if relation.is_null() {
            return Err(Error::NotAnInstance { relation: catalog::relation_name(oid) });
        }
        let table = Self { relation, plain: Cell::new(false) };
        // SAFETY: rd_rel of an open relation is valid.
        let form = unsafe { &*(*relation).rd_rel };
        let is = |byte: core::ffi::c_char, wanted: u8| u8::try_from(byte) == Ok(wanted);
        if !is(form.relkind, pg_sys::RELKIND_RELATION) {
            return Err(Error::NotAnInstance { relation: catalog::relation_name(oid) });
        }
        if !is(form.relpersistence, pg_sys::RELPERSISTENCE_PERMANENT) {
            return Err(table.misfit("it is not a permanent table"));
        }
        if form.relam != pg_sys::HEAP_TABLE_AM_OID {
            return Err(table.misfit("its access method is not heap"));
        }
        Ok(table)
    }

    /// Opens `schema`.`name`, or `None` where there is no such table.
    pub(crate) fn open_in(
        schema: pg_sys::Oid,
        name: &core::ffi::CStr,
        lock: u32,
    ) -> Result<Option<Self>, Error> {
        match catalog::relation_oid(schema, name) {
            Some(oid) => Self::open(oid, lock).map(Some),
            None => Ok(None),
        }
    }

    /// The relation's oid.
    pub(crate) fn oid(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*self.relation).rd_id }
    }

    /// The role that owns the table.
    pub(crate) fn owner(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*(*self.relation).rd_rel).relowner }
    }

    /// Fails unless the first columns are these: the owner of a table may change them, and what is read and written
    /// here is of the names and types that the table was made with.
    pub(crate) fn must_have(&self, columns: &[Column]) -> Result<(), Error> {
        // SAFETY: the descriptor of an open relation.
        unsafe { check_columns(self.oid(), self.descriptor(), columns) }
    }

    /// Fails unless a column, counted from 0, is of the same type in both tables.
    pub(crate) fn must_agree_with(&self, other: &Self, column: usize) -> Result<(), Error> {
        let type_of = |table: &Self| {
            // SAFETY: the column is there: `has_column`.
            table.has_column(column).then(|| unsafe { attribute(table.descriptor(), column) }.atttypid)
        };
        let wanted = type_of(other);
        if wanted.is_some() && type_of(self) == wanted {
            return Ok(());
        }
        let name = catalog::column_name(self.oid(), column);
        Err(self.misfit(&format!(
            "its column {name} is not of the type that it has in {}",
            catalog::qualified_name(other.oid())
        )))
    }

    /// Whether the table has this column, counted from 0: one that an earlier version made may not.
    pub(crate) fn has_column(&self, column: usize) -> bool {
        // SAFETY: the relation is open.
        usize::try_from(unsafe { (*self.descriptor()).natts }).is_ok_and(|natts| column < natts)
    }

    /// Visits every row as it is now.
    pub(crate) fn scan(&self, visit: impl FnMut(&Row) -> Result<Visit, Error>) -> Result<(), Error> {
        self.scan_as(Visibility::Now, visit)
    }

    /// Visits every row.
    pub(crate) fn scan_as(
        &self,
        seen: Visibility,
        mut visit: impl FnMut(&Row) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        self.scan_versions(seen, |_| false, |_, row| visit(row))
    }

    /// The storage of the table: another one after `VACUUM FULL`, `CLUSTER` or `TRUNCATE`.
    pub(crate) fn storage(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*(*self.relation).rd_rel).relfilenode }
    }

    /// Visits every row, in the order of the storage, except for those of which `skip` wants to see the version alone.
    pub(crate) fn scan_versions(
        &self,
        seen: Visibility,
        mut skip: impl FnMut(Version) -> bool,
        mut visit: impl FnMut(Version, &Row) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        // SAFETY: the relation is open and locked. Without a snapshot the scan takes a catalog snapshot, which is
        // fresh for a relation without a syscache, and allowed in parallel mode; the active one outlives the
        // function call that we are in. An error raised in between is cleaned up by the resource owner.
        unsafe {
            let snapshot = match seen {
                Visibility::BySnapshot if pg_sys::ActiveSnapshotSet() => pg_sys::GetActiveSnapshot(),
                _ => core::ptr::null_mut(),
            };
            let scan = pg_sys::systable_beginscan(
                self.relation,
                pg_sys::InvalidOid,
                false,
                snapshot,
                0,
                core::ptr::null_mut(),
            );
            let next = || Some(pg_sys::systable_getnext(scan)).filter(|tuple| !tuple.is_null());
            let result = each(next, |tuple| {
                let version = Version::of(tuple);
                if skip(version) {
                    return Ok(Visit::Continue);
                }
                visit(version, &Row::deform(tuple, self.descriptor()))
            });
            pg_sys::systable_endscan(scan);
            result
        }
    }

    /// Visits the rows that are now and have these values in the first of the columns that a unique index is over, from the
    /// last entry of the index to the first.
    pub(crate) fn scan_backward(
        &self,
        index: &[usize],
        keys: &[Key],
        mut visit: impl FnMut(&Row) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        let index = self.index_over(index)?;
        let mut scan_keys = Vec::with_capacity(keys.len());
        for key in keys {
            let mut scan_key = pg_sys::ScanKeyData::default();
            // SAFETY: fills the key in; the value is of the column's type, which the caller checked, and outlives the scan.
            unsafe {
                pg_sys::ScanKeyInit(
                    &raw mut scan_key,
                    number_of(key.column),
                    pg_sys::StrategyNumber::try_from(pg_sys::BTEqualStrategyNumber).unwrap_or_default(),
                    key.equal.into(),
                    key.value,
                );
            }
            scan_keys.push(scan_key);
        }
        let count = i32::try_from(scan_keys.len()).unwrap_or(0);
        // SAFETY: the table is open and locked, and the index one of its own, a btree over columns (`index_over`). Without a
        // snapshot the scan takes a fresh one, as in `scan_as`. An error raised in between is cleaned up by the resource owner.
        unsafe {
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let index = pg_sys::index_open(index, lock);
            let null = core::ptr::null_mut();
            let scan =
                pg_sys::systable_beginscan_ordered(self.relation, index, null, count, scan_keys.as_mut_ptr());
            let backward = pg_sys::ScanDirection::BackwardScanDirection;
            let next =
                || Some(pg_sys::systable_getnext_ordered(scan, backward)).filter(|tuple| !tuple.is_null());
            let result = each(next, |tuple| visit(&Row::deform(tuple, self.descriptor())));
            pg_sys::systable_endscan_ordered(scan);
            pg_sys::index_close(index, lock);
            result
        }
    }

    /// Fails unless there is the index that `scan_backward` goes along.
    pub(crate) fn must_have_index(&self, columns: &[usize]) -> Result<(), Error> {
        self.index_over(columns).map(drop)
    }

    /// A valid unique btree index over these columns, in this order and no others, ascending. One over text is in the
    /// collation "C".
    fn index_over(&self, columns: &[usize]) -> Result<pg_sys::Oid, Error> {
        // SAFETY: the relation is open with a lock. Each index is closed again and its lock kept.
        unsafe {
            let list = pg_sys::RelationGetIndexList(self.relation);
            for index in pgrx::PgList::<core::ffi::c_void>::from_pg(list).iter_oid() {
                let open = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
                let fits = shape::is_index_over(open, columns);
                pg_sys::index_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
                if fits {
                    return Ok(index);
                }
            }
        }
        Err(self.misfit("it has lost its unique index"))
    }

    /// Whether the table has no row.
    pub(crate) fn is_empty(&self) -> Result<bool, Error> {
        let mut empty = true;
        self.scan(|_| {
            empty = false;
            Ok(Visit::Stop)
        })?;
        Ok(empty)
    }

    /// Inserts a row. `columns` are the values of the table's columns in order, `None` for NULL. Columns that follow,
    /// of an instance made by a later version, get NULL; one made by an earlier version may lack those that are NULL.
    pub(crate) fn insert(&self, columns: &[Option<pg_sys::Datum>]) -> Result<(), Error> {
        self.must_be_plain()?;
        let (mut values, mut nulls) = self.fit(columns, |_| None)?;
        // SAFETY: both arrays have one entry for each attribute of the descriptor (`fit`); the
        // relation is open with a lock that allows writing, taken by the caller of `open`.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.descriptor(), values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::CatalogTupleInsert(self.relation, tuple);
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    }

    /// Replaces a row under the scan. Columns that follow the given ones keep their values.
    pub(crate) fn update(&self, row: &Row, columns: &[Option<pg_sys::Datum>]) -> Result<(), Error> {
        self.must_be_plain()?;
        let (mut values, mut nulls) = self.fit(columns, |column| row.raw(column))?;
        // SAFETY: as in `insert`; `row.tuple` is the version that the scan saw, and the caller holds a lock that
        // keeps other writers away, so its ctid is still the newest version.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.descriptor(), values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::CatalogTupleUpdate(self.relation, &raw mut (*row.tuple).t_self, tuple);
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    }

    /// Removes a row under the scan.
    pub(crate) fn delete(&self, row: &Row) -> Result<(), Error> {
        self.must_be_plain()?;
        // SAFETY: as in `update`.
        unsafe {
            pg_sys::CatalogTupleDelete(self.relation, &raw mut (*row.tuple).t_self);
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    }

    /// Removes a row under the scan, unless another session has just removed it.
    pub(crate) fn delete_if_there(&self, row: &Row) -> Result<(), Error> {
        self.must_be_plain()?;
        let mut failure = pg_sys::TM_FailureData::default();
        // SAFETY: as in `update`. The function waits for a session that is about to change the row.
        let result = unsafe {
            let result = pg_sys::heap_delete(
                self.relation,
                &raw mut (*row.tuple).t_self,
                pg_sys::GetCurrentCommandId(true),
                core::ptr::null_mut(),
                true,
                &raw mut failure,
                false,
            );
            pg_sys::CommandCounterIncrement();
            result
        };
        use pg_sys::TM_Result as R;
        match result {
            R::TM_Ok | R::TM_Deleted => Ok(()),
            _ => Err(Error::ConcurrentChange {
                what: format!("table {}", catalog::qualified_name(self.oid())),
            }),
        }
    }

    /// Tells every backend, at commit, to read this table again.
    pub(crate) fn announce_change(&self) {
        // SAFETY: the relation is open.
        unsafe { pg_sys::CacheInvalidateRelcache(self.relation) }
    }

    /// Fails where the table has anything that direct writing would pass over.
    pub(crate) fn must_be_plain(&self) -> Result<(), Error> {
        if self.plain.get() {
            return Ok(());
        }
        let known = (self.oid(), invalidation::generation());
        // SAFETY: the relation is open, with a lock that the caller of `open` took to write.
        let obstacle = unsafe {
            // Rules, triggers, constraints and indexes do not change without a word to every backend.
            if PLAIN.get() == Some(known) {
                shape::relative(self.relation)
            } else {
                shape::obstacle(self.relation)
            }
        };
        if let Some(problem) = obstacle {
            return Err(self.misfit(&problem));
        }
        PLAIN.set(Some(known));
        self.plain.set(true);
        Ok(())
    }

    /// The error for a table that is not as it was made.
    fn misfit(&self, problem: &str) -> Error {
        Error::WrongShape { table: catalog::qualified_name(self.oid()), problem: problem.to_owned() }
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open.
        unsafe { (*self.relation).rd_att }
    }

    /// One value for each column of the table; `rest` gives those that are not in `columns`.
    fn fit(
        &self,
        columns: &[Option<pg_sys::Datum>],
        rest: impl Fn(usize) -> Option<pg_sys::Datum>,
    ) -> Result<(Vec<pg_sys::Datum>, Vec<bool>), Error> {
        // SAFETY: the relation is open.
        let natts = usize::try_from(unsafe { (*self.descriptor()).natts }).unwrap_or(0);
        if columns.iter().skip(natts).any(Option::is_some) {
            return Err(Error::Internal(format!(
                "table {} has {natts} columns, not {}",
                catalog::relation_name(self.oid()),
                columns.len()
            )));
        }
        let value = |column: usize| columns.get(column).copied().unwrap_or_else(|| rest(column));
        let fitted: Vec<_> = (0..natts).map(value).collect();
        for (place, value) in fitted.iter().enumerate() {
            // SAFETY: `place` is below `natts`.
            let attribute = unsafe { attribute(self.descriptor(), place) };
            // The server may read a column that is NOT NULL without looking for a NULL; and what it would compute for
            // an additional one is not computed here.
            let additional = place >= columns.len();
            // SAFETY: a lookup in the cache of types, for the type of a column.
            let constrained = || unsafe { pg_sys::DomainHasConstraints(attribute.atttypid) };
            let refused = !attribute.attisdropped
                && (attribute.attgenerated != 0
                    || (attribute.attnotnull && (additional || value.is_none()))
                    || (additional && value.is_none() && constrained()));
            if refused {
                return Err(self.misfit(&format!("its column {} cannot be NULL", name_of(attribute))));
            }
        }
        Ok(fitted.into_iter().map(|c| (c.unwrap_or(pg_sys::Datum::null()), c.is_none())).unzip())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // After an error the resource owner has closed it already or will; `std::thread::panicking` tells that a
        // Postgres error is unwinding through us.
        if !std::thread::panicking() {
            // SAFETY: opened by us and closed once.
            unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}

impl Version {
    /// # Safety
    /// `tuple` is a valid tuple of a heap.
    unsafe fn of(tuple: pg_sys::HeapTuple) -> Self {
        // SAFETY: a tuple of a heap has its place, and the transaction that wrote it in its header.
        let (place, writer) = unsafe { ((*tuple).t_self, (*(*tuple).t_data).t_choice.t_heap.t_xmin) };
        let block = (u32::from(place.ip_blkid.bi_hi) << 16) | u32::from(place.ip_blkid.bi_lo);
        Self { block, offset: place.ip_posid, writer: writer.into() }
    }
}

impl Row {
    /// # Safety
    /// `tuple` is valid, pinned for as long as the row lives, and of `descriptor`.
    unsafe fn deform(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        // SAFETY: the arrays have one entry for each attribute of the descriptor; the function fills all of them.
        unsafe {
            let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
            let mut values = vec![pg_sys::Datum::null(); natts];
            let mut nulls = vec![true; natts];
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Self { tuple, values, nulls }
        }
    }

    /// A column by its place, counted from 0; `None` for NULL. The caller names the type it was created with.
    pub(crate) fn get<T: FromDatum>(&self, column: usize) -> Option<T> {
        let datum = self.raw(column)?;
        // SAFETY: the datum is not null and of the column's type; FromDatum copies or detoasts it.
        unsafe { T::from_datum(datum, false) }
    }

    /// A column that was made NOT NULL, by its place. The owner of the table can have taken that back.
    pub(crate) fn required<T: FromDatum>(&self, column: usize) -> Result<T, Error> {
        self.get(column).ok_or_else(|| self.misfit(column, "is NULL"))
    }

    /// The datum of such a column.
    pub(crate) fn required_raw(&self, column: usize) -> Result<pg_sys::Datum, Error> {
        self.raw(column).ok_or_else(|| self.misfit(column, "is NULL"))
    }

    /// The error for a column of this row that is not as the extension writes it.
    pub(crate) fn misfit(&self, column: usize, problem: &str) -> Error {
        // SAFETY: the tuple is valid and pinned (`deform`); a scan of a table sets the field.
        misfit_of_row(unsafe { (*self.tuple).t_tableOid }, column, problem)
    }

    /// The transaction that wrote this version of the row. Freezing and rewriting the table keep it.
    pub(crate) fn writer(&self) -> u32 {
        // SAFETY: the tuple is valid and pinned (`deform`), and one of a table, whose header has this field.
        unsafe { (*(*self.tuple).t_data).t_choice.t_heap.t_xmin }.into()
    }

    /// A column's datum; `None` for NULL.
    pub(crate) fn raw(&self, column: usize) -> Option<pg_sys::Datum> {
        match (self.values.get(column), self.nulls.get(column)) {
            (Some(datum), Some(false)) => Some(*datum),
            _ => None,
        }
    }
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

/// # Safety
/// `descriptor` is valid and has more than `place` columns.
unsafe fn attribute<'a>(descriptor: pg_sys::TupleDesc, place: usize) -> &'a pg_sys::FormData_pg_attribute {
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

/// The error for a row of a query's result with a NULL in a column, counted from 0, that was made NOT NULL.
pub(crate) fn is_null(relation: pg_sys::Oid, column: usize) -> Error {
    misfit_of_row(relation, column, "is NULL")
}

fn misfit_of_row(relation: pg_sys::Oid, column: usize, problem: &str) -> Error {
    let column = catalog::column_name(relation, column);
    Error::WrongShape {
        table: catalog::qualified_name(relation),
        problem: format!("column {column} of a row {problem}"),
    }
}

/// The error for a column of a query's result that is not of the type that the table was made with.
pub(crate) fn wrong_type(relation: pg_sys::Oid, column: &Column) -> Error {
    Error::WrongShape {
        table: catalog::qualified_name(relation),
        problem: format!("its column {} is not {}", column.name, column.of),
    }
}

/// The number that the server has for a column, which it counts from 1; no column's where there are not so many.
fn number_of(column: usize) -> pg_sys::AttrNumber {
    column.checked_add(1).and_then(|number| number.try_into().ok()).unwrap_or(pg_sys::AttrNumber::MAX)
}

/// A column's name, as far as it is text of the database.
fn name_of(attribute: &pg_sys::FormData_pg_attribute) -> std::borrow::Cow<'_, str> {
    // SAFETY: a name is NUL-terminated within its array.
    unsafe { core::ffi::CStr::from_ptr((&raw const attribute.attname.data).cast()) }.to_string_lossy()
}

/// A datum for `Table::insert`.
pub(crate) fn datum<T: IntoDatum>(value: T) -> Option<pg_sys::Datum> {
    value.into_datum()
}
