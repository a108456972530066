//! `omni-credentials`: application credentials in an encrypted file, without a database.
//!
//! A host of crypto modules like any other: it knows the contract and the lock protocol, and the
//! cryptography and the file format are the module's. `args` is the command line, `commands` has a file for each
//! command, `store` is the file they work on, `error` and `exit` say how they end.

mod args;
mod buffer;
mod choices;
mod combine;
mod commands;
mod context;
mod dotenv;
mod editor;
mod environment;
mod error;
mod exit;
mod expiry;
mod find;
mod git;
mod hints;
mod identity;
mod ignore;
mod input;
mod interrupt;
mod mask;
mod nested;
mod output;
mod prompt;
mod reference;
mod scratch;
mod secret;
mod store;
mod terminal;
mod variables;
mod yaml;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let json = cli.global.json;
    let result = interrupt::listen()
        .map_err(Error::io("signal handlers"))
        .and_then(|()| commands::run(&Context::new(cli.global, cli.command.is_new()), cli.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::report(&error, json);
            error.exit().into()
        }
    }
}

/// Ends with what clap says: help and the version, which are no error, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // The command line could not be parsed, so what it asks for is looked up in its words.
    if std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json") {
        let text = error.render().to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        let words: Vec<_> = first.trim_start_matches("error: ").split_whitespace().collect();
        terminal::report(&Error::Usage(words.join(" ")), true);
    } else {
        let _ = error.print();
    }
    Exit::Usage.into()
}
