//! Credentials from other stores. What is read is shown, written, and read back; nothing is deleted.

use std::path::Path;

use base64ct::{Base64, Encoding};
use omni_credentials_host::{Entry, EntryRef, Identity};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::args::{Selection, Source};
use crate::context::{Context, MAX_FILE};
use crate::error::Error;
use crate::expiry::{self, Expiry};
use crate::identity::{DEFAULT_KIND, DEFAULT_SCOPE};
use crate::nested::Node;
use crate::output::{self, Done, IdentityFields};
use crate::store::{self, Canonical, Store};
use crate::{dotenv, identity, input, nested, terminal, yaml};

pub(crate) fn run(
    context: &Context,
    from: Source,
    path: Option<&Path>,
    selection: &Selection,
    dry_run: bool,
) -> Result<(), Error> {
    let text = read(path)?;
    let given = match from {
        Source::Dotenv => named(dotenv::parse(&text))?,
        Source::Json => json(&text)?,
        Source::SopsJson => sops(&text)?,
        Source::RailsYaml => named(rails(&text))?,
    };
    let wanted = identified(context, given, selection)?;
    let outcomes = store::change(context, |opened| {
        let mut outcomes = Vec::with_capacity(wanted.len());
        let mut records = Vec::new();
        for (canonical, value) in &wanted {
            let identity = canonical.identity();
            let before = opened.store.record(&identity).cloned();
            let result = match &before {
                None => "added",
                Some(before)
                    if before.expires == canonical.expires
                        && opened.value(before).is_ok_and(|known| known == *value) =>
                {
                    "unchanged"
                }
                Some(_) => "changed",
            };
            if result != "unchanged" {
                let sealed = opened.seal(&identity, canonical.expires, value)?;
                records.push(Entry { sealed, deleted: false, ..canonical.clone() });
            }
            outcomes.push((canonical, result));
        }
        let entries: Vec<EntryRef<'_>> = records.iter().map(Entry::as_ref).collect();
        opened.put(&entries)?;
        Ok((outcomes, !dry_run && !records.is_empty()))
    })?;
    if !dry_run {
        read_back(context, &wanted)?;
    }
    report(context, &outcomes, dry_run)
}

/// What a credential is to be: its identity and expiry, and its value.
type Wanted = (Entry, Zeroizing<Vec<u8>>);

/// A credential as it stands in another store.
struct Given {
    name: String,
    kind: Option<String>,
    principal: Option<String>,
    scope: Option<String>,
    expires: Option<u64>,
    value: Zeroizing<Vec<u8>>,
}

impl Given {
    fn named(name: String, value: Zeroizing<Vec<u8>>) -> Self {
        Self { name, kind: None, principal: None, scope: None, expires: None, value }
    }
}

fn read(path: Option<&Path>) -> Result<Zeroizing<String>, Error> {
    let bytes = input::bytes(path, MAX_FILE)?;
    if bytes.is_empty() {
        return Err(Error::NoValue);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(_) => Err(Error::Meaningless("what was read is not UTF-8".to_owned())),
    }
}

/// Names and values without more.
fn named(found: Result<Vec<(String, Zeroizing<String>)>, String>) -> Result<Vec<Given>, Error> {
    let given = |(name, value): (String, Zeroizing<String>)| {
        Given::named(name, Zeroizing::new(value.as_bytes().to_vec()))
    };
    Ok(found.map_err(Error::Meaningless)?.into_iter().map(given).collect())
}

/// An array of objects as `export` prints it, or an object of names and values.
fn json(text: &str) -> Result<Vec<Given>, Error> {
    match parsed(text)? {
        Value::Array(records) => records.into_iter().map(record).collect(),
        value @ Value::Object(_) => names(value),
        _ => Err(wrong("it is neither an object nor an array")),
    }
}

/// What `sops decrypt --output-type json` prints.
fn sops(text: &str) -> Result<Vec<Given>, Error> {
    match parsed(text)? {
        value @ Value::Object(_) => names(value),
        _ => Err(wrong("it is no object, which sops prints: sops decrypt --output-type json FILE")),
    }
}

fn parsed(text: &str) -> Result<Value, Error> {
    // The message of serde_json can quote what it does not expect.
    serde_json::from_str(text).map_err(|error| wrong(&format!("line {}: it is not JSON", error.line())))
}

/// An object of names, nested or not. What sops encrypts has its own name in it.
fn names(object: Value) -> Result<Vec<Given>, Error> {
    if object.get("sops").is_some() {
        return Err(wrong("it is still encrypted: sops decrypt --output-type json FILE"));
    }
    let Node::Names(names) = Node::from(object) else { return Ok(Vec::new()) };
    named(nested::flatten(names))
}

