//! `omni_credentials.log_reads`: who reads which credential, in the server's log. No line holds a value.

use std::cell::RefCell;
use std::collections::HashSet;

use omni_credentials_host::{Digest, Identity};
use pgrx::pg_sys;

use crate::instance::Handle;
use crate::postgres::{catalog, running, server_log};
use crate::rows::columns::Fields;
use crate::rows::identity;
use crate::settings;

/// Notes that the caller was given a value, the present one of a credential or an earlier one: one line for each statement and
/// credential, if they are wanted. The statement is the outermost one that the server executes.
pub(crate) fn read(handle: &Handle, fields: &Fields) {
    if !settings::log_reads() {
        return;
    }
    let (table, schema) = {
        let instance = handle.borrow();
        (instance.table, instance.schema_name())
    };
    let described = identity::with_identity(fields, None, |identity, _| {
        is_first(table, identity).then(|| describe(identity, &schema))
    });
    // What was opened has an identity.
    if let Ok(Some(line)) = described {
        server_log::write(&line);
    }
}

/// The line. All of it is ASCII and JSON: no name can end it, or look like the beginning of another.
fn describe(identity: &Identity<'_>, schema: &str) -> String {
    // SAFETY: who runs the statement, and who began the session; both are set in every backend.
    let (user, session) = unsafe { (pg_sys::GetUserId(), pg_sys::GetSessionUserId()) };
    let name = |oid| catalog::role_name(oid).unwrap_or_default();
    format!(
        "credential read: {{\"name\":{},\"kind\":{},\"principal\":{},\"scope\":{},\"instance\":{},\
         \"role\":{},\"session_role\":{},\"application_name\":{}}}",
        json(identity.name),
        json(identity.kind),
        json(identity.principal),
        ascii(&String::from_utf8_lossy(identity.scope)),
        json(schema.as_bytes()),
        json(&name(user)),
        json(&name(session)),
        json(&catalog::application_name()),
    )
}

/// Whether the running statement has not read this credential yet.
fn is_first(table: pg_sys::Oid, identity: &Identity<'_>) -> bool {
    let Some(statement) = running::statement() else { return true };
    let mut named = table.to_u32().to_be_bytes().to_vec();
    for field in [identity.name, identity.kind, identity.principal, identity.scope] {
        named.extend_from_slice(&field.len().to_be_bytes());
        named.extend_from_slice(field);
    }
    let digest = Digest::of(&named);
    READ.with_borrow_mut(|read| {
        if read.statement != statement || read.credentials.len() >= REMEMBERED {
            *read = Read { statement, credentials: HashSet::new() };
        }
        read.credentials.insert(digest)
    })
}

/// What a statement has read.
#[derive(Default)]
struct Read {
    statement: u64,
    credentials: HashSet<Digest>,
}

/// Past this, a statement that reads a credential again writes another line.
const REMEMBERED: usize = 100_000;

thread_local! {
    static READ: RefCell<Read> = RefCell::default();
}

/// A text as JSON.
fn json(text: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for letter in String::from_utf8_lossy(text).chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    ascii(&quoted)
}

/// JSON without any character that is not printable ASCII: they can only stand inside a text.
fn ascii(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        if matches!(letter, ' '..='~') {
            shown.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    shown
}
