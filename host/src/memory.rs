//! The linear memories of modules: as the engine makes them, and left out of core dumps. They hold keys and values.

use std::{io, ptr, slice};

use rustix::param::page_size;
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};
use zeroize::Zeroize;

use crate::nodump::Mapping;
use crate::system;

/// From how many bytes at once a memory grows by huge pages: Argon2id reads at random, where small pages cost a fault each
/// and nearly every block a miss in the translation buffer. What a backend keeps never grows by so much, and stays small.
const HUGE: usize = 8 << 20;

/// What a memory that may move gets at first, in bytes: enough for a keyring and small values.
const ROOM: usize = 2 << 20;

/// Makes the linear memories of modules.
pub(crate) struct Memories {
    /// Whether a memory may move to grow, because the address space is limited.
    pub(crate) may_move: bool,
}

/// A linear memory: guard, what the module has, what it may still get, guard.
struct Memory {
    mapping: Mapping,
    /// Where the memory begins in the mapping: after the guard.
    base: usize,
    size: usize,
    capacity: usize,
    may_move: bool,
}

// SAFETY: the memory moves only where the engine was told that it may, and only to grow beyond its capacity; it is zero where it was not written, has at least `guard_size_in_bytes` closed bytes after
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
        // The engine is configured to reserve what a 32-bit memory can address, or nothing.
        let capacity = match reserved_size_in_bytes {
            _ if self.may_move => minimum.max(ROOM),
            reserved => reserved.or(maximum).unwrap_or(minimum).max(minimum),
        };
        let memory = Memory::reserve(capacity, guard_size_in_bytes, self.may_move).and_then(|mut memory| {
            memory.grow(minimum)?;
            Ok(memory)
        });
        // The engine takes a text, and gives it back as an error.
        Ok(Box::new(memory.map_err(|error| system::refused_memory(&error))?))
    }
}

impl Memory {
    fn reserve(capacity: usize, guard: usize, may_move: bool) -> io::Result<Self> {
        let length = guard
            .checked_mul(2)
            .and_then(|guards| guards.checked_add(capacity)?.checked_next_multiple_of(page_size()));
        let mapping = Mapping::reserve(length.ok_or(io::ErrorKind::OutOfMemory)?)?;
        Ok(Self { mapping, base: guard, size: 0, capacity, may_move })
    }

    fn grow(&mut self, size: usize) -> io::Result<()> {
        if size > self.capacity {
            return if self.may_move { self.relocate(size) } else { Err(io::ErrorKind::OutOfMemory.into()) };
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

    /// Moves to a larger place, with room to grow if the system gives that much.
    fn relocate(&mut self, size: usize) -> io::Result<()> {
        let roomy = size.saturating_add(size / 2);
        let mut new =
            Self::reserve(roomy, self.base, true).or_else(|_| Self::reserve(size, self.base, true))?;
        new.grow(size)?;
        let (from, to) = (self.mapping.address(self.base), new.mapping.address(new.base));
        // SAFETY: `grow` has opened the first `self.size` bytes of this memory and more than that of the new one, each in a
        // mapping of its own, and nothing refers to either during the call.
        unsafe {
            ptr::copy_nonoverlapping(from, to, self.size);
            // What is given back to the system holds no key.
            slice::from_raw_parts_mut(from, self.size).zeroize();
        }
        *self = new;
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
        self.grow(new_size).map_err(|error| wasmtime::Error::msg(system::refused_memory(&error)))
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
        Memories { may_move: false }
            .new_memory(MemoryType::new(1, None), 65_536, None, Some(capacity), guard)
            .unwrap()
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
    fn moves_with_what_it_holds_where_it_may() {
        let memories = Memories { may_move: true };
        let mut memory =
            memories.new_memory(MemoryType::new(1, None), 65_536, None, Some(0), 65_536).unwrap();
        let first = memory.as_ptr();
        // SAFETY: inside the memory.
        unsafe { first.add(65_535).write(7) };
        memory.grow_to(ROOM).unwrap();
        assert_eq!(memory.as_ptr(), first);
        memory.grow_to(ROOM + 1).unwrap();
        assert!(memory.as_ptr() != first && memory.byte_capacity() > ROOM);
        // SAFETY: as above.
        assert_eq!(unsafe { (memory.as_ptr().add(65_535).read(), memory.as_ptr().add(ROOM).read()) }, (7, 0));
        let base = memory.as_ptr().addr();
        assert_eq!([access(base - 1), access(base), access(base + ROOM + 65_536)], ["---p", "rw-p", "---p"]);
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