/// What `bin/rails credentials:show` prints.
fn rails(text: &str) -> Result<Vec<(String, Zeroizing<String>)>, String> {
    match yaml::parse(text)? {
        Some(Node::Names(names)) => nested::flatten(names),
        Some(Node::Text(text)) if text.contains("--") => {
            Err("it is still encrypted: bin/rails credentials:show".to_owned())
        }
        None | Some(Node::Other) => Err("there is nothing in it".to_owned()),
        Some(_) => Err("it is no mapping of names, which bin/rails credentials:show prints".to_owned()),
    }
}

fn record(record: Value) -> Result<Given, Error> {
    let Value::Object(mut fields) = record else { return Err(wrong("what is in the array is no object")) };
    let name = match fields.get("name") {
        Some(Value::String(name)) => name.clone(),
        _ => return Err(wrong("an object has no name")),
    };
    let value = match (fields.remove("value"), fields.remove("value_base64")) {
        (Some(Value::String(text)), None) => text.into_bytes(),
        (None, Some(Value::String(text))) => {
            Base64::decode_vec(&text).map_err(|_| wrong(&format!("{name:?}: value_base64 is not base64")))?
        }
        _ => return Err(wrong(&format!("{name:?} has no value, or it is no text"))),
    };
    let text = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(&format!("{name:?}: {field} is no text"))),
    };
    let expires = match text("expires")? {
        Some(when) => expiry::parse(&when).map_err(|what| wrong(&format!("{name:?}: expires: {what}")))?,
        None => Expiry(None),
    };
    Ok(Given {
        kind: text("kind")?,
        principal: text("principal")?,
        scope: fields.get("scope").map(Value::to_string),
        expires: expires.0,
        value: Zeroizing::new(value),
        name,
    })
}

/// What each is in the file. The options stand in for what is not said.
fn identified(context: &Context, given: Vec<Given>, selection: &Selection) -> Result<Vec<Wanted>, Error> {
    let mut canonical = Canonical::new(context, &Store::read(context)?)?;
    let mut wanted: Vec<Wanted> = Vec::with_capacity(given.len());
    for Given { name, kind, principal, scope, expires, value } in given {
        let principal = match principal.or_else(|| selection.principal.clone()) {
            Some(principal) => principal,
            None => identity::default_principal()?,
        };
        let mut entry = canonical.form(Identity {
            name: name.as_bytes(),
            kind: kind.as_deref().or(selection.kind.as_deref()).unwrap_or(DEFAULT_KIND).as_bytes(),
            principal: principal.as_bytes(),
            scope: scope.as_deref().or(selection.scope.as_deref()).unwrap_or(DEFAULT_SCOPE).as_bytes(),
        })?;
        entry.expires = expires;
        wanted.push((entry, value));
    }
    wanted.sort_by(|a, b| key(&a.0).cmp(&key(&b.0)));
    if let Some([(twice, _), _]) =
        wanted.windows(2).find(|pair| matches!(pair, [a, b] if key(&a.0) == key(&b.0)))
    {
        return Err(wrong(&format!("{} occurs twice", identity::shown(&twice.identity()))));
    }
    Ok(wanted)
}

fn key(entry: &Entry) -> (&[u8], &[u8], &[u8], &[u8]) {
    (&entry.name, &entry.kind, &entry.principal, &entry.scope)
}

/// Whether the file says what was read.
fn read_back(context: &Context, wanted: &[Wanted]) -> Result<(), Error> {
    let mut opened = Store::read(context)?.unlock(context)?;
    for (canonical, value) in wanted {
        let found = opened.store.record(&canonical.identity()).cloned();
        let same = match &found {
            Some(entry) => entry.expires == canonical.expires && opened.value_of(entry)? == *value,
            None => false,
        };
        if !same {
            let shown = identity::shown(&canonical.identity());
            return Err(Error::Meaningless(format!(
                "{shown} is not in the file as it was read: another process changed it"
            )));
        }
    }
    Ok(())
}

fn report(context: &Context, outcomes: &[(&Entry, &'static str)], dry_run: bool) -> Result<(), Error> {
    if context.json {
        let done = outcomes
            .iter()
            .map(|(entry, result)| Ok(Done { identity: IdentityFields::new(&entry.identity())?, result }));
        return output::json(&Imported { dry_run, credentials: done.collect::<Result<_, Error>>()? });
    }
    for (entry, result) in outcomes {
        terminal::note(&format!("{result} {}", identity::shown(&entry.identity())));
    }
    let count = |result| outcomes.iter().filter(|outcome| outcome.1 == result).count();
    let (added, changed, unchanged) = (count("added"), count("changed"), count("unchanged"));
    let what = if dry_run { "nothing was written: it would be " } else { "" };
    terminal::note(&format!("{what}{added} added, {changed} changed, {unchanged} unchanged"));
    Ok(())
}

fn wrong(what: &str) -> Error {
    Error::Meaningless(what.to_owned())
}

/// What `import` prints with `--json`.
#[derive(Serialize)]
struct Imported<'a> {
    dry_run: bool,
    credentials: Vec<Done<'a>>,
}
