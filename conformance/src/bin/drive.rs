//! `drive [--classes-only] [--unsupported SET]... -- DRIVER [ARGUMENT]...`: runs every vector against a host.
//!
//! Prints a line for each set, `SET COUNT`, and ends with status 1 at the first vector that comes out differently. A set
//! that is said to be unsupported must be: an operation that a host has learned meanwhile is a failure as well.
//! `drive --classes` prints what the hosts written in Rust say for each class of refusal, as JSON.

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, ExitCode};

use omni_credentials_conformance::{Driver, Mismatch, Set, Subject, of_suite};
use omni_credentials_host::ErrorCode;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (mut exact, mut unsupported) = (true, Vec::new());
    loop {
        match arguments.next().as_ref().and_then(|argument| argument.to_str()) {
            Some("--classes") => {
                let classes: BTreeMap<_, _> =
                    ErrorCode::ALL.iter().map(|code| (code.name(), code.explanation())).collect();
                println!("{}", serde_json::json!(classes));
                return ExitCode::SUCCESS;
            }
            Some("--classes-only") => exact = false,
            Some("--unsupported") => {
                unsupported.extend(arguments.next().and_then(|set| set.into_string().ok()));
            }
            Some("--") => break,
            _ => {
                eprintln!("usage: drive [--classes-only] [--unsupported SET]... -- DRIVER [ARGUMENT]...");
                return ExitCode::from(2);
            }
        }
    }
    let program = arguments.next().unwrap_or_default();
    match run(Command::new(program).args(arguments), exact, &unsupported) {
        Ok(()) => ExitCode::SUCCESS,
        Err(mismatch) => {
            eprintln!("{mismatch}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &mut Command, exact: bool, unsupported: &[String]) -> Result<(), Mismatch> {
    let mut driver = Driver::start(command, exact)?;
    for set in of_suite(driver.suite()) {
        if unsupported.iter().any(|name| name == set.name) {
            is_unsupported(set, &mut driver)?;
            println!("{} unsupported", set.name);
        } else {
            println!("{} {}", set.name, set.run(&mut driver)?);
        }
    }
    Ok(())
}

fn is_unsupported(set: &Set, driver: &mut Driver) -> Result<(), Mismatch> {
    let found = match set.run(driver) {
        Err(mismatch) if mismatch.found.contains("unsupported") => return Ok(()),
        Err(mismatch) => mismatch.to_string(),
        Ok(count) => format!("{count} cases passed"),
    };
    Err(Mismatch { case: set.name.to_owned(), expected: "unsupported".to_owned(), found })
}
