//! What a change of a credential leaves in the history: the value that it replaced or deleted.

use std::cell::RefCell;

use pgrx::{IntoDatum, pg_sys};

use crate::error::{Error, or_raise};
use crate::instance;
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::{Key, Visit, datum};
use crate::postgres::tables::{credentials, versions};
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::postgres::varlena::Detoasted;
use crate::rows::columns::{Columns, Fields};
use crate::rows::history;

raw_function!(
    encrypted_credentials_keep_wrapper,
    pg_finfo_encrypted_credentials_keep_wrapper,
    encrypted_credentials_keep
);

/// AFTER UPDATE OR DELETE on `encrypted_credentials`, for each row.
///
/// # Safety
/// Called by Postgres.
unsafe fn encrypted_credentials_keep(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    or_raise(unsafe { Call::new(fcinfo) }.and_then(|call| keep(&call)));
    pg_sys::Datum::null()
}

/// Runs `run`, which only seals a value again: an update that writes these sealed bytes is no change.
pub(crate) fn not_a_change<T>(sealed: &[u8], run: impl FnOnce() -> T) -> T {
    /// Also forgets where an error of the server unwinds through it.
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            RESEALED.set(None);
        }
    }
    let _forget = Forget;
    RESEALED.set(Some(sealed.to_vec()));
    run()
}

thread_local! {
    static RESEALED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// The index that the history is read by.
pub(super) const INDEX: [usize; 6] = [
    credentials::NAME,
    credentials::KIND,
    credentials::PRINCIPAL,
    credentials::SCOPE,
    versions::VERSION,
    versions::VALID_UNTIL,
];

/// The newest version so far.
struct Last {
    number: i64,
    valid_until: i64,
    deleted: bool,
}

/// The row that is changed is locked, so that two changes of one credential come one after the other, and the later one
/// sees what the earlier one left.
fn keep(call: &Call<'_>) -> Result<(), Error> {
    call.must_fire(Timing::After, Level::Row)?;
    let deleted = match call.event() {
        Event::Update => false,
        Event::Delete => true,
        Event::Insert | Event::Truncate => {
            return Err(Error::InvalidArgument("only updates and deletes leave a version".to_owned()));
        }
    };
    let old = Columns::old(call)?;
    let (Ok(from), Some(sealed)) = (old.fields(), old.value) else {
        // The owner let a column be NULL: this is no credential.
        return Ok(());
    };
    if !deleted && is_no_change(&from, sealed, &Columns::new(call)?) {
        return Ok(());
    }
    let handle = instance::of_table(call.relation())?;
    let limit = handle.borrow().history_limit();
    if limit == 0 {
        return Ok(());
    }
    let table = history::table(&handle, pg_sys::RowExclusiveLock)?;
    let (mut last, mut kept) = (None, 1_u32);
    table.scan_backward(&INDEX, &identity(&from), |row| {
        if last.is_none() {
            last = Some(Last {
                number: row.required(versions::VERSION)?,
                valid_until: row.required(versions::VALID_UNTIL)?,
                deleted: row.required(versions::DELETED)?,
            });
        }
        kept = kept.saturating_add(1);
        if kept > limit {
            table.delete_if_there(row)?;
        }
        Ok(Visit::Continue)
    })?;
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    // The clock may have been set back.
    let valid_until = last.as_ref().map_or(now, |last| now.max(last.valid_until));
    let valid_from = last.as_ref().filter(|last| !last.deleted).map(|last| last.valid_until);
    let number = last.map_or(1, |last| last.number.saturating_add(1));
    table.insert(&[
        Some(from.name),
        Some(sealed),
        Some(from.kind),
        Some(from.principal),
        Some(from.scope),
        from.expires_at,
        datum(number),
        valid_from.and_then(IntoDatum::into_datum),
        datum(valid_until),
        Some(current_role()),
        datum(deleted),
    ])
}

/// Whether an update leaves the credential as it was, but for the key that seals it.
fn is_no_change(from: &Fields, sealed: pg_sys::Datum, new: &Columns) -> bool {
    let (Ok(to), Some(value)) = (new.fields(), new.value) else { return false };
    // SAFETY: the datums of byteas that are not NULL.
    let (sealed, value) = unsafe { (Detoasted::new(sealed), Detoasted::new(value)) };
    if RESEALED.with_borrow(|resealed| resealed.as_deref() == Some(value.bytes())) {
        return true;
    }
    sealed.bytes() == value.bytes() && from.is_same_credential(&to) && from.has_same_expiry(&to)
}

/// What finds the versions of a credential.
fn identity(fields: &Fields) -> [Key; 4] {
    [
        Key { column: credentials::NAME, equal: pg_sys::F_TEXTEQ, value: fields.name },
        Key { column: credentials::KIND, equal: pg_sys::F_ENUM_EQ, value: fields.kind },
        Key { column: credentials::PRINCIPAL, equal: pg_sys::F_OIDEQ, value: fields.principal },
        Key { column: credentials::SCOPE, equal: pg_sys::F_JSONB_EQ, value: fields.scope },
    ]
}

/// The name of the role that makes the change, as a name: the one that the session has, also inside a function that runs
/// with the rights of its owner.
fn current_role() -> pg_sys::Datum {
    // SAFETY: gives a palloc'ed string of the role's name, or of its number where it is gone; a name has room for it.
    unsafe {
        let role = pg_sys::GetOuterUserId();
        let name = pg_sys::palloc0(NAME_LENGTH).cast::<pg_sys::NameData>();
        let text = pg_sys::GetUserNameFromId(role, true);
        if text.is_null() {
            let number = std::ffi::CString::new(role.to_u32().to_string()).unwrap_or_default();
            pg_sys::namestrcpy(name, number.as_ptr());
        } else {
            pg_sys::namestrcpy(name, text);
        }
        pg_sys::Datum::from(name)
    }
}

/// The bytes of a name.
const NAME_LENGTH: usize = size_of::<pg_sys::NameData>();
