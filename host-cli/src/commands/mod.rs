//! The commands, a file each.

mod compact;
mod diff;
mod edit;
mod exec;
mod exec_masked;
mod export;
mod get;
mod import;
mod init;
mod inject;
mod keygen;
mod list;
mod merge;
mod module;
mod pages;
mod rm;
mod rotate_key;
mod rotate_master_secret;
mod set;
mod show;
mod status;
mod verify;

use crate::args::{Command, Selection};
use crate::choices::Named;
use crate::context::Context;
use crate::error::Error;

pub(crate) fn run(context: &Context, command: Command) -> Result<(), Error> {
    match command {
        Command::Init { git: true, .. } => init::git_only(context),
        Command::Init { generate, key_file, .. } => init::run(context, generate.then_some(&*key_file)),
        Command::Keygen => keygen::run(context),
        Command::List { selection, deleted, expiring } => list::run(context, &selection, deleted, expiring),
        Command::Get { name, selection } => get::run(context, &name, &selection),
        Command::Set { name, kind, principal, scope, from_file, expires, exact, empty } => {
            let value = match (from_file, empty) {
                (_, true) => set::Source::Empty,
                (Some(path), false) => set::Source::File(path),
                (None, false) => set::Source::Input,
            };
            let expires = expires.and_then(|expiry| expiry.0);
            set::run(context, &name, Selection { kind, principal, scope }, value, expires, exact)
        }
        Command::Rm { name, selection } => rm::run(context, &name, &selection),
        Command::Edit => edit::run(context),
        Command::Show { path, textconv: true, values } => show::textconv(context, path, values),
        Command::Show { path, values, .. } => show::run(context, path, values),
        Command::Diff { old, new, values, exit_code } => {
            diff::run(context, &old, new.as_deref(), values, exit_code)
        }
        Command::Merge { base, ours, theirs, path, prefer, keep_ours, keep_theirs } => {
            let wanted = merge::Wanted { prefer, named: Named { ours: &keep_ours, theirs: &keep_theirs } };
            match (base, ours, theirs) {
                (Some(base), Some(ours), Some(theirs)) => {
                    merge::driver(context, &base, &ours, &theirs, path.as_deref(), wanted)
                }
                _ => merge::finish(context, wanted),
            }
        }
        Command::Exec { mask, only, selection, program } => {
            exec::run(context, mask, &only, &selection, &program)
        }
        Command::Export { format, only, selection, name } => {
            export::run(context, format, &only, &selection, &name)
        }
        Command::Import { from, path, selection, dry_run } => {
            import::run(context, from, path.as_deref(), &selection, dry_run)
        }
        Command::Inject { path, output } => inject::run(context, path.as_deref(), output.as_deref()),
        Command::RotateKey => rotate_key::run(context),
        Command::RotateMasterSecret { new_secret_env, generate, key_file } => {
            rotate_master_secret::run(context, &new_secret_env, generate.then_some(&*key_file))
        }
        Command::Verify => verify::run(context),
        Command::Status => status::run(context),
        Command::Compact => compact::run(context),
        Command::Module(command) => module::run(context, command),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { folder } => pages::manual(folder.as_deref()),
    }
}
