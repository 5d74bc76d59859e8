//! Power cuts, at every write and before every flush: the disk as it may then be, built from a record of what the store
//! wrote. Flushed writes are there; of the others all, none, some, or halves, as a disk that reorders and tears would leave
//! them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;
use crate::store::{CommitFault, Stored};

/// Random subsets for each cut: with some tens of cuts for each commit, a thousand disks a run.
const SUBSETS: u64 = 4;
/// Random subsets for each cut of the repair after a cut; there are many repairs.
const REPAIR_SUBSETS: u64 = 1;
/// What a disk writes as one: smaller than the engine's pages, so that they tear.
const SECTOR_BYTES: usize = 512;

/// Something that was done to the file.
#[derive(Clone, Debug)]
enum Done {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A file in memory, and a record of what was done to it.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    image: Vec<u8>,
    done: Vec<Done>,
}

/// What may have become of the writes that were not flushed.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Nothing,
    Everything,
    /// The last one is cut in the middle of a sector.
    LastTorn,
    /// Only the last one is there.
    AllButLast,
    /// Each by chance there, lost or torn.
    Random(u64),
}

/// The random numbers of one disk.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64: short, and its seed can be printed.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % limit
    }
}

impl Recorder {
    fn of(image: Vec<u8>) -> Self {
        let done = Vec::new();
        Self(Arc::new(Mutex::new(Recorded { image, done })))
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much was done so far.
    fn position(&self) -> usize {
        self.recorded().done.len()
    }

    fn engine(&self) -> Engine {
        let recorder = self.clone();
        Box::new(move |path| {
            redb::Builder::new()
                .create_with_backend(recorder.clone())
                .map_err(|error| OpenError::System(path.into(), error.to_string()))
        })
    }
}

impl redb::StorageBackend for Recorder {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.recorded().image.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let recorded = self.recorded();
        let from = recorded
            .image
            .get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        let mut recorded = self.recorded();
        recorded.image.resize(len as usize, 0);
        recorded.done.push(Done::SetLen(len));
        Ok(())
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.recorded().done.push(Done::Sync);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut recorded = self.recorded();
        put(&mut recorded.image, offset, data);
        recorded.done.push(Done::Write(offset, data.to_vec()));
        Ok(())
    }
}

fn put(image: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset as usize..end].copy_from_slice(data);
}

fn apply(image: &mut Vec<u8>, done: &Done) {
    match done {
        Done::Write(offset, data) => put(image, *offset, data),
        Done::SetLen(len) => image.resize(*len as usize, 0),
        Done::Sync => {}
    }
}

/// The disk after a power cut that let so much be done.
fn cut(before: &[u8], done: &[Done], loss: Loss) -> Vec<u8> {
    let mut image = before.to_vec();
    let flushed = done
        .iter()
        .rposition(|done| matches!(done, Done::Sync))
        .map_or(0, |at| at + 1);
    done[..flushed]
        .iter()
        .for_each(|done| apply(&mut image, done));
    let open = &done[flushed..];
    match loss {
        Loss::Nothing => open.iter().for_each(|done| apply(&mut image, done)),
        Loss::Everything => {}
        Loss::LastTorn => {
            let Some((last, others)) = open.split_last() else {
                return image;
            };
            others.iter().for_each(|done| apply(&mut image, done));
            match last {
                Done::Write(offset, data) => put(&mut image, *offset, &data[..data.len() / 2]),
                last => apply(&mut image, last),
            }
        }
        Loss::AllButLast => {
            open.iter()
                .rev()
                .take(1)
                .for_each(|done| apply(&mut image, done));
        }
        Loss::Random(seed) => {
            let mut dice = Dice(seed);
            for done in open {
                match (dice.below(4), done) {
                    (0, _) => {}
                    (1, Done::Write(offset, data)) => torn(&mut image, *offset, data, &mut dice),
                    (_, done) => apply(&mut image, done),
                }
            }
        }
    }
    image
}

/// Some sectors of a write, and one of them in part.
fn torn(image: &mut Vec<u8>, offset: u64, data: &[u8], dice: &mut Dice) {
    let broken = dice.below(data.len().div_ceil(SECTOR_BYTES));
    for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
        let at = offset + (number * SECTOR_BYTES) as u64;
        match dice.below(2) {
            _ if number == broken => put(image, at, &sector[..dice.below(sector.len() + 1)]),
            0 => {}
            _ => put(image, at, sector),
        }
    }
}

fn losses(subsets: u64, cut: u64) -> Vec<Loss> {
    let fixed = [
        Loss::Nothing,
        Loss::Everything,
        Loss::LastTorn,
        Loss::AllButLast,
    ];
    let random = (0..subsets).map(|subset| Loss::Random(cut * 1000 + subset));
    fixed.into_iter().chain(random).collect()
}

/// Something that was committed, and when its answer came.
struct Commit {
    whose: CredentialKey,
    version: Version,
    answered_at: usize,
    begun_at: usize,
}

