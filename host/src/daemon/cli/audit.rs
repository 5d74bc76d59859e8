//! `keyfob audit verify`: what holds of an audit log, or where it first does not. Needs no daemon, and may run beside one.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::args::AuditVerifyArgs;
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::daemon::config;
use crate::observe::audit::{self, Break, End, Moment, Verified, VerifyError};

/// Verifies the log that is named, or that the configuration names.
pub(super) fn verify(
    args: &AuditVerifyArgs,
    config: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let path = match &args.file {
        Some(file) => file.clone(),
        None => {
            let read = config::read(config).map_err(Failure::mistakes)?;
            let audit = read.audit.ok_or_else(|| {
                let what = format!("{} has no [audit]: name the log", config.display());
                Failure::new(Exit::Usage, what)
            })?;
            audit.log.path
        }
    };
    match audit::verify(&path, &args.expect) {
        Ok(verified) => output.answer(&as_json(&verified), || as_text(&path, &verified)),
        Err(VerifyError::Broken(found)) => Err(broken(&found)),
        Err(error) => Err(Failure::new(Exit::Failed, error.to_string())),
    }
}

fn as_json(verified: &Verified) -> Value {
    let moment = |moment: Moment| json!({ "seq": moment.seq, "at": moment.at.as_millis() });
    let expected = verified.expected.iter().map(|expected| {
        json!({ "hash": expected.hash.to_string(), "entries_after": expected.entries_after })
    });
    json!({
        "ok": true,
        "files": verified.files,
        "entries": verified.entries,
        "first": moment(verified.first),
        "last": moment(verified.last),
        "head": verified.head.to_string(),
        "end": verified.end.label(),
        "unstopped": verified.unstopped,
        "recovered": verified.recovered,
        "lost": verified.lost,
        "suppressed": verified.suppressed,
        "expected": expected.collect::<Vec<_>>(),
    })
}

fn as_text(path: &Path, verified: &Verified) -> String {
    let Verified {
        first, last, head, ..
    } = verified;
    let mut lines = vec![
        format!("{} holds together", path.display()),
        format!(
            "entries   {}, in {}",
            verified.entries,
            counted(verified.files, "file")
        ),
        format!("from      {} (entry {})", date(*first), first.seq),
        format!("to        {} (entry {})", date(*last), last.seq),
        format!("head      {head}"),
    ];
    for expected in &verified.expected {
        let after = counted(expected.entries_after, "entry");
        lines.push(format!(
            "expected  {}: there, {after} after it",
            expected.hash
        ));
    }
    lines.push(match verified.end {
        End::Stopped => "end       the process ended in order".to_owned(),
        End::Closed => "end       this file was closed, and the next one is not here".to_owned(),
        End::Open => "end       the process runs, was killed, or the end was cut off".to_owned(),
    });
    let remarks = [
        (
            verified.unstopped,
            "starts without a stop before them: killed, or the end was cut off",
        ),
        (
            verified.recovered,
            "writes that a crash or a full disk cut short, and that are told of",
        ),
        (verified.lost, "events that found no room and are not in it"),
        (
            verified.suppressed,
            "events of callers beyond what a second may have",
        ),
    ];
    let remarks = remarks.iter().filter(|(count, _)| *count > 0);
    lines.extend(remarks.map(|(count, what)| format!("note      {count} {what}")));
    lines.join("\n")
}

fn broken(found: &Break) -> Failure {
    let mut message = found.to_string();
    if let Some(good) = found.good {
        let (seq, when) = (good.seq, date(good));
        message.push_str(&format!("\nup to entry {seq} of {when} it holds together"));
    }
    let details = json!({
        "ok": false,
        "error": message,
        "file": found.file,
        "line": found.line,
        "how": found.how.label(),
        "detail": found.detail,
        "good_until": found.good.map(|good| json!({ "seq": good.seq, "at": good.at.as_millis() })),
    });
    Failure {
        exit: Exit::Broken,
        message,
        details,
    }
}

fn counted(count: u64, one: &str) -> String {
    match (count, one) {
        (1, _) => format!("1 {one}"),
        (_, "entry") => format!("{count} entries"),
        _ => format!("{count} {one}s"),
    }
}

fn date(moment: Moment) -> String {
    // A time beyond what a calendar has is no time that Keyfob wrote.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = Duration::from_millis(moment.at.as_millis());
    httpdate::fmt_http_date(UNIX_EPOCH + since.min(LAST))
}
