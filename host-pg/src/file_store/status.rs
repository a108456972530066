//! Whether a file and the table are in step: whether a synchronisation would write nothing and a reload load nothing.
//!
//! The table is looked at as it is. What the triggers noted would not do: none of them fires for what logical
//! replication applies, for a session with `session_replication_role = replica`, or when a role is renamed.

use omni_credentials_host::shared_file::Lock;
use omni_credentials_host::{self as host, Digest};
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};

use super::registry::{Registry, Store};
use super::table::Rows;
use super::{check_rights, check_rights_of, file_error, limit_error, moved, place, read_at, transaction};
use crate::error::Error;
use crate::instance::{self, Handle};
use crate::postgres::catalog;

/// Why file and table are not in step; `None` where they are. Needs no key and opens nothing. With it the store as it was
/// registered when that was so.
pub(super) fn of(
    table: pg_sys::Oid,
    registry: &Registry,
    mut store: Store,
) -> (Store, Result<Option<String>, Error>) {
    loop {
        let reason = instance::of_table_now(table).and_then(|handle| behind(&handle, registry, &store));
        // Where another session committed meanwhile, what was seen of the file and of the table need not belong
        // together. To look takes less time than to commit, so this ends.
        match registry.find(&store.filename) {
            Ok(Some(now)) if now != store => store = now,
            _ => return (store, reason),
        }
    }
}

fn behind(handle: &Handle, registry: &Registry, store: &Store) -> Result<Option<String>, Error> {
    let filename = &store.filename;
    check_rights(filename)?;
    check_rights_of(registry.owner(), filename)?;
    let schema = quote_identifier(catalog::schema_name(handle.borrow().schema));
    let call =
        |function: &str| format!("{schema}.credential_file_store_{function}({})", quote_literal(filename));
    // Before the file: a commit that the registry knows of has its lock until the file is in place.
    let place = place::open(filename)?;
    let held = Lock::is_held(&place);
    let file = read_at(filename, &place)?;
    if store.suspended {
        let (what, take_up) = match file {
            Some(_) => ("load the file", format!("select * from {}", call("reload"))),
            None => ("write the file", format!("select {}", call("sync"))),
        };
        return Ok(Some(format!(
            "the file store came from another database and is suspended; to end it: select omni_credentials.detach_file_store({}, {}), to {what}: {take_up}",
            quote_literal(filename),
            quote_literal(&schema),
        )));
    }
    let Some(file) = file else {
        let instance = handle.borrow();
        return match instance.current() {
            None if !instance.holds_nothing()? => {
                Err(Error::KeyringMissing { schema: instance.schema_name() })
            }
            _ => Ok(Some(format!("the file is missing; to write it: select {}", call("sync")))),
        };
    };
    let digest = Digest::of(&file).as_bytes().to_vec();
    if store.written() == Some(&digest) {
        let table = handle.borrow().table;
        return Ok(match look_at_the_table(handle, store, &file)? {
            Found::Same => None,
            Found::Unloaded => Some(format!(
                "the file has {} changes that the table does not have; to load them: select * from {}",
                store.unloaded,
                call("reload")
            )),
            Found::Nobodys => Some(
                "the table has credentials of roles that no longer exist; to give them to another one: select omni_credentials.rename_principal(...)".to_owned(),
            ),
            Found::News(what) if transaction::is_noted(table) => {
                Some(format!("{what}; the commit of this transaction writes it"))
            }
            Found::News(what) => Some(format!("{what}; to write it: select {}", call("sync"))),
        });
    }
    let fault = |error: host::Error| file_error(filename, error);
    let published = store.pending_digest.as_ref().is_none_or(|pending| registry.note(store).says(pending));
    if !published && store.file_digest.as_ref() == Some(&digest) {
        if held.map_err(fault)? {
            return Ok(Some(
                "a writer that holds the lock has not put the last commit into the file yet".to_owned(),
            ));
        }
        return Ok(Some(format!(
            "a crash or an error kept the last commit from reaching the file; to write it: select {}",
            call("sync")
        )));
    }
    // What does not even parse says so itself.
    let generation = {
        let instance = handle.borrow();
        let mut files = instance.current_module()?.files().map_err(fault)?;
        let document = files.parse(&file).map_err(fault)?;
        files.generation(document).map_err(fault)?
    };
    let known = store.known_generation();
    Ok(Some(if generation < known {
        format!(
            "the file went back from generation {known} to {generation}; to take its values over: select * from {}, to write those of the table: remove the file, then select {}",
            call("reload"),
            call("sync")
        )
    } else {
        format!("the file was changed by another writer; to load it: select * from {}", call("reload"))
    }))
}

/// What the table is, compared with the file that this instance wrote or checked last.
enum Found {
    Same,
    /// The file has what the table lacks.
    Unloaded,
    /// The table has rows that cannot become records.
    Nobodys,
    /// The table has what the file lacks.
    News(&'static str),
}

fn look_at_the_table(handle: &Handle, store: &Store, file: &[u8]) -> Result<Found, Error> {
    const KEYRING: Found = Found::News("the file has another keyring than the table");
    let fault = |error: host::Error| file_error(&store.filename, error);
    let instance = handle.borrow();
    let mut files = instance.current_module()?.files().map_err(fault)?;
    let theirs = match files.parse(file) {
        Ok(document) => document,
        // Written before the instance moved to its module.
        Err(error) if moved::may_be_of_another_module(&error) => return Ok(KEYRING),
        Err(error) => return Err(fault(error)),
    };
    let carried = files.keyring_bytes(theirs).map_err(fault)?;
    if instance.current().is_none_or(|current| current.bytes != carried) {
        return Ok(KEYRING);
    }
    let rows = Rows::read(&instance, &store.filename)?;
    if !rows.complete {
        return Ok(Found::Nobodys);
    }
    if store.unloaded > 0 {
        return Ok(Found::Unloaded);
    }
    let ours = files
        .table(theirs, &rows.packed)
        .map_err(|error| limit_error(&store.filename, instance.schema, error))?;
    // What both agreed on is not known where the store was suspended, which was told before.
    let agreed = store.agreed();
    Ok(if !agreed.is_empty() && files.matches(ours, &agreed).map_err(fault)? {
        Found::Same
    } else {
        Found::News("the table was changed and the file was not")
    })
}
