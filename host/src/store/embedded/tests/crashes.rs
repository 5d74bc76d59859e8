//! Flows over the file, and a process that is killed at every point of them: before each effect, after it and before its
//! result is heard, and within each commit. Whoever comes next opens the same file. From every state that one crash leaves,
//! everything is tried again: two crashes in a row.
//!
//! The file is real, its flushes are left out: a kill loses nothing that the system has. `power` is about the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::*;
use crate::model::contract::{Limited, Rotation};
use crate::model::credential::{CredentialState, EndCause, Seen};
use crate::model::error::ErrorKind;
use crate::model::flow::Landing;
use crate::model::flow::tests::world::{
    self, Commit, Crash, Fate, Manner, Row, Setup, Wire, World, grace, single_use, unknown,
};
use crate::store::Stored;

/// After how many writes a commit dies with its process: some, and more than it takes. `power` tries each.
const WRITES: [usize; 2] = [6, 64];
/// How long after the first crash somebody goes on: once the attempt is over, and once a grace is.
const PAUSES: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(70)];
/// More flows than any state needs to come to rest.
const ROUNDS_MAX: u32 = 16;
/// How many crashes in a row.
const CRASHES: usize = 2;
/// A writer that is not going to be killed.
const UNLIMITED: usize = usize::MAX;

/// A file whose writer can be killed: from then on it writes nothing, and does not know.
#[derive(Debug)]
struct Mortal {
    file: redb::backends::FileBackend,
    left: Arc<AtomicUsize>,
}

impl Mortal {
    fn lives(&self) -> bool {
        let spent = |left: usize| match left {
            UNLIMITED => Some(UNLIMITED),
            left => left.checked_sub(1),
        };
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent)
            .is_ok()
    }
}

impl redb::StorageBackend for Mortal {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        match self.lives() {
            true => self.file.set_len(len),
            false => Ok(()),
        }
    }
    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        match self.lives() {
            true => self.file.write(offset, data),
            false => Ok(()),
        }
    }
}

/// A world's row, in a file.
struct InFile {
    place: Place,
    left: Arc<AtomicUsize>,
    store: Option<EmbeddedStore>,
    runtime: Arc<Runtime>,
}

impl InFile {
    fn new() -> Self {
        let place = Place::new();
        drop(place.open());
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self::at(place, Arc::new(runtime.unwrap()))
    }

    fn at(place: Place, runtime: Arc<Runtime>) -> Self {
        let left = Arc::new(AtomicUsize::new(UNLIMITED));
        let mut row = Self {
            place,
            left,
            store: None,
            runtime,
        };
        row.open(0);
        row
    }

    /// Another file as this one is now.
    fn copy(&self) -> Self {
        Self::at(self.place.copy(), self.runtime.clone())
    }

    /// Reads at most so much whole.
    fn open(&mut self, checked_max_bytes: u64) {
        let left = self.left.clone();
        let engine: Engine = Box::new(move |path| {
            let file = std::fs::File::options().read(true).write(true).open(path);
            let file = redb::backends::FileBackend::new(file.unwrap()).unwrap();
            let left = left.clone();
            redb::Builder::new()
                .create_with_backend(Mortal { file, left })
                .map_err(|error| OpenError::System(path.into(), error.to_string()))
        });
        let path = self.place.path();
        let store = EmbeddedStore::open_with(&path, &KEY.into(), checked_max_bytes, engine);
        self.store = Some(store.unwrap());
    }

    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }
}

impl Row for InFile {
    fn load(&mut self) -> Stored {
        let key = world::credential_key();
        self.runtime.block_on(self.store().load(&key)).unwrap()
    }

    fn commit(&mut self, expected: Version, next: Credential) -> Result<Version, CommitFault> {
        let key = world::credential_key();
        self.runtime
            .block_on(self.store().commit(&key, expected, next))
    }

    fn die_within(&mut self, writes: usize, expected: Version, next: Credential) {
        self.left.store(writes, Ordering::SeqCst);
        drop(self.commit(expected, next));
    }

    fn reopen(&mut self) {
        // What the dying process still writes while it is dropped, a killed one would not.
        self.left.store(0, Ordering::SeqCst);
        self.store = None;
        self.left.store(UNLIMITED, Ordering::SeqCst);
        self.open(open::CHECKED_AT_OPEN_MAX_BYTES);
    }
}

