//! An allocator that wipes memory when it is freed.
//!
//! Arguments and results cross the boundary in buffers that this crate does not own at the end: the
//! generated code frees them. Wiping in the allocator covers those as well as what the core zeroizes.
//!
//! A call makes and frees a dozen small blocks, so those are kept in lists, one for each size, and wiped in place: asking
//! the engine to fill memory takes longer than the writing. Large blocks are the system allocator's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::ptr;

/// Sizes of small blocks are multiples of this, and so are their addresses.
const STEP: usize = 16;
/// How many sizes there are: 16 to 1,024 bytes.
const SIZES: usize = 64;
/// Small blocks are cut from pieces of this size.
const PIECE: usize = 16 << 10;
/// Before a large block: its true size.
const HEADER: usize = 16;

/// The system's allocator, wiping what is freed. For a program of one thread, as a module is.
#[derive(Debug)]
pub struct Wiping(UnsafeCell<Small>);

/// Free blocks of each size, linked by their first word; the rest of them is zero.
#[derive(Debug)]
struct Small {
    free: [*mut Free; SIZES],
    /// Where the rest of the last piece begins, and how long it is.
    rest: (*mut u8, usize),
}

#[derive(Debug)]
struct Free(*mut Free);

// SAFETY: WebAssembly without threads has one thread, which is the only one to use the lists.
#[cfg(target_arch = "wasm32")]
unsafe impl Sync for Wiping {}

impl Wiping {
    /// An allocator that has nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Small { free: [ptr::null_mut(); SIZES], rest: (ptr::null_mut(), 0) }))
    }
}

impl Default for Wiping {
    fn default() -> Self {
        Self::new()
    }
}

impl Small {
    /// A block of this size; null where the system has none.
    fn take(&mut self, size: Size) -> *mut u8 {
        let Some(first) = self.free.get_mut(size.0) else { return ptr::null_mut() };
        if first.is_null() {
            return self.cut(size.bytes());
        }
        let block = *first;
        // SAFETY: blocks in a list are ours, aligned, and begin with the link to the next one. The link is wiped like the
        // rest was.
        unsafe { *first = block.replace(Free(ptr::null_mut())).0 };
        block.cast()
    }

    /// Cuts a block from a piece. What is left of the piece before it is too short, and stays unused.
    fn cut(&mut self, bytes: usize) -> *mut u8 {
        if self.rest.1 < bytes {
            let Ok(piece) = Layout::from_size_align(PIECE, STEP) else { return ptr::null_mut() };
            // SAFETY: the size is not zero.
            let start = unsafe { System.alloc_zeroed(piece) };
            if start.is_null() {
                return start;
            }
            self.rest = (start, PIECE);
        }
        let (start, length) = self.rest;
        // `bytes` are there, as was just seen to.
        self.rest = (start.wrapping_add(bytes), length - bytes);
        start
    }

    /// Wipes a block and keeps it for the next one of its size.
    ///
    /// # Safety
    /// `block` was given by `take` for this size, and no one uses it any more.
    unsafe fn keep(&mut self, block: *mut u8, size: Size) {
        // SAFETY: the block has that many bytes and is aligned.
        unsafe { wipe(block, size.bytes()) };
        if let Some(first) = self.free.get_mut(size.0) {
            let block = block.cast::<Free>();
            // SAFETY: as above, and a link fits into the smallest block.
            unsafe { block.write(Free(*first)) };
            *first = block;
        }
    }
}

/// Which size of small blocks: its number among them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Size(usize);

impl Size {
    /// `None` for what is large.
    #[inline]
    fn of(layout: Layout) -> Option<Self> {
        let number = layout.size().saturating_sub(1) / STEP;
        (number < SIZES && layout.align() <= STEP).then_some(Self(number))
    }

    fn bytes(self) -> usize {
        (self.0 + 1) * STEP
    }
}

/// # Safety
/// `length` bytes at `block`, both multiples of [`STEP`], belong to the caller.
#[inline]
unsafe fn wipe(block: *mut u8, length: usize) {
    for at in (0..length).step_by(STEP) {
        // SAFETY: inside the block and aligned. Volatile, so that it is neither left out nor made a call to fill memory.
        unsafe { block.add(at).cast::<[u64; 2]>().write_volatile([0; 2]) };
    }
}

/// The layout of a large block with its header before it, and how long that is.
fn with_header(layout: Layout) -> Option<(Layout, usize)> {
    let header = HEADER.max(layout.align());
    let whole = Layout::from_size_align(layout.size().checked_add(header)?, header).ok()?;
    Some((whole, header))
}

/// Makes a large block of what the system gave: notes its true size.
///
/// # Safety
/// `whole` is null, or has room for the header and `size` bytes.
unsafe fn large(whole: *mut u8, header: usize, size: usize) -> *mut u8 {
    if whole.is_null() {
        return whole;
    }
    // SAFETY: see above; the word before the block is in the header, and aligned as the block is.
    unsafe {
        let block = whole.add(header);
        block.cast::<usize>().sub(1).write(size);
        block
    }
}

/// # Safety
/// `block` was made by [`large`].
unsafe fn true_size(block: *mut u8) -> usize {
    // SAFETY: see there.
    unsafe { block.cast::<usize>().sub(1).read() }
}

