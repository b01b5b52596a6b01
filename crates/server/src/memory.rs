//! How much memory the program uses, and how near that is to `server.memory_budget` (SPEC section 6).
//!
//! [`CountingAllocator`] counts every block of memory that the program allocates. So everything that a client can make grow is counted at its true
//! size, whatever it is: messages, pages, queues, parts of frames, the store's queue, remembered ids, channels, connections.
//!
//! Not counted: the program itself, the stacks of its threads, and what SQLite's own library allocates (a fixed cache). They are small and do not grow.
//!
//! Never here: a decision about what is refused.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::limits;
use wsmb_core::message::Timestamp;

/// The program's allocator: the system's, with a count of the allocated bytes. A program that does not use it has no limit of its memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

/// The counters. Each of the first threads has one of its own, which needs no atomic addition; all other threads share the last one. The threads
/// that pass messages on start first: the first loop, the store, the other loops.
const COUNTERS: usize = 16;

/// The counter that threads share.
const SHARED: usize = COUNTERS - 1;

/// A counter on a cache line of its own. It may be negative, because a block may be freed by another thread than the one that allocated it.
#[repr(align(64))]
struct Counter(AtomicIsize);

static ALLOCATED: [Counter; COUNTERS] = [const { Counter(AtomicIsize::new(0)) }; COUNTERS];

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The thread's counter; `usize::MAX`: not chosen yet.
    static COUNTER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Adds to the count of allocated bytes. Must not allocate.
#[inline]
fn count(bytes: isize) {
    let index = COUNTER.try_with(|counter| {
        if counter.get() == usize::MAX {
            counter.set(THREADS.fetch_add(1, Ordering::Relaxed).min(SHARED));
        }
        counter.get()
    });
    // A thread that is ending has no variables any more.
    match index.unwrap_or(SHARED) {
        SHARED => {
            ALLOCATED[SHARED].0.fetch_add(bytes, Ordering::Relaxed);
        }
        // No other thread changes it.
        own => ALLOCATED[own].0.store(ALLOCATED[own].0.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed),
    }
}

/// The memory that a block of `size` bytes takes, as far as known: glibc adds a word and rounds up to 16 bytes, at least 32.
#[inline]
fn taken(size: usize) -> isize {
    ((size + 23) & !15).max(32).cast_signed()
}

// SAFETY: each function passes its arguments on to the system's allocator, whose contract is the same.
// Not inlined: thousands of allocations would each contain a copy, which makes the program 10 % larger.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(taken(layout.size()));
        unsafe { System.alloc(layout) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(taken(layout.size()));
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-taken(layout.size()));
        unsafe { System.dealloc(block, layout) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(taken(size) - taken(layout.size()));
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Returns the number of allocated bytes; 0 in a program without [`CountingAllocator`].
fn used() -> usize {
    let sum: isize = ALLOCATED.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum();
    usize::try_from(sum).unwrap_or(0)
}

/// The use of memory, compared with the budget.
#[derive(Debug)]
pub(super) struct Budget {
    /// The bytes that the program may use.
    bytes: usize,
    /// The most bytes that were used since freed memory was given back to the system.
    peak: AtomicUsize,
    /// The time of the last scan of the sessions, in milliseconds as [`Timestamp`].
    last_scan: AtomicU64,
}

impl Budget {
    /// `bytes`: the bytes that the program may use.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, peak: AtomicUsize::new(0), last_scan: AtomicU64::new(0) }
    }

    /// Returns the bytes that the program uses.
    pub(super) fn measure(&self) -> usize {
        let used = used();
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
        used
    }

    fn is_used(&self, percent: usize) -> bool {
        self.measure() > self.bytes / 100 * percent
    }

    /// Whether so much memory is used that connections are read in small pieces.
    pub(super) fn is_scarce(&self) -> bool {
        self.is_used(limits::MEMORY_SCARCE_PERCENT)
    }

    /// Whether nearly all memory is used.
    pub(super) fn is_nearly_used(&self) -> bool {
        self.is_used(limits::MEMORY_LAST_PERCENT)
    }

    /// Whether connections must be ended now. True for one caller in each [`limits::MEMORY_SCAN_EVERY`].
    pub(super) fn is_scan_due(&self, now: Timestamp) -> bool {
        if !self.is_nearly_used() {
            return false;
        }
        let last = self.last_scan.load(Ordering::Relaxed);
        let is_over = now.since(Timestamp(last)) >= limits::MEMORY_SCAN_EVERY;
        is_over && self.last_scan.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Returns the bytes to be freed, so that memory is not scarce any more.
    pub(super) fn excess(&self) -> usize {
        used().saturating_sub(self.bytes / 100 * limits::MEMORY_SCARCE_PERCENT)
    }

    /// How often freed memory is given back to the system while memory is scarce.
    pub(super) fn trim_interval(&self) -> Duration {
        let parts = u32::try_from(self.bytes >> 26).unwrap_or(u32::MAX).max(1);
        limits::MEMORY_TRIM_SCARCE.saturating_mul(parts).min(limits::MEMORY_TRIM_EVERY)
    }

    /// Whether much memory was freed since the last call that returned true.
    pub(super) fn has_fallen(&self) -> bool {
        let used = used();
        let has_fallen = self.peak.load(Ordering::Relaxed) > used + limits::MEMORY_TRIM_BYTES;
        if has_fallen {
            self.peak.store(used, Ordering::Relaxed);
        }
        has_fallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    /// Other tests run at the same time, so only a large block can be seen.
    #[test]
    fn a_block_is_counted_as_long_as_it_is_allocated() {
        const SIZE: usize = 1 << 30;
        let before = used();
        let mut block = Vec::<u8>::with_capacity(SIZE);
        let with_block = used();
        assert!(with_block >= before + SIZE / 2, "{before} {with_block}");
        block.reserve_exact(2 * SIZE);
        assert!(used() >= with_block + SIZE / 2, "grown");
        std::thread::spawn(move || drop(block)).join().unwrap();
        assert!(used() < before + SIZE / 2, "freed by another thread");
    }

    #[test]
    fn a_budget_knows_when_it_is_nearly_used() {
        let (small, large) = (Budget::new(1_000), Budget::new(usize::MAX / 2));
        assert!(small.is_nearly_used() && !large.is_nearly_used());
        assert!(small.excess() > 0 && large.excess() == 0);
        assert!(!large.is_scan_due(Timestamp(1_000)));
        // One caller in each interval.
        assert!(small.is_scan_due(Timestamp(1_000)) && !small.is_scan_due(Timestamp(1_001)));
        assert!(small.is_scan_due(Timestamp(1_000).after(limits::MEMORY_SCAN_EVERY)));
    }

    #[test]
    fn freed_memory_is_given_back_once() {
        let budget = Budget::new(usize::MAX / 2);
        let block = vec![0_u8; 1 << 30];
        budget.measure();
        assert!(!budget.has_fallen(), "nothing was freed");
        drop(block);
        assert!(budget.has_fallen());
        assert!(!budget.has_fallen(), "a second time");
    }

    #[test]
    fn a_large_memory_is_given_back_less_often() {
        let interval = |mebibytes: usize| Budget::new(mebibytes << 20).trim_interval().as_millis();
        assert_eq!([32, 64, 128, 1024].map(interval), [250, 250, 500, 1_000]);
    }

    #[test]
    fn a_small_block_takes_more_than_its_size() {
        assert_eq!([0, 1, 24, 25, 40, 100].map(taken), [32, 32, 32, 48, 48, 112]);
    }
}
