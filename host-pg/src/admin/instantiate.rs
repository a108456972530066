//! Making an instance.

use omni_credentials_host::Costs;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::admin::owner;
use crate::error::{Error, given, or_raise, without_context};
use crate::instance;
use crate::keys::{allowed_variables, master_secret};
use crate::postgres::as_owner::as_owner;
use crate::postgres::catalog::{self, Extension};

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
        return complete(schema, env_var, costs);
    }
    may_use(env_var, costs, &catalog::schema_name(schema))?;
    let extension = Extension::find().ok_or_else(|| missing("extension omni_credentials"))?;
    let others = others(schema)?;
    let schema = catalog::quoted_schema(schema)?;
    let table = |name: &str| quote_literal(format!("{schema}.{name}"));
    let costs = costs.map(|cost| cost.map_or("null".to_owned(), |cost| cost.to_string())).join(", ");
    let values = [
        ("schema", schema.as_str()),
        ("extension", &catalog::quoted_schema(extension.schema)?),
        ("env_var", &quote_literal(env_var)),
        ("costs", &costs),
        ("table", &table("encrypted_credentials")),
        ("keyrings", &table("credentials_keyrings")),
        ("config", &table("credentials_config")),
        ("files", &table("credentials_files")),
        ("versions", &table("encrypted_credential_versions")),
        ("namespace", &quote_literal(&schema)),
        ("others", &others),
    ];
    let sql = fill(&template(&extension)?, &values);
    without_context(|| Spi::run(&sql))?;
    Ok(())
}

/// Gives an instance its settings, if it has none: a dump without data has its tables and not their rows.
fn complete(schema: pg_sys::Oid, variable: &str, costs: [Option<i32>; 3]) -> Result<(), Error> {
    let name = || catalog::schema_name(schema);
    let exists = || Error::AlreadyInstantiated { schema: name() };
    let parts = instance::parts(schema).ok_or_else(exists)?;
    if instance::has_settings(parts.config)? {
        return Err(exists());
    }
    let owner = owner::must_own(parts.config)?;
    may_use_as(owner, variable, costs, &name())?;
    // The table may have triggers of its owner.
    let costs = costs.map(|cost| cost.map_or("null".to_owned(), |cost| cost.to_string())).join(", ");
    let sql = format!(
        "insert into {} (environment_variable, kdf_memory_kib, kdf_passes, kdf_lanes) values ({}, {costs})",
        catalog::qualified(parts.config)?,
        quote_literal(variable)
    );
    as_owner(owner, || Ok(without_context(|| Spi::run(&sql))?))
}

/// Fails unless the caller, who will own the instance, may use that variable and such costs.
fn may_use(variable: &str, costs: [Option<i32>; 3], schema: &str) -> Result<(), Error> {
    // SAFETY: a variable of the session.
    may_use_as(unsafe { pg_sys::GetUserId() }, variable, costs, schema)
}

fn may_use_as(
    owner: pg_sys::Oid,
    variable: &str,
    costs: [Option<i32>; 3],
    schema: &str,
) -> Result<(), Error> {
    let owner = [owner];
    allowed_variables::must_be_allowed(variable, &owner)?;
    // Costs that are not all given, or negative, are left to the table's constraints and to the module.
    let costs = costs.map(|cost| cost.and_then(|cost| u32::try_from(cost).ok()));
    let costs = match costs {
        [Some(memory_kib), Some(passes), Some(lanes)] => Some(Costs { memory_kib, passes, lanes }),
        _ => None,
    };
    allowed_variables::must_be_enough(costs, &owner, schema)
}

/// Everyone who may have rights to what the caller creates: PUBLIC, and the roles that its default privileges name.
fn others(schema: pg_sys::Oid) -> Result<String, Error> {
    const OTHERS: &str = "select pg_catalog.concat_ws(', ', 'public', \
        pg_catalog.string_agg(distinct a.grantee::pg_catalog.regrole::pg_catalog.text, ', ')) \
        from pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a, pg_catalog.pg_roles me \
        where me.rolname operator(pg_catalog.=) current_user and d.defaclrole operator(pg_catalog.=) me.oid \
        and d.defaclnamespace operator(pg_catalog.=) any (array[0, $1]::pg_catalog.oid[]) \
        and a.grantee operator(pg_catalog.<>) all (array[0, me.oid]::pg_catalog.oid[])";
    let others = Spi::get_one_with_args::<String>(OTHERS, &[schema.into()])?;
    Ok(others.unwrap_or_else(|| "public".to_owned()))
}

fn missing(object: &str) -> Error {
    Error::Internal(format!("{object} is missing"))
}

/// The SQL for one instance. It is in the extension's script and not in the library: between an update of the library and
/// ALTER EXTENSION UPDATE, a new instance must refer to what the database has.
fn template(extension: &Extension) -> Result<String, Error> {
    let function = extension
        .function("instance_template()")
        .ok_or_else(|| missing("omni_credentials.instance_template()"))?;
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
