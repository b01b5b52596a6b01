//! The program's allocator: the system's, but for small blocks that must begin at a cache line of their own.
//!
//! For every connection tokio makes two such blocks, its task and its registration for events, of 128 or 256 bytes at 128-byte lines. The system's
//! allocator puts its own header before each and finds no use for the rest of the line: it spends 384 bytes on 256. Here they stand side by
//! side in slabs. A slab is never given back, so slabs hold as many blocks as were in use at once; nothing else may be taken from them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, PoisonError};

use crate::limits;

/// The line at which blocks begin, and what their sizes are multiples of, in bytes.
const LINE: usize = 128;

/// How many lines the largest block has that comes from a slab.
const CLASSES: usize = 2;

/// The allocator for `#[global_allocator]`.
#[derive(Debug)]
pub struct Lined {
    /// By lines in a block, less one.
    classes: [Mutex<Class>; CLASSES],
}

/// Blocks of one size.
#[derive(Debug)]
struct Class {
    /// Blocks that were given back; each holds the pointer to the next.
    free: Option<NonNull<Free>>,
    /// What of the newest slab was never used.
    fresh: *mut u8,
    fresh_bytes: usize,
}

#[derive(Debug)]
struct Free {
    next: Option<NonNull<Free>>,
}

// SAFETY: the pointers are to memory that belongs to this class alone, and no thread's own.
unsafe impl Send for Class {}

impl Class {
    const fn new() -> Self {
        Self { free: None, fresh: null_mut(), fresh_bytes: 0 }
    }

    /// A block of `bytes`, which is this class's size; null where the system gives no memory.
    fn take(&mut self, bytes: usize) -> *mut u8 {
        if let Some(block) = self.free {
            // SAFETY: it was put there by `give`, and is nobody's since.
            self.free = unsafe { block.as_ref() }.next;
            return block.as_ptr().cast();
        }
        if self.fresh_bytes < bytes {
            // SAFETY: neither the size nor the line is zero, and the line is a power of two.
            let slab = unsafe { System.alloc(Layout::from_size_align_unchecked(limits::ALLOCATOR_SLAB, LINE)) };
            if slab.is_null() {
                return slab;
            }
            (self.fresh, self.fresh_bytes) = (slab, limits::ALLOCATOR_SLAB);
        }
        let block = self.fresh;
        self.fresh_bytes -= bytes;
        // SAFETY: at least `bytes` of the slab were left from here on.
        self.fresh = unsafe { block.add(bytes) };
        block
    }

    /// Takes back a block that [`Self::take`] gave.
    ///
    /// # Safety
    /// The block is of this class, and nobody uses it any more.
    unsafe fn give(&mut self, block: *mut u8) {
        let Some(block) = NonNull::new(block.cast::<Free>()) else { return };
        // SAFETY: a block is larger than a pointer, begins at a line, and is ours again.
        unsafe { block.write(Free { next: self.free }) };
        self.free = Some(block);
    }
}

impl Lined {
    /// An allocator that holds nothing yet.
    #[must_use]
    #[allow(clippy::new_without_default)] // There is one, in a static.
    pub const fn new() -> Self {
        Self { classes: [const { Mutex::new(Class::new()) }; CLASSES] }
    }

    /// Where blocks of this layout come from, and their size; `None`: from the system.
    fn class(&self, layout: Layout) -> Option<(&Mutex<Class>, usize)> {
        if layout.align() != LINE {
            return None;
        }
        let lines = layout.size().div_ceil(LINE);
        Some((self.classes.get(lines.checked_sub(1)?)?, lines * LINE))
    }
}

