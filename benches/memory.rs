//! How many bytes does a token take beyond its key and itself? The whole of it: index, remembered decision, slot, token,
//! schedule; next to maps that hold the same keys and payloads and nothing else.
//!
//! Bytes in use are counted by the allocator, so that they are the same in every run; what the process holds includes what
//! the allocator wastes. Each row is a process of its own: memory that another row gave back would be counted for less.
//! `-- 100000` takes one size only.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use keyfob::model::time::UnixTime;
use keyfob::schedule::Scheduler;
use keyfob_benches::cached::{self, Cached, TOKEN_BYTES};
use keyfob_benches::live::{Counting, live_bytes, resident_bytes};
use keyfob_benches::record::Record;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many keys.
const SIZES: [usize; 2] = [100_000, 1_000_000];
/// Tells a process which row it is for.
const ARGUMENT: &str = "--fill";
/// Of a key's name, as every row has it.
const SUBJECT_BYTES: usize = "user-".len() + 32;
/// Renewals are filed over an hour.
const SPREAD: u64 = 3_600;

/// Fills something with so many keys, and answers with it so that it lives.
type Fill = fn(usize) -> Box<dyn std::any::Any>;

/// What is compared, as it is filled.
const ROWS: [(&str, Fill); 6] = [
    ("ours: index, decision, slot, token", |keys| {
        Box::new(Cached::new(keys).cache)
    }),
    ("ours, and its renewal filed", |keys| {
        let cached = Cached::new(keys);
        let scheduler = Scheduler::new(cached.now);
        for (number, slot) in cached.slots.iter().enumerate() {
            let after = Duration::from_secs(1 + number as u64 % SPREAD);
            assert!(scheduler.file(slot, cached.now.plus(after)));
        }
        Box::new((cached.cache, scheduler))
    }),
    ("floor: hashbrown", |keys| {
        let mut map = cached::Plain::default();
        map.extend(entries(keys));
        Box::new(map)
    }),
    ("floor: dashmap", |keys| {
        let map = dashmap::DashMap::with_hasher(foldhash::quality::RandomState::default());
        for (key, value) in entries(keys) {
            map.insert(key, value);
        }
        Box::new(map)
    }),
    ("floor: papaya", |keys| {
        let map = papaya::HashMap::builder()
            .hasher(foldhash::quality::RandomState::default())
            .build();
        for (key, value) in entries(keys) {
            map.pin().insert(key, value);
        }
        Box::new(map)
    }),
    ("floor: moka", |keys| {
        let cache = moka::sync::Cache::builder()
            .max_capacity(keys as u64)
            .build_with_hasher(foldhash::quality::RandomState::default());
        for (key, value) in entries(keys) {
            cache.insert(key, value);
        }
        cache.run_pending_tasks();
        assert_eq!(cache.entry_count(), keys as u64);
        Box::new(cache)
    }),
];

/// The keys and payloads of every floor: a name, an end, a token.
fn entries(keys: usize) -> impl Iterator<Item = (Box<str>, (UnixTime, Arc<str>))> {
    (0..keys).map(|number| {
        let token: Arc<str> = format!("{number:0>TOKEN_BYTES$}").into();
        (cached::subject(number).into(), (UnixTime::MAX, token))
    })
}

/// Fills one row in this process and prints what it took.
#[expect(clippy::print_stdout, reason = "the other process reads it")]
fn fill(row: usize, keys: usize) {
    let (live, resident) = (live_bytes(), resident_bytes().unwrap_or(0));
    let filled = ROWS[row].1(keys);
    let live = live_bytes() - live;
    let resident = resident_bytes().unwrap_or(0).saturating_sub(resident);
    println!("{live} {resident}");
    drop(black_box(filled));
}

/// Fills one row in a process of its own: bytes in use, and bytes held.
fn measure(row: usize, keys: usize) -> Result<[f64; 2]> {
    let output = Command::new(std::env::current_exe()?)
        .args([ARGUMENT, &row.to_string(), &keys.to_string()])
        .output()?;
    let heard = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{}: {heard}", ROWS[row].0);
    let text = String::from_utf8(output.stdout)?;
    let (live, resident) = text.trim().split_once(' ').context(heard)?;
    Ok([live.parse()?, resident.parse()?])
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == ARGUMENT) {
        let number = |after: usize| -> Result<usize> {
            Ok(arguments.get(at + after).context("a number")?.parse()?)
        };
        fill(number(1)?, number(2)?);
        return Ok(());
    }
    let asked: Option<usize> = arguments.iter().find_map(|argument| argument.parse().ok());
    let sizes = asked.map_or(SIZES.to_vec(), |size| vec![size]);
    let mut record = Record::new("memory");
    let payload = (SUBJECT_BYTES + TOKEN_BYTES) as f64;
    for keys in sizes {
        let measured: Result<Vec<_>> = (0..ROWS.len()).map(|row| measure(row, keys)).collect();
        let measured = measured?;
        for (column, what) in ["in use", "held by the process"].into_iter().enumerate() {
            let group = format!("{keys} keys, bytes {what} beyond key and token");
            for ((name, _), bytes) in ROWS.iter().zip(&measured) {
                let each = bytes[column] / keys as f64 - payload;
                record.row(&group, name, each, "B an entry", "");
            }
        }
    }
    record.save()?;
    Ok(())
}
