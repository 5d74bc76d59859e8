//! Memory for one call. An instance lives for one call and its memory is put back to its beginning after it: of what a call
//! gives back only the newest block is used again, and nothing is searched for. That goes as far as an arena among the plugin's own
//! data, which most calls do not fill; whatever finds no room there is the standard library's.
//!
//! The standard library's allocator asks for a page before it gives out the first byte, which the host then has to make
//! accessible, to put back, and to take away again, in each call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;

/// With the data of a shipped plugin and its stack of 64 KiB this fills two pages; a refresh takes less.
const ARENA_BYTES: usize = 40 << 10;
/// That of [`Arena`]: more than any type of Rust's own or of the contract's asks for.
const ARENA_ALIGN: usize = 16;

/// The allocator of a plugin.
#[cfg(target_family = "wasm")]
#[global_allocator]
static HEAP: Heap = Heap::new();

struct Heap {
    arena: UnsafeCell<Arena>,
    free: UnsafeCell<Free>,
}

#[repr(align(16))]
struct Arena([u8; ARENA_BYTES]);

/// What of the arena is free: from here to its end.
#[derive(Debug, PartialEq)]
struct Free(usize);

// === impl Heap ===

impl Heap {
    const fn new() -> Self {
        Self {
            arena: UnsafeCell::new(Arena([0; ARENA_BYTES])),
            free: UnsafeCell::new(Free(0)),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Free) -> R) -> R {
        // SAFETY: a heap is one thread's, and `work` allocates nothing: no other reference lives.
        #[expect(unsafe_code, reason = "an instance has one thread")]
        work(unsafe { &mut *self.free.get() })
    }

    /// Where a block lies in the arena; `None` where it is the standard library's.
    fn place_of(&self, block: *const u8) -> Option<usize> {
        let at = block.addr().wrapping_sub(self.arena.get().addr());
        (at < ARENA_BYTES).then_some(at)
    }
}

// SAFETY: an instance has one thread.
#[cfg(target_family = "wasm")]
#[expect(unsafe_code, reason = "an instance has one thread")]
unsafe impl Sync for Heap {}

// SAFETY: blocks of the arena lie within it, are aligned, and overlap nothing that was not given back; all others are the
// standard library's from beginning to end.
#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.with(|free| free.take(layout)) {
            // SAFETY: the place is within the arena.
            Some(at) => unsafe { (&raw mut (*self.arena.get()).0).cast::<u8>().add(at) },
            // SAFETY: the caller keeps what the trait asks.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.place_of(block) {
            Some(at) => self.with(|free| free.give_back(at, layout.size())),
            // SAFETY: as above, and what is not in the arena came from there.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(at) = self.place_of(block) else {
            // SAFETY: as above.
            return unsafe { System.realloc(block, layout, size) };
        };
        let resized = self.with(|free| free.resize(at, layout.size(), size));
        if resized.is_some() {
            return block;
        }
        // SAFETY: the caller keeps what the trait asks: `size` fits with this alignment, and is not 0.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: the new block does not overlap the old, and is longer: only what grows moves.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
            self.with(|free| free.give_back(at, layout.size()));
        }
        moved
    }
}

// === impl Free ===

impl Free {
    /// Where a block of this layout begins, which is free no more.
    fn take(&mut self, layout: Layout) -> Option<usize> {
        if layout.align() > ARENA_ALIGN {
            return None;
        }
        let start = self.0.next_multiple_of(layout.align());
        self.reach(start, layout.size())?;
        Some(start)
    }

    /// Changes the size of a block where it is. Only the newest can grow.
    fn resize(&mut self, start: usize, old: usize, new: usize) -> Option<()> {
        if start + old == self.0 {
            self.reach(start, new)
        } else {
            (new <= old).then_some(())
        }
    }

    /// Takes a block back, if it is the newest.
    fn give_back(&mut self, start: usize, size: usize) {
        if start + size == self.0 {
            self.0 = start;
        }
    }

    /// The newest block is this one from now on, if there is room.
    fn reach(&mut self, start: usize, size: usize) -> Option<()> {
        let next = start.checked_add(size)?;
        if next > ARENA_BYTES {
            return None;
        }
        self.0 = next;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_are_aligned_and_follow_each_other() {
        let mut free = Free(100);
        assert_eq!(free.take(layout(1, 1)), Some(100));
        assert_eq!(free.take(layout(8, 8)), Some(104));
        assert_eq!(free.take(layout(3, 1)), Some(112));
    }

    #[test]
    fn the_newest_block_grows_and_shrinks_where_it_is_and_others_only_shrink() {
        let mut free = Free(0);
        let old = free.take(layout(8, 8)).unwrap();
        let new = free.take(layout(8, 8)).unwrap();
        assert_eq!(free.resize(new, 8, 24), Some(()));
        assert_eq!(free.resize(new, 24, 16), Some(()));
        assert_eq!(free.resize(old, 8, 4), Some(()));
        assert_eq!(free.resize(old, 4, 9), None);
        assert_eq!(free.take(layout(1, 1)), Some(new + 16));
    }

    #[test]
    fn the_newest_block_is_taken_back_and_others_are_left() {
        let mut free = Free(0);
        let old = free.take(layout(8, 8)).unwrap();
        let new = free.take(layout(8, 8)).unwrap();
        free.give_back(old, 8);
        assert_eq!(free, Free(new + 8));
        free.give_back(new, 8);
        assert_eq!(free.take(layout(8, 8)), Some(new));
    }

    #[test]
    fn the_last_byte_is_given_out_and_what_has_no_room_changes_nothing() {
        let mut free = Free(1);
        let all = free.take(layout(ARENA_BYTES - 1, 1));
        assert_eq!(all, Some(1));
        assert_eq!(free.take(layout(1, 1)), None);
        assert_eq!(free.resize(1, ARENA_BYTES - 1, ARENA_BYTES), None);
        assert_eq!(free.resize(1, ARENA_BYTES - 1, usize::MAX), None);
        assert_eq!(free, Free(ARENA_BYTES));
        assert_eq!(Free(0).take(layout(1, 2 * ARENA_ALIGN)), None);
    }

    #[test]
    fn blocks_keep_what_they_hold_on_their_way_out_of_the_arena() {
        let heap = Heap::new();
        let small = layout(64, 8);
        let (wide, large) = (layout(64, 4096), 2 * ARENA_BYTES);
        #[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
        // SAFETY: each block is used with the layout it has, as long as it is there.
        unsafe {
            let block = heap.alloc(small);
            assert_eq!(heap.place_of(block), Some(0));
            ptr::write_bytes(block, 7, small.size());
            let block = heap.realloc(block, small, large);
            assert_eq!(heap.place_of(block), None);
            let block = heap.realloc(block, layout(large, 8), 2 * large);
            assert_eq!(std::slice::from_raw_parts(block, small.size()), [7; 64]);
            heap.dealloc(block, layout(2 * large, 8));
            let aligned = heap.alloc(wide);
            assert_eq!((aligned.addr() % 4096, heap.place_of(aligned)), (0, None));
            heap.dealloc(aligned, wide);
            assert_eq!(heap.place_of(heap.alloc(small)), Some(0), "it was left");
        }
    }
}
