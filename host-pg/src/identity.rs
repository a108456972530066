//! From a row's fields to what the module needs to know of them.
//!
//! The module canonicalises; here numbers become names (roles, enum labels) and jsonb becomes its text. The last
//! results are kept, since a scan meets the same few roles, kinds and scopes again and again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use omni_credentials_host::Identity;
use pgrx::pg_sys;

use crate::error::{Error, Unreadable};

/// The fields of a credential that its value is bound to, as datums of a row.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) name: pg_sys::Datum,
    pub(crate) kind: pg_sys::Datum,
    pub(crate) principal: pg_sys::Datum,
    pub(crate) scope: pg_sys::Datum,
}

impl Fields {
    /// The principal's oid.
    pub(crate) fn principal_oid(&self) -> pg_sys::Oid {
        oid(self.principal)
    }

    /// The credential's name, for messages: quoted, control characters escaped, and cut where it is very long.
    pub(crate) fn display_name(&self) -> String {
        // SAFETY: `name` is the datum of a text column.
        let name = unsafe { Packed::new(self.name) };
        display_name(name.bytes())
    }
}

/// A credential's name for messages.
pub(crate) fn display_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    match name.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}...", name.get(..end).unwrap_or_default()),
        None => format!("{name:?}"),
    }
}

/// Calls `f` with the identity that the fields stand for. `as_principal` replaces the principal's name, for values
/// that were sealed under an earlier one.
pub(crate) fn with_identity<T>(
    fields: &Fields,
    as_principal: Option<&str>,
    f: impl FnOnce(&Identity<'_>) -> T,
) -> Result<T, Unreadable> {
    forget_if_told();
    // SAFETY: the datums come from a row (or arguments) of the declared types: text, an enum, regrole, jsonb.
    let (name, scope) = unsafe { (Packed::new(fields.name), Packed::new(fields.scope)) };
    CACHE.with_borrow_mut(|cache| {
        let cache = &mut *cache;
        let principal = fields.principal_oid();
        let role = match as_principal {
            Some(role) => role.as_bytes(),
            None => match cache.roles.entry(principal) {
                std::collections::hash_map::Entry::Occupied(entry) => &*entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => match role_name(principal) {
                    Some(role) => &*entry.insert(role.into_bytes()),
                    None => return Err(Unreadable::PrincipalDropped(principal.to_u32())),
                },
            },
        };
        let label = oid(fields.kind);
        let kind = cache.labels.entry(label).or_insert_with(|| enum_label(label).unwrap_or_default());
        if cache.scope.raw != scope.bytes() {
            // Made before either half is replaced: an error on the way must not pair one scope with another's text.
            let text = jsonb_text(&scope);
            cache.scope = LastScope { raw: scope.bytes().to_vec(), text };
        }
        Ok(f(&Identity { name: name.bytes(), kind, principal: role, scope: &cache.scope.text }))
    })
}

/// A role's name, or `None` where it is gone.
pub(crate) fn role_name(role: pg_sys::Oid) -> Option<String> {
    // SAFETY: with `noerr` the function gives a palloc'ed string or null.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            return None;
        }
        let owned = core::ffi::CStr::from_ptr(name).to_string_lossy().into_owned();
        pg_sys::pfree(name.cast());
        Some(owned)
    }
}

/// The type that an enum's label belongs to.
pub(crate) fn enum_type(label: pg_sys::Datum) -> pg_sys::Oid {
    with_enum(oid(label), |form| form.enumtypid).unwrap_or(pg_sys::InvalidOid)
}

/// A label's oid in an enum, by its text.
pub(crate) fn enum_value(enum_type: pg_sys::Oid, label: &str) -> Option<pg_sys::Datum> {
    let label = std::ffi::CString::new(label).ok()?;
    // SAFETY: a syscache lookup by oid and NUL-terminated name; the oid is copied before the tuple is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache2(
            pg_sys::SysCacheIdentifier::ENUMTYPOIDNAME as _,
            pg_sys::Datum::from(enum_type),
            pg_sys::Datum::from(label.as_ptr()),
        );
        if tuple.is_null() {
            return None;
        }
        let oid = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_enum>(tuple)).oid;
        pg_sys::ReleaseSysCache(tuple);
        Some(pg_sys::Datum::from(oid))
    }
}

