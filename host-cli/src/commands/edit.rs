//! Editing the whole file as text.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use omni_credentials_host::{Entry, EntryRef, Preference};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::buffer::{self, Edited};
use crate::combine::combine;
use crate::context::{Context, MAX_FILE};
use crate::error::Error;
use crate::scratch;
use crate::store::{self, Canonical, Opened, Store};
use crate::{editor, git, identity, output, secret, terminal};

/// How many master secrets are tried for a file that has another one when it is saved.
const MAX_SECRETS: u32 = 4;

/// The new version of the file, encrypted.
struct Changed {
    bytes: Vec<u8>,
    added: usize,
    changed: usize,
    deleted: usize,
}

pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let mut unsaved = None;
    let result = edit(context, &mut unsaved);
    match (&result, unsaved) {
        (Err(error), Some(changed)) if !error.is_silent() => keep(context, &changed),
        _ => {}
    }
    result
}

/// Edits until the text is saved or given up. `unsaved` is what could not be saved so far.
fn edit(context: &Context, unsaved: &mut Option<Changed>) -> Result<(), Error> {
    let editor = editor::named()?;
    scratch::sweep();
    let mut base = context.read()?;
    let mut opened = Store::parse(context, &context.file, &base)?.unlock(context)?;
    let mut text = buffer::render(&credentials(&mut opened)?, "");
    // What a person means who changes nothing: at first to change nothing, and later to keep the text as it is.
    let mut keeps = false;
    let mut reason = None;
    loop {
        let (edited, is_text) = buffer::from_editor(&editor::edit(context, &editor, &text)?);
        if buffer::is_given_up(&edited) || (*edited == *text && !keeps) {
            *unsaved = None;
            return reason.map_or_else(|| finish(context, None), Err);
        }
        let applied = if is_text {
            apply(context, &mut opened, &base, &edited)
        } else {
            Err(Error::Meaningless("the edited text is not UTF-8".to_owned()))
        };
        let changed = match applied {
            Ok(Some(changed)) => changed,
            Ok(None) => return finish(context, None),
            Err(error @ Error::Interrupted(_)) => return Err(error),
            // Without a person who returns to the text, the same editor would do the same again.
            Err(error) if io::stdin().is_terminal() => {
                text = again(&edited, &error, "Fix it and save, or empty the file to abort.");
                reason = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let (error, theirs) = match save_under_any_secret(context, &base, &changed) {
            Ok(()) => {
                *unsaved = None;
                return finish(context, Some(&changed));
            }
            Err(failed) => failed,
        };
        let changed = &*unsaved.insert(changed);
        if matches!(error, Error::Interrupted(_)) || !io::stdin().is_terminal() {
            return Err(error);
        }
        keeps = true;
        if let Error::Conflict(names) = &error {
            // Theirs is what to start from now, with our version of what both changed.
            let ours = combine(context, &context.file, &base, &changed.bytes, &theirs, Preference::Ours)?;
            let mut merged = Store::parse(context, &context.file, &ours.bytes)?.unlock(context)?;
            let notice = format!(
                "Another process changed the file, and both changed: {}\n\
                 Save this as it is to keep yours, or empty the file to abort.",
                names.join("; ")
            );
            text = buffer::render(&credentials(&mut merged)?, &notice);
            opened = Store::parse(context, &context.file, &theirs)?.unlock(context)?;
            base = theirs;
        } else {
            text = again(&edited, &error, "Save again to try again, or empty the file to abort.");
        }
        reason = Some(error);
    }
}

/// The text under a notice that says why it is open again.
fn again(edited: &str, error: &Error, what_to_do: &str) -> Zeroizing<String> {
    let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    buffer::with_notice(edited, &format!("{error}\n{hint}{what_to_do}"))
}

/// Keeps what could not be saved next to the file, encrypted as the file is.
fn keep(context: &Context, changed: &Changed) {
    let name = context.file.file_name().unwrap_or_default().to_string_lossy();
    let mut builder = tempfile::Builder::new();
    let prefix = format!("{name}.unsaved-");
    let builder = builder.prefix(&prefix);
    let write = |mut file: NamedTempFile| {
        file.write_all(&changed.bytes)?;
        file.as_file().sync_all()?;
        Ok(file.keep().map_err(|error| error.error)?.1)
    };
    let next_to_it = builder.tempfile_in(git::folder_of(&context.file)).and_then(write);
    let kept = match next_to_it {
        Ok(path) => Ok(context.file.with_file_name(path.file_name().unwrap_or_default())),
        Err(_) => builder.tempfile().and_then(write),
    };
    match kept {
        Ok(path) => {
            let path = path.display();
            terminal::note(&format!(
                "your version is in {path}, encrypted with the secret that opened the file"
            ));
            terminal::note(&format!(
                "to compare: omni-credentials diff --values {} {path}",
                context.file.display()
            ));
        }
        Err(error) => terminal::note(&format!("your version is lost: {error}")),
    }
}

/// All credentials with their values.
fn credentials(opened: &mut Opened) -> Result<Vec<Edited>, Error> {
    let live: Vec<_> = opened.store.live().cloned().collect();
    live.iter()
        .map(|entry| Ok(Edited::new(&entry.identity(), entry.expires, opened.value_of(entry)?)))
        .collect()
}

/// The file with the edited credentials in it, or none where nothing is different.
fn apply(context: &Context, opened: &mut Opened, base: &[u8], text: &str) -> Result<Option<Changed>, Error> {
    let mut wanted = BTreeMap::new();
    let mut canonical = Canonical::new(context, &opened.store)?;
    for edited in buffer::parse(text)? {
        let identity = omni_credentials_host::Identity {
            name: edited.name.as_bytes(),
            kind: edited.kind.as_bytes(),
            principal: edited.principal.as_bytes(),
            scope: edited.scope.as_bytes(),
        };
        let canonical = canonical.form(identity)?;
        let shown = identity::shown(&canonical.identity());
        let key = (canonical.name, canonical.kind, canonical.principal, canonical.scope);
        if wanted.insert(key, (edited.expires, edited.value)).is_some() {
            return Err(Error::Meaningless(format!("{shown} occurs twice")));
        }
    }
    let mut changed = Changed { bytes: Vec::new(), added: 0, changed: 0, deleted: 0 };
    let mut records = Vec::new();
    let live: Vec<_> = opened.store.live().cloned().collect();
    for before in live {
        let key = (before.name.clone(), before.kind.clone(), before.principal.clone(), before.scope.clone());
        match wanted.remove(&key) {
            None => {
                changed.deleted += 1;
                records.push(Entry { expires: None, sealed: Vec::new(), deleted: true, ..before });
            }
            Some((expires, value)) if before.expires == expires && *opened.value_of(&before)? == *value => {}
            Some((expires, value)) => {
                changed.changed += 1;
                let sealed = opened.seal(&before.identity(), expires, &value)?;
                records.push(Entry { expires, sealed, ..before });
            }
        }
    }
    for ((name, kind, principal, scope), (expires, value)) in wanted {
        changed.added += 1;
        let sealed = Vec::new();
        let mut entry = Entry { name, kind, principal, scope, expires, sealed, deleted: false };
        entry.sealed = opened.seal(&entry.identity(), expires, &value)?;
        records.push(entry);
    }
    if records.is_empty() {
        return Ok(None);
    }
    let before = opened.store.document;
    opened.store.document = opened.store.files.parse(base)?;
    let entries: Vec<EntryRef<'_>> = records.iter().map(Entry::as_ref).collect();
    let bytes = opened.put(&entries).and_then(|()| opened.write());
    opened.store.document = before;
    changed.bytes = bytes?;
    Ok(Some(changed))
}

/// Replaces the file. If it has another master secret by now, reads the secret again or asks for it.
fn save_under_any_secret(context: &Context, base: &[u8], changed: &Changed) -> Result<(), (Error, Vec<u8>)> {
    let mut saved = save(context, base, changed);
    for attempt in 0..MAX_SECRETS {
        if !matches!(saved, Err((Error::WrongSecret { .. }, _))) {
            break;
        }
        let secret = if attempt == 0 {
            secret::from_environment(&context.variable)
        } else {
            terminal::ask_hidden("The file has another master secret now: ")
        };
        match secret {
            Ok(Some(secret)) if !secret.is_empty() => context.also_try(secret),
            Ok(_) if attempt == 0 => continue,
            Ok(_) => break,
            Err(error) => return Err((error, Vec::new())),
        }
        saved = save(context, base, changed);
    }
    saved
}

/// Replaces the file, merged with what others changed in it. A failure comes with what the file holds now.
fn save(context: &Context, base: &[u8], changed: &Changed) -> Result<(), (Error, Vec<u8>)> {
    let none = |error: Error| (error, Vec::new());
    let lock = store::lock(context).map_err(none)?;
    let theirs = lock.read(MAX_FILE).map_err(|error| none(error.into()))?;
    if theirs == base {
        return store::publish(&lock, &changed.bytes).map_err(none);
    }
    match combine(context, &context.file, base, &changed.bytes, &theirs, Preference::Neither) {
        Ok(merged) => {
            store::publish(&lock, &merged.bytes).map_err(none)?;
            terminal::note("another process changed the file; it has both changes now");
            Ok(())
        }
        Err(error) => Err((error, theirs)),
    }
}

/// What `edit` prints with `--json`.
#[derive(serde::Serialize)]
struct Finished {
    added: usize,
    changed: usize,
    deleted: usize,
}

fn finish(context: &Context, changed: Option<&Changed>) -> Result<(), Error> {
    let (added, altered, deleted) = changed.map_or((0, 0, 0), |it| (it.added, it.changed, it.deleted));
    if context.json {
        return output::json(&Finished { added, changed: altered, deleted });
    }
    terminal::note(&match changed {
        Some(_) => format!("{added} added, {altered} changed, {deleted} deleted"),
        None => "nothing was changed".to_owned(),
    });
    Ok(())
}
