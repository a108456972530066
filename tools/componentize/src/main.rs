//! `componentize INPUT.wasm OUTPUT.wasm`: makes a component of a core module built with `wit-bindgen`.
//!
//! Refuses a component that imports anything but a source of entropy. Writes the component, and beside it
//! `OUTPUT.wasm.sha256` in the form of `sha256sum`; prints name, size in bytes and digest. The same input
//! gives the same bytes.

mod error;
mod imports;
mod strip;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

use crate::error::Error;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: componentize INPUT.wasm OUTPUT.wasm");
        return ExitCode::from(2);
    };
    match run(Path::new(input), Path::new(output)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("componentize: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(input: &Path, output: &Path) -> Result<String, Error> {
    let module = fs::read(input).map_err(|cause| Error::Read(input.into(), cause))?;
    let component = componentize(&module)?;
    let name = output.file_name().unwrap_or(output.as_os_str()).to_string_lossy();
    let digest: String = Sha256::digest(&component).iter().map(|byte| format!("{byte:02x}")).collect();
    write(output, &component)?;
    let mut checksum = output.as_os_str().to_owned();
    checksum.push(".sha256");
    write(&PathBuf::from(checksum), format!("{digest}  {name}\n").as_bytes())?;
    Ok(format!("{name} {} bytes sha256:{digest}", component.len()))
}

fn componentize(module: &[u8]) -> Result<Vec<u8>, Error> {
    let module = strip::module(module)?;
    let component = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|cause| Error::Encode(format!("{cause:#}")))?;
    let component = strip::component(&component)?;
    imports::check(&component)?;
    Ok(component)
}

/// Writes a file that is there whole or not at all. One that has these bytes already stays as it is: what is built from it
/// is built again when it is newer.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|cause| Error::Write(path.into(), cause))
}
