//! An allocator that wipes memory when it is freed.
//!
//! Arguments and results cross the boundary in buffers that this crate does not own at the end: the
//! generated code frees them. Wiping in the allocator covers those as well as what the core zeroizes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

/// The system's allocator, wiping what is freed.
#[derive(Debug)]
pub struct Wiping;

// SAFETY: allocation is the system allocator's, unchanged; `dealloc` only writes to the block that its caller
// gives back and that nobody else may use any more. `realloc` is the trait's own: it allocates, copies
// and frees, so that a block that moves is wiped as well.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller passes a block of this layout that is currently allocated and that nobody else
        // uses any more, so that its `layout.size()` bytes may be written.
        unsafe { block.write_bytes(0, layout.size()) };
        // One fill instead of a volatile write a byte, which would take longer than the encryption itself;
        // `black_box` keeps it, for the block is then used.
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(black_box(block), layout) }
    }
}
