//! How a command ends: an exit code from a closed set that scripts can rely on, and the words for it.

use std::process::{ExitCode, Termination};

use serde_json::{Value, json};

use crate::daemon::config::Mistake;

/// An exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Something failed that none of the others says.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The configuration is wrong.
    Config = 3,
    /// The daemon cannot be reached.
    Unreachable = 4,
    /// Not known, or not allowed.
    Denied = 5,
    /// A human must authorize again.
    Human = 6,
    /// Not now; later may succeed.
    Unavailable = 7,
    /// The plugin, its settings or the grant was refused.
    Refused = 8,
    /// The audit log does not hold together.
    Broken = 9,
}

/// The codes, as `--help` shows them.
pub(super) const HELP: &str = "\
Exit codes:
  0  done
  1  failed in another way than these
  2  the arguments make no sense
  3  the configuration is wrong
  4  the daemon cannot be reached
  5  not known, or not allowed
  6  a human must authorize again
  7  not now; later may succeed
  8  the plugin, its settings or the grant was refused
  9  the audit log does not hold together";

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
    /// The same for machines.
    pub(super) details: Value,
}

// === impl Exit ===

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            exit,
            details: json!({ "error": message }),
            message,
        }
    }

    /// The same, of a line of input.
    pub(super) fn at_line(mut self, line: u64) -> Self {
        self.message = format!("line {line}: {}", self.message);
        if let Value::Object(details) = &mut self.details {
            details.insert("line".to_owned(), line.into());
        }
        self
    }

    /// Everything wrong with a configuration.
    pub(super) fn mistakes(mistakes: Vec<Mistake>) -> Self {
        let mut message: String = mistakes
            .iter()
            .map(|mistake| format!("{mistake}\n"))
            .collect();
        let count = mistakes.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        message.push_str(&format!("{count} {noun}"));
        Self {
            exit: Exit::Config,
            message,
            details: json!({ "mistakes": mistakes }),
        }
    }

    /// A problem that the daemon answered with (RFC 9457).
    pub(super) fn problem(status: u16, body: Value) -> Self {
        let exit = match status {
            401 | 403 => Exit::Denied,
            409 if body["type"] == "urn:keyfob:problem:already_spent" => Exit::Refused,
            409 if body["type"] == "urn:keyfob:problem:inapplicable" => Exit::Failed,
            409 => Exit::Human,
            422 => Exit::Refused,
            502..=504 => Exit::Unavailable,
            _ => Exit::Failed,
        };
        let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
        let mut message = match body["title"].as_str() {
            Some(title) => format!("{title}: {}", text("detail")),
            None => format!("the daemon answered with status {status} and no problem"),
        };
        for mistake in body["mistakes"].as_array().into_iter().flatten() {
            let part = |member: &str| mistake[member].as_str().unwrap_or_default();
            message.push_str(&format!(
                "\n  {}\n    fix: {}",
                part("message"),
                part("fix")
            ));
        }
        if body["correlation_id"].is_string() {
            message.push_str(&format!(" (correlation id {})", text("correlation_id")));
        }
        Self {
            exit,
            message,
            details: body,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_the_daemon_has_its_exit_code() {
        let slug = |slug: &str| json!({ "type": format!("urn:keyfob:problem:{slug}") });
        let table = [
            (401, "unauthenticated", Exit::Denied),
            (403, "denied", Exit::Denied),
            (404, "not_found", Exit::Failed),
            (409, "reauthorization_required", Exit::Human),
            (409, "already_spent", Exit::Refused),
            (409, "inapplicable", Exit::Failed),
            (500, "store_failed", Exit::Failed),
            (422, "plugin_refused", Exit::Refused),
            (500, "internal", Exit::Failed),
            (503, "unavailable", Exit::Unavailable),
        ];
        for (status, name, exit) in table {
            assert_eq!(Failure::problem(status, slug(name)).exit, exit, "{name}");
        }
    }

    #[test]
    fn help_names_every_code() {
        for code in 0..=Exit::Broken as u8 {
            assert!(HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
