//! What a table may have where rows are stored without SQL: nothing that such a change would pass over.
//!
//! The owner of a table can put triggers, constraints, rules and indexes on it. The catalog's own functions for storing rows
//! check and fire none of them, and they support plain btree indexes and nothing else.

use pgrx::pg_sys;
use pgrx::{FromDatum, IntoDatum};

use crate::postgres::as_owner;
use crate::postgres::catalog::{self, Extension};

/// The CHECK constraints that our tables are made with, as the server writes them. The rows that we store satisfy them.
const OUR_CHECKS: [&str; 1] = ["(octet_length(module) = 32)"];

/// Why rows cannot be stored directly in a table; `None` where they can.
///
/// # Safety
/// `relation` is an open table, with a lock that keeps others from changing its definition.
pub(super) unsafe fn obstacle(relation: pg_sys::Relation) -> Option<String> {
    // SAFETY: see above, for all of them.
    unsafe {
        rule(relation)
            .or_else(|| relative(relation))
            .or_else(|| trigger(relation))
            .or_else(|| check(relation))
            .or_else(|| index(relation))
    }
}

/// # Safety
/// As for `obstacle`.
unsafe fn rule(relation: pg_sys::Relation) -> Option<String> {
    // SAFETY: an open relation has its rules, or null. What pg_class says stays true after the last one was dropped.
    let rules = unsafe { (*relation).rd_rules };
    // SAFETY: as above.
    (!rules.is_null() && unsafe { (*rules).numLocks } > 0).then(|| "it has rules".to_owned())
}

/// What `obstacle` finds of other tables, of which no message comes to this one.
///
/// # Safety
/// As for `obstacle`.
pub(super) unsafe fn relative(relation: pg_sys::Relation) -> Option<String> {
    // SAFETY: rd_rel of an open relation is valid; the others look into pg_inherits. What pg_class says of subclasses stays
    // true after the last one was dropped.
    let related = unsafe {
        let (oid, form) = ((*relation).rd_id, &*(*relation).rd_rel);
        let no_lock = pg_sys::NoLock as pg_sys::LOCKMODE;
        form.relispartition
            || pg_sys::has_superclass(oid)
            || (form.relhassubclass && !pg_sys::find_inheritance_children(oid, no_lock).is_null())
    };
    related.then(|| "it takes part in inheritance or partitioning".to_owned())
}

/// A trigger that may fire, but for those of the extension. A foreign key is one, on either side.
///
/// # Safety
/// As for `obstacle`.
unsafe fn trigger(relation: pg_sys::Relation) -> Option<String> {
    // SAFETY: see above.
    let triggers = unsafe { triggers(relation) };
    let extension = Extension::find();
    let strange = triggers.iter().find(|trigger| {
        let fires = u8::try_from(trigger.tgenabled).is_ok_and(|enabled| {
            enabled != pg_sys::TRIGGER_DISABLED && enabled != pg_sys::TRIGGER_FIRES_ON_REPLICA
        });
        fires && !extension.as_ref().is_some_and(|extension| extension.has_function(trigger.tgfoid))
    })?;
    Some(match catalog::constraint_name(strange.tgconstraint) {
        Some(name) => format!("it takes part in constraint {name}"),
        // SAFETY: a trigger's name is NUL-terminated.
        None => format!("it has trigger {}", unsafe { name(strange.tgname) }),
    })
}

/// Whether a table has a trigger that the extension made, firing or not.
///
/// # Safety
/// As for `obstacle`.
pub(super) unsafe fn has_trigger_of_extension(relation: pg_sys::Relation) -> bool {
    // SAFETY: see above.
    let triggers = unsafe { triggers(relation) };
    Extension::find()
        .is_some_and(|extension| triggers.iter().any(|trigger| extension.has_function(trigger.tgfoid)))
}

/// # Safety
/// As for `obstacle`.
unsafe fn triggers<'a>(relation: pg_sys::Relation) -> &'a [pg_sys::Trigger] {
    // SAFETY: an open relation has a description with `numtriggers` entries, or null; it lives as long as the relation is open.
    unsafe {
        let description = (*relation).trigdesc;
        if description.is_null() {
            return &[];
        }
        let count = usize::try_from((*description).numtriggers).unwrap_or(0);
        core::slice::from_raw_parts((*description).triggers, count)
    }
}

