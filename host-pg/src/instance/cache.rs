//! The instances that this backend knows, found by their tables.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::pg_sys;

use crate::error::Error;
use crate::instance::Instance;
use crate::keys::modules;
use crate::postgres::{catalog, invalidation};

/// A shared handle to an instance.
pub(crate) type Handle = Rc<RefCell<Instance>>;

/// So many instances are kept, each with its keyrings unlocked in a sandbox of its own. As many KEKs are kept, so one that
/// is used again is unlocked quickly.
const KEPT: usize = 64;

struct Known {
    instance: Handle,
    /// Higher the later it was used.
    used: u64,
}

thread_local! {
    /// By the oid of the table.
    static INSTANCES: RefCell<BTreeMap<u32, Known>> = RefCell::default();
    static USES: Cell<u64> = const { Cell::new(0) };
}

/// The instance that a table belongs to.
pub(crate) fn of_table(table: pg_sys::Oid) -> Result<Handle, Error> {
    if invalidation::take() {
        look_again();
    }
    let used = USES.get().wrapping_add(1);
    USES.set(used);
    let known = INSTANCES.with_borrow_mut(|known| {
        known.get_mut(&table.to_u32()).map(|known| {
            known.used = used;
            Rc::clone(&known.instance)
        })
    });
    let handle = match known {
        Some(handle) => handle,
        None => {
            let handle = Rc::new(RefCell::new(Instance::locate(table)?));
            forget_oldest();
            let known = Known { instance: Rc::clone(&handle), used };
            INSTANCES.with_borrow_mut(|all| all.insert(table.to_u32(), known));
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

/// Makes room for one more instance. One that is in use stays.
fn forget_oldest() {
    INSTANCES.with_borrow_mut(|known| {
        while known.len() >= KEPT {
            let idle = known.iter().filter(|(_, known)| Rc::strong_count(&known.instance) == 1);
            let Some(table) = idle.min_by_key(|(_, known)| known.used).map(|(table, _)| *table) else {
                return;
            };
            known.remove(&table);
        }
    });
}

/// Marks what is known of instances as old. What is known of instances that were dropped goes, sandbox and keys included.
fn look_again() {
    let dropped = INSTANCES.with_borrow_mut(|known| {
        let before = known.len();
        // SAFETY: a syscache lookup by oid; InvalidOid where there is no such relation.
        known.retain(|table, _| unsafe { pg_sys::get_rel_namespace((*table).into()) } != pg_sys::InvalidOid);
        for known in known.values() {
            known.instance.borrow_mut().stale = true;
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
