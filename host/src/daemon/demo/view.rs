//! What the demo shows: a live line on a terminal, plain lines elsewhere, JSON when asked for, and a closing table.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};

use super::Verdict;
use super::stage::Stage;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// The table's width where the terminal's is unknown.
const WIDTH: u16 = 110;

pub(super) struct View {
    json: bool,
    terminal: bool,
    live: Option<ProgressBar>,
}

// === impl View ===

impl View {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: !json && console::user_attended(),
            live: None,
        }
    }

    pub(super) fn opening(&mut self, stage: &Stage) -> io::Result<()> {
        self.say(&format!(
            "Keyfob demo: a strict issuer at {}, the real broker, real plugins in the sandbox.\n",
            stage.issuer.base_url(),
        ))
    }

    /// The curtain rises.
    pub(super) fn act(&mut self, title: &str, setting: &str) -> io::Result<()> {
        self.say(&format!("act {title}: {setting}"))?;
        if self.terminal {
            let style =
                ProgressStyle::with_template("      {spinner} {elapsed_precise}  {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let live = ProgressBar::new_spinner().with_style(style);
            live.enable_steady_tick(TICK);
            self.live = Some(live);
        }
        Ok(())
    }

    /// What happens now, on a terminal only.
    pub(super) fn live(&self, line: &str) {
        if let Some(live) = &self.live {
            live.set_message(line.to_owned());
        }
    }

    /// Something worth a line of its own.
    pub(super) fn note(&self, line: &str) -> io::Result<()> {
        self.say(&format!("      {line}"))
    }

    /// The curtain falls.
    pub(super) fn verdict(&mut self, verdict: Verdict) -> io::Result<Verdict> {
        if let Some(live) = self.live.take() {
            live.finish_and_clear();
        }
        let mark = if verdict.held { "held" } else { "BROKEN" };
        self.say(&format!(
            "      {}\n      {mark}: {}\n",
            verdict.measured, verdict.promise
        ))?;
        Ok(verdict)
    }

    pub(super) fn closing(&self, verdicts: &[Verdict], calls: u64) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let summary = serde_json::json!({
                "held": verdicts.iter().all(|verdict| verdict.held),
                "issuer_calls": calls,
                "acts": verdicts,
            });
            return writeln!(out, "{summary:#}");
        }
        let mut table = Table::new();
        table
            .load_style(UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic);
        let width = if self.terminal {
            console::Term::stdout().size().1
        } else {
            WIDTH
        };
        table
            .set_width(width.max(60))
            .set_header(["act", "promise", "measured", ""]);
        for verdict in verdicts {
            let mark = if verdict.held { "held" } else { "BROKEN" };
            table.add_row([verdict.act, verdict.promise, &verdict.measured, mark]);
        }
        writeln!(out, "{table}")?;
        let held = verdicts.iter().filter(|verdict| verdict.held).count();
        writeln!(
            out,
            "{held} of {} promises held, with {calls} issuer calls in all.",
            verdicts.len()
        )
    }

    fn say(&self, line: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        match &self.live {
            Some(live) => live.suspend(|| writeln!(io::stdout().lock(), "{line}")),
            None => writeln!(io::stdout().lock(), "{line}"),
        }
    }
}
