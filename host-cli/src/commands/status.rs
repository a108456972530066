use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use omni_credentials_host::secret::{self as sources, Source};
use omni_credentials_host::shared_file::Lock;
use omni_credentials_host::{Error as HostError, KeyOf};
use serde::Serialize;

use crate::args::{DEFAULT_KEY_FILE, DEFAULT_NEW_KEY_FILE};
use crate::context::Context;
use crate::error::Error;
use crate::git::{self, Tree};
use crate::store::{Opened, Store};
use crate::terminal::Progress;
use crate::{expiry, interrupt, output, secret};

/// What is due soon, as in the database's `status()`.
const DUE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// What git calls the driver of merges.
const DRIVER: &str = "merge.omni-credentials.driver";

/// Says how the file is. What cannot be told is a problem, and the rest is told all the same.
pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let mut status = Status { file: context.file.display().to_string(), ..Status::default() };
    look_at_module(context, &mut status)?;
    let has_secret = look_at_secret(context, &mut status)?;
    look_at_file(context, &mut status, has_secret)?;
    look_at_lock(context, &mut status)?;
    status.git = git_state(context, &mut status.problems);
    if context.json {
        output::json(&status)?;
    } else {
        output::write(status.text().as_bytes())?;
    }
    if status.problems.is_empty() { Ok(()) } else { Err(Error::Problems) }
}

/// What `status` prints with `--json`. NULL is what cannot be told, or does not apply.
#[derive(Default, Serialize)]
struct Status {
    file: String,
    exists: bool,
    bytes: Option<usize>,
    generation: Option<u64>,
    credentials: Option<Counts>,
    values: Option<Values>,
    secret: Secret,
    module: Option<ModuleState>,
    locked: Option<bool>,
    git: Git,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Counts {
    total: usize,
    by_kind: BTreeMap<String, usize>,
    deleted: usize,
    expired: usize,
    due: usize,
}

/// Under which key the values are.
#[derive(Default, Serialize)]
struct Values {
    under_current_key: usize,
    under_superseded_keys: usize,
    unreadable: usize,
}

#[derive(Default, Serialize)]
struct Secret {
    variable: String,
    source: Option<&'static str>,
    opens: Option<bool>,
}

#[derive(Serialize)]
struct ModuleState {
    name: String,
    digest: String,
    suite: String,
}

#[derive(Default, Serialize)]
struct Git {
    work_tree: Option<bool>,
    tracked: Option<bool>,
    merge_driver: Option<bool>,
    unignored_keys: Vec<String>,
}

/// Notes what is wrong, unless it is that someone wants the command to end.
fn note<T>(problems: &mut Vec<String>, result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ Error::Interrupted(_)) => Err(error),
        Err(error) => {
            problems.push(error.to_string());
            Ok(None)
        }
    }
}

fn look_at_module(context: &Context, status: &mut Status) -> Result<(), Error> {
    let found = context.module().and_then(|module| {
        let it = module.describe()?;
        let suite = format!("{} ({})", it.suite.name, it.suite.id);
        Ok(ModuleState { name: it.name, digest: module.digest().to_string(), suite })
    });
    status.module = note(&mut status.problems, found)?;
    Ok(())
}

/// Where the secret comes from. No one is asked for it.
fn look_at_secret(context: &Context, status: &mut Status) -> Result<Option<bool>, Error> {
    status.secret.variable = context.variable.clone();
    let source = sources::source(&context.variable).unwrap_or_default();
    status.secret.source = source.map(|source| match source {
        Source::Variable => "variable",
        Source::File => "file",
        Source::Command => "command",
    });
    note(&mut status.problems, context.has_secret())
}

fn look_at_file(context: &Context, status: &mut Status, has_secret: Option<bool>) -> Result<(), Error> {
    let Some(bytes) = note(&mut status.problems, context.read())? else { return Ok(()) };
    (status.exists, status.bytes) = (true, Some(bytes.len()));
    if status.module.is_none() {
        return Ok(());
    }
    let parsed = Store::parse(context, &context.file, &bytes);
    let Some(store) = note(&mut status.problems, parsed)? else { return Ok(()) };
    status.generation = Some(store.generation);
    let counts = Counts::of(&store);
    if counts.expired > 0 {
        status.problems.push(format!("{} credentials have expired", counts.expired));
    }
    status.credentials = Some(counts);
    match has_secret {
        Some(true) => {
            let opened = note(&mut status.problems, store.unlock(context))?;
            status.secret.opens = Some(opened.is_some());
            let Some(mut opened) = opened else { return Ok(()) };
            let looked = note(&mut status.problems, Values::of(&mut opened))?;
            if let Some(values) = looked {
                if values.unreadable > 0 {
                    status
                        .problems
                        .push(format!("{} values do not open: omni-credentials verify", values.unreadable));
                }
                status.values = Some(values);
            }
        }
        Some(false) => {}
        None => status.secret.opens = Some(false),
    }
    Ok(())
}

