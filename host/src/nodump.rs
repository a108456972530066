//! Memory that is left out of core dumps, for what holds keys for longer than a call.
//!
//! A mapping of its own can be marked so, which a piece of the heap cannot. The pages get into no core file, neither
//! into one that the system writes when the process crashes nor into one of a debugger.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::param::page_size;
use zeroize::Zeroize;

/// A private mapping, all of it closed until it is opened. Its pages are zero when they are first touched.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone; what is done with its bytes is up to the owner.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing here changes through a shared reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `length` bytes of address space, a multiple of the page size.
    pub(crate) fn reserve(length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the system's choice touches no other memory; the advice is for exactly
        // these pages, and a range of pages that is opened later keeps it. A system that does not know the advice
        // dumps the pages, which is what it would do without.
        unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            let start = mm::mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), flags)?;
            let _ = mm::madvise(start, length, Advice::LinuxDontDump);
            let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self { start, length })
        }
    }

    /// Opens pages for reading and writing. `at` and `length` are multiples of the page size, inside the mapping.
    pub(crate) fn open(&self, at: usize, length: usize) -> io::Result<()> {
        self.protect(at, length, MprotectFlags::READ | MprotectFlags::WRITE)
    }

    /// Changes what may be done with pages. `at` and `length` are as for `open`.
    pub(crate) fn protect(&self, at: usize, length: usize, access: MprotectFlags) -> io::Result<()> {
        if !self.holds(at, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the range is inside the mapping, as was just checked.
        Ok(unsafe { mm::mprotect(self.start.as_ptr().add(at).cast(), length, access) }?)
    }

    /// Asks for huge pages in a range of open pages inside the mapping. A system may have none, or be set not to give
    /// them: then it is as if this was not called.
    pub(crate) fn prefer_huge_pages(&self, at: usize, length: usize) {
        if self.holds(at, length) {
            // SAFETY: the range is inside the mapping, as was just checked; the advice changes no byte.
            let _ = unsafe { mm::madvise(self.start.as_ptr().add(at).cast(), length, Advice::LinuxHugepage) };
        }
    }

    fn holds(&self, at: usize, length: usize) -> bool {
        at.checked_add(length).is_some_and(|end| end <= self.length)
    }

    /// The address of a byte, which must be inside the mapping or just past it.
    pub(crate) fn address(&self, at: usize) -> *mut u8 {
        self.start.as_ptr().wrapping_add(at)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `reserve` with this length, and nothing can use it any more.
        let _ = unsafe { mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// 32 bytes of key in a page of their own, wiped when the last handle is gone. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Key(Arc<Place>);

enum Place {
    Page(Mapping),
    /// Where the system gave no page: usable, but dumped.
    Heap(Box<[u8; 32]>),
}

impl Key {
    /// Copies a key, and no further than into its page.
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
        let page = Mapping::reserve(page_size()).and_then(|page| page.open(0, page_size()).map(|()| page));
        Self(Arc::new(match page {
            Ok(page) => {
                // SAFETY: the page is open, has more than 32 bytes, and nothing else refers to it yet.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), page.start.as_ptr(), 32) };
                Place::Page(page)
            }
            Err(_) => {
                let mut heap = Box::new([0; 32]);
                heap.copy_from_slice(bytes);
                Place::Heap(heap)
            }
        }))
    }

    /// The key itself.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        match &*self.0 {
            // SAFETY: the page is open, bytes have no alignment, and the 32 that `new` wrote do not change before the
            // last handle is dropped.
            Place::Page(page) => unsafe { page.start.cast::<[u8; 32]>().as_ref() },
            Place::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self {
            // SAFETY: as in `Key::bytes`, and the last handle is being dropped.
            Self::Page(page) => unsafe { page.start.cast::<[u8; 32]>().as_mut() }.zeroize(),
            Self::Heap(bytes) => bytes.zeroize(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_key_is_shared_and_stays() {
        let key = Key::new(&[7; 32]);
        let other = key.clone();
        drop(key);
        assert_eq!(other.bytes(), &[7; 32]);
    }

    #[test]
    fn marked_as_not_to_be_dumped() {
        let key = Key::new(&[7; 32]);
        assert!(has_flag(ptr::from_ref(key.bytes()).addr(), "dd"));
        let mapping = Mapping::reserve(4 * page_size()).unwrap();
        mapping.open(page_size(), page_size()).unwrap();
        assert!(
            has_flag(mapping.address(0).addr(), "dd") && has_flag(mapping.address(page_size()).addr(), "dd")
        );
        // The heap is not.
        assert!(!has_flag(ptr::from_ref(Box::new(0_u8).as_ref()).addr(), "dd"));
    }

    #[test]
    fn nothing_opens_outside_the_mapping() {
        let mapping = Mapping::reserve(page_size()).unwrap();
        assert!(mapping.open(page_size(), page_size()).is_err());
        assert!(mapping.open(usize::MAX, page_size()).is_err());
    }

    /// Whether the system gives the mapping at an address this flag: "dd" is not to be dumped, "hg" wants huge pages.
    pub(crate) fn has_flag(address: usize, wanted: &str) -> bool {
        let mut inside = false;
        for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                if inside {
                    return flags.split_whitespace().any(|flag| flag == wanted);
                }
            } else if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-'))
            {
                let bound = |text| usize::from_str_radix(text, 16).unwrap();
                inside = (bound(start)..bound(end)).contains(&address);
            }
        }
        panic!("no mapping at {address:x}");
    }
}
