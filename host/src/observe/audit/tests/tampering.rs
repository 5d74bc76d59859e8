//! Whatever is done to a log is found, or this says that it is not.

use proptest::prelude::*;

use super::*;

/// Lines of a file, without newlines.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn store(path: &Path, lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).unwrap();
}

/// The line with another detail, under a hash that fits again.
fn forged(line: &str) -> String {
    let covered = line
        .split(",\"hash\":")
        .next()
        .unwrap()
        .replace("record", "recorb");
    format!("{covered},\"hash\":\"{}\"}}", Hash::of(covered.as_bytes()))
}

/// What to do to the lines of the second file, in which way that is found, and on which line.
type Case = (&'static str, fn(&mut Vec<String>), How, Option<u64>);

#[test]
fn every_kind_of_tampering_is_found_at_its_line() {
    let table: [Case; 13] = [
        (
            "change a byte",
            |l| l[1] = l[1].replace("record", "recorb"),
            How::Changed,
            Some(2),
        ),
        (
            "change a hash",
            |l| l[1] = l[1].replace("\"hash\":\"", "\"hash\":\"0"),
            How::NotAnEntry,
            Some(2),
        ),
        (
            "forge an entry",
            |l| l[1] = forged(&l[1]),
            How::Changed,
            Some(3),
        ),
        (
            "remove a line",
            |l| drop(l.remove(2)),
            How::Removed,
            Some(3),
        ),
        ("swap two lines", |l| l.swap(1, 2), How::Reordered, Some(2)),
        (
            "write a line twice",
            |l| l.insert(2, l[1].clone()),
            How::Added,
            Some(3),
        ),
        (
            "bring an empty line in",
            |l| l.insert(1, String::new()),
            How::NotAnEntry,
            Some(2),
        ),
        (
            "bring a line in",
            |l| l.insert(1, "all is well".to_owned()),
            How::NotAnEntry,
            Some(2),
        ),
        (
            "remove the first line",
            |l| drop(l.remove(0)),
            How::Removed,
            Some(1),
        ),
        ("remove the last line", |l| drop(l.pop()), How::CutOff, None),
        ("cut everything", Vec::clear, How::CutOff, None),
        (
            "go on after the end",
            |l| l.push(l[1].clone()),
            How::Added,
            Some(8),
        ),
        (
            "write after the end",
            |l| l.push("x".to_owned()),
            How::NotAnEntry,
            Some(8),
        ),
    ];
    for (what, tamper, how, line) in table {
        let (dir, _) = grown();
        let path = dir.path().join("audit.log.2");
        let mut all = lines(&path);
        assert_eq!(all.len(), 7, "the table counts on it");
        tamper(&mut all);
        store(&path, &all);
        let found = assert_broken(&dir);
        assert_eq!(
            (found.how, found.line, &found.file),
            (how, line, &path),
            "{what}: {found}"
        );
        assert!(found.good.is_some(), "{what}: the first file is good");
    }
}

#[test]
fn whole_files_that_are_missing_or_mixed_up_are_found() {
    type Case = (&'static str, fn(&Path), &'static str);
    let table: [Case; 6] = [
        (
            "remove the oldest",
            |d| fs::remove_file(d.join("audit.log.1")).unwrap(),
            "audit.log.1",
        ),
        (
            "remove one between",
            |d| fs::remove_file(d.join("audit.log.2")).unwrap(),
            "audit.log.2",
        ),
        (
            "mix up two",
            |d| {
                fs::rename(d.join("audit.log.2"), d.join("x")).unwrap();
                fs::rename(d.join("audit.log.3"), d.join("audit.log.2")).unwrap();
                fs::rename(d.join("x"), d.join("audit.log.3")).unwrap();
            },
            "audit.log.2",
        ),
        (
            "bring a copy in",
            |d| assert!(fs::copy(d.join("audit.log.2"), d.join("audit.log.99")).is_ok()),
            "audit.log",
        ),
        (
            "have one twice",
            |d| assert!(fs::copy(d.join("audit.log.2"), d.join("audit.log.2.broken")).is_ok()),
            "audit.log.2",
        ),
        (
            "put an old one in the place of the newest",
            |d| assert!(fs::copy(d.join("audit.log.2"), d.join("audit.log")).is_ok()),
            "audit.log.2",
        ),
    ];
    for (what, tamper, file) in table {
        let (dir, _) = grown();
        tamper(dir.path());
        let found = assert_broken(&dir);
        let name = found.file.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            (found.how, name.starts_with(file)),
            (How::File, true),
            "{what}: {found}"
        );
    }
}