/// What was tried, so that a test that tries nothing fails.
#[derive(Debug, Default)]
struct Tally {
    /// Crashes, by their kind and the effect.
    crashes: BTreeMap<(&'static str, &'static str), usize>,
    /// Commits that died with their process and were made, or were not.
    within: [usize; 2],
    /// How the stories ended.
    ends: BTreeMap<&'static str, usize>,
    states: usize,
}

/// One setting of the matrix, and what it promises.
struct Case {
    setup: Setup,
    /// How often a grant may leave with an effect to be feared; none where that is harmless.
    presentations_max: Option<u32>,
}

impl Case {
    fn fates() -> Vec<Fate> {
        let mut fates: Vec<_> = Wire::ALL.into_iter().map(Fate::on).collect();
        // Nothing but the mark is recorded.
        fates.push(Fate {
            commits: vec![Commit::Lost; 99],
            ..Fate::default()
        });
        fates
    }

    fn explore(&self, limited: Option<Limited>) -> Tally {
        let mut tally = Tally::default();
        let mut start = World::on(InFile::new(), self.setup);
        start.limited = limited;
        start.fail_after_marks = true;
        let (mut origins, mut known) = (vec![start], BTreeSet::new());
        for _ in 0..CRASHES {
            let mut left = Vec::new();
            for origin in &origins {
                for fate in Self::fates() {
                    for world in self.every_crash(origin, &fate, &mut tally, &mut known) {
                        left.push(world);
                    }
                }
            }
            // Most differ only in what the pause makes equal.
            let mut later = BTreeMap::new();
            for world in &left {
                for pause in PAUSES {
                    let mut world = world.moved_to(world.row.copy());
                    world.now = world.now.plus(pause);
                    later.entry(world.story()).or_insert(world);
                }
            }
            origins = later.into_values().collect();
        }
        tally.states = known.len();
        tally
    }

    /// The worlds that a crash anywhere in this run leaves, as far as they are new.
    fn every_crash(
        &self,
        origin: &World<InFile>,
        fate: &Fate,
        tally: &mut Tally,
        known: &mut BTreeSet<String>,
    ) -> Vec<World<InFile>> {
        let mut left = Vec::new();
        for effect in 0.. {
            let mut crashes = vec![Crash::After(effect), Crash::Before(effect)];
            while let Some(crash) = crashes.pop() {
                let mut world = origin.moved_to(origin.row.copy());
                world.run(Fate {
                    crash: Some(crash),
                    ..fate.clone()
                });
                let Some(died) = world.died else {
                    // It ended before this effect.
                    return left;
                };
                if let ("before", "mark" | "persist") = died {
                    crashes.extend(WRITES.map(|writes| Crash::Within(effect, writes)));
                }
                *tally.crashes.entry(died).or_default() += 1;
                let made = world.what_was_committed_is_there();
                if died.0 == "within" {
                    tally.within[usize::from(made)] += 1;
                }
                if known.insert(world.story()) {
                    let end = self.come_to_rest(world.moved_to(world.row.copy()));
                    *tally.ends.entry(end).or_default() += 1;
                    left.push(world);
                }
            }
        }
        left
    }

    /// Goes on undisturbed, and looks at what became of it.
    fn come_to_rest(&self, mut world: World<InFile>) -> &'static str {
        let story = world.story();
        for _ in 0..ROUNDS_MAX {
            world.now = world.now.plus(Duration::from_secs(20));
            let landing = world.run(Fate::default()).unwrap();
            assert!(world.is_kept(0, &landing), "lost: {story}");
            match landing {
                Landing::Renewed(_) => return self.at_rest(&mut world, &story),
                Landing::Failed(it) if it.kind == ErrorKind::ReauthorizationRequired => {
                    return self.at_rest(&mut world, &story);
                }
                Landing::Failed(_) | Landing::Superseded { .. } => {}
            }
        }
        panic!("it does not come to rest: {story}");
    }

    fn at_rest(&self, world: &mut World<InFile>, story: &str) -> &'static str {
        // Nothing that was published may hang on the process that did.
        world.crash(0);
        world.what_was_committed_is_there();
        let row = world.stored();
        let issuer = &world.issuer;
        if let Some(most) = self.presentations_max {
            let times = issuer.feared.values().max().copied().unwrap_or_default();
            assert!(times <= most, "presented {times} times: {story}");
            assert!(most > 1 || (issuer.replays == 0 && !issuer.has_ended()));
        }
        assert!(issuer.replays == 0 || !self.is_grace(), "{story}");
        // One that ended in doubt keeps its mark while its request may still arrive.
        let ended = matches!(
            row.credential.state,
            CredentialState::ReauthorizationRequired { .. }
        );
        assert!(row.credential.intent.is_none() || ended, "{story}");
        let grant = world.stored_grant().unwrap();
        match row.credential.state {
            CredentialState::Live => {
                assert_eq!(grant, world.issuer.current(), "{story}");
                "live"
            }
            CredentialState::ReauthorizationRequired { cause, .. } => match cause {
                EndCause::Refused => {
                    assert!(world.issuer.refused.contains(&grant), "{story}");
                    "refused"
                }
                EndCause::LostAnswer => {
                    assert_ne!(self.setup.rotation, Rotation::Never, "{story}");
                    "lost_answer"
                }
            },
            state => panic!("{} is no rest: {story}", state.label()),
        }
    }

    fn is_grace(&self) -> bool {
        self.setup.rotation == Rotation::Grace
    }
}

