//! Lookups in the server's catalogs: names to oids, oids to names, owners and rights.

use std::path::PathBuf;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::postgres::encoding;

/// The extension in this database. Only a superuser can make its row in `pg_extension`; a schema, and whatever is in it,
/// anyone can make, under any name. So objects of the extension are found by their membership in it.
pub(crate) struct Extension {
    oid: pg_sys::Oid,
    /// Its schema, under whatever name.
    pub(crate) schema: pg_sys::Oid,
}

impl Extension {
    /// Finds the extension; `None` where it is not installed.
    pub(crate) fn find() -> Option<Self> {
        Self::named(c"omni_credentials")
    }

    /// Another extension; `None` where it is not installed. Any role can own it, and what belongs to it.
    pub(crate) fn named(name: &core::ffi::CStr) -> Option<Self> {
        // SAFETY: a lookup with a NUL-terminated name; `missing_ok` is set.
        let oid = unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) };
        let schema = extension_schema(oid)?;
        Some(Self { oid, schema })
    }

    /// One of its tables.
    pub(crate) fn table(&self, name: &core::ffi::CStr) -> Option<pg_sys::Oid> {
        relation_oid(self.schema, name).filter(|table| self.has(pg_sys::RelationRelationId, *table))
    }

    /// One of its functions, by the signature without the schema.
    pub(crate) fn function(&self, signature: &str) -> Option<pg_sys::Oid> {
        let schema = spi::quote_identifier(schema_name(self.schema));
        let qualified = format!("{schema}.{signature}").into_datum()?;
        // SAFETY: to_regprocedure takes a text and gives an oid, or NULL where there is no such function.
        let function: Option<pg_sys::Oid> =
            unsafe { pgrx::direct_function_call(pg_sys::to_regprocedure, &[Some(qualified)]) };
        function.filter(|function| self.has_function(*function))
    }

    /// Whether a function is one of its own.
    pub(super) fn has_function(&self, function: pg_sys::Oid) -> bool {
        self.has(pg_sys::ProcedureRelationId, function)
    }

    fn has(&self, class: pg_sys::Oid, object: pg_sys::Oid) -> bool {
        // SAFETY: a scan of pg_depend by two oids.
        unsafe { pg_sys::getExtensionOfObject(class, object) == self.oid }
    }
}

/// Whether a role may make instances, and so may own one.
pub(crate) fn may_instantiate(role: pg_sys::Oid) -> bool {
    const INSTANTIATE: &str = "instantiate(pg_catalog.regnamespace, pg_catalog.text, pg_catalog.int4, \
         pg_catalog.int4, pg_catalog.int4)";
    is_superuser(role)
        || Extension::find()
            .and_then(|extension| extension.function(INSTANTIATE))
            // SAFETY: a catalog lookup by oid.
            .is_some_and(|function| unsafe { may_execute(function, role) })
}

/// Fails unless the caller is a superuser. `what` says what is not permitted.
pub(crate) fn must_be_superuser(what: &'static str) -> Result<(), Error> {
    // SAFETY: a variable of the session.
    if is_superuser(unsafe { pg_sys::GetUserId() }) { Ok(()) } else { Err(Error::NotSuperuser { what }) }
}

/// Whether a role is a superuser.
pub(crate) fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup by oid.
    unsafe { pg_sys::superuser_arg(role) }
}

/// The schema of an extension, which no cache of the server knows.
fn extension_schema(extension: pg_sys::Oid) -> Option<pg_sys::Oid> {
    if extension == pg_sys::InvalidOid {
        return None;
    }
    // SAFETY: a scan of a catalog, which has a row for each of a few extensions; the schema is copied before it ends.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let catalog = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            catalog,
            pg_sys::InvalidOid,
            false,
            core::ptr::null_mut(),
            0,
            core::ptr::null_mut(),
        );
        let mut schema = None;
        while schema.is_none() {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_extension>(tuple);
            schema = (row.oid == extension).then_some(row.extnamespace);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, lock);
        schema
    }
}

/// The data directory.
pub(crate) fn data_directory() -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: DataDir is set before any library is loaded and never changes.
    let bytes = unsafe { core::ffi::CStr::from_ptr(pg_sys::DataDir) }.to_bytes();
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(feature = "pg15"))]
unsafe fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: a catalog lookup by oid.
    unsafe {
        pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, mode)
            == pg_sys::AclResult::ACLCHECK_OK
    }
}