/// A role's oid by its exact name.
pub(crate) fn role_oid(name: &str) -> Option<pg_sys::Oid> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a lookup with a NUL-terminated name; `missing_ok` is set.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
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
    let (name, scope) = unsafe { (Packed::new(fields.name), Packed::new(fields.scope)) };
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

/// How much of a name a message shows.
const SHOWN_CHARACTERS: usize = 128;

/// A btree entry holds a third of a page, 2,704 bytes, uncompressed; some of it is headers, kind and principal.
const MAX_INDEXED_BYTES: usize = 2_600;

#[derive(Default)]
struct Cache {
    roles: HashMap<pg_sys::Oid, Vec<u8>>,
    labels: HashMap<pg_sys::Oid, Vec<u8>>,
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
}

/// Runs whenever the server likes, possibly while the cache is in use: so it only leaves a note.
unsafe extern "C-unwind" fn on_invalidation(_: pg_sys::Datum, _: core::ffi::c_int, _: u32) {
    FORGET.set(true);
}

fn forget_if_told() {
    if FORGET.replace(false) {
        CACHE.with_borrow_mut(|cache| {
            cache.roles.clear();
            cache.labels.clear();
        });
    }
}

fn oid(datum: pg_sys::Datum) -> pg_sys::Oid {
    pg_sys::Oid::from(u32::try_from(datum.value() & 0xffff_ffff).unwrap_or(0))
}

fn enum_label(label: pg_sys::Oid) -> Option<Vec<u8>> {
    with_enum(label, |form| {
        // SAFETY: the label is a NUL-terminated array inside the form.
        unsafe { core::ffi::CStr::from_ptr((&raw const form.enumlabel.data).cast()) }.to_bytes().to_vec()
    })
}

/// Looks at the catalog row of an enum's label.
fn with_enum<T>(label: pg_sys::Oid, f: impl FnOnce(&pg_sys::FormData_pg_enum) -> T) -> Option<T> {
    // SAFETY: a syscache lookup by oid; the tuple stays pinned while `f` looks at it and is released after.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::ENUMOID as _, pg_sys::Datum::from(label));
        if tuple.is_null() {
            return None;
        }
        let result = f(&*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_enum>(tuple));
        pg_sys::ReleaseSysCache(tuple);
        Some(result)
    }
}

fn jsonb_text(scope: &Packed) -> Vec<u8> {
    // SAFETY: `scope` is a detoasted jsonb; JsonbToCString allocates its result in the current memory context.
    unsafe {
        let aligned = pg_sys::pg_detoast_datum(scope.pointer);
        let jsonb = aligned.cast::<pg_sys::Jsonb>();
        let length = i32::try_from(pgrx::varlena::varsize_any(aligned)).unwrap_or(i32::MAX);
        let text = pg_sys::JsonbToCString(core::ptr::null_mut(), &raw mut (*jsonb).root, length);
        let owned = core::ffi::CStr::from_ptr(text).to_bytes().to_vec();
        pg_sys::pfree(text.cast());
        owned
    }
}

/// A detoasted varlena, possibly with a short header.
pub(crate) struct Packed {
    pointer: *mut pg_sys::varlena,
}

impl Packed {
    /// # Safety
    /// `datum` is a non-null datum of a varlena type.
    pub(crate) unsafe fn new(datum: pg_sys::Datum) -> Self {
        // SAFETY: see above. The result is the datum itself or a copy in the current memory context.
        Self { pointer: unsafe { pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()) } }
    }

    /// The bytes behind the header.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the pointer is a detoasted varlena that lives in the current memory context.
        unsafe { pgrx::varlena::varlena_to_byte_slice(self.pointer) }
    }
}
