//! What the trigger functions have in common: the call, and the row under it.

use pgrx::pg_sys;

use crate::error::Error;
use crate::postgres::{catalog, heap};

/// A trigger's call.
pub(crate) struct Call<'a> {
    data: &'a pg_sys::TriggerData,
}

/// The statement that fired a trigger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// When a trigger fires, seen from the change of the row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    Before,
    After,
    InsteadOf,
}

/// Whether a trigger fires for each row, or once for a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Row,
    Statement,
}

impl<'a> Call<'a> {
    /// # Safety
    /// `fcinfo` is the one that Postgres called the function with, and outlives the result.
    pub(crate) unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self, Error> {
        // SAFETY: `called_as_trigger` checks the node tag of the context.
        unsafe {
            if !pgrx::trigger_support::called_as_trigger(fcinfo) {
                return Err(Error::InvalidArgument(
                    "this function can only be called as a trigger".to_owned(),
                ));
            }
            Ok(Self { data: &*(*fcinfo).context.cast::<pg_sys::TriggerData>() })
        }
    }

    /// The statement.
    pub(crate) fn event(&self) -> Event {
        match self.data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        }
    }

    /// The table or view.
    pub(crate) fn relation(&self) -> pg_sys::Oid {
        // SAFETY: the relation of a running trigger is open.
        unsafe { (*self.data.tg_relation).rd_id }
    }

    /// The schema of the table or view.
    pub(crate) fn schema(&self) -> pg_sys::Oid {
        // SAFETY: the relation of a running trigger is open.
        unsafe { (*(*self.data.tg_relation).rd_rel).relnamespace }
    }

    /// The schema of the table, if that is its name.
    pub(crate) fn schema_of(&self, name: &core::ffi::CStr) -> Option<pg_sys::Oid> {
        let schema = self.schema();
        (catalog::relation_oid(schema, name) == Some(self.relation())).then_some(schema)
    }

    /// `encrypted_credentials` in the schema of the trigger's view.
    pub(crate) fn table_of_view(&self) -> Result<pg_sys::Oid, Error> {
        catalog::relation_oid(self.schema(), c"encrypted_credentials")
            .ok_or_else(|| Error::NotAnInstance { relation: catalog::relation_name(self.relation()) })
    }

    /// Fails unless the first columns of the table or view are these.
    pub(crate) fn must_have(&self, columns: &[heap::Column]) -> Result<(), Error> {
        // SAFETY: the relation of a running trigger is open and locked, and its descriptor valid.
        unsafe { heap::check_columns(self.relation(), (*self.data.tg_relation).rd_att, columns) }
    }

    /// Fails unless the trigger was made to fire as ours are: anyone who may execute a trigger function can attach it to
    /// a table of their own in another way.
    pub(crate) fn must_fire(&self, timing: Timing, level: Level) -> Result<(), Error> {
        let row = self.data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
        let fits = self.data.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK
            == match timing {
                Timing::Before => pg_sys::TRIGGER_EVENT_BEFORE,
                Timing::After => 0,
                Timing::InsteadOf => pg_sys::TRIGGER_EVENT_INSTEAD,
            };
        if fits && row == (level == Level::Row) {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "a trigger of {} calls a function of omni_credentials in a way that it is not made for",
            catalog::qualified_name(self.relation())
        )))
    }

    /// The name of a trigger that may change the row after this one, which is a BEFORE trigger for each row, has run.
    /// Triggers of one kind run in the order of their names, which is the order that the server keeps them in.
    pub(crate) fn later_before_row(&self) -> Option<String> {
        let event = match self.event() {
            Event::Insert => pg_sys::TRIGGER_TYPE_INSERT,
            Event::Update => pg_sys::TRIGGER_TYPE_UPDATE,
            Event::Delete | Event::Truncate => return None,
        };
        let wanted = pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_BEFORE | event;
        // SAFETY: the relation of a running trigger is open, and its description has `numtriggers` entries, each with a
        // NUL-terminated name. No one changes it meanwhile: that takes a lock that conflicts with ours.
        unsafe {
            let description = (*self.data.tg_relation).trigdesc;
            if description.is_null() {
                return None;
            }
            let count = usize::try_from((*description).numtriggers).unwrap_or(0);
            let own = (*self.data.tg_trigger).tgoid;
            core::slice::from_raw_parts((*description).triggers, count)
                .iter()
                .skip_while(|trigger| trigger.tgoid != own)
                .skip(1)
                .find(|trigger| {
                    let fires = u8::try_from(trigger.tgenabled).is_ok_and(|enabled| {
                        enabled != pg_sys::TRIGGER_DISABLED && enabled != pg_sys::TRIGGER_FIRES_ON_REPLICA
                    });
                    // A trigger with several events has the bit of each.
                    fires && u32::try_from(trigger.tgtype).is_ok_and(|kind| kind & wanted == wanted)
                })
                .map(|trigger| core::ffi::CStr::from_ptr(trigger.tgname).to_string_lossy().into_owned())
        }
    }

    /// The default of a column, counted from 0, as an INSERT without the column has it; `None` where it has none, or NULL.
    pub(crate) fn default_of(&self, column: usize) -> Option<pg_sys::Datum> {
        let number = i32::try_from(column.checked_add(1)?).ok()?;
        // SAFETY: the relation of a running trigger is open, and has that column: the caller checked its columns. The
        // expression is evaluated as the server does it for an INSERT, and its result copied before the state is freed,
        // into the memory of the caller.
        unsafe {
            let expression = pg_sys::build_column_default(self.data.tg_relation, number);
            if expression.is_null() {
                return None;
            }
            let (mut length, mut by_value) = (0_i16, false);
            pg_sys::get_typlenbyval(pg_sys::exprType(expression), &raw mut length, &raw mut by_value);
            let state = pg_sys::CreateExecutorState();
            let prepared = pg_sys::ExecPrepareExpr(expression.cast(), state);
            let context = pg_sys::MakePerTupleExprContext(state);
            let mut null = true;
            let value = (*prepared).evalfunc?(prepared, context, &raw mut null);
            let value = (!null).then(|| pg_sys::datumCopy(value, by_value, i32::from(length)));
            pg_sys::FreeExecutorState(state);
            value
        }
    }

    /// A row of the relation with some columns, counted from 0, replaced.
    pub(crate) fn with_columns(
        &self,
        row: pg_sys::HeapTuple,
        columns: &[(usize, Option<pg_sys::Datum>)],
    ) -> pg_sys::HeapTuple {
        // SAFETY: the row is of the relation's descriptor, as those of this call are; the arrays have one entry for each of
        // its attributes.
        unsafe {
            let descriptor = (*self.data.tg_relation).rd_att;
            let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
            let mut values = vec![pg_sys::Datum::null(); natts];
            let mut replaced = vec![false; natts];
            let mut nulls = vec![false; natts];
            for (column, value) in columns {
                if let (Some(slot), Some(null), Some(flag)) =
                    (values.get_mut(*column), nulls.get_mut(*column), replaced.get_mut(*column))
                {
                    (*slot, *null, *flag) = (value.unwrap_or(pg_sys::Datum::null()), value.is_none(), true);
                }
            }
            // Only later versions of the server declare that they do not change the arrays.
            let (values, nulls, replaced) = (values.as_mut_ptr(), nulls.as_mut_ptr(), replaced.as_mut_ptr());
            pg_sys::heap_modify_tuple(row, descriptor, values, nulls, replaced)
        }
    }

    /// All columns of the row before the change.
    pub(crate) fn old_values(&self) -> Result<(pg_sys::HeapTuple, Vec<Option<pg_sys::Datum>>), Error> {
        self.values(self.data.tg_trigtuple)
    }

    /// All columns of the row after the change.
    pub(crate) fn new_values(&self) -> Result<(pg_sys::HeapTuple, Vec<Option<pg_sys::Datum>>), Error> {
        match self.event() {
            Event::Update => self.values(self.data.tg_newtuple),
            _ => self.values(self.data.tg_trigtuple),
        }
    }

    fn values(
        &self,
        tuple: pg_sys::HeapTuple,
    ) -> Result<(pg_sys::HeapTuple, Vec<Option<pg_sys::Datum>>), Error> {
        if tuple.is_null() {
            return Err(Error::InvalidArgument(
                "this trigger function must be fired for each row".to_owned(),
            ));
        }
        // SAFETY: the tuple belongs to the call and is of the relation's descriptor; the arrays have one entry for
        // each of its attributes.
        let (values, nulls) = unsafe {
            let descriptor = (*self.data.tg_relation).rd_att;
            let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
            let mut values = vec![pg_sys::Datum::null(); natts];
            let mut nulls = vec![true; natts];
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            (values, nulls)
        };
        let present = values.into_iter().zip(nulls).map(|(value, null)| (!null).then_some(value)).collect();
        Ok((tuple, present))
    }
}