#[cfg(feature = "pg15")]
unsafe fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: a catalog lookup by oid.
    unsafe { pg_sys::pg_proc_aclcheck(function, role, mode) == pg_sys::AclResult::ACLCHECK_OK }
}

/// The oid of `schema`.`name`.
pub(crate) fn relation_oid(schema: pg_sys::Oid, name: &core::ffi::CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a lookup in the system cache with a NUL-terminated name.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether a statement of this session that still runs writes to a view: it has its view open then.
pub(crate) fn is_view_in_use(view: pg_sys::Oid) -> bool {
    // SAFETY: gives the open relation, or null where there is none; this reference to it is given back.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(view);
        if relation.is_null() {
            return false;
        }
        let in_use = (*relation).rd_refcnt > 1;
        pg_sys::RelationClose(relation);
        in_use
    }
}

/// The role that owns a relation, or `None` where there is none.
pub(crate) fn owner(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup by oid; the owner is copied before the tuple is released.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as _, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple)).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// The owner of a function.
pub(crate) fn owner_of_function(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache lookup by oid; the owner is copied before the tuple is released.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as _, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_proc>(tuple)).proowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// `schema.table`, quoted, for SQL text. A name that SQL text cannot hold is refused: another one would stand for another
/// table.
pub(crate) fn qualified(relation: pg_sys::Oid) -> Result<String, Error> {
    // SAFETY: syscache lookups by oid, which give a palloc'ed string or null.
    let (schema, name) = unsafe {
        (pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation)), pg_sys::get_rel_name(relation))
    };
    // SAFETY: as above; no one else frees them.
    let names = unsafe { [exact_name(schema), exact_name(name)] };
    match names {
        [Some(schema), Some(name)] => Ok(spi::quote_qualified_identifier(schema, name)),
        _ => Err(Error::NameNotSupported { relation: relation_name(relation) }),
    }
}

/// A schema, quoted, for SQL text; refused as `qualified` does.
pub(crate) fn quoted_schema(schema: pg_sys::Oid) -> Result<String, Error> {
    // SAFETY: get_namespace_name gives a palloc'ed string or null.
    let name = unsafe { exact_name(pg_sys::get_namespace_name(schema)) };
    name.map(spi::quote_identifier)
        .ok_or_else(|| Error::NameNotSupported { relation: format!("schema {}", schema_name(schema)) })
}

/// # Safety
/// `name` is null or a NUL-terminated palloc'ed string that no one else frees.
unsafe fn exact_name(name: *mut core::ffi::c_char) -> Option<String> {
    // SAFETY: see above.
    let name = unsafe { owned_bytes(name) }?;
    if encoding::fits_sql(&name) { String::from_utf8(name).ok() } else { None }
}

/// A relation's name for messages; its number where it has none.
pub(crate) fn relation_name(oid: pg_sys::Oid) -> String {
    // SAFETY: get_rel_name gives a palloc'ed string or null.
    unsafe { owned_name(pg_sys::get_rel_name(oid)) }.unwrap_or_else(|| oid.to_u32().to_string())
}

/// `schema.relation`, quoted, for messages.
pub(crate) fn qualified_name(oid: pg_sys::Oid) -> String {
    // SAFETY: a syscache lookup by oid; InvalidOid where there is no such relation.
    let schema = unsafe { pg_sys::get_rel_namespace(oid) };
    spi::quote_qualified_identifier(schema_name(schema), relation_name(oid))
}

/// The name of a constraint; `None` where there is none with that oid.
pub(super) fn constraint_name(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: get_constraint_name gives a palloc'ed string or null.
    unsafe { owned_name(pg_sys::get_constraint_name(oid)) }
}

/// The name of a relation's column, counted from 0; its number, counted from 1, where it has none.
pub(super) fn column_name(relation: pg_sys::Oid, column: usize) -> String {
    let number = column.saturating_add(1);
    let name = i16::try_from(number)
        // SAFETY: get_attname gives a palloc'ed string, or null where there is no such column.
        .map(|number| unsafe { owned_name(pg_sys::get_attname(relation, number, true)) });
    name.ok().flatten().unwrap_or_else(|| number.to_string())
}

