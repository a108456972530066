//! Editing the whole file as text. The text is in a private folder, in memory where the system has one for that, and
//! is gone when the command ends, whichever way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use omni_credentials_host::{Entry, EntryRef, Preference, shared_file};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::buffer::{self, Edited};
use crate::combine::combine;
use crate::context::{Context, MAX_FILE};
use crate::error::Error;
use crate::output;
use crate::store::{self, Opened, Store};
use crate::{environment, identity, interrupt, terminal};

/// Characters that mean something to a shell.
const FOR_SHELL: [char; 20] =
    ['|', '&', ';', '<', '>', '(', ')', '$', '`', '"', '\'', '\\', '*', '?', '[', '#', '~', '=', '%', '\n'];
/// How often to look whether the editor has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// The file as it was read, and its new version.
struct Changed {
    bytes: Vec<u8>,
    added: usize,
    changed: usize,
    deleted: usize,
}

pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let editor = editor()?;
    let mut base = shared_file::read(&context.file, MAX_FILE)?;
    let mut opened = Store::parse(context, &context.file, &base)?.unlock(context)?;
    let mut text = buffer::render(&credentials(&mut opened)?, "");
    let scratch = Scratch::new()?;
    // What a person who changes nothing wants: to change nothing at first, and later to stand by the text.
    let mut settling = false;
    let mut complaint = None;
    loop {
        scratch.write(&text)?;
        run_editor(context, &editor, &scratch.file)?;
        let (edited, is_text) = scratch.read()?;
        if buffer::is_given_up(&edited) {
            return complaint.map_or_else(|| finish(context, None), Err);
        }
        if *edited == *text && !settling {
            return complaint.map_or_else(|| finish(context, None), Err);
        }
        let applied = if is_text {
            apply(&mut opened, &base, &edited)
        } else {
            Err(Error::Meaningless("the edited text is not UTF-8".to_owned()))
        };
        let changed = match applied {
            Ok(Some(changed)) => changed,
            Ok(None) => return finish(context, None),
            // Where nobody is there to return to the text, the same editor would do the same again.
            Err(error @ (Error::Invalid { .. } | Error::Meaningless(_) | Error::NoPrincipal))
                if io::stdin().is_terminal() =>
            {
                let notice = format!("{error}\nMend it, or delete everything to give up.");
                text = buffer::with_notice(&edited, &notice);
                complaint = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        match save(context, &base, &changed) {
            Ok(()) => return finish(context, Some(&changed)),
            Err((Error::Conflict(names), theirs)) if io::stdin().is_terminal() => {
                // Theirs is what to start from now, with our version of what both changed.
                let ours = combine(context, &context.file, &base, &changed.bytes, &theirs, Preference::Ours)?;
                let mut merged = Store::parse(context, &context.file, &ours.bytes)?.unlock(context)?;
                let notice = format!(
                    "The file was changed meanwhile, and both changed: {}\n\
                     Leave this as it is to keep yours, or delete everything to give up.",
                    names.join("; ")
                );
                text = buffer::render(&credentials(&mut merged)?, &notice);
                opened = Store::parse(context, &context.file, &theirs)?.unlock(context)?;
                base = theirs;
                (settling, complaint) = (true, Some(Error::Conflict(names)));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// All credentials with their values.
fn credentials(opened: &mut Opened) -> Result<Vec<Edited>, Error> {
    let live: Vec<_> = opened.store.live().cloned().collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    live.iter()
        .map(|entry| {
            Ok(Edited {
                name: text(&entry.name),
                kind: text(&entry.kind),
                principal: text(&entry.principal),
                scope: text(&entry.scope),
                value: opened.value_of(entry)?,
            })
        })
        .collect()
}

/// The file with the edited credentials in it, or none where nothing is different.
fn apply(opened: &mut Opened, base: &[u8], text: &str) -> Result<Option<Changed>, Error> {
    let mut wanted = BTreeMap::new();
    for edited in buffer::parse(text)? {
        let identity = omni_credentials_host::Identity {
            name: edited.name.as_bytes(),
            kind: edited.kind.as_bytes(),
            principal: edited.principal.as_bytes(),
            scope: edited.scope.as_bytes(),
        };
        let canonical = opened.store.canonical(identity)?;
        let shown = identity::shown(&canonical.identity());
        let key = (canonical.name, canonical.kind, canonical.principal, canonical.scope);
        if wanted.insert(key, edited.value).is_some() {
            return Err(Error::Meaningless(format!("{shown} is there twice")));
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
                records.push(Entry { sealed: Vec::new(), deleted: true, ..before });
            }
            Some(value) if *opened.value_of(&before)? == *value => {}
            Some(value) => {
                changed.changed += 1;
                let sealed = opened.seal(&before.identity(), &value)?;
                records.push(Entry { sealed, ..before });
            }
        }
    }
    for ((name, kind, principal, scope), value) in wanted {
        changed.added += 1;
        let mut entry = Entry { name, kind, principal, scope, sealed: Vec::new(), deleted: false };
        entry.sealed = opened.seal(&entry.identity(), &value)?;
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

/// Replaces the file, with what others did to it meanwhile merged in. A failure comes with what is there now.
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
            terminal::note("the file was changed meanwhile; both changes are in it now");
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

fn editor() -> Result<String, Error> {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|editor| !editor.trim().is_empty()).ok_or(Error::NoEditor)
}

/// Runs the editor as git does: by the shell where its name has what only a shell understands. A shell in between
/// would end at an interrupt that is meant for the editor.
fn run_editor(context: &Context, editor: &str, file: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Editor { editor: editor.to_owned(), reason };
    let mut words = editor.split_whitespace();
    let mut command = match words.next() {
        Some(program) if !editor.contains(FOR_SHELL) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        _ => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(format!("{editor} \"$@\"")).arg(editor);
            command
        }
    };
    environment::without_secrets(command.arg(file), &context.variable);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let status = interrupt::attended(|| -> Result<_, Error> {
        loop {
            if let Some(status) = child.try_wait().map_err(|error| failed(error.to_string()))? {
                return Ok(status);
            }
            if let Err(error) = interrupt::check() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
            thread::sleep(PAUSE);
        }
    })?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

/// A private folder with the text in it; what an editor leaves beside it goes with it.
struct Scratch {
    _folder: TempDir,
    file: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, Error> {
        let in_memory = [std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), Some("/dev/shm".into())];
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("omni-credentials-").permissions(Permissions::from_mode(0o700));
        let folder = in_memory
            .into_iter()
            .flatten()
            .filter(|folder| folder.is_absolute())
            .find_map(|folder| builder.tempdir_in(folder).ok());
        let folder = match folder {
            Some(folder) => folder,
            None => builder.tempdir().map_err(Error::io("a temporary folder"))?,
        };
        let file = folder.path().join("credentials.toml");
        Ok(Self { _folder: folder, file })
    }

    fn write(&self, text: &str) -> Result<(), Error> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.file);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io("the text to be edited"))
    }

    /// The text, and whether it is one; of what is not UTF-8, that which can be shown.
    fn read(&self) -> Result<(Zeroizing<String>, bool), Error> {
        let bytes = Zeroizing::new(fs::read(&self.file).map_err(Error::io("the edited text"))?);
        let text = String::from_utf8_lossy(&bytes);
        let is_text = matches!(text, Cow::Borrowed(_));
        Ok((Zeroizing::new(text.into_owned()), is_text))
    }
}
