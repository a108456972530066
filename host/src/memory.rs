//! The linear memories of modules: as the engine makes them, and left out of core dumps. They hold keys and values.

use std::io;

use rustix::param::page_size;
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::nodump::Mapping;

/// From how many bytes at once a memory grows by huge pages: Argon2id reads at random, where small pages cost a fault each
/// and nearly every block a miss in the translation buffer. What a backend keeps never grows by so much, and stays small.
const HUGE: usize = 8 << 20;

/// Makes the linear memories of modules.
pub(crate) struct Memories;

/// A linear memory: guard, what the module has, what it may still get, guard.
struct Memory {
    mapping: Mapping,
    /// Where the memory begins in the mapping.
    base: usize,
    size: usize,
    capacity: usize,
}

// SAFETY: the memory never moves, is zero where it was not written, has at least `guard_size_in_bytes` closed bytes after
// `reserved_size_in_bytes`, and as many before its base.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        // The engine is configured to reserve what a 32-bit memory can address.
        let capacity = reserved_size_in_bytes.or(maximum).unwrap_or(minimum).max(minimum);
        let memory = guard_size_in_bytes
            .checked_mul(2)
            .and_then(|guards| guards.checked_add(capacity)?.checked_next_multiple_of(page_size()))
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
            .and_then(|length| {
                let mapping = Mapping::reserve(length)?;
                let mut memory = Memory { mapping, base: guard_size_in_bytes, size: 0, capacity };
                memory.grow(minimum)?;
                Ok(memory)
            })
            .map_err(|error: io::Error| error.to_string())?;
        Ok(Box::new(memory))
    }
}

impl Memory {
    fn grow(&mut self, size: usize) -> io::Result<()> {
        if size > self.capacity {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (open, wanted) = (self.size.next_multiple_of(page_size()), size.next_multiple_of(page_size()));
        if wanted > open {
            let (at, length) = (self.base.saturating_add(open), wanted.saturating_sub(open));
            self.mapping.open(at, length)?;
            if length >= HUGE {
                self.mapping.prefer_huge_pages(at, length);
            }
        }
        self.size = size;
        Ok(())
    }
}

// SAFETY: page aligned, since mapping and guard are; guarded on both sides.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        Ok(self.grow(new_size)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.mapping.address(self.base)
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::nodump::tests::has_flag;

    fn memory(guard: usize) -> Box<dyn LinearMemory> {
        reserved(1 << 20, guard)
    }

    fn reserved(capacity: usize, guard: usize) -> Box<dyn LinearMemory> {
        Memories.new_memory(MemoryType::new(1, None), 65_536, None, Some(capacity), guard).unwrap()
    }

    #[test]
    fn grows_in_place_zeroed_and_not_beyond() {
        let mut memory = memory(65_536);
        let at = memory.as_ptr();
        memory.grow_to(1 << 20).unwrap();
        assert_eq!((memory.as_ptr(), memory.byte_size(), memory.byte_capacity()), (at, 1 << 20, 1 << 20));
        // SAFETY: inside the memory that was just opened.
        assert_eq!(unsafe { at.add((1 << 20) - 1).read() }, 0);
        assert!(memory.grow_to((1 << 20) + 1).is_err());
        assert_eq!(memory.byte_size(), 1 << 20);
    }

    #[test]
    fn guarded_on_both_sides() {
        let memory = memory(65_536);
        let base = memory.as_ptr().addr();
        for (address, expected) in [
            (base - 65_536, "---p"),
            (base - 1, "---p"),
            (base, "rw-p"),
            (base + 65_535, "rw-p"),
            (base + 65_536, "---p"),
            (base + (1 << 20) + 65_535, "---p"),
        ] {
            assert_eq!(access(address), expected, "{address:x} of {base:x}");
        }
    }

    #[test]
    fn only_what_grows_by_much_gets_huge_pages() {
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return; // a system without them has no such flag either
        }
        let mut memory = reserved(64 << 20, 65_536);
        memory.grow_to(HUGE).unwrap();
        let small = memory.as_ptr().addr() + HUGE - 1;
        assert!(!has_flag(small, "hg"));
        memory.grow_to(2 * HUGE).unwrap();
        assert!(has_flag(small + 1, "hg") && has_flag(small + HUGE, "hg") && !has_flag(small, "hg"));
        assert!(has_flag(small + 1, "dd"));
    }

    /// What the system lets this process do at an address.
    fn access(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let bound = |text| usize::from_str_radix(text, 16).unwrap();
        let line = maps.lines().find(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            (bound(start)..bound(end)).contains(&address)
        });
        line.unwrap().split(' ').nth(1).unwrap().to_owned()
    }
}
