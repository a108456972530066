//! The triggers on the tables of keyrings and settings: every backend looks at them again, and a keyring that values need
//! stays as it is, whether a statement would remove it or replication does. No lock of ours is held then, and where
//! replication applies a change, no trigger of the statement fires but for TRUNCATE.

use std::cell::{Cell, RefCell};

use omni_credentials_host::Digest;
use pgrx::datum::Uuid;
use pgrx::{FromDatum, pg_sys};

use crate::admin::keyring_needs::Needs;
use crate::admin::owner::values_must_be_at_rest;
use crate::error::{Error, or_raise};
use crate::postgres::catalog::{self, Extension};
use crate::postgres::fmgr::raw_function;
use crate::postgres::heap::Table;
use crate::postgres::tables::{config, keyrings};
use crate::postgres::trigger::{Call, Event, Level, Timing};
use crate::postgres::varlena::Detoasted;

raw_function!(
    credentials_store_changed_wrapper,
    pg_finfo_credentials_store_changed_wrapper,
    credentials_store_changed
);

/// AFTER any change of `credentials_config` or `credentials_keyrings`, for each statement: every backend looks again. And
/// BEFORE any change of `credentials_keyrings`, for each row. Those of `credentials_keyrings` fire always: so they do where
/// replication applies changes.
///
/// # Safety
/// Called by Postgres.
unsafe fn credentials_store_changed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres's own call.
    let changed = unsafe { Call::new(fcinfo) }.and_then(|call| changed(&call));
    pg_sys::Datum::from(or_raise(changed))
}

/// The row of a trigger for each row; null for one of the statement.
fn changed(call: &Call<'_>) -> Result<pg_sys::HeapTuple, Error> {
    if call.must_fire(Timing::Before, Level::Row).is_ok() {
        return of_row(call);
    }
    call.must_fire(Timing::After, Level::Statement)?;
    forget();
    if call.event() == Event::Truncate {
        refuse_loss(call)?;
    }
    tell(call);
    Ok(core::ptr::null_mut())
}

/// Tells every backend, at commit. Counts as something that the transaction writes.
fn tell(call: &Call<'_>) {
    // SAFETY: the relation of the running trigger; the invalidation is queued.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(call.relation()) }
}

/// Fails where a TRUNCATE removed keyrings and left values.
fn refuse_loss(call: &Call<'_>) -> Result<(), Error> {
    // It is a table of keyrings unless it is one of the others, whatever its owner made of its name or its columns.
    let of_others = call.schema_of(c"credentials_config").is_some()
        || call.must_have(config::COLUMNS).is_ok()
        || Extension::find().and_then(|ours| ours.table(c"allowed_variables")) == Some(call.relation());
    if !of_others && holds_values(call)? {
        return Err(Error::KeyringsNeeded { schema: catalog::schema_name(call.schema()) });
    }
    Ok(())
}

/// Whether the instance of these keyrings has values. From here on no one writes any: what a transaction that still runs has
/// sealed counts. Where one of the tables has another name or another schema, no one can tell: an error. So it is where the
/// statement writes values, too: it may write some after this, or leave versions of what it has changed.
fn holds_values(call: &Call<'_>) -> Result<bool, Error> {
    let displaced = |problem| Error::WrongShape { table: catalog::qualified_name(call.relation()), problem };
    let schema = call.schema_of(c"credentials_keyrings").ok_or_else(|| {
        displaced("it has another name, and values are found by the name credentials_keyrings".to_owned())
    })?;
    let mut holds = false;
    for (name, lock) in [
        (c"encrypted_credentials", pg_sys::ShareRowExclusiveLock),
        (c"encrypted_credential_versions", pg_sys::AccessShareLock),
    ] {
        let values = Table::open_in(schema, name, lock)?.filter(Table::has_our_trigger).ok_or_else(|| {
            displaced(format!(
                "its schema has no table {} of ours, which may hold values",
                name.to_string_lossy()
            ))
        })?;
        holds = holds || !values.is_empty()?;
    }
    values_must_be_at_rest(schema, call.event() == Event::Truncate)?;
    Ok(holds)
}

/// The row, or null where replication is not to change a keyring. A statement of a session fails then.
fn of_row(call: &Call<'_>) -> Result<pg_sys::HeapTuple, Error> {
    let row = if call.event() == Event::Delete { call.old_values()?.0 } else { call.new_values()?.0 };
    let Some((old, new)) = loss(call)? else {
        tell(call);
        return Ok(row);
    };
    // SAFETY: a variable of the session.
    let replicates = i64::from(unsafe { pg_sys::SessionReplicationRole })
        == i64::from(pg_sys::SESSION_REPLICATION_ROLE_REPLICA);
    let reason = match objection(call, &old, new.as_ref(), replicates) {
        Ok(None) => return Ok(row),
        Ok(Some(reason)) => reason,
        Err(error) if error.ends_statement() => return Err(error),
        Err(error @ Error::ValuesChanging { .. }) if !replicates => return Err(error),
        Err(error) => format!("no one can tell whether values here are sealed with it: {error}"),
    };
    let (schema, id) = (catalog::schema_name(call.schema()), old.id.to_string());
    let is_update = call.event() == Event::Update;
    let change = if is_update { "overwrite" } else { "delete" };
    if !replicates {
        return Err(Error::KeyringNeeded { schema, change, id, reason });
    }
    if may_warn() {
        let other = if is_update { "changed" } else { "removed" };
        pgrx::warning!("kept keyring {id} of schema {schema} that another server {other}: {reason}");
    }
    Ok(core::ptr::null_mut())
}

