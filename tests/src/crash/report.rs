//! What a run says at its end: a table for people, JSON for machines, and whether all was well.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::aim::Aim;
use super::memory::Found;
pub use super::oracle::Tally;
use super::upstream::Kind;

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Against which authorization server.
    pub issuer: Kind,
    /// From which seed.
    pub seed: u64,
    /// Kills by what they were aimed at.
    pub kills: BTreeMap<&'static str, usize>,
    /// Of these: the moment did not come, and the process was killed all the same.
    pub missed: usize,
    /// Processes started.
    pub lives: usize,
    /// Of these: ended by themselves instead of serving.
    pub refused_starts: usize,
    /// Tokens that callers got.
    pub tokens: usize,
    /// What became of every rotation.
    pub rotations: Tally,
    /// Secrets and tokens that the file and the logs were searched for.
    pub secrets: usize,
    /// Length of the file at the end.
    pub file_bytes: usize,
    /// What was found in the memory of the last process, where that was looked for.
    pub memory: Vec<Found>,
    /// What must not happen and did.
    pub violations: Vec<String>,
    /// How long starts took, until `/healthz` answered.
    #[serde(skip)]
    pub(super) starts: Vec<Duration>,
    /// How long each life took, from its start to the next one's.
    #[serde(skip)]
    pub(super) cycles: Vec<Duration>,
}

// === impl Report ===

impl Report {
    pub(super) fn blank() -> Self {
        Self {
            issuer: Kind::Strict,
            seed: 0,
            kills: BTreeMap::new(),
            missed: 0,
            lives: 0,
            refused_starts: 0,
            tokens: 0,
            rotations: Tally::default(),
            secrets: 0,
            file_bytes: 0,
            memory: Vec::new(),
            violations: Vec::new(),
            starts: Vec::new(),
            cycles: Vec::new(),
        }
    }

    /// How often the process was killed.
    pub fn killed(&self) -> usize {
        self.kills.values().sum()
    }

    /// Whether nothing happened that must not.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.rotations;
        let mut row = |what: &str, count: usize| writeln!(f, "{what:<58}{count:>9}");
        row("kills", self.killed())?;
        for aim in Aim::ALL {
            let kills = self.kills.get(aim.label()).copied();
            row(&format!("  {}", aim.label()), kills.unwrap_or_default())?;
        }
        row("  aimed, and the moment did not come", self.missed)?;
        row("processes started", self.lives)?;
        row("tokens served", self.tokens)?;
        row("rotations", tally.rotations)?;
        row("  kept", tally.kept)?;
        row(
            "    of these issued before a kill, presented after it",
            tally.kept_over_a_kill,
        )?;
        row(
            "  answer lost, recovered inside the grace",
            tally.recovered_in_grace,
        )?;
        row(
            "  answer lost, and the credential ended",
            tally.lost_with_their_credential,
        )?;
        row(
            "  of the lost ones, read by the process before the kill",
            tally.lost_in_hand,
        )?;
        row("credentials ended and handed over anew", tally.ended)?;
        row(
            "  of these marked, and the grant never left",
            tally.ended_unsent,
        )?;
        row("grants of unknown kind probed once more", tally.probes)?;
        row("  of these refused", tally.probes_refused)?;
        row(
            "  refused, and sent again after a kill",
            tally.probes_repeated,
        )?;
        row("replays", tally.replays)?;
        row("refused starts", self.refused_starts)?;
        row(
            "secrets and tokens searched for in file and logs",
            self.secrets,
        )?;
        row("violations", self.violations.len())?;
        let span = |f: &mut fmt::Formatter<'_>, what: &str, spans: &[Duration]| {
            let mut spans = spans.to_vec();
            spans.sort_unstable();
            let at = |share: usize| {
                spans.get((spans.len() * share / 100).min(spans.len().saturating_sub(1)))
            };
            let millis = |span: Option<&Duration>| span.map_or(0, |span| span.as_millis());
            writeln!(
                f,
                "{what}: median {} ms, 99th percentile {} ms",
                millis(at(50)),
                millis(at(99))
            )
        };
        span(f, "a start", &self.starts)?;
        span(f, "a life, from start to start", &self.cycles)?;
        writeln!(
            f,
            "longest between the end of a connection and a kill that lost its answer: {} ms",
            tally.in_hand_at_most_ms
        )?;
        for found in &self.memory {
            let Found {
                what,
                values,
                found,
                copies,
            } = found;
            writeln!(
                f,
                "in memory at rest, {what}: {found} of {values}, {copies} copies"
            )?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION {violation}")?;
        }
        Ok(())
    }
}
