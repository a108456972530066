//! Making an instance.

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::error::{Error, given, or_raise, without_context};
use crate::keys::master_secret;
use crate::postgres::catalog;

#[pg_extern(sql = false)]
fn instantiate(
    schema: Option<pg_sys::Oid>,
    env_var: Option<&str>,
    kdf_memory_kib: Option<i32>,
    kdf_passes: Option<i32>,
    kdf_lanes: Option<i32>,
) {
    or_raise(run(schema, env_var, [kdf_memory_kib, kdf_passes, kdf_lanes]));
}

fn run(schema: Option<pg_sys::Oid>, env_var: Option<&str>, costs: [Option<i32>; 3]) -> Result<(), Error> {
    let (schema, env_var) = (given(schema, "schema")?, given(env_var, "env_var")?);
    if !master_secret::is_variable_name(env_var) {
        return Err(Error::InvalidArgument(format!(
            "{env_var:?} is not the name of an environment variable"
        )));
    }
    if catalog::relation_oid(schema, c"encrypted_credentials").is_some() {
        return Err(Error::AlreadyInstantiated { schema: catalog::schema_name(schema) });
    }
    let schema = quote_identifier(catalog::schema_name(schema));
    let costs = costs.map(|cost| cost.map_or("null".to_owned(), |cost| cost.to_string())).join(", ");
    let values = [
        ("schema", schema.as_str()),
        ("env_var", &quote_literal(env_var)),
        ("costs", &costs),
        ("table", &quote_literal(format!("{schema}.encrypted_credentials"))),
        ("namespace", &quote_literal(&schema)),
    ];
    let sql = fill(&template()?, &values);
    without_context(|| Spi::run(&sql))?;
    Ok(())
}

/// The SQL for one instance. It is in the extension's script and not in the library: between an update of the library and
/// ALTER EXTENSION UPDATE, a new instance must refer to what the database has.
fn template() -> Result<String, Error> {
    let signature = c"omni_credentials.instance_template()";
    let Some(function) = catalog::function_oid(signature) else {
        return Err(Error::Internal("omni_credentials.instance_template() is missing".to_owned()));
    };
    // SAFETY: a function of the extension without arguments, which gives a text that is not NULL. Called directly, since
    // its caller needs no right to it.
    let text =
        unsafe { String::from_datum(pg_sys::OidFunctionCall0Coll(function, pg_sys::InvalidOid), false) };
    text.ok_or_else(|| Error::Internal("omni_credentials.instance_template() gave nothing".to_owned()))
}

/// Puts values in place of `:name`, in one pass, so that nothing inside a value is taken for a name. `::` is a cast.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once(':') {
        filled.push_str(before);
        let value = if before.ends_with(':') || after.starts_with(':') {
            None
        } else {
            values.iter().find_map(|(name, value)| Some((value, after.strip_prefix(name)?)))
        };
        match value {
            Some((value, remaining)) => {
                filled.push_str(value);
                rest = remaining;
            }
            None => {
                filled.push(':');
                rest = after;
                if let Some(remaining) = after.strip_prefix(':') {
                    filled.push(':');
                    rest = remaining;
                }
            }
        }
    }
    filled.push_str(rest);
    filled
}
