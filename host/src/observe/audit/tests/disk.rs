//! What crashes and full disks do to a log, and what it makes of that.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// A file that takes so many bytes more, and writes what fits before it fails, as a full disk does.
struct Filling {
    file: fs::File,
    room: Arc<AtomicU64>,
}

/// For a disk with room.
const ROOM: u64 = u64::MAX >> 1;

impl Sink for Filling {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        let fits = bytes.len().min(usize::try_from(room).unwrap());
        self.file.append(&bytes[..fits])?;
        self.room.store(room - fits as u64, Ordering::SeqCst);
        match fits == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.room.load(Ordering::SeqCst) {
            0 => Err(io::ErrorKind::StorageFull.into()),
            // Nothing crashes here: what is flushed is what was written.
            _ => Ok(()),
        }
    }
}

fn filling(settings: Settings) -> (Log, Arc<AtomicU64>) {
    let room = Arc::new(AtomicU64::new(ROOM));
    let given = room.clone();
    let sink = move |file| -> Box<dyn Sink> {
        let room = given.clone();
        Box::new(Filling { file, room })
    };
    (opened_through(settings, through(sink)), room)
}

fn active(dir: &TempDir) -> std::path::PathBuf {
    dir.path().join("audit.log")
}

#[test]
fn a_disk_that_fills_up_anywhere_costs_no_entry_and_makes_none_twice() {
    // Three records with the end of a file between them, and what is left of the disk when they are written: every byte of
    // them is a place to fail.
    let base = tempfile::tempdir().unwrap();
    written(&mut opened(settings(base.path(), SMALL)), 0..4);
    for room in 0..1_000 {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(active(&base), active(&dir)).unwrap();
        let (mut log, left) = filling(settings(dir.path(), SMALL));
        log.add((4..7).map(record));
        left.store(room, Ordering::SeqCst);
        let failed = log.write().is_err();
        // A second failure finds what the first has left, and leaves more.
        left.store(100, Ordering::SeqCst);
        let _ = log.write();
        left.store(ROOM, Ordering::SeqCst);
        log.add([record(7)]);
        log.write().unwrap();
        assert_eq!(occurrences(&dir, 8), [1; 8], "{room} bytes left");
        let verified = assert_sound(&dir);
        assert!(verified.files >= 2, "{room} bytes left: {verified:?}");
        assert!(failed || room > 800, "{room} bytes left: {verified:?}");
        assert!(verified.recovered <= 2, "{room} bytes left: {verified:?}");
    }
}

#[test]
fn a_file_that_cannot_be_begun_is_begun_when_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(settings(dir.path(), SMALL));
    written(&mut log, 0..4);
    let in_the_way = dir.path().join("audit.log.new");
    fs::create_dir(&in_the_way).unwrap();
    log.add((4..8).map(record));
    for _ in 0..3 {
        assert!(log.write().is_err());
        assert_eq!(assert_sound(&dir).end, End::Closed);
    }
    fs::remove_dir(&in_the_way).unwrap();
    log.write().unwrap();
    assert_eq!(occurrences(&dir, 8), [1; 8]);
    assert_eq!(assert_sound(&dir).files, 2);
    let codes: Vec<_> = log.news().into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["audit_rotated"]);
}

#[test]
fn a_crash_in_any_byte_of_an_entry_leaves_a_log_that_goes_on() {
    let (base, _) = grown();
    let whole = fs::read(active(&base)).unwrap();
    let start = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    for end in start + 1..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(base.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        let torn = &whole[..end];
        fs::write(active(&dir), torn).unwrap();
        let complete = end == whole.len() - 1;
        assert_eq!(
            checked(&dir).is_ok(),
            complete,
            "{end}: only the newline is missing, or more"
        );

        let mut log = opened(settings(dir.path(), SMALL * 10));
        written(&mut log, 20..22);
        assert!(
            fs::read(active(&dir)).unwrap().starts_with(torn),
            "what was there stays"
        );
        let verified = assert_sound(&dir);
        assert_eq!(verified.recovered, u64::from(!complete), "{end}");
        assert_eq!(occurrences(&dir, 22)[20..], [1; 2]);

        // Nobody can put a line there that says something else and have it pass for a crash.
        let text = String::from_utf8_lossy(&fs::read(active(&dir)).unwrap()).into_owned();
        if !complete && end > start + 8 {
            fs::write(
                active(&dir),
                text.replacen(&text[start..start + 8], "{\"sep\":9", 1),
            )
            .unwrap();
            assert_broken(&dir);
        }
    }
}

