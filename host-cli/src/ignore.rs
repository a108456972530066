//! Keeps master keys out of commits, and writes the files that tell git what to do.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::Error;
use crate::git::{self, Tree};

/// Makes git ignore the file at `path`, which is for a master key. Fails where git would still commit it.
pub(crate) fn ignore_key(path: &Path) -> Result<(), Error> {
    let refused = |reason: &str| Error::KeyNotIgnored { path: path.to_owned(), reason: reason.to_owned() };
    let folder = git::folder_of(path);
    let name = path.file_name().ok_or_else(|| refused("the path does not end in a name"))?;
    match git::tree(&folder) {
        Tree::Outside => return Ok(()),
        Tree::Unknown => return Err(refused("git does not tell whether it ignores the file")),
        Tree::Inside => {}
    }
    if git::ignores(&folder, name)? {
        return Ok(());
    }
    if git::tracks(&folder, name) {
        return Err(Error::KeyTracked(path.to_owned()));
    }
    let added = add_line(&folder.join(".gitignore"), &rooted(name));
    added.map_err(|error| refused(&format!("git does not ignore the file, and {error}")))?;
    if git::ignores(&folder, name)? { Ok(()) } else { Err(refused("git does not ignore the file")) }
}

/// Adds a line to a file that people edit, unless the file has it. The file may be in any encoding.
pub(crate) fn add_line(path: &Path, line: &[u8]) -> Result<(), Error> {
    let failed = || Error::io(path.display().to_string());
    // git does not read these files through a link, so the line would have no effect there.
    if path.is_symlink() {
        return Err(failed()(std::io::Error::other("is a symbolic link, which git does not follow")));
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed()(error)),
    };
    if text.split(|byte| *byte == b'\n').any(|other| other == line) {
        return Ok(());
    }
    let mut added = Vec::with_capacity(line.len() + 2);
    if text.last().is_some_and(|last| *last != b'\n') {
        added.push(b'\n');
    }
    added.extend_from_slice(line);
    added.push(b'\n');
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(&added)).map_err(failed())
}

/// A pattern that matches the file of this name in the pattern's own folder, and no other.
pub(crate) fn rooted(name: &OsStr) -> Vec<u8> {
    [b"/".as_slice(), &escape(name)].concat()
}

/// A file name as a pattern that matches no other name.
pub(crate) fn escape(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let end = name.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    let mut pattern = Vec::with_capacity(name.len());
    for (at, byte) in name.iter().enumerate() {
        // git drops blanks at the end of a line.
        if matches!(byte, b'*' | b'?' | b'[' | b'\\' | b'!' | b'#') || at >= end {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

/// A rooted pattern as .gitattributes wants it.
pub(crate) fn quote(pattern: &[u8]) -> Vec<u8> {
    if !pattern.iter().any(|byte| matches!(byte, b' ' | b'"')) {
        return pattern.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in pattern {
        if matches!(byte, b'\\' | b'"') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_become_patterns() {
        let attribute = |name: &str| String::from_utf8(quote(&rooted(OsStr::new(name)))).unwrap();
        assert_eq!(attribute("credentials.omni"), "/credentials.omni");
        assert_eq!(attribute("my file[1].omni"), r#""/my file\\[1].omni""#);
        assert_eq!(rooted(OsStr::new("a b  ")), br"/a b\ \ ");
        assert_eq!(rooted(OsStr::from_bytes(b"\xff*")), b"/\xff\\*");
    }

    #[test]
    fn lines_are_added_once_and_in_any_encoding() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".gitignore");
        fs::write(&path, b"\xe9t\xe9").unwrap();
        for _ in 0..2 {
            add_line(&path, b"/k").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"\xe9t\xe9\n/k\n");
    }
}
