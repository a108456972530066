use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use omni_credentials_host::{Entry, Keyring};
use serde::Serialize;

use crate::context::Context;
use crate::error::Error;
use crate::output::{self, Bytes, IdentityFields};
use crate::store::{self, OpenedValue, Store};
use crate::{expiry, git, identity, terminal};

/// One of the two versions.
struct Side {
    store: Store,
    keyring: Option<Keyring>,
}

/// A credential that is not the same in both.
struct Change<'a> {
    what: &'static str,
    sign: char,
    old: Option<&'a Entry>,
    new: Option<&'a Entry>,
}

pub(crate) fn run(
    context: &Context,
    old: &str,
    new: Option<&str>,
    values: bool,
    exit_code: bool,
) -> Result<(), Error> {
    // The command asks a person for the secret only if the person asked for values. A secret in the environment tells a
    // value that was only encrypted again from one that is different.
    let at_hand = match context.has_secret() {
        Err(error) if !values => {
            terminal::note(&format!("{error}; without the secret, no values are compared"));
            false
        }
        other => other?,
    };
    let old = version(context, old)?;
    let new = match new {
        Some(new) => version(context, new)?,
        None => Store::read(context)?,
    };
    let (mut old, mut new) = if values || at_hand {
        opened(context, old, new, values)?
    } else {
        (Side { store: old, keyring: None }, Side { store: new, keyring: None })
    };
    let keyring_changed = old.store.keyring_bytes != new.store.keyring_bytes;
    let (old_entries, new_entries) = (old.store.entries.clone(), new.store.entries.clone());
    let mut changes = changes(&old_entries, &new_entries);
    for change in &mut changes {
        if change.what == "changed" && same_value(change, &mut old, &mut new)? {
            (change.what, change.sign) = ("re-encrypted", '=');
        }
    }
    let (mut fields, mut lines) = (Vec::new(), String::new());
    for change in &changes {
        let before = if values { value(change.old, &mut old)? } else { None };
        let after = if values { value(change.new, &mut new)? } else { None };
        let Some(entry) = change.new.or(change.old) else { continue };
        if context.json {
            fields.push(ChangeFields::new(entry, change, before, after)?);
        } else {
            lines.push_str(&text(entry, change, before, after));
        }
    }
    if context.json {
        output::json(&Differences { keyring_changed, changes: fields })?;
    } else {
        output::write(lines.as_bytes())?;
        if keyring_changed {
            terminal::note("the keyring changed: a new data key or a new master secret");
        }
    }
    if exit_code && (keyring_changed || !changes.is_empty()) { Err(Error::Different) } else { Ok(()) }
}

/// A file where there is one, otherwise the file of a commit.
fn version(context: &Context, which: &str) -> Result<Store, Error> {
    let path = Path::new(which);
    if path.is_file() {
        return Store::read_at(context, path);
    }
    let bytes = git::version(&context.file, which)?;
    let name = PathBuf::from(format!("{which}:{}", context.file.display()));
    Store::parse(context, &name, &bytes)
}

/// Both versions with keyrings that open their values. A new master secret wraps the same data keys, so where the secret
/// is that of one version only, this version's keyring opens the values of both.
fn opened(context: &Context, mut old: Store, mut new: Store, values: bool) -> Result<(Side, Side), Error> {
    let (before, after) = match (keyring(context, &mut old), keyring(context, &mut new)) {
        (Err(Error::WrongSecret { path }), Ok(after)) => {
            note_other_secret(&path);
            (Some(unlock(context, &new)?), Some(after))
        }
        (Ok(before), Err(Error::WrongSecret { path })) => {
            note_other_secret(&path);
            let after = unlock(context, &old)?;
            (Some(before), Some(after))
        }
        (Err(error @ Error::WrongSecret { .. }), Err(Error::WrongSecret { .. })) if !values => {
            terminal::note(&format!("{error}; without the secret, no values are compared"));
            (None, None)
        }
        (before, after) => (Some(before?), Some(after?)),
    };
    Ok((Side { store: old, keyring: before }, Side { store: new, keyring: after }))
}

fn note_other_secret(path: &Path) {
    let path = path.display();
    terminal::note(&format!("{path} has another master secret: its seal was not checked"));
}

/// The keyring of a version whose seal is right.
fn keyring(context: &Context, store: &mut Store) -> Result<Keyring, Error> {
    let keyring = unlock(context, store)?;
    let kek = context.kek(&store.path, &store.keyring_bytes)?;
    let of_file = Error::of_file(&store.path);
    let handle = store.files.unlock(&store.keyring_bytes, &kek).map_err(&of_file)?;
    store.files.verify(store.document, handle).map_err(&of_file)?;
    Ok(keyring)
}