#[test]
fn a_crash_while_a_crash_is_told_of_leaves_a_log_that_goes_on() {
    let (base, _) = grown();
    let torn = fs::read_to_string(active(&base)).unwrap() + "{\"seq\":7,\"a";
    fs::write(active(&base), &torn).unwrap();
    written(&mut opened(settings(base.path(), SMALL * 10)), 20..21);
    let told = fs::read_to_string(active(&base)).unwrap();
    let recovered = told[torn.len()..].find("\n{").unwrap() + torn.len();
    let line_end = told[recovered + 1..].find('\n').unwrap() + recovered + 1;
    for end in recovered + 2..line_end {
        fs::write(active(&base), &told[..end]).unwrap();
        written(&mut opened(settings(base.path(), SMALL * 10)), 21..22);
        assert_eq!(assert_sound(&base).recovered, 1, "{end}");
    }
}

#[test]
fn a_last_line_that_was_changed_does_not_pass_for_a_crash() {
    for (from, to) in [
        ("record 19", "record 91"),
        ("\"}\n", "\"]\n"),
        ("\"hash\":\"", "\"hush\":\""),
    ] {
        let (dir, _) = grown();
        let text = fs::read_to_string(active(&dir)).unwrap();
        let at = text.rfind(from).unwrap();
        let changed = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
        fs::write(active(&dir), &changed).unwrap();
        let mut log = opened(settings(dir.path(), SMALL));
        written(&mut log, 20..21);
        assert_eq!(log.news()[0].0, "audit_broken", "{to}");
        drop(log);
        assert_broken(&dir);
    }
}

#[test]
fn a_crash_between_two_files_leaves_a_log_that_goes_on() {
    let closed_not_renamed = |dir: &Path| {
        fs::remove_file(dir.join("audit.log")).unwrap();
        let last = Paths::new(&dir.join("audit.log"))
            .list()
            .unwrap()
            .pop()
            .unwrap();
        fs::rename(last.path, dir.join("audit.log")).unwrap();
    };
    let renamed_and_none_begun = |dir: &Path| fs::remove_file(dir.join("audit.log")).unwrap();
    let half_begun = |dir: &Path| {
        fs::remove_file(dir.join("audit.log")).unwrap();
        fs::write(dir.join("audit.log.new"), "{\"seq\":").unwrap();
    };
    let crashes: [&dyn Fn(&Path); 3] = [&closed_not_renamed, &renamed_and_none_begun, &half_begun];
    for crash in crashes {
        let (dir, _) = grown();
        crash(dir.path());
        let mut log = opened(settings(dir.path(), SMALL));
        written(&mut log, 20..22);
        assert!(log.news().iter().all(|(code, _)| *code == "audit_rotated"));
        assert_eq!(assert_sound(&dir).recovered, 0);
        assert_eq!(occurrences(&dir, 22)[20..], [1; 2]);
    }
}

#[test]
fn a_file_that_is_taken_away_under_the_writer_is_missed_when_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(settings(dir.path(), SMALL));
    written(&mut log, 0..1);
    fs::remove_file(active(&dir)).unwrap();
    written(&mut log, 1..20);
    assert!(log.news().iter().any(|(code, _)| *code == "audit_broken"));
    let found = assert_broken(&dir);
    assert!(matches!(found.how, How::File | How::FoundBroken), "{found}");
}

#[test]
fn a_crash_in_the_entry_that_closes_a_file_leaves_a_log_that_goes_on() {
    let (base, _) = grown();
    let closed = Paths::new(&active(&base)).list().unwrap().pop().unwrap();
    let whole = fs::read(&closed.path).unwrap();
    let start = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap();
    for end in start + 1..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        for number in 1..closed.number {
            let name = format!("audit.log.{number}");
            fs::copy(base.path().join(&name), dir.path().join(&name)).unwrap();
        }
        fs::write(active(&dir), &whole[..end]).unwrap();
        written(&mut opened(settings(dir.path(), SMALL)), 90..91);
        let verified = assert_sound(&dir);
        assert_eq!(verified.entries, verified.last.seq, "{end}");
    }
}

#[test]
fn a_full_disk_that_has_a_little_room_now_and_then_is_no_tampering() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, left) = filling(settings(dir.path(), 1 << 20));
    written(&mut log, 0..1);
    log.add([record(1)]);
    for room in [40, 9, 1, 2, 70, 3, 1, 1, 30, 5] {
        left.store(room, Ordering::SeqCst);
        assert!(log.write().is_err());
    }
    left.store(ROOM, Ordering::SeqCst);
    log.write().unwrap();
    assert_eq!(occurrences(&dir, 2), [1; 2]);
    let verified = assert_sound(&dir);
    assert_eq!((verified.files, verified.recovered), (1, 1));
}

#[test]
fn a_file_without_its_first_entry_is_set_aside() {
    let (base, _) = grown();
    let first = fs::read_to_string(active(&base)).unwrap();
    let first = first.lines().next().unwrap();
    for end in [1, 40, first.len() - 1] {
        fs::write(active(&base), &first[..end]).unwrap();
        let mut log = opened(settings(base.path(), SMALL));
        written(&mut log, 30..31);
        assert_eq!(log.news()[0].0, "audit_broken");
        drop(log);
        assert_eq!(assert_broken(&base).how, How::CutOff);
    }
}
