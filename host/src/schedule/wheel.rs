//! A wheel of one-second buckets. Putting in costs a push, and a turn costs what is due in it.
//!
//! Nothing is ever taken out or moved: what is no longer meant is recognized when its bucket comes up. Pure: who is
//! told what is due, and whether it is still meant, come in as functions.

use crate::model::time::UnixTime;

/// How many seconds the wheel spans. What is due later waits in its last bucket and is filed again from there: about
/// once an hour, which is what most tokens live.
const SPAN: u64 = 4096;

/// By what part of itself a full bucket grows. Doubling would leave a third of a million entries' room empty on average.
const GROWTH_ONE_IN: usize = 4;
/// And by how many items at least, so that small buckets do not grow one by one.
const GROWTH_MIN: usize = 4;

/// Items by the second in which they are due.
pub(super) struct Wheel<T> {
    buckets: Vec<Vec<(UnixTime, T)>>,
    /// The second that was emptied last.
    second: u64,
    len: usize,
}

// === impl Wheel ===

impl<T> Wheel<T> {
    /// An empty one that starts at `now`.
    pub(super) fn new(now: UnixTime) -> Self {
        let buckets = (0..SPAN).map(|_| Vec::new()).collect();
        Self {
            buckets,
            second: now.as_secs(),
            len: 0,
        }
    }

    /// How many it holds, meant or not.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the second of `due` was emptied already, so that an item belongs elsewhere to be on time.
    pub(super) fn is_past(&self, due: UnixTime) -> bool {
        due.as_secs() <= self.second
    }

    /// Puts an item in. One that is overdue comes up in the next second.
    pub(super) fn put(&mut self, due: UnixTime, item: T) {
        let second = due.as_secs().clamp(self.second + 1, self.second + SPAN);
        let bucket = self.bucket(second);
        if bucket.len() == bucket.capacity() {
            bucket.reserve_exact((bucket.len() / GROWTH_ONE_IN).max(GROWTH_MIN));
        }
        bucket.push((due, item));
        self.len += 1;
    }

    /// Turns to `now`: `up` gets what is due by the end of this second, whatever the clock did in between. Of what came
    /// up early, only what `meant` says is kept.
    pub(super) fn turn(
        &mut self,
        now: UnixTime,
        meant: impl Fn(UnixTime, &T) -> bool,
        mut up: impl FnMut(UnixTime, T),
    ) {
        let now = now.as_secs();
        let mut came_up = Vec::new();
        if now < self.second {
            // The clock was set back: places are relative to it, so everything is put in again. Rare, and paid once.
            came_up.extend(self.buckets.iter_mut().flat_map(std::mem::take));
        } else {
            // After a leap longer than the wheel, every bucket comes up once.
            for step in 1..=(now - self.second).min(SPAN) {
                let second = self.second + step;
                came_up.append(self.bucket(second));
            }
        }
        self.len -= came_up.len();
        self.second = now;
        for (due, item) in came_up {
            if self.is_past(due) {
                up(due, item);
            } else if meant(due, &item) {
                self.put(due, item);
            }
        }
    }

    /// Drops what is no longer meant.
    pub(super) fn compact(&mut self, meant: impl Fn(UnixTime, &T) -> bool) {
        for bucket in &mut self.buckets {
            bucket.retain(|(due, item)| meant(*due, item));
            bucket.shrink_to_fit();
        }
        self.len = self.buckets.iter().map(Vec::len).sum();
    }

    fn bucket(&mut self, second: u64) -> &mut Vec<(UnixTime, T)> {
        let at = usize::try_from(second % SPAN).expect("the span fits");
        &mut self.buckets[at]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
        let mut up = Vec::new();
        wheel.turn(
            UnixTime::from_secs(now),
            |_, _| true,
            |_, item| up.push(item),
        );
        up
    }

    fn wheel(items: &[(u64, u32)]) -> Wheel<u32> {
        let mut wheel = Wheel::new(UnixTime::from_secs(1_000));
        for (due, item) in items {
            wheel.put(UnixTime::from_secs(*due), *item);
        }
        wheel
    }

    #[test]
    fn items_come_up_in_their_second() {
        let mut wheel = wheel(&[(1_001, 1), (1_003, 3), (1_002, 2)]);
        assert!(turn(&mut wheel, 1_000).is_empty());
        assert_eq!(turn(&mut wheel, 1_001), [1]);
        assert_eq!(turn(&mut wheel, 1_003), [2, 3]);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn what_is_overdue_comes_up_in_the_next_second() {
        let mut wheel = wheel(&[(5, 1)]);
        assert_eq!(turn(&mut wheel, 1_001), [1]);
    }

    #[test]
    fn a_suspended_process_finds_everything_that_fell_due() {
        let mut wheel = wheel(&[(1_001, 1), (3_000, 2), (90_000, 3), (200_000, 4)]);
        let mut up = turn(&mut wheel, 100_000);
        up.sort_unstable();
        assert_eq!(up, [1, 2, 3]);
        assert_eq!(turn(&mut wheel, 200_000), [4]);
    }

    #[test]
    fn a_clock_that_is_set_back_delays_nothing_beyond_its_time() {
        let mut wheel = wheel(&[(1_500, 1), (900, 2)]);
        assert!(turn(&mut wheel, 500).is_empty());
        assert!(turn(&mut wheel, 899).is_empty());
        assert_eq!(turn(&mut wheel, 900), [2]);
        assert_eq!(turn(&mut wheel, 1_500), [1]);
    }

    #[test]
    fn what_is_no_longer_meant_does_not_stay() {
        let mut wheel = wheel(&[(1_001, 1), (1_002, 2)]);
        wheel.put(UnixTime::from_secs(9_000), 3);
        wheel.compact(|_, item| *item != 2);
        assert_eq!(wheel.len(), 2);
        // The far one comes up early once, and is then asked about.
        for now in 1_001..=1_000 + SPAN {
            wheel.turn(UnixTime::from_secs(now), |_, _| false, |_, _| ());
        }
        assert_eq!(wheel.len(), 0);
    }

    proptest! {
        #[test]
        fn every_item_comes_up_once_and_neither_early_nor_late(
            dues in prop::collection::vec(0u64..20_000, 0..50),
            moves in prop::collection::vec(0u64..20_000, 1..50),
        ) {
            let mut wheel = Wheel::new(UnixTime::from_secs(1_000));
            for (item, due) in dues.iter().enumerate() {
                wheel.put(UnixTime::from_secs(*due), item);
            }
            let mut left: Vec<usize> = (0..dues.len()).collect();
            let mut before = 1_000;
            for now in moves {
                // Forwards and backwards alike.
                let mut up = Vec::new();
                wheel.turn(UnixTime::from_secs(now), |_, _| true, |_, item| up.push(item));
                for item in up {
                    prop_assert!(dues[item] <= now);
                    let at = left.iter().position(|other| *other == item);
                    left.swap_remove(at.expect("once"));
                }
                if now != before {
                    prop_assert!(left.iter().all(|item| dues[*item] > now), "late at {now}");
                }
                before = now;
            }
            prop_assert_eq!(wheel.len(), left.len());
        }
    }
}