impl Tally {
    /// Fails unless each kind of crash was tried at each of these effects, and the story ended in each of these ways.
    fn assert_tried(&self, effects: &[&'static str], ends: &[&'static str]) {
        for effect in effects {
            let commits = matches!(*effect, "mark" | "persist");
            let kinds: &[_] = match commits {
                true => &["before", "after", "within"],
                false => &["before", "after"],
            };
            for kind in kinds {
                let times = self.crashes.get(&(*kind, *effect)).copied();
                assert!(
                    times.unwrap_or_default() > 0,
                    "never {kind} {effect}: {self:?}"
                );
            }
        }
        let found: Vec<_> = self.ends.keys().copied().collect();
        assert_eq!(found, ends, "{self:?}");
        assert!(self.within.iter().all(|times| *times > 0), "{self:?}");
        assert!(self.crashes.values().sum::<usize>() > 500, "{self:?}");
    }
}

const EFFECTS: [&str; 7] = [
    "lease", "consult", "mark", "send", "persist", "strand", "land",
];
const UNMARKED: [&str; 6] = ["lease", "consult", "send", "persist", "strand", "land"];

#[test]
fn a_single_use_grant_survives_any_two_crashes_or_is_ended_with_its_cause() {
    let case = Case {
        setup: single_use(),
        presentations_max: Some(1),
    };
    let tally = case.explore(None);
    tally.assert_tried(&EFFECTS, &["live", "lost_answer", "refused"]);
}

#[test]
fn a_grant_that_was_seen_rotating_is_single_use_over_any_two_crashes() {
    let seen = Seen {
        rotated: true,
        ..Seen::default()
    };
    let case = Case {
        setup: Setup { seen, ..unknown() },
        presentations_max: Some(1),
    };
    let tally = case.explore(Some(Limited::Grant));
    tally.assert_tried(&EFFECTS, &["live", "lost_answer", "refused"]);
}

#[test]
fn a_grant_of_unknown_kind_is_probed_once_over_any_two_crashes() {
    let case = Case {
        setup: unknown(),
        presentations_max: Some(2),
    };
    let tally = case.explore(None);
    tally.assert_tried(&EFFECTS, &["live", "lost_answer", "refused"]);
}

#[test]
fn a_grant_of_unknown_kind_that_stays_is_found_out_over_any_two_crashes() {
    let case = Case {
        setup: Setup {
            manner: Manner::Keeps,
            ..unknown()
        },
        presentations_max: None,
    };
    let tally = case.explore(None);
    assert!(tally.ends["live"] > 0);
    assert!(tally.crashes.values().sum::<usize>() > 500, "{tally:?}");
}

#[test]
fn a_grant_in_its_grace_is_recovered_there_and_nowhere_else_over_any_two_crashes() {
    let case = Case {
        setup: grace(),
        presentations_max: None,
    };
    let tally = case.explore(None);
    tally.assert_tried(&EFFECTS, &["live", "lost_answer", "refused"]);
}

#[test]
fn a_grant_that_never_rotates_survives_any_two_crashes() {
    let case = Case {
        setup: Setup {
            rotation: Rotation::Never,
            manner: Manner::Keeps,
            ..single_use()
        },
        presentations_max: None,
    };
    let tally = case.explore(None);
    tally.assert_tried(&UNMARKED, &["live", "refused"]);
}