// SAFETY: a small block is cut from a piece that is never given back, aligned to 16 bytes, and in a list exactly while
// it is free; a large one is the system's, with a header before it that the caller does not see. `dealloc` and `realloc`
// only write to a block that its caller gives back. What moves is freed where it was, and so wiped as well.
unsafe impl GlobalAlloc for Wiping {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(size) = Size::of(layout) {
            // SAFETY: one thread, and nothing in `Small` calls back.
            return unsafe { (*self.0.get()).take(size) };
        }
        let Some((whole, header)) = with_header(layout) else { return ptr::null_mut() };
        // SAFETY: the size is not zero, and has room for the header.
        unsafe { large(System.alloc(whole), header, layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Size::of(layout).is_some() {
            // SAFETY: the same contract; a small block is all zeros, whether new or used before.
            return unsafe { self.alloc(layout) };
        }
        let Some((whole, header)) = with_header(layout) else { return ptr::null_mut() };
        // SAFETY: as in `alloc`.
        unsafe { large(System.alloc_zeroed(whole), header, layout.size()) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(size) = Size::of(layout) {
            // SAFETY: the caller gives back a small block of this size, for its size cannot have changed.
            return unsafe { (*self.0.get()).keep(block, size) };
        }
        // SAFETY: the caller gives back a large block, whose header tells what it was made with.
        unsafe {
            let size = true_size(block);
            if let Some((whole, header)) =
                Layout::from_size_align(size, layout.align()).ok().and_then(with_header)
            {
                block.write_bytes(0, size);
                // One fill, which the engine does quicker than any loop for so much; `black_box` keeps it.
                System.dealloc(black_box(block.sub(header)), whole);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(new_size, layout.align()) else { return ptr::null_mut() };
        let stays = match (Size::of(layout), Size::of(wanted)) {
            (Some(old), Some(new)) => old == new,
            (None, None) => {
                // SAFETY: a large block of the caller's.
                let size = unsafe { true_size(block) };
                (size / 2..=size).contains(&new_size)
            }
            _ => false,
        };
        if stays {
            if let Some(cut @ 1..) = layout.size().checked_sub(new_size) {
                // SAFETY: these bytes were the caller's until now. `black_box` keeps the fill.
                unsafe { black_box(block.add(new_size)).write_bytes(0, cut) };
            }
            return block;
        }
        // SAFETY: a new block of the caller's alignment, which is not the old one; the smaller of both sizes is copied.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    /// A block of `size` bytes, filled with `x`.
    fn filled(allocator: &Wiping, size: usize) -> *mut u8 {
        // SAFETY: the size is not zero, and the block has as many bytes.
        unsafe {
            let block = allocator.alloc(layout(size));
            block.write_bytes(b'x', size);
            block
        }
    }

    #[test]
    fn small_blocks_are_wiped_and_used_again() {
        let allocator = Wiping::new();
        for size in [1, 15, 16, 17, 40, 512, 1000, 1024] {
            let (first, second) = (filled(&allocator, size), filled(&allocator, size));
            assert_ne!(first, second);
            assert_eq!(first.addr() % STEP, 0);
            // SAFETY: blocks of this layout, each freed once. What is freed stays mapped, and is read for the test.
            unsafe {
                allocator.dealloc(first, layout(size));
                allocator.dealloc(second, layout(size));
                let link = size_of::<usize>();
                let rest = std::slice::from_raw_parts(second.add(link), size.next_multiple_of(STEP) - link);
                assert!(rest.iter().all(|byte| *byte == 0), "{size}");
                let again = allocator.alloc_zeroed(layout(size));
                assert_eq!(again, second);
                assert!(std::slice::from_raw_parts(again, size).iter().all(|byte| *byte == 0), "{size}");
                allocator.dealloc(again, layout(size));
            }
        }
    }

    #[test]
    fn blocks_do_not_overlap() {
        let allocator = Wiping::new();
        let sizes: Vec<usize> = (0..2000).map(|i| i * 7919 % 3000 + 1).collect();
        let blocks: Vec<*mut u8> = sizes.iter().map(|size| filled(&allocator, *size)).collect();
        for (n, (block, size)) in blocks.iter().zip(&sizes).enumerate() {
            // SAFETY: each block has as many bytes as it was made with, and is freed once.
            unsafe {
                let bytes = std::slice::from_raw_parts(*block, *size);
                assert!(bytes.iter().all(|byte| *byte == b'x'), "{n}");
                allocator.dealloc(*block, layout(*size));
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_wiped() {
        let allocator = Wiping::new();
        for (size, less) in [(40, 33), (1_000_000, 600_000), (4_000, 3_000)] {
            let block = filled(&allocator, size);
            // SAFETY: a block of this layout, of which `size` bytes stay its own.
            unsafe {
                let same = allocator.realloc(block, layout(size), less);
                assert_eq!(same, block);
                let bytes = std::slice::from_raw_parts(same, size);
                assert!(bytes.iter().take(less).all(|byte| *byte == b'x'));
                assert!(bytes.iter().skip(less).all(|byte| *byte == 0));
                allocator.dealloc(same, layout(less));
            }
        }
    }

    #[test]
    fn what_moves_keeps_its_bytes() {
        let allocator = Wiping::new();
        for (size, other) in
            [(40, 41), (40, 100), (100, 40), (1024, 1025), (5000, 1000), (5000, 1100), (5000, 9000)]
        {
            let block = filled(&allocator, size);
            // SAFETY: a block of this layout, and then one of the other.
            unsafe {
                let moved = allocator.realloc(block, layout(size), other);
                let bytes = std::slice::from_raw_parts(moved, size.min(other));
                assert!(bytes.iter().all(|byte| *byte == b'x'), "{size} {other}");
                allocator.dealloc(moved, layout(other));
            }
        }
    }

    #[test]
    fn alignment_beyond_a_step() {
        let allocator = Wiping::new();
        let layout = Layout::from_size_align(100, 256).unwrap();
        // SAFETY: a block of this layout.
        unsafe {
            let block = allocator.alloc(layout);
            assert_eq!(block.addr() % 256, 0);
            allocator.dealloc(block, layout);
        }
    }
}