// SAFETY: a block is given out once until it is taken back, is as large and aligned as its layout asks, and whether it is of a slab depends on its
// layout alone, which is the same when it comes back. Nothing here allocates by way of itself: slabs and the rest are the system's.
unsafe impl GlobalAlloc for Lined {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.class(layout) {
            Some((class, bytes)) => class.lock().unwrap_or_else(PoisonError::into_inner).take(bytes),
            // SAFETY: as the caller promises.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.class(layout) {
            // SAFETY: the caller got it for the same layout, so from the same class, and has done with it.
            Some((class, _)) => unsafe { class.lock().unwrap_or_else(PoisonError::into_inner).give(block) },
            // SAFETY: as the caller promises.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.class(layout).is_none() {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller promises.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: it has at least so many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if self.class(layout).is_none() && self.class(wanted).is_none() {
            // SAFETY: as the caller promises.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: as the caller promises.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both have so many bytes, and are two blocks.
            unsafe { block.copy_to_nonoverlapping(moved, layout.size().min(size)) };
            // SAFETY: as the caller promises.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    /// A block that is full of one byte, so that two that overlap are noticed.
    struct Block<'a> {
        of: &'a Lined,
        at: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl<'a> Block<'a> {
        fn new(of: &'a Lined, layout: Layout, byte: u8) -> Self {
            // SAFETY: no layout here is empty.
            let at = unsafe { of.alloc_zeroed(layout) };
            assert!(!at.is_null() && (at as usize).is_multiple_of(layout.align()));
            let block = Self { of, at, layout, byte };
            assert!(block.bytes().iter().all(|byte| *byte == 0));
            // SAFETY: it has so many bytes.
            unsafe { at.write_bytes(byte, layout.size()) };
            block
        }

        fn bytes(&self) -> &[u8] {
            // SAFETY: they were written by `new`.
            unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) }
        }

        fn resize(&mut self, size: usize) {
            // SAFETY: the block came from there with this layout.
            self.at = unsafe { self.of.realloc(self.at, self.layout, size) };
            let kept = size.min(self.layout.size());
            self.layout = layout(size, self.layout.align());
            assert!(self.bytes()[..kept].iter().all(|byte| *byte == self.byte));
            // SAFETY: it has so many bytes.
            unsafe { self.at.write_bytes(self.byte, size) };
        }
    }

    impl Drop for Block<'_> {
        fn drop(&mut self) {
            assert!(self.bytes().iter().all(|byte| *byte == self.byte), "another block was written here");
            // SAFETY: the block came from there with this layout.
            unsafe { self.of.dealloc(self.at, self.layout) };
        }
    }

    #[test]
    fn blocks_never_overlap_whatever_comes_and_goes() {
        let allocator = Lined::new();
        let mut random = 7_u32;
        let mut number = move |below: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize % below
        };
        let mut blocks = Vec::new();
        for turn in 0..20_000 {
            let some = number(blocks.len().max(1));
            match number(5) {
                0 | 1 if !blocks.is_empty() => drop(blocks.swap_remove(some)),
                2 if !blocks.is_empty() => {
                    let block: &mut Block<'_> = &mut blocks[some];
                    block.resize(1 + number(400));
                }
                _ => {
                    let align = [8, 16, 64, LINE, LINE, LINE, 4_096][number(7)];
                    blocks.push(Block::new(&allocator, layout(1 + number(400), align), turn as u8));
                }
            }
        }
    }

    #[test]
    fn blocks_of_a_line_lie_side_by_side_and_are_used_again() {
        let allocator = Lined::new();
        let first = Block::new(&allocator, layout(200, LINE), 1);
        let second = Block::new(&allocator, layout(256, LINE), 2);
        assert_eq!(second.at as usize - first.at as usize, 256);
        let place = first.at;
        drop(first);
        assert_eq!(Block::new(&allocator, layout(129, LINE), 3).at, place);
    }

    #[test]
    fn threads_share_it() {
        let allocator = Lined::new();
        std::thread::scope(|scope| {
            for byte in 1..5 {
                let allocator = &allocator;
                scope.spawn(move || {
                    let mut blocks = Vec::new();
                    for turn in 0..2_000_usize {
                        blocks.push(Block::new(allocator, layout(1 + turn % 256, LINE), byte));
                        if turn % 3 == 0 {
                            blocks.swap_remove(turn % blocks.len());
                        }
                    }
                });
            }
        });
    }
}
