//! Structures that tell who is due, filled and emptied in the same way: the scheduler, and what it could be instead. What a
//! broker makes of it is the suite's.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyfob::cache::{Nudge, Slot};
use keyfob::model::time::UnixTime;
use keyfob::schedule::{Refresher, Scheduler};
use keyfob::testing::TestClock;
use keyfob::{ProviderName, Tenant};

use crate::cached::Cached;
use crate::draw::Draw;
use crate::live::live_bytes;
use crate::record::Record;

/// Entries of the first table.
const ENTRIES: usize = 1_000_000;
/// How often each structure of the first table is filled and emptied.
const ROUNDS: usize = 3;
/// What is measured of each, and in what.
const FIGURES: [(&str, &str); 4] = [
    ("insert", "ns"),
    ("reset", "ns"),
    ("expire", "ns"),
    ("size", "B"),
];
/// Over how many seconds they are due.
const SPREAD: u64 = 3_600;

/// An entry of the scheduler, and of what else would tell who is due. Before they come up, all were put elsewhere once, as
/// all are that are renewed: where nothing is taken out, twice as many come up.
///
/// # Panics
///
/// When one of them loses an entry.
pub fn entries(record: &mut Record) {
    let cached = Arc::new(Cached::new(ENTRIES));
    for slot in &cached.slots {
        slot.touch(cached.now);
    }
    measure(record, "ours", || {
        Box::new(Ours {
            cached: cached.clone(),
            scheduler: Arc::new(Scheduler::new(cached.now)),
        })
    });
    drop(cached);
    measure(record, "floor, a bare wheel of numbers", || {
        Box::new(Wheel(vec![Vec::new(); SPREAD as usize + 2]))
    });
    measure(record, "an ordered tree", || Box::new(Tree::default()));
    measure(record, "a heap", || Box::new(Heap::default()));
    // One table for each figure, with all that are compared in it.
    record
        .rows
        .sort_by(|one, other| one.group.cmp(&other.group));
}

/// When each entry is due, in milliseconds from now.
fn dues(draw: &mut Draw) -> Vec<u64> {
    let due = |_| 1_000 + draw.word() % (SPREAD * 1_000);
    (0..ENTRIES).map(due).collect()
}

/// What can be done with entries: all are put in, all are put elsewhere, all come up.
trait Kept {
    fn insert(&mut self, dues: &[u64]);
    fn reset(&mut self, from: &[u64], to: &[u64]);
    /// Says how many came up that were meant.
    fn expire(&mut self, dues: &[u64]) -> usize;
}

/// Measures all of it, an entry each: the medians of a few rounds, each with an empty structure.
fn measure(record: &mut Record, name: &str, make: impl Fn() -> Box<dyn Kept>) {
    let mut draw = Draw::new(1);
    let (first, second) = (dues(&mut draw), dues(&mut draw));
    let mut rounds = [[0.0; 4]; ROUNDS];
    for figures in &mut rounds {
        let mut kept = make();
        let before = live_bytes();
        let each = |run: &mut dyn FnMut()| {
            let start = now();
            run();
            start.elapsed().as_nanos() as f64 / ENTRIES as f64
        };
        figures[0] = each(&mut || kept.insert(&first));
        figures[3] = (live_bytes() - before) as f64 / ENTRIES as f64;
        figures[1] = each(&mut || kept.reset(&first, &second));
        let mut came_up = 0;
        figures[2] = each(&mut || came_up = kept.expire(&second));
        assert_eq!(came_up, ENTRIES, "{name}");
    }
    for (at, (what, unit)) in FIGURES.into_iter().enumerate() {
        let mut all = rounds.map(|figures| figures[at]);
        all.sort_unstable_by(f64::total_cmp);
        let group = format!("{ENTRIES} entries: {what}");
        record.row(&group, name, all[ROUNDS / 2], unit, "");
    }
}

/// The scheduler, with slots that hold tokens.
struct Ours {
    cached: Arc<Cached>,
    scheduler: Arc<Scheduler>,
}

