//! `omni-credentials`: application credentials in an encrypted file, without a database.
//!
//! A host of crypto modules like any other: it knows the contract and the lock protocol, and the
//! cryptography and the file format are the module's. `args` is the command line, `commands` has a file for each
//! command, `store` is the file they work on, `error` and `exit` say how they end.

mod args;
mod buffer;
mod combine;
mod commands;
mod context;
mod environment;
mod error;
mod exit;
mod find;
mod git;
mod hints;
mod identity;
mod ignore;
mod interrupt;
mod output;
mod secret;
mod store;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, and are no mistake.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let json = cli.global.json;
    let result = interrupt::listen()
        .map_err(Error::io("signal handlers"))
        .and_then(|()| commands::run(&Context::new(cli.global), cli.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&error, json);
            error.exit().into()
        }
    }
}
