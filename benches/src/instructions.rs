//! Counting instructions: a suite runs itself once more under valgrind for each row, which counts what is executed inside
//! `measured` and nowhere else. Other threads are not counted: what is to be counted must stay on the thread that asks.
//!
//! Time on a shared machine says little about a small change; this says it to the last digit, and knows nothing of caches and
//! of the kernel.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::record::Record;

/// Tells the process under valgrind what it is for; the row follows.
const ARGUMENT: &str = "--count-instructions";
/// [`measured`] as valgrind knows it, however its name is mangled.
const MEASURED: &str = "*keyfob_benches*instructions*measured*";
/// Enough that what comes only now and then (a table that grows, a decision that is taken anew) is spread out.
const TIMES: u32 = 30;
/// Before it is counted.
const WARM: u32 = 5;
/// The stacks of guests are far from the thread's own, and smaller than this.
const STACK_BYTES_MAX: usize = 64 << 20;

/// Something to be counted: its name, and what sets it up. One call of what comes of that is one operation.
pub type Row = (&'static str, fn() -> Box<dyn FnMut()>);

/// Counts the row that this process was started for; false when it was started for something else.
///
/// # Panics
///
/// When there is no such row.
pub fn counts(rows: &[Row]) -> bool {
    let mut arguments = std::env::args().skip_while(|argument| argument != ARGUMENT);
    let Some(name) = arguments.nth(1) else {
        return false;
    };
    let row = rows.iter().find(|(its, _)| *its == name);
    let (_, set_up) = row.expect("started by the suite itself");
    let mut run = set_up();
    for _ in 0..WARM {
        run();
    }
    measured(std::hint::black_box(&mut *run));
    true
}

/// What is executed in here is counted.
#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        run();
    }
}

/// Runs this suite under valgrind for every row and records what it counted for one operation.
///
/// # Errors
///
/// Without valgrind, with the command that installs it; and when one of them does not come to its end: a machine so busy that
/// a plugin does not compile there in a minute has no time for this.
pub fn record(record: &mut Record, group: &str, rows: &[Row]) -> Result<()> {
    for (name, _) in rows {
        let output = start(name)?.wait_with_output()?;
        let heard = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{name} under valgrind: {heard}");
        let collected = heard
            .lines()
            .find_map(|line| line.split_once("Collected :"));
        let (_, count) = collected.with_context(|| format!("no count in: {heard}"))?;
        let count: f64 = count.trim().parse()?;
        anyhow::ensure!(count > 0.0, "{name}: nothing was counted: {heard}");
        record.row(group, name, count / f64::from(TIMES), "instructions", "");
    }
    Ok(())
}

fn start(row: &str) -> Result<Child> {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--max-stackframe={STACK_BYTES_MAX}"))
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg("--callgrind-out-file=/dev/null")
        .arg(std::env::current_exe()?)
        .args([ARGUMENT, row])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("instructions are counted by valgrind: apt-get install valgrind")
}