#[test]
fn an_end_that_was_cut_off_is_found_only_by_a_head_noted_elsewhere() {
    let (dir, head) = grown();
    let path = dir.path().join("audit.log");
    assert_eq!(
        verify(&path, &[head.hash]).unwrap().expected[0].entries_after,
        0
    );
    let mut all = lines(&path);
    assert!(all.len() > 2);
    all.pop();
    store(&path, &all);
    // This is the limit of a chain without a witness: what is left is a log that ended earlier.
    assert_sound(&dir);
    let found = verify(&path, &[head.hash]).unwrap_err().to_string();
    assert!(
        found.contains(&head.hash.to_string()) && found.contains("cut off"),
        "{found}"
    );
    // The newest file as a whole is no different.
    fs::remove_file(&path).unwrap();
    assert_eq!(assert_sound(&dir).end, End::Closed);
    assert!(verify(&path, &[head.hash]).is_err());
}

#[test]
fn a_log_written_anew_is_found_only_by_a_head_noted_elsewhere() {
    let (_, head) = grown();
    let (dir, _) = grown();
    assert_sound(&dir);
    assert!(verify(&dir.path().join("audit.log"), &[head.hash]).is_err());
}

#[test]
fn a_log_found_broken_is_set_aside_as_it_is_and_stays_broken() {
    let (dir, _) = grown();
    let path = dir.path().join("audit.log");
    let tampered = fs::read_to_string(&path)
        .unwrap()
        .replace("record", "recorb");
    fs::write(&path, &tampered).unwrap();
    let mut log = opened(settings(dir.path(), SMALL));
    written(&mut log, 20..22);
    let codes: Vec<_> = log.news().into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["audit_broken"]);
    drop(log);
    let aside = Paths::new(&path).list().unwrap().pop().unwrap();
    assert!(aside.broken, "{aside:?}");
    assert_eq!(fs::read_to_string(&aside.path).unwrap(), tampered);
    // What it was found as is in the new file, in case somebody mends it.
    let first = lines(&path).remove(0);
    assert!(
        first.contains(&Hash::of(tampered.as_bytes()).to_string()),
        "{first}"
    );
    let found = assert_broken(&dir);
    assert_eq!(
        (found.how, &found.file),
        (How::Changed, &aside.path),
        "{found}"
    );
    // Nor does it help to put a file there that is whole.
    let mended = tampered.replace("recorb", "record");
    fs::write(&aside.path, mended).unwrap();
    assert!(matches!(
        assert_broken(&dir).how,
        How::CutOff | How::FoundBroken
    ));
    // The next start has nothing to set aside, and goes on.
    written(&mut opened(settings(dir.path(), SMALL)), 22..23);
    assert_eq!(occurrences(&dir, 23)[20..], [1; 3]);
}

#[test]
fn a_file_that_was_emptied_is_told_from_a_new_one() {
    let (dir, _) = grown();
    fs::write(dir.path().join("audit.log"), "").unwrap();
    assert_eq!(assert_broken(&dir).how, How::CutOff);
    let mut log = opened(settings(dir.path(), SMALL));
    written(&mut log, 20..21);
    assert_eq!(log.news()[0].0, "audit_broken");
}

/// What a change does to one byte.
#[derive(Clone, Copy, Debug)]
enum Change {
    Replace,
    Remove,
    Insert,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_byte_that_is_changed_removed_or_brought_in_is_found(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        change in prop_oneof![Just(Change::Replace), Just(Change::Remove), Just(Change::Insert)],
    ) {
        // One log for all cases, as bytes; each case has files of its own.
        static LOG: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
        let log = LOG.get_or_init(|| {
            let (dir, head) = grown();
            let path = dir.path().join("audit.log");
            // A torn line that is told of has to hold as well.
            let torn = fs::read_to_string(&path).unwrap() + "{\"seq\":";
            fs::write(&path, torn).unwrap();
            let mut log = opened(settings(dir.path(), SMALL));
            written(&mut log, 20..21);
            assert!(log.head().seq > head.seq);
            let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
            let names = names.map(|entry| entry.file_name().into_string().unwrap());
            let mut names: Vec<_> = names.filter(|name| !name.ends_with("lock")).collect();
            names.sort();
            names.into_iter().map(|name| (name.clone(), fs::read(dir.path().join(name)).unwrap())).collect()
        });
        let total: usize = log.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut at = place.index(total);
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in log {
            let mut bytes = bytes.clone();
            if at < bytes.len() {
                match change {
                    Change::Replace if bytes[at] == byte => bytes[at] = !byte,
                    Change::Replace => bytes[at] = byte,
                    Change::Remove => drop(bytes.remove(at)),
                    Change::Insert => bytes.insert(at, byte),
                }
                at = usize::MAX;
            } else if at != usize::MAX {
                at -= bytes.len();
            }
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let found = checked(&dir);
        // A last line without its newline says what it said: a newline is no part of an entry.
        let last = log.iter().find(|(name, _)| name == "audit.log").unwrap();
        let only_newline = fs::read(dir.path().join("audit.log")).unwrap() == last.1[..last.1.len() - 1];
        prop_assert!(found.is_err() || only_newline, "{change:?} {byte}: {found:?}");
    }
}
