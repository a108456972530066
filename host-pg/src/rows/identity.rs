//! From a row's fields to what the module needs to know of them.
//!
//! The module canonicalises; here numbers become names (roles, enum labels), jsonb becomes its text, and all of it UTF-8,
//! exactly: what has no UTF-8 is refused. The last results are kept, since a scan meets the same few roles, kinds and
//! scopes again and again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use omni_credentials_host::Identity;
use pgrx::pg_sys;

use crate::error::{Error, Unreadable};
use crate::postgres::varlena::{Detoasted, jsonb_text};
use crate::postgres::{catalog, encoding};
use crate::rows::columns::Fields;

/// Calls `f` with the identity and the expiry that the fields stand for. `as_principal`, in UTF-8, replaces the principal's name, for
/// values that were sealed under an earlier one.
pub(crate) fn with_identity<T>(
    fields: &Fields,
    as_principal: Option<&[u8]>,
    f: impl FnOnce(&Identity<'_>, Option<u64>) -> T,
) -> Result<T, Unreadable> {
    forget_if_told();
    let expires = fields.expires()?;
    // SAFETY: the datums come from a row (or arguments) of the declared types: text, an enum, regrole, jsonb.
    let (name, scope) = unsafe { (Detoasted::new(fields.name), Detoasted::new(fields.scope)) };
    if scope.bytes().len() > MAX_INDEXED_BYTES {
        // No row has such a scope, and an argument of a function is not to be turned into text that is longer still.
        return Err(Unreadable::InvalidIdentity);
    }
    let name = encoding::to_utf8(name.bytes());
    CACHE.with_borrow_mut(|cache| {
        let cache = &mut *cache;
        let principal = fields.principal_oid();
        let role = match as_principal {
            Some(role) => role,
            None => match cache.roles.entry(principal.to_u32()) {
                Entry::Occupied(entry) => &*entry.into_mut(),
                Entry::Vacant(entry) => match catalog::role_name(principal) {
                    Some(role) => &*entry.insert(role),
                    None => return Err(Unreadable::PrincipalDropped(principal.to_u32())),
                },
            },
        };
        let label = catalog::oid(fields.kind);
        let kind = cache
            .labels
            .entry(label.to_u32())
            .or_insert_with(|| catalog::enum_label(label).unwrap_or_default());
        if cache.scope.raw != scope.bytes() {
            // Made before either half is replaced: an error on the way must not pair one scope with another's text.
            let text = encoding::to_utf8(&jsonb_text(&scope)).into_owned();
            if text.len() > MAX_TEXT {
                return Err(Unreadable::InvalidIdentity);
            }
            if text.len() > MAX_CACHED_TEXT {
                return Ok(f(&Identity { name: &name, kind, principal: role, scope: &text }, expires));
            }
            cache.scope = LastScope { raw: scope.bytes().to_vec(), text };
        }
        Ok(f(&Identity { name: &name, kind, principal: role, scope: &cache.scope.text }, expires))
    })
}

/// Listens for renamed roles and enum labels. Called once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: called from _PG_init; the callback is a plain C function that only sets a flag.
    unsafe {
        for cache in [pg_sys::SysCacheIdentifier::AUTHOID, pg_sys::SysCacheIdentifier::ENUMOID] {
            pg_sys::CacheRegisterSyscacheCallback(cache as _, Some(on_invalidation), pg_sys::Datum::null());
        }
    }
}

/// Refuses fields that an index entry could not hold, before Postgres does it with an unclear message.
pub(crate) fn check_size(fields: &Fields) -> Result<(), Error> {
    // SAFETY: as in `with_identity`.
    let (name, scope) = unsafe { (Detoasted::new(fields.name), Detoasted::new(fields.scope)) };
    let (name, scope) = (name.bytes().len(), scope.bytes().len());
    let total = name + scope;
    if total <= MAX_INDEXED_BYTES {
        return Ok(());
    }
    // The larger one is to blame.
    let (field, other) = if name > scope { ("name", "scope") } else { ("scope", "name") };
    Err(Error::InvalidField {
        name: fields.display_name(),
        field,
        problem: format!(
            "takes, together with the {other}, {total} bytes as stored; the index holds {MAX_INDEXED_BYTES}"
        ),
    })
}

/// More text than the memory of a module has room for.
const MAX_TEXT: usize = 1024 * 1024;

/// Longer text of a scope than the module takes. A short jsonb can stand for it: a number with a large exponent is written
/// with all its digits.
const MAX_CACHED_TEXT: usize = 16 * 1024;

/// A btree entry holds a third of a page, 2,704 bytes, uncompressed; some of it is headers, kind and principal.
const MAX_INDEXED_BYTES: usize = 2_600;

#[derive(Default)]
struct Cache {
    /// By the oids of roles and of labels.
    roles: BTreeMap<u32, Vec<u8>>,
    labels: BTreeMap<u32, Vec<u8>>,
    scope: LastScope,
}

/// The scope seen last, as jsonb and as text.
#[derive(Default)]
struct LastScope {
    raw: Vec<u8>,
    text: Vec<u8>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
    static FORGET: Cell<bool> = const { Cell::new(false) };
    static NAMES: Cell<u64> = const { Cell::new(0) };
}

/// Counts up whenever a role or a label of an enum may have another name.
pub(crate) fn generation_of_names() -> u64 {
    NAMES.get()
}

/// Runs whenever the server likes, possibly while the cache is in use: so it only leaves a note.
unsafe extern "C-unwind" fn on_invalidation(_: pg_sys::Datum, _: core::ffi::c_int, _: u32) {
    FORGET.set(true);
    NAMES.set(NAMES.get().wrapping_add(1));
}

fn forget_if_told() {
    if FORGET.replace(false) {
        CACHE.with_borrow_mut(|cache| {
            cache.roles.clear();
            cache.labels.clear();
        });
    }
}