/// # Safety
/// As for `obstacle`.
unsafe fn check(relation: pg_sys::Relation) -> Option<String> {
    // SAFETY: a descriptor has its constraints, or null, with `num_check` entries.
    let checks = unsafe {
        let constraints = (*(*relation).rd_att).constr;
        if constraints.is_null() || (*constraints).num_check == 0 {
            return None;
        }
        core::slice::from_raw_parts((*constraints).check, usize::from((*constraints).num_check))
    };
    // SAFETY: the relation is open.
    let oid = unsafe { (*relation).rd_id };
    let strange = as_owner::with_safe_search_path(|| {
        checks.iter().find(|check| {
            // SAFETY: the expression is NUL-terminated, and about this relation.
            let expression = unsafe { expression(check.ccbin, oid) };
            // With `quote_all_identifiers` there are quotes that say nothing.
            !expression.is_some_and(|expression| OUR_CHECKS.contains(&expression.replace('"', "").as_str()))
        })
    })?;
    // SAFETY: a constraint's name is NUL-terminated.
    Some(format!("it has the CHECK constraint {}", unsafe { name(strange.ccname) }))
}

/// # Safety
/// As for `obstacle`.
unsafe fn index(relation: pg_sys::Relation) -> Option<String> {
    // SAFETY: the relation is open with a lock that keeps indexes from being made or dropped. Each index is closed
    // again and its lock kept, as the list's owner expects.
    unsafe {
        let list = pg_sys::RelationGetIndexList(relation);
        for index in pgrx::PgList::<core::ffi::c_void>::from_pg(list).iter_oid() {
            let open = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let plain = is_plain_index(open);
            pg_sys::index_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
            if !plain {
                return Some(format!("index {} is not a plain btree index", catalog::relation_name(index)));
            }
        }
    }
    None
}

/// Whether `CatalogTupleInsert` can keep an index: a btree over columns, neither partial nor deferrable nor excluding.
///
/// # Safety
/// `index` is an open index.
unsafe fn is_plain_index(index: pg_sys::Relation) -> bool {
    // SAFETY: an open index has its row of pg_index, and the tuple that the row is in.
    unsafe {
        let form = &*(*index).rd_index;
        let absent = |number: u32| {
            i32::try_from(number).is_ok_and(|number| {
                pg_sys::heap_attisnull((*index).rd_indextuple, number, core::ptr::null_mut())
            })
        };
        (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
            && form.indimmediate
            && !form.indisexclusion
            && absent(pg_sys::Anum_pg_index_indexprs)
            && absent(pg_sys::Anum_pg_index_indpred)
    }
}

/// Whether an index is a valid unique btree over these columns, counted from 0, in this order and no others, ascending.
///
/// # Safety
/// `index` is an open index.
pub(super) unsafe fn is_index_over(index: pg_sys::Relation, columns: &[usize]) -> bool {
    // SAFETY: an open index has its row of pg_index, and arrays with an entry for each of its key columns.
    unsafe {
        let form = &*(*index).rd_index;
        let is_usable = is_plain_index(index) && form.indisvalid && form.indisready && form.indisunique;
        if !is_usable || usize::try_from(form.indnkeyatts) != Ok(columns.len()) {
            return false;
        }
        let attributes = core::slice::from_raw_parts(form.indkey.values.as_ptr(), columns.len());
        let options = core::slice::from_raw_parts((*index).rd_indoption, columns.len());
        let collations = core::slice::from_raw_parts((*index).rd_indcollation, columns.len());
        let in_order = attributes.iter().zip(columns).all(|(attribute, column)| {
            usize::try_from(*attribute).is_ok_and(|number| Some(number) == column.checked_add(1))
        });
        let c_or_none =
            |collation: &pg_sys::Oid| [pg_sys::InvalidOid, pg_sys::C_COLLATION_OID].contains(collation);
        in_order && options.iter().all(|option| *option == 0) && collations.iter().all(c_or_none)
    }
}

/// An expression as the server writes it.
///
/// # Safety
/// `tree` is a NUL-terminated expression over the columns of `relation`.
unsafe fn expression(tree: *const core::ffi::c_char, relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: see above; pg_get_expr takes the tree as a text and gives a text.
    unsafe {
        let tree = pg_sys::Datum::from(pg_sys::cstring_to_text(tree));
        let text =
            pgrx::direct_function_call_as_datum(pg_sys::pg_get_expr, &[Some(tree), relation.into_datum()])?;
        String::from_datum(text, false)
    }
}

/// # Safety
/// `name` is NUL-terminated.
unsafe fn name<'a>(name: *const core::ffi::c_char) -> std::borrow::Cow<'a, str> {
    // SAFETY: see above; it lives as long as the relation it belongs to.
    unsafe { core::ffi::CStr::from_ptr(name) }.to_string_lossy()
}
