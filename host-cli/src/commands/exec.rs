use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::param::page_size;

use crate::args::Selection;
use crate::commands::exec_masked;
use crate::context::Context;
use crate::error::Error;
use crate::mask::Values;
use crate::store::Store;
use crate::{environment, find, identity, interrupt, terminal, variables};

/// How many pages of memory one variable may take up: `MAX_ARG_STRLEN` of Linux.
const PAGES_OF_A_VARIABLE: usize = 32;

/// Becomes the program: signals reach it directly and its status is the command's, since there is no process in
/// between. With `mask`, there is this one.
pub(crate) fn run(
    context: &Context,
    mask: bool,
    only: &[String],
    selection: &Selection,
    program: &[OsString],
) -> Result<(), Error> {
    let Some((name, arguments)) = program.split_first() else { return Ok(()) };
    let mut store = Store::read(context)?;
    let chosen = variables::choose(find::matching(&mut store, None, selection)?, only)?;
    let variables = variables::assign(&chosen)?;
    let mut opened = store.unlock(context)?;
    let mut command = Command::new(name);
    environment::without_secrets(command.args(arguments), &context.variable);
    let (mut lengths, mut values) = (Vec::new(), Values::default());
    for (variable, entry) in variables {
        let value = opened.value_of(entry)?;
        let shown = identity::shown(&entry.identity());
        if value.contains(&0) {
            return Err(Error::Variable(format!("{shown} contains a zero byte, which a variable cannot")));
        }
        if mask && !values.add(&entry.name, &value) {
            terminal::note(&format!("{shown} is too short to be masked"));
        }
        // The system counts the `=` and a zero byte at the end.
        lengths.push((variable.len() + value.len() + 2, shown));
        command.env(variable, OsStr::from_bytes(&value));
    }
    drop(opened);
    interrupt::check()?;
    let error = if mask { exec_masked::run(&mut command, &values)? } else { command.exec() };
    if error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) {
        return Err(Error::Variable(too_long(&lengths)));
    }
    Err(Error::Program { program: name.to_string_lossy().into_owned(), error })
}

/// Which credentials the system does not pass to a program, from the lengths of their variables.
fn too_long(lengths: &[(usize, String)]) -> String {
    let most = PAGES_OF_A_VARIABLE * page_size();
    let long: Vec<_> =
        lengths.iter().filter(|(length, _)| *length > most).map(|(_, it)| it.as_str()).collect();
    if !long.is_empty() {
        return format!(
            "the system passes at most {most} bytes in one variable, less than {}",
            long.join("; ")
        );
    }
    let total: usize = lengths.iter().map(|(length, _)| length).sum();
    match lengths.iter().max() {
        Some((length, shown)) => format!(
            "the system does not pass so much to a program: the credentials have {total} bytes, {length} of them {shown}"
        ),
        None => "the system does not pass so many arguments and variables to a program".to_owned(),
    }
}
