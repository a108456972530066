use std::path::Path;

use omni_credentials_host::{Error as HostError, ErrorCode, Preference, Wrapping, shared_file};

use crate::args::Side;
use crate::choices::{self, Named};
use crate::combine::{Combined, Merge};
use crate::context::{Context, MAX_FILE};
use crate::error::Error;
use crate::git::{self, Versions};
use crate::output::{self, EntryFields};
use crate::store::{self, Store};
use crate::{identity, terminal};

/// Which side wins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Of each credential in conflict that is not named.
    pub(crate) prefer: Option<Side>,
    pub(crate) named: Named<'a>,
}

/// git's merge driver: the merged file replaces ours. What cannot be merged is left as git's own merge of text
/// would leave it, markers and all, and the status says that there is a conflict.
pub(crate) fn driver(
    context: &Context,
    base: &Path,
    ours: &Path,
    theirs: &Path,
    path: Option<&Path>,
    wanted: Wanted<'_>,
) -> Result<(), Error> {
    let merged = match context.has_secret() {
        Ok(true) => {
            let read = |path| shared_file::read(path, MAX_FILE);
            let path = path.unwrap_or(ours);
            let (base, ours, theirs) = (read(base)?, read(ours)?, read(theirs)?);
            Merge::new(context, path, &base, &ours, &theirs).and_then(|merge| decide(merge, wanted))
        }
        // No one is asked in the middle of git's work.
        Ok(false) => Err(Error::NoSecret { variable: context.variable.clone() }),
        Err(error) => Err(error),
    };
    match merged {
        Ok(merged) => {
            shared_file::Staged::write(ours, &merged.bytes)?.publish()?;
            tell(context, &merged)
        }
        Err(error @ Error::Interrupted(_)) => Err(error),
        Err(error) => {
            git::merge_text(ours, base, theirs)?;
            terminal::note("left as a merge of text; once the secret is at hand, or to choose a side:");
            terminal::note("    omni-credentials merge [--prefer ours|theirs]");
            Err(error)
        }
    }
}

/// Finishes a merge for which the secret was not at hand.
pub(crate) fn finish(context: &Context, wanted: Wanted<'_>) -> Result<(), Error> {
    let bytes = shared_file::read(&context.file, MAX_FILE)?;
    // A person is asked before the lock is taken, so that no one waits for them.
    context.secret()?;
    let asked = if wanted.prefer.is_none() && !context.json && choices::is_person_there() {
        ask(context, &bytes, wanted)?
    } else {
        None
    };
    let lock = store::lock(context)?;
    let path = lock.path();
    let now = lock.read(MAX_FILE)?;
    if asked.is_none() && is_whole(context, path, &now)? {
        if context.json {
            return output::json(&Finished { merged: false, credentials: None });
        }
        terminal::note("there is nothing to merge: the file is whole");
        return Ok(());
    }
    // With the versions at hand nothing has to be guessed.
    let versions = git::unmerged(path);
    let merged = match (asked, versions) {
        (Some((merged, of)), versions) => {
            if now != bytes || versions.as_ref() != Some(&of) {
                return Err(Error::ChangedMeanwhile(context.file.clone()));
            }
            merged
        }
        (None, Some((base, ours, theirs))) => {
            decide(Merge::new(context, path, &base.unwrap_or_default(), &ours, &theirs)?, wanted)?
        }
        (None, None) => return finish_trailer(context, &lock, &now, wanted),
    };
    store::publish(&lock, &merged.bytes)?;
    tell(context, &merged)?;
    terminal::note(&format!("to finish: git add {}", context.file.display()));
    Ok(())
}

/// Merges as the command line says.
fn decide(mut merge: Merge<'_>, wanted: Wanted<'_>) -> Result<Combined, Error> {
    let prefer = preference(wanted.prefer);
    let choices = match wanted.named.first() {
        None => Vec::new(),
        Some(_) => {
            let (conflicts, _) = merge.conflicts(prefer)?;
            wanted.named.choices(&mut merge, &conflicts)?
        }
    };
    merge.finish(prefer, choices)
}

