//! git, as a program, which may not be installed.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::environment;
use crate::error::Error;

/// The three versions of a file whose merge is not finished: ancestor (if there is one), ours, theirs.
pub(crate) type Versions = (Option<Vec<u8>>, Vec<u8>, Vec<u8>);

/// The folder of a file, for git to be run in.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Where a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// In a work tree of a repository.
    Inside,
    /// In none.
    Outside,
    /// Probably in one: git is not installed, or refuses to look at this repository.
    Unknown,
}

/// Where a folder is.
pub(crate) fn tree(folder: &Path) -> Tree {
    match run(folder, ["rev-parse", "--is-inside-work-tree"]) {
        Ok(answer) if answer.status.success() && answer.stdout.starts_with(b"true") => Tree::Inside,
        Ok(answer) if answer.status.success() => Tree::Outside,
        _ => {
            let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
            let repository = folder.ancestors().any(|folder| folder.join(".git").exists());
            if repository { Tree::Unknown } else { Tree::Outside }
        }
    }
}

/// Whether git ignores a file of the folder, so that no command adds it without being forced to.
pub(crate) fn ignores(folder: &Path, name: &OsStr) -> Result<bool, Error> {
    let path = Path::new(".").join(name);
    let options = ["check-ignore", "--quiet", "--"].map(OsStr::new);
    let done = run(folder, options.into_iter().chain([path.as_os_str()])).map_err(|error| no_git(&error))?;
    match done.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(Error::Git(failure_text(&done))),
    }
}

/// Whether a file of the folder is in git's index.
pub(crate) fn tracks(folder: &Path, name: &OsStr) -> bool {
    let options = ["--literal-pathspecs", "ls-files", "--error-unmatch", "--"].map(OsStr::new);
    run(folder, options.into_iter().chain([name])).is_ok_and(|done| done.status.success())
}

/// An option, as git has it in this folder.
pub(crate) fn option(folder: &Path, option: &str) -> Option<String> {
    let found = run(folder, ["config", "--get", option]).ok().filter(|done| done.status.success())?;
    String::from_utf8(found.stdout).ok()
}

/// Sets an option of this clone.
pub(crate) fn configure(folder: &Path, option: &str, value: &str) -> Result<(), Error> {
    succeeded(run(folder, ["config", "--local", option, value]))?;
    Ok(())
}

/// A file as it was in a commit.
pub(crate) fn version(file: &Path, commit: &str) -> Result<Vec<u8>, Error> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if commit.starts_with('-') {
        return Err(Error::Git(format!("{commit} is not a commit")));
    }
    Ok(succeeded(run(&folder_of(file), ["cat-file", "blob", &format!("{commit}:./{name}")]))?.stdout)
}

/// The versions of a file with an unfinished merge.
pub(crate) fn unmerged(file: &Path) -> Option<Versions> {
    let stage = |number: u8| version(file, &format!(":{number}")).ok();
    Some((stage(1), stage(2)?, stage(3)?))
}

/// Merges three files as text into the first, with markers around what conflicts.
pub(crate) fn merge_text(ours: &Path, base: &Path, theirs: &Path) -> Result<(), Error> {
    let labels = ["merge-file", "-L", "ours", "-L", "base", "-L", "theirs"].map(OsStr::new);
    let files = [ours, base, theirs].map(Path::as_os_str);
    let done = run(Path::new("."), labels.into_iter().chain(files)).map_err(|error| no_git(&error))?;
    // The status is the number of conflicts.
    match done.status.code() {
        Some(0..=127) => Ok(()),
        _ => Err(Error::Git(failure_text(&done))),
    }
}

fn run<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) -> io::Result<Output> {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    environment::without_secrets(environment::without_git(&mut command), environment::MASTER_SECRET).output()
}

fn succeeded(done: io::Result<Output>) -> Result<Output, Error> {
    let done = done.map_err(|error| no_git(&error))?;
    if done.status.success() { Ok(done) } else { Err(Error::Git(failure_text(&done))) }
}

fn no_git(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::Git("the program git is not installed".to_owned()),
        _ => Error::Git(error.to_string()),
    }
}

fn failure_text(done: &Output) -> String {
    let text = String::from_utf8_lossy(&done.stderr);
    let line = text.lines().next().unwrap_or("it failed and said nothing");
    line.strip_prefix("fatal: ").unwrap_or(line).to_owned()
}
