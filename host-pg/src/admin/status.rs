//! `instance_status`: how an instance is, for a person or a monitor. Opens no value and runs no SQL: no code of the
//! instance's owner runs with the rights of who asks.

use std::collections::HashMap;

use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};
use crate::instance::{self, Handle};
use crate::keys::master_secret::{self, Source};
use crate::postgres::catalog;
use crate::postgres::heap::Visibility;
use crate::rows::every::every_row;
use crate::rows::history;
use crate::settings;

/// Variable, where its secret is, whether that opens the keyring, keyrings, module, credentials, expired, due within 30
/// days, of roles that do not exist, whether the library was loaded before the server forked, problem.
type Line = (
    String,
    Option<&'static str>,
    Option<bool>,
    i32,
    Option<String>,
    i64,
    i64,
    i64,
    i64,
    bool,
    Option<String>,
);

type Lines = TableIterator<'static, Line>;

/// What is due soon.
const DUE: u64 = 30 * 24 * 60 * 60;

#[pg_extern(sql = false)]
fn instance_status(schema: Option<pg_sys::Oid>) -> Lines {
    TableIterator::once(or_raise(given(schema, "schema").and_then(line)))
}

fn line(schema: pg_sys::Oid) -> Result<Line, Error> {
    let handle = instance::of_schema(schema)?;
    let counts = Counts::of(&handle)?;
    let variable = handle.borrow().variable().to_owned();
    let (unlocks, mut problem) = unlocks(&handle);
    if let Err(error) = history::must_work(&handle) {
        problem.get_or_insert(error.to_string());
    }
    let keyrings = i32::try_from(handle.borrow().keyrings()).unwrap_or(i32::MAX);
    let module = handle.borrow().current_digest().ok().map(|digest| digest.to_string());
    let source = master_secret::source(&variable).unwrap_or_else(|error| {
        problem.get_or_insert(error.to_string());
        None
    });
    let source = source.map(|source| match source {
        Source::Variable => "variable",
        Source::File => "file",
        Source::Command => "command",
    });
    let Counts { credentials, expired, due, unknown_principals } = counts;
    Ok((
        variable,
        source,
        unlocks,
        keyrings,
        module,
        credentials,
        expired,
        due,
        unknown_principals,
        settings::is_preloaded(),
        problem,
    ))
}

/// Whether the master secret opens the current keyring, and what keeps it from that; neither where there is no keyring.
fn unlocks(handle: &Handle) -> (Option<bool>, Option<String>) {
    let mut instance = handle.borrow_mut();
    if instance.keyrings() == 0 {
        let schema = instance.schema_name();
        let problem = match instance.holds_nothing() {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "{}; if replication brought them, publish {schema}.credentials_keyrings with the rows",
                Error::KeyringMissing { schema: schema.clone() }
            )),
            Err(error) => Some(error.to_string()),
        };
        return (None, problem);
    }
    match instance.unlock_current() {
        Ok(()) => (Some(true), None),
        Err(error) => (Some(false), Some(error.to_string())),
    }
}

#[derive(Default)]
struct Counts {
    credentials: i64,
    expired: i64,
    due: i64,
    unknown_principals: i64,
}

impl Counts {
    fn of(handle: &Handle) -> Result<Self, Error> {
        let table = handle.borrow().table;
        let mut counts = Self::default();
        let mut known = HashMap::new();
        let now = now();
        every_row(table, Visibility::BySnapshot, |fields, _| {
            counts.credentials = counts.credentials.saturating_add(1);
            // What cannot be an expiry is for `verify` to report.
            if let Ok(Some(expires)) = fields.expires() {
                counts.expired = counts.expired.saturating_add(i64::from(expires <= now));
                let due = expires > now && expires <= now.saturating_add(DUE);
                counts.due = counts.due.saturating_add(i64::from(due));
            }
            let principal = fields.principal_oid();
            let exists = *known.entry(principal).or_insert_with(|| catalog::role_name(principal).is_some());
            counts.unknown_principals = counts.unknown_principals.saturating_add(i64::from(!exists));
            Ok(())
        })?;
        Ok(counts)
    }
}

/// Seconds since 1970, when the statement began.
fn now() -> u64 {
    // SAFETY: the clock of the running statement.
    let micros = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    u64::try_from(micros / 1_000_000 + 946_684_800).unwrap_or(0)
}
