//! Memory for one call. An instance lives for one call and its memory is put back to its beginning after it, so nothing is
//! searched for and nothing is kept of what was given back, but for the newest block: most of what is built grows at the end, and
//! most of what is dropped is what was made last.
//!
//! It begins in what the linker left over of the last page. The standard library's own allocator leaves that and asks for
//! another page, which the host then has to make accessible, to put back, and to take away again, in each call.

use std::alloc::Layout;

/// From where to where memory is free.
#[derive(Debug)]
struct Free {
    next: usize,
    end: usize,
}

// === impl Free ===

impl Free {
    /// Where a block of this layout begins, which is free no more. `more` is asked for so many bytes after the end, and says how
    /// many there are; less than asked for is none.
    fn take(&mut self, layout: Layout, more: impl FnOnce(usize) -> usize) -> Option<usize> {
        let start = self.next.checked_next_multiple_of(layout.align())?;
        self.reach(start.checked_add(layout.size())?, more)?;
        Some(start)
    }

    /// Changes the size of a block where it is. Only the newest can grow.
    fn resize(
        &mut self,
        start: usize,
        (old, new): (usize, usize),
        more: impl FnOnce(usize) -> usize,
    ) -> Option<()> {
        if start + old == self.next {
            self.reach(start.checked_add(new)?, more)
        } else {
            (new <= old).then_some(())
        }
    }

    /// Takes a block back, if it is the newest.
    fn give_back(&mut self, start: usize, size: usize) {
        if start + size == self.next {
            self.next = start;
        }
    }

    /// All up to here is taken.
    fn reach(&mut self, next: usize, more: impl FnOnce(usize) -> usize) -> Option<()> {
        if next > self.end {
            let missing = next - self.end;
            let found = more(missing);
            if found < missing {
                return None;
            }
            self.end += found;
        }
        self.next = next;
        Some(())
    }
}

/// The allocator of a plugin.
#[cfg(target_family = "wasm")]
#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait, and the linker's symbols are"
)]
mod plugin {
    use std::alloc::{GlobalAlloc, Layout};
    use std::arch::wasm32::memory_grow;
    use std::cell::UnsafeCell;
    use std::ptr;

    use super::Free;

    const PAGE_BYTES: usize = 64 << 10;

    #[global_allocator]
    static HEAP: Heap = Heap(UnsafeCell::new(Free { next: 0, end: 0 }));

    unsafe extern "C" {
        /// Where the linker's own data ends.
        static __heap_base: u8;
        /// Where the last page ends.
        static __heap_end: u8;
    }

    struct Heap(UnsafeCell<Free>);

    // SAFETY: an instance has one thread, and nothing here calls back.
    unsafe impl Sync for Heap {}

    // === impl Heap ===

    impl Heap {
        fn with<R>(&self, work: impl FnOnce(&mut Free) -> R) -> R {
            // SAFETY: one thread, and `work` allocates nothing: no other reference lives.
            let free = unsafe { &mut *self.0.get() };
            if free.end == 0 {
                free.next = (&raw const __heap_base).expose_provenance();
                free.end = (&raw const __heap_end).expose_provenance();
            }
            work(free)
        }
    }

    /// Makes memory longer by whole pages; the new ones follow the old, for nobody else asks for any.
    fn more(bytes: usize) -> usize {
        let pages = bytes.div_ceil(PAGE_BYTES);
        if memory_grow::<0>(pages) == usize::MAX {
            return 0;
        }
        pages * PAGE_BYTES
    }

    // SAFETY: blocks lie within memory, are aligned, and overlap nothing that was not given back.
    unsafe impl GlobalAlloc for Heap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let start = self.with(|free| free.take(layout, more));
            start.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.with(|free| free.give_back(block.addr(), layout.size()));
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            let sizes = (layout.size(), size);
            if self
                .with(|free| free.resize(block.addr(), sizes, more))
                .is_some()
            {
                return block;
            }
            // SAFETY: the caller keeps what the trait asks: `size` fits with this alignment, and is not 0.
            let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            // SAFETY: as above.
            let moved = unsafe { self.alloc(new) };
            if !moved.is_null() {
                // SAFETY: the new block does not overlap the old, and is longer: only what grows moves.
                unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: usize = 100;
    const PAGE: usize = 64;

    fn free() -> Free {
        Free {
            next: START,
            end: START + PAGE,
        }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    fn none(_: usize) -> usize {
        0
    }

    #[test]
    fn blocks_are_aligned_and_follow_each_other() {
        let mut free = free();
        assert_eq!(free.take(layout(1, 1), none), Some(100));
        assert_eq!(free.take(layout(8, 8), none), Some(104));
        assert_eq!(free.take(layout(3, 1), none), Some(112));
    }

    #[test]
    fn the_newest_block_grows_and_shrinks_where_it_is_and_others_only_shrink() {
        let mut free = free();
        let old = free.take(layout(8, 8), none).unwrap();
        let new = free.take(layout(8, 8), none).unwrap();
        assert_eq!(free.resize(new, (8, 24), none), Some(()));
        assert_eq!(free.resize(new, (24, 16), none), Some(()));
        assert_eq!(free.resize(old, (8, 4), none), Some(()));
        assert_eq!(free.resize(old, (4, 9), none), None);
        assert_eq!(free.take(layout(1, 1), none), Some(new + 16));
    }

    #[test]
    fn the_newest_block_is_taken_back_and_others_are_left() {
        let mut free = free();
        let old = free.take(layout(8, 8), none).unwrap();
        let new = free.take(layout(8, 8), none).unwrap();
        free.give_back(old, 8);
        assert_eq!(free.next, new + 8);
        free.give_back(new, 8);
        assert_eq!(free.take(layout(8, 8), none), Some(new));
    }

    #[test]
    fn more_is_asked_for_where_there_is_too_little_and_nothing_changes_where_there_is_none() {
        let mut free = free();
        assert_eq!(free.take(layout(PAGE + 1, 1), none), None);
        assert_eq!((free.next, free.end), (START, START + PAGE));
        let grown = free.take(layout(PAGE + 1, 1), |missing| {
            assert!(missing > 0 && missing <= PAGE);
            PAGE
        });
        assert_eq!(grown, Some(START));
        assert_eq!(free.end, START + 2 * PAGE);
    }

    #[test]
    fn a_size_beyond_all_addresses_is_refused() {
        let mut free = free();
        let huge = layout(isize::MAX as usize - 64, 8);
        let first = free.take(huge, |missing| missing);
        assert!(first.is_some());
        let second = free.take(huge, |missing| missing);
        assert!(second.is_some());
        assert_eq!(free.take(huge, |missing| missing), None);
    }
}