impl Kept for Ours {
    fn insert(&mut self, dues: &[u64]) {
        for (slot, due) in self.cached.slots.iter().zip(dues) {
            let due = self.cached.now.plus(Duration::from_millis(*due));
            assert!(self.scheduler.file(slot, due), "there is room");
        }
    }

    fn reset(&mut self, _: &[u64], to: &[u64]) {
        self.insert(to);
    }

    fn expire(&mut self, _: &[u64]) -> usize {
        let tally = Arc::new(Tally::default());
        paused().block_on(async {
            let clock = Arc::new(TestClock::starting_at(self.cached.now));
            let epoch = self.cached.epoch.clone();
            tokio::select! {
                () = self.scheduler.run(tally.clone(), clock, epoch) => {}
                () = tokio::time::sleep(Duration::from_secs(SPREAD + 2)) => {}
            }
        });
        tally.0.load(Ordering::Relaxed)
    }
}

/// Numbers by the second; a number is meant where it is due then.
struct Wheel(Vec<Vec<u32>>);

impl Kept for Wheel {
    fn insert(&mut self, dues: &[u64]) {
        for (id, due) in (0..).zip(dues) {
            self.0[(due / 1_000) as usize].push(id);
        }
    }

    fn reset(&mut self, from: &[u64], to: &[u64]) {
        for (id, (from, to)) in (0..).zip(from.iter().zip(to)) {
            // Within the same second it is there already.
            if from / 1_000 != to / 1_000 {
                self.0[(to / 1_000) as usize].push(id);
            }
        }
    }

    fn expire(&mut self, dues: &[u64]) -> usize {
        let mut count = 0;
        for (second, bucket) in self.0.iter_mut().enumerate() {
            let meant = |id: &u32| dues[*id as usize] / 1_000 == second as u64;
            count += std::mem::take(bucket).iter().filter(|id| meant(id)).count();
        }
        count
    }
}

/// Times and numbers in order; what is put elsewhere is taken out first.
#[derive(Default)]
struct Tree(BTreeSet<(u64, u32)>);

impl Kept for Tree {
    fn insert(&mut self, dues: &[u64]) {
        self.0.extend(dues.iter().copied().zip(0..));
    }

    fn reset(&mut self, from: &[u64], to: &[u64]) {
        for (id, (from, to)) in (0..).zip(from.iter().zip(to)) {
            self.0.remove(&(*from, id));
            self.0.insert((*to, id));
        }
    }

    fn expire(&mut self, _: &[u64]) -> usize {
        std::iter::from_fn(|| self.0.pop_first()).count()
    }
}

/// The same in a heap; what is put elsewhere stays, and is found out when it comes up.
#[derive(Default)]
struct Heap(BinaryHeap<Reverse<(u64, u32)>>);

impl Kept for Heap {
    fn insert(&mut self, dues: &[u64]) {
        self.0.extend(dues.iter().copied().zip(0..).map(Reverse));
    }

    fn reset(&mut self, from: &[u64], to: &[u64]) {
        for (id, (from, to)) in (0..).zip(from.iter().zip(to)) {
            if from != to {
                self.0.push(Reverse((*to, id)));
            }
        }
    }

    fn expire(&mut self, dues: &[u64]) -> usize {
        let all = std::iter::from_fn(|| self.0.pop());
        all.filter(|Reverse((due, id))| dues[*id as usize] == *due)
            .count()
    }
}

/// Counts whom it is to renew.
#[derive(Default)]
struct Tally(AtomicUsize);

impl Nudge for Tally {
    fn nudge(&self, _: &Arc<Slot>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Refresher for Tally {
    fn room(&self, _: &ProviderName, _: &Tenant) -> usize {
        usize::MAX
    }

    fn paused(&self, _: &ProviderName) -> Option<UnixTime> {
        None
    }

    fn renewal_from(&self, _: &Slot, _: UnixTime) -> Option<UnixTime> {
        None
    }
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let paused = builder.enable_time().start_paused(true).build();
    paused.expect("a runtime")
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured here is time itself"
)]
fn now() -> Instant {
    Instant::now()
}
