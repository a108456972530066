//! `omni_credentials.crypto_modules`: which modules this database knows. `module_guard` has the rules for its rows.

use omni_credentials_host::Digest;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, given, or_raise};
use crate::keys::modules;
use crate::postgres::catalog;
use crate::postgres::heap::Visit;
use crate::postgres::tables::crypto_modules as columns;

/// The longest component, in bytes. The modules that ship have a third of a mebibyte.
const MAX_COMPONENT: usize = 16 << 20;

/// What only superusers may do.
pub(super) const CHANGE: &str = "change crypto modules";

#[pg_extern(sql = false)]
fn register_builtin_module() {
    or_raise(register_builtin());
}

#[pg_extern(sql = false)]
fn install_module(name: Option<&str>, wasm: Option<&[u8]>, digest: Option<&[u8]>) {
    or_raise(
        given(name, "name").and_then(|name| install(name, given(wasm, "wasm")?, given(digest, "digest")?)),
    );
}

#[pg_extern(sql = false)]
fn remove_module(module: Option<&str>) {
    or_raise(given(module, "module").and_then(remove));
}

#[pg_extern(sql = false)]
fn generate_master_key() -> String {
    let generated = modules::builtin_digest()
        .and_then(|digest| modules::module(&digest))
        .and_then(|module| module.generate_master_key().map_err(modules::module_error))
        .and_then(|key| {
            String::from_utf8(key.to_vec()).map_err(|_| Error::ModuleFailed {
                reason: "the generated master key is not text".to_owned(),
            })
        });
    or_raise(generated)
}

/// The module that a user means: by its digest in hexadecimal, or by a name that only one module has.
pub(crate) fn resolve(module: &str) -> Result<Digest, Error> {
    let unknown = || Error::ModuleUnknown { module: module.to_owned() };
    let wanted: Option<Digest> = module.trim_start_matches("\\x").parse().ok();
    let mut found = Vec::new();
    modules::table(pg_sys::AccessShareLock)?.ok_or_else(unknown)?.scan(|row| {
        let digest = modules::digest_of_column(row, columns::DIGEST)?;
        if wanted == Some(digest) || row.get::<String>(columns::NAME).as_deref() == Some(module) {
            found.push(digest);
        }
        Ok(Visit::Continue)
    })?;
    match found.as_slice() {
        [] => Err(unknown()),
        [one] => Ok(*one),
        several => {
            let digests = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Error::ModuleAmbiguous { module: module.to_owned(), digests })
        }
    }
}

fn install(name: &str, wasm: &[u8], digest: &[u8]) -> Result<(), Error> {
    catalog::must_be_superuser(CHANGE)?;
    if name.is_empty() {
        return Err(Error::InvalidArgument("a crypto module needs a name".to_owned()));
    }
    if wasm.len() > MAX_COMPONENT {
        return Err(Error::ModuleRefused {
            reason: format!("it has {} bytes, more than {MAX_COMPONENT}", wasm.len()),
        });
    }
    let digest: [u8; 32] = digest
        .try_into()
        .map_err(|_| Error::InvalidArgument("the digest of a crypto module has 32 bytes".to_owned()))?;
    let (digest, found) = (Digest::from_bytes(digest), Digest::of(wasm));
    if digest != found {
        return Err(Error::ModuleDigest { expected: digest.to_string(), found: found.to_string() });
    }
    if resolve(&digest.to_string()).is_ok() {
        pgrx::notice!("crypto module {digest} is already installed, skipping");
        return Ok(());
    }
    modules::candidate(wasm, &digest)?.check().map_err(|error| match modules::module_error(error) {
        // A module that breaks down in the tests fails them.
        Error::ModuleFailed { reason } => Error::ModuleRefused { reason },
        other => other,
    })?;
    store(Some(name), wasm, &digest)
}

fn remove(module: &str) -> Result<(), Error> {
    catalog::must_be_superuser(CHANGE)?;
    let digest = resolve(module)?;
    // The guard looks at who refers to it.
    Spi::run_with_args(
        &format!("delete from {} where digest operator(pg_catalog.=) $1", qualified_table()?),
        &[digest.as_bytes().as_slice().into()],
    )?;
    Ok(())
}

fn register_builtin() -> Result<(), Error> {
    let digest = modules::builtin_digest()?;
    store(None, modules::BUILTIN, &digest)
}

/// `crypto_modules`, for SQL.
fn qualified_table() -> Result<String, Error> {
    let table = modules::table(pg_sys::AccessShareLock)?;
    let missing = || Error::Internal("omni_credentials.crypto_modules is missing".to_owned());
    catalog::qualified(table.ok_or_else(missing)?.oid())
}

/// Without a name it gets the one that the module calls itself.
fn store(name: Option<&str>, wasm: &[u8], digest: &Digest) -> Result<(), Error> {
    let about = modules::candidate(wasm, digest)?.describe().map_err(modules::module_error)?;
    let name = name.unwrap_or(&about.name);
    Spi::run_with_args(
        &format!(
            "insert into {} (digest, wasm, name, version, contract, suite) values ($1, $2, $3, $4, $5, $6)",
            qualified_table()?
        ),
        &[
            digest.as_bytes().as_slice().into(),
            wasm.into(),
            name.into(),
            about.version.into(),
            about.contract.into(),
            about.suite.name.into(),
        ],
    )?;
    Ok(())
}