/// The keyring that a row no longer has after the change, and the one that it has then; `None` where nothing goes.
fn loss(call: &Call<'_>) -> Result<Option<(KeyringRow, Option<KeyringRow>)>, Error> {
    if call.event() == Event::Insert {
        return Ok(None);
    }
    call.must_have(keyrings::COLUMNS)?;
    // A row that is none opens nothing, and keeps the others from being read as long as it is there.
    let Some(old) = KeyringRow::of(&call.old_values()?.1) else { return Ok(None) };
    if call.event() == Event::Delete {
        return Ok(Some((old, None)));
    }
    let new = KeyringRow::of(&call.new_values()?.1);
    let stays = new.as_ref().is_some_and(|new| (new.module, &new.bytes) == (old.module, &old.bytes));
    Ok((!stays).then_some((old, new)))
}

/// What is in a row of `credentials_keyrings`, if it is one: the constraints of the table are its owner's.
struct KeyringRow {
    id: Uuid,
    module: Digest,
    bytes: Vec<u8>,
}

impl KeyringRow {
    fn of(values: &[Option<pg_sys::Datum>]) -> Option<Self> {
        let column = |column: usize| values.get(column).copied().flatten();
        let bytes = |column: pg_sys::Datum| {
            // SAFETY: the datum of a bytea that is not NULL; the columns were checked just now.
            unsafe { Detoasted::new(column) }.bytes().to_vec()
        };
        // SAFETY: the datum of a uuid that is not NULL.
        let id = unsafe { Uuid::from_datum(column(keyrings::ID)?, false) }?;
        let module = Digest::from_bytes(bytes(column(keyrings::MODULE)?).try_into().ok()?);
        Some(Self { id, module, bytes: bytes(column(keyrings::KEYRING)?) })
    }
}

/// Why a keyring is not to be deleted, or not to get other bytes.
fn objection(
    call: &Call<'_>,
    old: &KeyringRow,
    new: Option<&KeyringRow>,
    replicates: bool,
) -> Result<Option<String>, Error> {
    if !holds_values(call)? {
        tell(call);
        return Ok(None);
    }
    let is_delete = call.event() == Event::Delete;
    with_needs(call, |needs| {
        let Some(need) = needs.of_keyring(&old.module, &old.bytes)? else { return Ok((None, is_delete)) };
        let reason = Some(need.reason().to_owned());
        let Some(new) = new else { return Ok((reason, true)) };
        // What was altered can be put back.
        let was_altered = needs.is_altered(&old.module, &old.bytes);
        let met = match needs.unlock(&new.module, &new.bytes) {
            Ok(mut new) => was_altered || needs.are_met_by(&old.module, &old.bytes, &mut new)?,
            Err(error) if error.is_of_keyring() => was_altered && !replicates,
            Err(error) => return Err(error),
        };
        Ok(if met { (None, false) } else { (reason, true) })
    })
}

thread_local! {
    /// What the running statement found out.
    static NEEDS: RefCell<Option<(Moment, Needs)>> = const { RefCell::new(None) };
}

/// A time in a transaction since which it has written nothing but what the trigger's own statement writes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    transaction: pg_sys::TransactionId,
    subtransaction: pg_sys::SubTransactionId,
    command: pg_sys::CommandId,
    schema: pg_sys::Oid,
}

impl Moment {
    fn now(schema: pg_sys::Oid) -> Self {
        // SAFETY: in a transaction. Before a row is deleted or updated, its transaction may get its number. The command counter
        // goes on where the statement, or anything since the last time, has written: the rows that are gone by then are not
        // seen any more.
        unsafe {
            let transaction = pg_sys::GetTopTransactionId();
            pg_sys::CommandCounterIncrement();
            Self {
                transaction,
                subtransaction: pg_sys::GetCurrentSubTransactionId(),
                command: pg_sys::GetCurrentCommandId(false),
                schema,
            }
        }
    }
}

thread_local! {
    static WARNINGS: Cell<usize> = const { Cell::new(0) };
}

/// So many keyrings are named that a transaction keeps.
const MOST_WARNINGS: usize = 10;

fn may_warn() -> bool {
    let before = WARNINGS.get();
    WARNINGS.set(before.saturating_add(1));
    if before == MOST_WARNINGS {
        pgrx::warning!("further keyrings that are kept are not named");
    }
    before < MOST_WARNINGS
}

fn forget() {
    drop(NEEDS.take());
    WARNINGS.set(0);
}

/// Called once, when the library is loaded.
pub(super) fn register() {
    // SAFETY: called from _PG_init, in the only thread; the callback is a plain C function that calls nothing of the server.
    unsafe { pg_sys::RegisterXactCallback(Some(on_transaction), core::ptr::null_mut()) }
}

/// The keys go with the transaction.
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _: *mut core::ffi::c_void) {
    use pg_sys::XactEvent as E;
    if [E::XACT_EVENT_COMMIT, E::XACT_EVENT_ABORT, E::XACT_EVENT_PREPARE].contains(&event) {
        // Nothing here may fail.
        let _ = NEEDS.try_with(|needs| needs.try_borrow_mut().map(|mut needs| needs.take()));
        let _ = WARNINGS.try_with(|warnings| warnings.set(0));
    }
}

/// Asks for needs that hold now. `ask` also says whether they still hold afterwards.
fn with_needs<T>(
    call: &Call<'_>,
    ask: impl FnOnce(&mut Needs) -> Result<(T, bool), Error>,
) -> Result<T, Error> {
    let schema = call.schema();
    let now = Moment::now(schema);
    let kept = NEEDS.take().filter(|(moment, _)| *moment == now);
    let (now, mut needs) = match kept {
        Some(kept) => kept,
        None => {
            tell(call);
            (Moment::now(schema), Needs::of(schema)?)
        }
    };
    let (answer, holds) = ask(&mut needs)?;
    if holds {
        NEEDS.set(Some((now, needs)));
    }
    Ok(answer)
}
