//! Processor time of this process, which another process on the same machine does not lengthen as it does the time of day.

use std::fs;
use std::time::Duration;

/// What all threads that live have spent on a processor so far, to about a millisecond. A thread that ended in between takes
/// its share with it: what is measured keeps its threads.
///
/// # Panics
///
/// Where the kernel does not tell: Linux does.
pub fn spent() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("Linux tells processor time there");
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let nanos = threads.flatten().filter_map(of_thread).sum();
    Duration::from_nanos(nanos)
}
