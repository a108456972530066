//! `omni_credentials.crypto_modules`: which modules this database knows.

use pgrx::prelude::*;

use crate::error::{Error, or_raise};
use crate::modules;

#[pg_extern(sql = false)]
fn register_builtin_module() {
    or_raise(register_builtin());
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

fn register_builtin() -> Result<(), Error> {
    let digest = modules::builtin_digest()?;
    let module = modules::module(&digest)?;
    let about = module.describe().map_err(modules::module_error)?;
    Spi::run_with_args(
        "insert into omni_credentials.crypto_modules (digest, wasm, name, version, contract, suite) \
         values ($1, $2, $3, $4, $5, $6)",
        &[
            digest.as_bytes().as_slice().into(),
            modules::BUILTIN.into(),
            about.name.into(),
            about.version.into(),
            about.contract.into(),
            about.suite.name.into(),
        ],
    )?;
    Ok(())
}
