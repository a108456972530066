use std::fs;
use std::path::Path;

use crate::args::{DEFAULT_KEY_FILE, DEFAULT_NEW_KEY_FILE};
use crate::context::Context;
use crate::error::Error;
use crate::git::{self, Tree};
use crate::{ignore, output, secret, store, terminal};

/// What git calls the driver.
const DRIVER: &str = "omni-credentials";

pub(crate) fn run(context: &Context, key_file: Option<&Path>) -> Result<(), Error> {
    refuse_existing(context)?;
    let module = context.module()?;
    let secret = match key_file {
        Some(path) => {
            let key = module.generate_master_key()?;
            secret::keep(path, &context.file, &key)?;
            key
        }
        None => secret::new(&context.variable)?,
    };
    let made = create(context, &secret);
    if let (Err(_), Some(path)) = (&made, key_file) {
        // Where nothing was made with it. An error may come after the file was put in its place.
        if !context.file.exists() {
            let _ = fs::remove_file(path);
        }
    }
    made?;
    let tracked = set_up(context).inspect_err(|_| {
        let file = context.file.display();
        terminal::note(&format!("created {file}; fix the error, and then: omni-credentials init --git"));
    })?;
    if context.json {
        let named = |path: &Path| path.display().to_string();
        let (file, key_file) = (Some(named(&context.file)), key_file.map(named));
        return output::json(&Done { file, git: tracked, key_file });
    }
    print_next_steps(context, key_file, tracked);
    Ok(())
}

/// What `init` prints with `--json`.
#[derive(serde::Serialize)]
struct Done {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    git: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<String>,
}

/// Sets up a clone of a repository that already has the file.
pub(crate) fn git_only(context: &Context) -> Result<(), Error> {
    if !set_up(context)? {
        let reason = match git::tree(&git::folder_of(&context.file)) {
            Tree::Unknown => "it does not look at this repository; to see why: git status",
            _ => "the file is not in a work tree of a repository",
        };
        return Err(Error::Git(reason.to_owned()));
    }
    if context.json {
        return output::json(&Done { file: None, git: true, key_file: None });
    }
    terminal::note("git diff and git merge understand the credentials file in this clone");
    Ok(())
}

fn refuse_existing(context: &Context) -> Result<(), Error> {
    match context.file.symlink_metadata() {
        Ok(_) => Err(Error::Exists(context.file.clone())),
        Err(_) => Ok(()),
    }
}

fn create(context: &Context, secret: &[u8]) -> Result<(), Error> {
    let module = context.module()?;
    let made = module.create_keyring(secret, None).map_err(Error::of_argument("the master secret"))?;
    let mut files = module.files()?;
    let document = files.create(&made.keyring)?;
    let keyring = files.unlock(&made.keyring, &made.kek)?;
    let bytes = files.write(document, keyring, 0)?;
    let lock = store::lock(context)?;
    refuse_existing(context)?;
    store::publish(&lock, &bytes)
}

/// Writes .gitattributes and .gitignore and configures this clone. False outside a work tree.
fn set_up(context: &Context) -> Result<bool, Error> {
    let folder = git::folder_of(&context.file);
    if git::tree(&folder) != Tree::Inside {
        return Ok(false);
    }
    let name = context.file.file_name().unwrap_or_default();
    let attributes = format!(" text eol=lf diff={DRIVER} merge={DRIVER}");
    let attributes = [ignore::quote(&ignore::rooted(name)), attributes.into_bytes()].concat();
    ignore::add_line(&folder.join(".gitattributes"), &attributes)?;
    let ignored = folder.join(".gitignore");
    ignore::add_line(&ignored, &[ignore::rooted(name).as_slice(), b".lock*"].concat())?;
    ignore::add_line(&ignored, &[b"/.".as_slice(), &ignore::escape(name), b".*.tmp"].concat())?;
    let program = program();
    git::configure(&folder, &format!("diff.{DRIVER}.textconv"), &format!("{program} show --textconv"))?;
    git::configure(&folder, &format!("merge.{DRIVER}.name"), "merge of credentials files")?;
    git::configure(
        &folder,
        &format!("merge.{DRIVER}.driver"),
        &format!("{program} merge --path %P %O %A %B"),
    )?;
    // A key may have been written before there was a repository.
    let mut keys: Vec<_> =
        [DEFAULT_KEY_FILE, DEFAULT_NEW_KEY_FILE].iter().map(|key| folder.join(key)).collect();
    keys.extend(secret::file(&context.variable).filter(|key| key.exists()));
    keys.iter().try_for_each(|key| ignore::ignore_key(key))?;
    Ok(true)
}

fn print_next_steps(context: &Context, key_file: Option<&Path>, tracked: bool) {
    let file = context.file.display();
    terminal::note(&format!("created {file}; you can commit it: its values are encrypted"));
    match key_file {
        Some(key_file) => {
            let path = key_file.display();
            terminal::note(&format!(
                "the master key is in {path}: save it in your password manager and never commit it"
            ));
            let folder = if key_file.is_absolute() { "" } else { "$PWD/" };
            terminal::note(&format!("to use it: export {}_FILE=\"{folder}{path}\"", context.variable));
        }
        None => terminal::note(
            "save the master secret in your password manager: without it, no one can read the file again",
        ),
    }
    if tracked {
        terminal::note("commit it with .gitattributes and .gitignore");
        terminal::note("in every other clone, for git diff and git merge: omni-credentials init --git");
    } else {
        terminal::note("the file is not in a git repository; after git init: omni-credentials init --git");
    }
}

/// This program as git's shell finds it: by name where the search path has it, otherwise by its place.
fn program() -> String {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join("omni-credentials").is_file())
    });
    match std::env::current_exe() {
        Ok(place) if !found => format!("'{}'", place.display().to_string().replace('\'', r"'\''")),
        _ => "omni-credentials".to_owned(),
    }
}