impl Counts {
    fn of(store: &Store) -> Self {
        let (now, soon) = (expiry::after(Duration::ZERO), expiry::after(DUE));
        let mut by_kind = BTreeMap::new();
        for entry in store.live() {
            *by_kind.entry(String::from_utf8_lossy(&entry.kind).into_owned()).or_default() += 1;
        }
        let until = |at: u64| store.live().filter(|entry| entry.expires.is_some_and(|it| it <= at)).count();
        Self {
            total: store.live().count(),
            by_kind,
            deleted: store.entries.iter().filter(|entry| entry.deleted).count(),
            expired: until(now),
            due: until(soon).saturating_sub(until(now)),
        }
    }
}

impl Values {
    fn of(opened: &mut Opened) -> Result<Self, Error> {
        let live: Vec<_> = opened.store.live().cloned().collect();
        let mut progress = Progress::new("opening", live.len());
        let mut values = Self::default();
        for (done, entry) in live.iter().enumerate() {
            progress.at(done)?;
            match opened.value(entry) {
                Ok(_) if opened.keyring.key_of(&entry.sealed)? == KeyOf::Current => {
                    values.under_current_key += 1;
                }
                Ok(_) => values.under_superseded_keys += 1,
                Err(HostError::Refused(_)) => values.unreadable += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(values)
    }
}

fn look_at_lock(context: &Context, status: &mut Status) -> Result<(), Error> {
    if status.exists {
        let held = context.place().and_then(|place| Ok(Lock::is_held(&place)?));
        status.locked = note(&mut status.problems, held)?;
    }
    interrupt::check()?;
    Ok(())
}

fn git_state(context: &Context, problems: &mut Vec<String>) -> Git {
    let folder = git::folder_of(&context.file);
    let work_tree = match git::tree(&folder) {
        Tree::Inside => true,
        Tree::Outside => return Git { work_tree: Some(false), ..Git::default() },
        Tree::Unknown => return Git::default(),
    };
    let mut keys: Vec<_> =
        [DEFAULT_KEY_FILE, DEFAULT_NEW_KEY_FILE].iter().map(|key| folder.join(key)).collect();
    keys.extend(secret::file(&context.variable));
    keys.retain(|key| key.exists());
    let unignored: Vec<_> =
        keys.iter().filter(|key| is_unignored(key)).map(|key| key.display().to_string()).collect();
    for key in &unignored {
        problems.push(format!(
            "git does not ignore {key}, which is for a master key: omni-credentials init --git"
        ));
    }
    let tracked = context.file.file_name().map(|name| git::tracks(&folder, name));
    Git {
        work_tree: Some(work_tree),
        tracked,
        merge_driver: Some(git::option(&folder, DRIVER).is_some()),
        unignored_keys: unignored,
    }
}

/// Whether git could commit a file.
fn is_unignored(path: &Path) -> bool {
    let folder = git::folder_of(path);
    let Some(name) = path.file_name() else { return false };
    git::tree(&folder) == Tree::Inside
        && (git::tracks(&folder, name) || !git::ignores(&folder, name).unwrap_or(true))
}

impl Status {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, told: String| {
            let _ = writeln!(text, "{what:12}{told}");
        };
        line("file", if self.exists { self.file.clone() } else { format!("{} (cannot be read)", self.file) });
        if let (Some(bytes), Some(generation)) = (self.bytes, self.generation) {
            line("", format!("{bytes} bytes, generation {generation}"));
        }
        if let Some(it) = &self.credentials {
            line(
                "credentials",
                format!(
                    "{}, {} deleted, {} expired, {} due within 30 days",
                    it.total, it.deleted, it.expired, it.due
                ),
            );
            for (kind, count) in &it.by_kind {
                line("", format!("{count} {}", kind.escape_debug()));
            }
        }
        let Secret { variable, source, opens } = &self.secret;
        let source = match source {
            Some("file") => format!("from the file that {variable}_FILE names"),
            Some("command") => format!("from the program that {variable}_COMMAND names"),
            Some(_) => format!("from {variable}"),
            None => format!("not in {variable}, {variable}_FILE or {variable}_COMMAND"),
        };
        let opens = match opens {
            Some(true) => ", opens the file",
            Some(false) => ", does not open the file",
            None => "",
        };
        line("secret", format!("{source}{opens}"));
        if let Some(it) = &self.values {
            let (current, superseded) = (it.under_current_key, it.under_superseded_keys);
            line(
                "values",
                format!(
                    "{current} under the current key, {superseded} under superseded keys, {} do not open",
                    it.unreadable
                ),
            );
        }
        if let Some(it) = &self.module {
            line("module", format!("{}, suite {}", it.name.escape_debug(), it.suite.escape_debug()));
        }
        line(
            "lock",
            match self.locked {
                Some(true) => "held by a process".to_owned(),
                Some(false) => "free".to_owned(),
                None => "not known".to_owned(),
            },
        );
        let yes = |it: Option<bool>, yes: &str, no: &str| {
            if it == Some(true) { yes.to_owned() } else { no.to_owned() }
        };
        line(
            "git",
            match self.git.work_tree {
                Some(true) => format!(
                    "{}; {}",
                    yes(self.git.tracked, "the file is tracked", "the file is not tracked"),
                    yes(
                        self.git.merge_driver,
                        "diff and merge are set up",
                        "diff and merge are not set up: omni-credentials init --git"
                    )
                ),
                Some(false) => "not in a work tree".to_owned(),
                None => "git does not look at this repository".to_owned(),
            },
        );
        for problem in &self.problems {
            line("problem", problem.clone());
        }
        text
    }
}
