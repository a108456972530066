//! The editor of a person.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::Error;
use crate::scratch::Scratch;
use crate::{environment, interrupt};

/// Characters that mean something to a shell.
const FOR_SHELL: [char; 20] =
    ['|', '&', ';', '<', '>', '(', ')', '$', '`', '"', '\'', '\\', '*', '?', '[', '#', '~', '=', '%', '\n'];
/// How often to look whether the editor has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// The editor that the environment names.
pub(crate) fn named() -> Result<String, Error> {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|editor| !editor.trim().is_empty()).ok_or(Error::NoEditor)
}

/// Lets a person edit the text. No copy of it is left when this returns.
pub(crate) fn edit(context: &Context, editor: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let scratch = Scratch::write(text)?;
    run(context, editor, scratch.file())?;
    scratch.take()
}

/// Runs the editor as git does: by the shell where its name has what only a shell understands. A shell in between
/// would end at an interrupt that is meant for the editor.
fn run(context: &Context, editor: &str, file: &Path) -> Result<(), Error> {
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
    let status = interrupt::attended(|| -> Result<_, Error> {
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
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