/// Merges as the command line says, and asks a person about what is then still in conflict. None where there is nothing
/// to ask.
fn ask(context: &Context, bytes: &[u8], wanted: Wanted<'_>) -> Result<Option<(Combined, Versions)>, Error> {
    if is_whole(context, &context.file, bytes)? {
        return Ok(None);
    }
    let Some(versions) = git::unmerged(&context.file) else { return Ok(None) };
    let (base, ours, theirs) = &versions;
    let base = base.as_deref().unwrap_or_default();
    let mut merge = Merge::new(context, &context.file, base, ours, theirs)?;
    let (conflicts, mut keyring) = merge.conflicts(Preference::Neither)?;
    let mut choices = wanted.named.choices(&mut merge, &conflicts)?;
    let is_open = |identity| choices.iter().all(|(chosen, _)| chosen != identity);
    let open: Vec<_> = conflicts.iter().filter(|conflict| is_open(&conflict.identity)).collect();
    if !open.is_empty() {
        choices.extend(choices::ask(context, &mut merge, &mut keyring, &open)?);
    }
    Ok(Some((merge.finish(Preference::Neither, choices)?, versions)))
}

/// Whether a file is as a host wrote it.
fn is_whole(context: &Context, path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    match Store::parse(context, path, bytes) {
        Ok(store) => match store.unlock(context) {
            Ok(_) => Ok(true),
            Err(Error::Damaged { failure, .. }) if failure.code == ErrorCode::SealMismatch => Ok(false),
            Err(error) => Err(error),
        },
        Err(Error::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file whose records git joined without conflict. Its seal no longer vouches for the list of records, so every
/// value must open, and the person is told what to look at.
fn finish_trailer(
    context: &Context,
    lock: &shared_file::Lock,
    bytes: &[u8],
    wanted: Wanted<'_>,
) -> Result<(), Error> {
    let mut files = context.module()?.files()?;
    let document = files.parse_unsealed(bytes).map_err(|error| match error {
        // Markers inside a record make it malformed in many ways.
        HostError::Refused(_) if has_markers(bytes) => Error::MarkersInRecords(context.file.clone()),
        other => Error::of_file(lock.path())(other),
    })?;
    if let Some(name) = wanted.named.first() {
        return Err(Error::NotInConflict { name: name.to_owned(), conflicts: Vec::new() });
    }
    let mut opened = Store::of(lock.path(), files, document)?.unlock_unsealed(context)?;
    let live: Vec<_> = opened.store.live().cloned().collect();
    for entry in &live {
        opened.value_of(entry)?;
    }
    opened.save(lock)?;
    if context.json {
        return output::json(&Finished { merged: true, credentials: Some(live.len()) });
    }
    terminal::note(&format!("sealed with {} credentials, all of which open", live.len()));
    terminal::note("whether one was dropped on the way only a comparison shows: omni-credentials diff");
    Ok(())
}

fn has_markers(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"<<<<<<<"))
}

fn preference(side: Option<Side>) -> Preference {
    match side {
        None => Preference::Neither,
        Some(Side::Ours) => Preference::Ours,
        Some(Side::Theirs) => Preference::Theirs,
    }
}

fn tell(context: &Context, merged: &Combined) -> Result<(), Error> {
    if context.json {
        let list = |entries: &[omni_credentials_host::Entry]| {
            entries.iter().map(EntryFields::new).collect::<Result<_, _>>()
        };
        return output::json(&Merged {
            merged: true,
            to_ours: list(&merged.to_ours)?,
            to_theirs: list(&merged.to_theirs)?,
            decided: &merged.conflicts,
        });
    }
    let is_edited = |entry: &omni_credentials_host::Entry| {
        merged.edited.iter().any(|identity| identity.as_ref() == entry.identity())
    };
    for (side, entries) in [("theirs", &merged.to_ours), ("ours", &merged.to_theirs)] {
        for entry in entries.iter().filter(|entry| !is_edited(entry)) {
            let what = if entry.deleted { "deleted" } else { "set" };
            terminal::note(&format!("from {side}: {what} {}", identity::shown(&entry.identity())));
        }
    }
    for identity in &merged.edited {
        terminal::note(&format!("edited: {}", identity::shown(&identity.as_ref())));
    }
    for conflict in &merged.conflicts {
        terminal::note(&format!("decided as you said: {conflict}"));
    }
    match merged.wrapping {
        Wrapping::Same => {}
        Wrapping::Ours => terminal::note("the file has the master secret of ours, which changed it"),
        Wrapping::Theirs => terminal::note("the file has the master secret of theirs, which changed it"),
        Wrapping::Conflict => {
            terminal::note("both sides changed the master secret; the file opens with the one at hand");
        }
    }
    Ok(())
}

/// What `merge` prints with `--json` where the versions are at hand.
#[derive(serde::Serialize)]
struct Merged<'a> {
    merged: bool,
    to_ours: Vec<EntryFields>,
    to_theirs: Vec<EntryFields>,
    decided: &'a [String],
}

/// What `merge` prints with `--json` where only the file with the markers is.
#[derive(serde::Serialize)]
struct Finished {
    merged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<usize>,
}
