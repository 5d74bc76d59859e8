//! Which core does what: whoever is measured has one for itself, and whoever asks has the other.

use std::fs;
use std::process::{Command, Stdio};

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
    let status = Command::new("taskset")
        .args(["--cpu-list", "--pid", &core.to_string()])
        .arg(thread)
        .stdout(Stdio::null())
        .status()
        .context("running taskset: apt-get install util-linux")?;
    ensure!(
        status.success(),
        "no thread can be kept on core {core}: these suites need two"
    );
    Ok(())
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
    fn a_core_that_is_not_there_is_refused() {
        assert!(keep_this_thread_on(100_000).is_err());
    }
}