fn unlock(context: &Context, store: &Store) -> Result<Keyring, Error> {
    let kek = context.kek(&store.path, &store.keyring_bytes)?;
    context.module()?.unlock(&store.keyring_bytes, &kek).map_err(Error::of_file(&store.path))
}

/// Both lists are sorted by identity. A deleted credential is as good as none.
fn changes<'a>(old: &'a [Entry], new: &'a [Entry]) -> Vec<Change<'a>> {
    let key = |entry: &'a Entry| (&entry.name, &entry.kind, &entry.principal, &entry.scope);
    let (mut old, mut new) = (
        old.iter().filter(|entry| !entry.deleted).peekable(),
        new.iter().filter(|entry| !entry.deleted).peekable(),
    );
    let mut changes = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => key(old).cmp(&key(new)),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        let (what, sign) = match (before, after) {
            (Some(before), Some(after))
                if before.sealed == after.sealed && before.expires == after.expires =>
            {
                continue;
            }
            (Some(_), Some(_)) => ("changed", '~'),
            (Some(_), None) => ("removed", '-'),
            (None, _) => ("added", '+'),
        };
        changes.push(Change { what, sign, old: before, new: after });
    }
}

/// Whether what was sealed is the same: value and expiry.
fn same_value(change: &Change<'_>, old: &mut Side, new: &mut Side) -> Result<bool, Error> {
    if change.old.and_then(|entry| entry.expires) != change.new.and_then(|entry| entry.expires) {
        return Ok(false);
    }
    let (Some(before), Some(after)) = (value(change.old, old)?, value(change.new, new)?) else {
        return Ok(false);
    };
    Ok(matches!((before, after), (Ok(before), Ok(after)) if before == after))
}

/// The value on one side; none where it has none or nothing may be opened.
fn value(entry: Option<&Entry>, side: &mut Side) -> Result<Option<OpenedValue>, Error> {
    let (Some(entry), Some(keyring)) = (entry, &mut side.keyring) else { return Ok(None) };
    store::open(keyring, entry).map(Some)
}

/// What `diff` prints with `--json`.
#[derive(Serialize)]
struct Differences {
    keyring_changed: bool,
    changes: Vec<ChangeFields>,
}

#[derive(Serialize)]
struct ChangeFields {
    #[serde(flatten)]
    identity: IdentityFields,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_unreadable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_unreadable: Option<String>,
}

impl ChangeFields {
    fn new(
        entry: &Entry,
        change: &Change<'_>,
        before: Option<OpenedValue>,
        after: Option<OpenedValue>,
    ) -> Result<Self, Error> {
        let identity = IdentityFields::new(&entry.identity())?;
        let (before, old_unreadable) = parts(before);
        let (after, new_unreadable) = parts(after);
        Ok(Self {
            identity,
            change: change.what,
            old_expires: expiry::text(change.old.and_then(|entry| entry.expires)),
            new_expires: expiry::text(change.new.and_then(|entry| entry.expires)),
            old_value: before.text,
            old_value_base64: before.base64,
            old_unreadable,
            new_value: after.text,
            new_value_base64: after.base64,
            new_unreadable,
        })
    }
}

/// The bytes of a value, and why it does not open.
fn parts(value: Option<OpenedValue>) -> (Bytes, Option<String>) {
    match value {
        Some(Ok(value)) => (Bytes::new(&value), None),
        Some(Err(reason)) => (Bytes { text: None, base64: None }, Some(reason)),
        None => (Bytes { text: None, base64: None }, None),
    }
}

fn text(
    entry: &Entry,
    change: &Change<'_>,
    before: Option<OpenedValue>,
    after: Option<OpenedValue>,
) -> String {
    let note = if change.what == "re-encrypted" { " (re-encrypted)" } else { "" };
    let mut text = format!("{} {}{note}\n", change.sign, identity::shown(&entry.identity()));
    if let (Some(old), Some(new)) = (change.old, change.new)
        && old.expires != new.expires
    {
        let (old, new) = (expiry::shown(old.expires), expiry::shown(new.expires));
        text.push_str(&format!("    expires {old}, now {new}\n"));
    }
    for (side, value) in [("old", before), ("new", after)] {
        match value {
            Some(Ok(value)) => text.push_str(&format!("    {side} {}\n", output::escaped(&value))),
            Some(Err(reason)) => text.push_str(&format!("    {side} unreadable: {reason}\n")),
            None => {}
        }
    }
    text
}
