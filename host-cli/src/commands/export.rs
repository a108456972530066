//! Credentials with their values in the formats of other programs.

use base64ct::{Base64, Encoding};
use omni_credentials_host::Entry;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::args::{Format, Selection};
use crate::context::Context;
use crate::error::Error;
use crate::output::{self, EntryFields, ValueFields};
use crate::store::{Opened, Store};
use crate::{dotenv, find, identity, variables};

/// Longest name of a Kubernetes object (a DNS subdomain), and longest key in a secret.
const K8S_NAME: usize = 253;

pub(crate) fn run(
    context: &Context,
    format: Format,
    only: &[String],
    selection: &Selection,
    name: &str,
) -> Result<(), Error> {
    let mut store = Store::read(context)?;
    let chosen = variables::choose(find::matching(&mut store, None, selection)?, only)?;
    // What cannot be written is said before a secret is asked for, and before anything is printed.
    let text = match format {
        Format::Json => json(&mut store.unlock(context)?, &chosen)?,
        Format::Dotenv | Format::Shell => {
            let variables = variables::assign(&chosen)?;
            let mut opened = store.unlock(context)?;
            let mut text = Zeroizing::new(String::new());
            for (variable, entry) in variables {
                text.push_str(&line(format, &variable, &written(&mut opened, entry)?, entry)?);
            }
            text
        }
        Format::K8sSecret => {
            if !is_subdomain(name) {
                return Err(Error::Variable(format!("{name:?} cannot be the name of a Kubernetes secret")));
            }
            if let Some(entry) = chosen.iter().find(|entry| !is_key(&entry.name)) {
                let shown = identity::shown(&entry.identity());
                return Err(Error::Variable(format!("{shown} cannot be a key of a Kubernetes secret")));
            }
            k8s_secret(&mut store.unlock(context)?, name, &chosen)?
        }
    };
    output::write(text.as_bytes())
}

/// Text, for formats that have nothing else.
fn written(opened: &mut Opened, entry: &Entry) -> Result<Zeroizing<String>, Error> {
    let value = opened.value_of(entry)?;
    match std::str::from_utf8(&value) {
        Ok(text) if !text.contains('\0') => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(unwritable(entry, "it is not text, or has a zero byte")),
    }
}

fn line(format: Format, variable: &str, value: &str, entry: &Entry) -> Result<Zeroizing<String>, Error> {
    if format == Format::Shell {
        return Ok(Zeroizing::new(format!("export {variable}='{}'\n", value.replace('\'', "'\\''"))));
    }
    match dotenv::quoted(value) {
        Some(quoted) => Ok(Zeroizing::new(format!("{variable}={quoted}\n"))),
        None => Err(unwritable(entry, "readers of .env files differ on such a value")),
    }
}

fn json(opened: &mut Opened, chosen: &[Entry]) -> Result<Zeroizing<String>, Error> {
    let records = chosen.iter().map(|entry| {
        let value = ValueFields::opened(&opened.value_of(entry)?);
        Ok(Exported { entry: EntryFields::new(entry)?, value })
    });
    let records = records.collect::<Result<Vec<_>, Error>>()?;
    let text = serde_json::to_string_pretty(&records).map_err(|error| Error::io("JSON")(error.into()))?;
    Ok(Zeroizing::new(format!("{text}\n")))
}

fn k8s_secret(opened: &mut Opened, name: &str, chosen: &[Entry]) -> Result<Zeroizing<String>, Error> {
    let mut text = Zeroizing::new(format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\ntype: Opaque\ndata:{}\n",
        if chosen.is_empty() { " {}" } else { "" }
    ));
    let mut before: Option<&Entry> = None;
    for entry in chosen {
        let shown = identity::shown(&entry.identity());
        if let Some(before) = before.filter(|before| before.name == entry.name) {
            let other = identity::shown(&before.identity());
            return Err(Error::Variable(format!("{other} and {shown} would both be one key")));
        }
        let value = Zeroizing::new(Base64::encode_string(&opened.value_of(entry)?));
        // In quotes, so that a name such as \"no\" or \"1\" stays text.
        text.push_str(&format!("  {}: {}\n", output::quoted(&String::from_utf8_lossy(&entry.name)), *value));
        before = Some(entry);
    }
    Ok(text)
}

fn is_key(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= K8S_NAME && name.iter().all(allowed) && !name.starts_with(b"..") && name != b"."
}

fn is_subdomain(name: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= K8S_NAME && name.split('.').all(is_label)
}

fn unwritable(entry: &Entry, why: &str) -> Error {
    let shown = identity::shown(&entry.identity());
    Error::Variable(format!("{shown} cannot be written in this format: {why}"))
}

#[derive(Serialize)]
struct Exported {
    #[serde(flatten)]
    entry: EntryFields,
    #[serde(flatten)]
    value: ValueFields,
}
