//! What a command reads from a file or from standard input.

use std::io::{self, Read};
use std::path::Path;

use omni_credentials_host::shared_file;

use crate::error::Error;
use crate::interrupt;

/// The bytes of a file, or of standard input if none is named. A file may have `most` bytes; of standard input one byte more
/// is read, so that the caller sees that it is too long.
pub(crate) fn bytes(path: Option<&Path>, most: u64) -> Result<Vec<u8>, Error> {
    let Some(path) = path else {
        let mut bytes = Vec::new();
        let read = || io::stdin().take(most.saturating_add(1)).read_to_end(&mut bytes);
        interrupt::blocking(read)?.map_err(Error::io("standard input"))?;
        return Ok(bytes);
    };
    Ok(shared_file::read(path, most)?)
}
