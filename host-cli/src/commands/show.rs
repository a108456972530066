use std::path::PathBuf;

use omni_credentials_host::{Digest, Entry, Keyring, shared_file};

use crate::context::{Context, MAX_FILE};
use crate::error::Error;
use crate::output::{self, EntryFields, ValueFields};
use crate::store::{self, OpenedValue, Store};
use crate::{expiry, identity};

/// Set, it makes `git diff` show values, too.
const SHOW_VALUES: &str = "OMNI_CREDENTIALS_SHOW_VALUES";

pub(crate) fn run(context: &Context, path: Option<PathBuf>, values: bool) -> Result<(), Error> {
    let path = path.unwrap_or_else(|| context.file.clone());
    let store = Store::read_at(context, &path)?;
    if values {
        let mut opened = store.unlock(context)?;
        return print(context, &opened.store, Some(&mut opened.keyring));
    }
    print(context, &store, None)
}

/// What git compares in place of the file. It fails for nothing that can be read at all, since git would then show
/// no differences of any file.
pub(crate) fn textconv(context: &Context, path: Option<PathBuf>, values: bool) -> Result<(), Error> {
    let path = path.unwrap_or_else(|| context.file.clone());
    let bytes = shared_file::read(&path, MAX_FILE)?;
    let Ok(store) = Store::parse(context, &path, &bytes) else { return output::write(&bytes) };
    let wanted = values || std::env::var_os(SHOW_VALUES).is_some_and(|value| !value.is_empty());
    if wanted
        && context.has_secret().unwrap_or(false)
        && let Ok(mut opened) = Store::parse(context, &path, &bytes)?.unlock(context)
    {
        return print(context, &opened.store, Some(&mut opened.keyring));
    }
    print(context, &store, None)
}

fn print(context: &Context, store: &Store, mut keyring: Option<&mut Keyring>) -> Result<(), Error> {
    let (mut records, mut lines) = (Vec::new(), String::new());
    for entry in &store.entries {
        let value = match &mut keyring {
            Some(keyring) if !entry.deleted => Some(store::open(keyring, entry)?),
            _ => None,
        };
        if context.json {
            records.push(Record::new(entry, value)?);
        } else {
            lines.push_str(&text(entry, value));
        }
    }
    if context.json {
        let keyring = fingerprint(&store.keyring_bytes);
        return output::json(&Shown { generation: store.generation, keyring, credentials: records });
    }
    output::write(format!("keyring {}\n{lines}", fingerprint(&store.keyring_bytes)).as_bytes())
}

/// What `show` prints with `--json`.
#[derive(serde::Serialize)]
struct Shown {
    generation: u64,
    keyring: String,
    credentials: Vec<Record>,
}

#[derive(serde::Serialize)]
struct Record {
    #[serde(flatten)]
    entry: EntryFields,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    #[serde(flatten)]
    value: ValueFields,
}

impl Record {
    fn new(entry: &Entry, value: Option<OpenedValue>) -> Result<Self, Error> {
        let value = match value {
            Some(Ok(value)) => ValueFields::opened(&value),
            Some(Err(reason)) => ValueFields::unreadable(reason),
            None => ValueFields::default(),
        };
        let sealed = (!entry.deleted).then(|| fingerprint(&entry.sealed));
        Ok(Self { entry: EntryFields::new(entry)?, sealed, value })
    }
}

/// One line, so that a difference shows the whole credential.
fn text(entry: &Entry, value: Option<OpenedValue>) -> String {
    let mut shown = identity::shown(&entry.identity());
    if entry.expires.is_some() {
        shown.push_str(&format!(", expires {}", expiry::shown(entry.expires)));
    }
    let rest = match value {
        _ if entry.deleted => "deleted".to_owned(),
        Some(Ok(value)) => output::escaped(&value),
        Some(Err(reason)) => format!("unreadable: {reason}"),
        None => format!("sealed {}", fingerprint(&entry.sealed)),
    };
    format!("{shown}: {rest}\n")
}

/// Tells two states apart: the first eight bytes of the SHA-256.
fn fingerprint(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string().chars().take(16).collect()
}
