//! What the programs that the command starts find in their environment.

use std::process::Command;

/// The variable of the master secret, unless `--secret-env` names another one.
pub(crate) const MASTER_SECRET: &str = "OMNI_CREDENTIALS_MASTER_PASSWORD";
/// The variable of a new master secret, unless `--new-secret-env` names another one.
pub(crate) const NEW_MASTER_SECRET: &str = "OMNI_CREDENTIALS_NEW_MASTER_PASSWORD";
/// What a variable's name ends with if its value is the secret, names a file with it, or prints it.
const ENDINGS: [&str; 3] = ["", "_FILE", "_COMMAND"];
/// How variables of git start that configure git itself, and say nothing about a repository.
const GIT_KEPT: [&str; 4] =
    ["GIT_CEILING_DIRECTORIES", "GIT_CONFIG_", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_EXEC_PATH"];

/// Takes the master secrets out of a program's environment: those of `variable` and those of the default variables.
pub(crate) fn without_secrets<'a>(command: &'a mut Command, variable: &str) -> &'a mut Command {
    for name in [variable, MASTER_SECRET, NEW_MASTER_SECRET] {
        for ending in ENDINGS {
            command.env_remove(format!("{name}{ending}"));
        }
    }
    command
}

/// Takes out what a git that calls this command tells its children about its own repository: the git that is started
/// here must look at the folder that it is started in.
pub(crate) fn without_git(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("GIT_") && !GIT_KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(text);
        }
    }
    command
}
