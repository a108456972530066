//! The instances that this backend knows, found by their tables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::pg_sys;

use crate::error::Error;
use crate::instance::Instance;
use crate::keys::modules;
use crate::postgres::{catalog, invalidation};

/// A shared handle to an instance.
pub(crate) type Handle = Rc<RefCell<Instance>>;

thread_local! {
    /// By the oid of the table.
    static INSTANCES: RefCell<BTreeMap<u32, Handle>> = RefCell::default();
}

/// The instance that a table belongs to.
pub(crate) fn of_table(table: pg_sys::Oid) -> Result<Handle, Error> {
    if invalidation::take() {
        look_again();
    }
    let known = INSTANCES.with_borrow(|known| known.get(&table.to_u32()).cloned());
    let handle = match known {
        Some(handle) => handle,
        None => {
            let handle = Rc::new(RefCell::new(Instance::locate(table)?));
            INSTANCES.with_borrow_mut(|known| known.insert(table.to_u32(), Rc::clone(&handle)));
            handle
        }
    };
    handle.borrow_mut().refresh()?;
    Ok(handle)
}

/// The same, with keyrings and settings as they are now: logical replication changes them without telling the backends.
pub(crate) fn of_table_now(table: pg_sys::Oid) -> Result<Handle, Error> {
    invalidation::mark();
    of_table(table)
}

/// Marks what is known of instances as old. What is known of instances that were dropped goes, sandbox and keys included.
fn look_again() {
    let dropped = INSTANCES.with_borrow_mut(|known| {
        let before = known.len();
        // SAFETY: a syscache lookup by oid; InvalidOid where there is no such relation.
        known.retain(|table, _| unsafe { pg_sys::get_rel_namespace((*table).into()) } != pg_sys::InvalidOid);
        for instance in known.values() {
            instance.borrow_mut().stale = true;
        }
        known.len() < before
    });
    if dropped {
        modules::release_unused();
    }
}

/// The instance in a schema.
pub(crate) fn of_schema(schema: pg_sys::Oid) -> Result<Handle, Error> {
    match catalog::relation_oid(schema, c"encrypted_credentials") {
        Some(table) => of_table(table),
        None => Err(Error::NotAnInstance { relation: format!("schema {}", catalog::schema_name(schema)) }),
    }
}