/// Opens what a cut left, and looks at everything: the recorder that the repair was written to.
async fn look(image: &[u8], commits: &[Commit], position: usize, what: &str) -> Recorder {
    let place = Place::new();
    std::fs::write(place.path(), image).unwrap();
    let recorder = Recorder::of(image.to_vec());
    let opened = EmbeddedStore::open_with(
        &place.path(),
        &KEY.into(),
        open::CHECKED_AT_OPEN_MAX_BYTES,
        recorder.engine(),
    );
    let store = opened.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    store
        .verify()
        .await
        .unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
    let mut keys: Vec<_> = commits.iter().map(|commit| &commit.whose).collect();
    keys.sort();
    keys.dedup();
    for whose in keys {
        let mine = || commits.iter().filter(|commit| &commit.whose == whose);
        let answered = mine().filter(|commit| commit.answered_at <= position);
        let begun = mine().filter(|commit| commit.begun_at <= position);
        let least = answered
            .map(|commit| commit.version)
            .max()
            .unwrap_or_default();
        let most = begun.map(|commit| commit.version).max().unwrap_or_default();
        let Stored {
            version,
            credential,
        } = store.load(whose).await.unwrap();
        assert!(
            least <= version && version <= most,
            "{what}: {version:?} of {whose:?} is there, {least:?} was answered and {most:?} begun"
        );
        if version > Version(0) {
            assert_eq!(
                credential.refresh_token,
                with_grant(&text(version)).refresh_token,
                "{what}"
            );
            assert_eq!(
                credential.spent.len(),
                version.0 as usize,
                "{what}: half of a commit"
            );
        }
    }
    recorder
}

fn text(version: Version) -> String {
    format!("grant {}", version.0)
}

fn at(version: Version) -> Credential {
    Credential {
        spent: vec![[version.0 as u8; 32]; version.0 as usize],
        ..with_grant(&text(version))
    }
}

/// Commits to one key, one after the other, then to many at once; and a plugin that makes the file grow.
async fn play(store: &EmbeddedStore, recorder: &Recorder) -> Vec<Commit> {
    let mut commits = Vec::new();
    let (ada, mut version) = (key("ada"), Version(2));
    for _ in 0..2 {
        let begun_at = recorder.position();
        let next = Version(version.0 + 1);
        version = store.commit(&ada, version, at(next)).await.unwrap();
        commits.push(Commit {
            whose: ada.clone(),
            version,
            answered_at: recorder.position(),
            begun_at,
        });
    }
    let begun_at = recorder.position();
    let many = (0..12).map(|number| {
        let (whose, recorder) = (key(&format!("user {number}")), recorder.clone());
        async move {
            let version = store
                .commit(&whose, Version(0), at(Version(1)))
                .await
                .unwrap();
            let answered_at = recorder.position();
            Commit {
                whose,
                version,
                answered_at,
                begun_at,
            }
        }
    });
    commits.extend(futures_util::future::join_all(many).await);
    store
        .keep_plugin("policy", Some(plugin("builtin:allowlist", &[7; 400_000])))
        .await
        .unwrap();
    commits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_moment_leaves_every_answered_commit_whole() {
    let place = Place::new();
    let store = place.open();
    for version in [1, 2].map(Version) {
        let before = Version(version.0 - 1);
        store
            .commit(&key("ada"), before, at(version))
            .await
            .unwrap();
    }
    drop(store);
    let before = place.bytes();

    let recorder = Recorder::of(before.clone());
    let store = EmbeddedStore::open_with(&place.path(), &KEY.into(), 0, recorder.engine()).unwrap();
    let opened_at = recorder.position();
    let mut commits = play(&store, &recorder).await;
    drop(store);
    commits.extend([1, 2].map(|version| Commit {
        whose: key("ada"),
        version: Version(version),
        answered_at: 0,
        begun_at: 0,
    }));
    let done = std::mem::take(&mut recorder.recorded().done);
    let syncs = done
        .iter()
        .filter(|done| matches!(done, Done::Sync))
        .count();
    assert!(
        opened_at > 0 && done.len() > 60 && syncs >= 10,
        "{} with {syncs} flushes",
        done.len()
    );

    let (mut disks, mut repairs) = (0, 0);
    for position in 0..=done.len() {
        let mut seen = Vec::new();
        for loss in losses(SUBSETS, position as u64) {
            let image = cut(&before, &done[..position], loss);
            // Of few writes many losses leave the same.
            if seen.contains(&image) {
                continue;
            }
            let what = format!("cut after {position} of {}, {loss:?}", done.len());
            let repaired = look(&image, &commits, position, &what).await;
            disks += 1;
            // And once more, while what the first cut left is repaired. The commits are as they were found.
            if matches!(loss, Loss::Nothing | Loss::Random(_)) && position % 8 == 0 {
                let repair = std::mem::take(&mut repaired.recorded().done);
                for again in 0..repair.len() {
                    for loss in losses(REPAIR_SUBSETS, again as u64) {
                        let twice = cut(&image, &repair[..again], loss);
                        let what = format!("{what}, then after {again} of the repair, {loss:?}");
                        look(&twice, &commits, position, &what).await;
                        repairs += 1;
                    }
                }
            }
            seen.push(image);
        }
    }
    assert!(
        disks > 250 && repairs > 1000,
        "{disks} disks, {repairs} cut repairs"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_is_left_out_would_be_noticed() {
    // What the test above is worth: a disk that lies about one flush loses an answered commit, and the cuts show it.
    let place = Place::new();
    drop(place.open());
    let before = place.bytes();
    let recorder = Recorder::of(before.clone());
    let store = EmbeddedStore::open_with(&place.path(), &KEY.into(), 0, recorder.engine()).unwrap();
    let begun_at = recorder.position();
    store
        .commit(&key("ada"), Version(0), at(Version(1)))
        .await
        .unwrap();
    let answered_at = recorder.position();
    let done = recorder.recorded().done[..answered_at].to_vec();
    drop(store);
    let without: Vec<_> = done
        .iter()
        .enumerate()
        .filter(|(at, done)| *at < begun_at || !matches!(done, Done::Sync))
        .map(|(_, done)| done.clone())
        .collect();
    let image = cut(&before, &without, Loss::Everything);
    std::fs::write(place.path(), image).unwrap();
    let lost = place
        .open()
        .commit(&key("ada"), Version(1), at(Version(2)))
        .await;
    assert_eq!(lost, Err(CommitFault::Conflict));
}