/// A type's name as SQL writes it.
pub(crate) fn type_name(oid: pg_sys::Oid) -> String {
    // SAFETY: format_type_be takes any oid and gives a palloc'ed string.
    unsafe { owned_name(pg_sys::format_type_be(oid)) }.unwrap_or_else(|| oid.to_u32().to_string())
}

/// A schema's name, not quoted; its number where it has none.
pub(crate) fn schema_name(oid: pg_sys::Oid) -> String {
    // SAFETY: get_namespace_name gives a palloc'ed string or null.
    unsafe { owned_name(pg_sys::get_namespace_name(oid)) }.unwrap_or_else(|| oid.to_u32().to_string())
}

/// # Safety
/// `name` is null or a NUL-terminated palloc'ed string that no one else frees.
unsafe fn owned_name(name: *mut core::ffi::c_char) -> Option<String> {
    // SAFETY: see above.
    unsafe { owned_bytes(name) }.map(|name| String::from_utf8_lossy(&encoding::to_utf8(&name)).into_owned())
}

/// # Safety
/// As for `owned_name`.
unsafe fn owned_bytes(name: *mut core::ffi::c_char) -> Option<Vec<u8>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: see above.
    unsafe {
        let bytes = core::ffi::CStr::from_ptr(name).to_bytes().to_vec();
        pg_sys::pfree(name.cast());
        Some(bytes)
    }
}

/// A role's name in UTF-8, or `None` where it is gone. Where it is not UTF-8, the bytes that the server has.
pub(crate) fn role_name(role: pg_sys::Oid) -> Option<Vec<u8>> {
    // SAFETY: with `noerr` the function gives a palloc'ed string or null.
    unsafe { owned_bytes(pg_sys::GetUserNameFromId(role, true)) }
        .map(|name| encoding::to_utf8(&name).into_owned())
}

/// Every role and its name in UTF-8.
pub(crate) fn roles() -> Result<Vec<(pg_sys::Oid, Vec<u8>)>, Error> {
    let roles = Spi::connect(|client| {
        let rows = client.select("select r.oid from pg_catalog.pg_roles r order by r.oid", None, &[])?;
        rows.map(|row| row.get::<pg_sys::Oid>(1)).collect::<Result<Vec<_>, _>>()
    })?;
    Ok(roles.into_iter().flatten().filter_map(|role| Some((role, role_name(role)?))).collect())
}

/// The setting `application_name`, in UTF-8.
pub(crate) fn application_name() -> Vec<u8> {
    // SAFETY: a setting of the server: null, or a string that ends with a zero byte and stays until the setting changes.
    let name = unsafe {
        let name = pg_sys::application_name;
        if name.is_null() { &[] } else { core::ffi::CStr::from_ptr(name).to_bytes() }
    };
    encoding::to_utf8(name).into_owned()
}

/// The type that an enum's label belongs to.
pub(crate) fn enum_type(label: pg_sys::Datum) -> pg_sys::Oid {
    with_enum(oid(label), |form| form.enumtypid).unwrap_or(pg_sys::InvalidOid)
}

/// A label's oid in an enum, by its text.
pub(crate) fn enum_value(enum_type: pg_sys::Oid, label: &str) -> Option<pg_sys::Datum> {
    let label = std::ffi::CString::new(encoding::to_server(label.as_bytes())?).ok()?;
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
    let name = std::ffi::CString::new(encoding::to_server(name.as_bytes())?).ok()?;
    // SAFETY: a lookup with a NUL-terminated name; `missing_ok` is set.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The oid in a datum of an oid-like type.
pub(crate) fn oid(datum: pg_sys::Datum) -> pg_sys::Oid {
    pg_sys::Oid::from(u32::try_from(datum.value() & 0xffff_ffff).unwrap_or(0))
}

/// The label of an enum value in UTF-8, by its oid.
pub(crate) fn enum_label(label: pg_sys::Oid) -> Option<Vec<u8>> {
    with_enum(label, |form| {
        // SAFETY: the label is a NUL-terminated array inside the form.
        let label = unsafe { core::ffi::CStr::from_ptr((&raw const form.enumlabel.data).cast()) };
        encoding::to_utf8(label.to_bytes()).into_owned()
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
