//! Which core does what: whoever is measured has one for itself, and whoever asks has the other.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// For servers, and for whatever works behind the callers' backs.
pub const SERVERS: usize = 0;
/// For whoever asks, and looks at the clock.
pub const CALLERS: usize = 1;

/// Keeps the calling thread, and every thread it starts from now on, on one core.
///
/// # Errors
///
/// When the machine has no such core, or there is no `taskset`.
pub fn keep_this_thread_on(core: usize) -> Result<()> {
    let thread = fs::read_link("/proc/thread-self").context("the number of this thread")?;
    let thread = thread.file_name().context("/proc/thread-self ends in it")?;
    // The program, not the system call: that would be the only unsafe code of the suites.
    let output = Command::new("taskset")
        .args(["--cpu-list", "--pid", &core.to_string()])
        .arg(thread)
        .output()
        .context("running taskset: apt-get install util-linux")?;
    ensure!(
        output.status.success(),
        "no thread can be kept on core {core}, and these suites need two: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Interrupts that other cores sent to this one, up to now: to wake somebody there, or to have something done, such as
/// forgetting memory that was unmapped.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn interrupts(core: usize) -> Result<u64> {
    let table = fs::read_to_string("/proc/interrupts")?;
    interrupts_in(&table, core).with_context(|| format!("interrupts of core {core}"))
}

fn interrupts_in(table: &str, core: usize) -> Option<u64> {
    let (columns, rows) = table.split_once('\n')?;
    let name = format!("CPU{core}");
    let column = columns.split_whitespace().position(|cpu| cpu == name)?;
    let sent = rows.lines().filter_map(|row| {
        let (name, counts) = row.trim_start().split_once(':')?;
        // Memory that was unmapped is in `CAL`, and in `TLB` once more.
        matches!(name, "RES" | "CAL").then_some(counts)
    });
    sent.map(|counts| counts.split_whitespace().nth(column)?.parse::<u64>().ok())
        .sum()
}

/// A runtime of one thread on the servers' core: an issuer or a broker lives there, and disturbs no caller.
///
/// # Errors
///
/// When the thread cannot be had.
pub fn back() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(|| keep_this_thread_on(SERVERS).expect("a core for the servers"))
        .enable_all()
        .build();
    runtime.context("a runtime for what works behind the callers")
}

/// A runtime for the callers, in the calling thread, which stays on their core from now on.
///
/// # Errors
///
/// When it cannot be had.
pub fn front() -> Result<tokio::runtime::Runtime> {
    keep_this_thread_on(CALLERS)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("a runtime for the callers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_put() {
        let allowed = std::thread::spawn(|| {
            keep_this_thread_on(SERVERS).unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            line.unwrap().trim().to_owned()
        });
        assert_eq!(allowed.join().unwrap(), SERVERS.to_string());
    }

    #[test]
    fn interrupts_are_counted_for_one_core() {
        let table = "           CPU0       CPU1
   0:         99         99   timer
 LOC:        500        600   Local timer interrupts
 RES:         10         20   Rescheduling interrupts
 CAL:          3          4   Function call interrupts
 TLB:          1          2   TLB shootdowns
";
        assert_eq!(interrupts_in(table, 1), Some(24));
        assert_eq!(interrupts_in(table, 7), None);
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        assert!(keep_this_thread_on(100_000).is_err());
    }
}
