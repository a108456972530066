//! The words of a command, as a POSIX shell finds them, without anything else that a shell does.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Splits a command at blanks. Between single quotes, everything stands for itself; between double quotes, `\` takes the
/// meaning from `"`, `\`, `$` and `` ` ``; outside of quotes, from any character; before a line end, `\` and the line end
/// stand for nothing. Nothing is expanded, and no other character has a meaning. `conformance/commands.json` has what
/// every host must make of it, for no library agrees with those of Python and Node about `#` and `\`.
pub(crate) fn split(command: &OsStr) -> Result<Vec<OsString>, &'static str> {
    let mut bytes = command.as_bytes().iter().copied();
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => words.extend(word.take().map(OsString::from_vec)),
            b'\'' => quoted(&mut bytes, word.get_or_insert_default())?,
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            b'\\' => match bytes.next() {
                Some(b'\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("ends with a backslash"),
            },
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

fn quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<(), &'static str> {
    loop {
        match bytes.next() {
            Some(b'\'') => return Ok(()),
            Some(byte) => word.push(byte),
            None => return Err("has a single quote without its pair"),
        }
    }
}

fn double_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<(), &'static str> {
    let unpaired = "has a double quote without its pair";
    loop {
        match bytes.next().ok_or(unpaired)? {
            b'"' => return Ok(()),
            b'\\' => match bytes.next().ok_or(unpaired)? {
                b'\n' => {}
                next @ (b'"' | b'\\' | b'$' | b'`') => word.push(next),
                next => word.extend([b'\\', next]),
            },
            byte => word.push(byte),
        }
    }
}
