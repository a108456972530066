//! What the system lets this process do: how much address space, and whether code that was compiled here may run. A host
//! tells that from a fault of a module, which neither is.

use std::io;

use rustix::mm::MprotectFlags;
use rustix::process::{Resource, getrlimit};

use crate::nodump::Mapping;

/// Below this limit, in bytes, sandboxes do without reserved address space. A process has one for each keyring and each
/// module at work, of 4 GiB each.
const PLENTY: u64 = 64 << 30;

/// What stands before the system's own words where it has no memory for a sandbox.
const REFUSED: &str = "the system refused memory for a sandbox";

/// Whether the address space of this process is limited so that sandboxes may not reserve it.
pub(crate) fn limits_address_space() -> bool {
    address_space().is_some_and(|limit| limit < PLENTY)
}

/// Says that the system has no memory for a sandbox, with the limits that may be why.
pub(crate) fn refused_memory(error: &io::Error) -> String {
    let mut text = format!("{REFUSED}: {error}");
    let limits = [("address space", address_space()), ("data segment", getrlimit(Resource::Data).current)];
    for (what, limit) in limits {
        if let Some(limit) = limit {
            text.push_str(&format!("; the {what} of this process is limited to {} MiB", limit >> 20));
        }
    }
    text
}

/// The text of `refused_memory`, if that is the error. The engine passes it on, and no text of a module.
pub(crate) fn refused_as(error: &wasmtime::Error) -> Option<String> {
    error.chain().map(ToString::to_string).find(|text| text.starts_with(REFUSED))
}

/// Why the system lets no compiled code run; none where it does.
pub(crate) fn refuses_executable_memory() -> Option<String> {
    let page = rustix::param::page_size();
    let made = Mapping::reserve(page).and_then(|mapping| {
        mapping.open(0, page)?;
        mapping.protect(0, page, MprotectFlags::READ | MprotectFlags::EXEC)
    });
    made.err().map(|error| error.to_string())
}

/// The limit of the address space, in bytes, if there is one.
fn address_space() -> Option<u64> {
    getrlimit(Resource::As).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_of_the_tests_lets_code_run() {
        assert_eq!(refuses_executable_memory(), None);
    }

    #[test]
    fn a_refusal_is_known_by_its_text() {
        let text = refused_memory(&io::ErrorKind::OutOfMemory.into());
        assert_eq!(refused_as(&wasmtime::Error::msg(text.clone()).context("growing")), Some(text));
        assert_eq!(refused_as(&wasmtime::Error::msg("another")), None);
    }
}
