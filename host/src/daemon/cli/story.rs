//! The story of one token as `explain` tells it to people: how it stands, then what happened, newest last.

use std::time::Duration;

use serde_json::Value;

use super::output::{leaf, table};
use crate::model::time::UnixTime;

/// The story in an answer of the admin plane, told at `now`.
pub(super) fn of(answer: &Value, now: UnixTime) -> String {
    let mut lines = vec![heading(answer), token(answer, now)];
    lines.extend(credential(&answer["credential"], now));
    match answer["failures"].as_u64() {
        Some(count) if count > 0 => {
            let last = leaf(&answer["last_error"]);
            lines.push(format!("failing     {count} in a row: {last}"));
        }
        _ => {}
    }
    let facts = answer["timeline"].as_array().into_iter().flatten();
    let facts: Vec<_> = facts.map(|fact| row(fact, now)).collect();
    if !facts.is_empty() {
        lines.push(String::new());
        lines.push(table(&["when", "what", "detail"], facts));
    }
    lines.join("\n")
}

/// How a credential stands, what happens next, and what an operator can do.
pub(super) fn credential(status: &Value, now: UnixTime) -> Vec<String> {
    let Some(state) = status["state"].as_str() else {
        return vec!["credential  not known: the store cannot be reached".to_owned()];
    };
    let mut first = format!("credential  {}", leaf(&status["state"]));
    if status["cause"].is_string() {
        first.push_str(&format!(" ({})", leaf(&status["cause"])));
    }
    if state != "live" && status["since"].as_u64().is_some_and(|since| since > 0) {
        first.push_str(&format!(", since {} ago", age(&status["since"], now)));
    }
    first.push_str(&format!(", version {}", leaf(&status["version"])));
    let mut lines = vec![first];
    if !status["grant_since"].is_null() {
        lines.push(format!(
            "grant       {} old, replaced by each use: {}",
            age(&status["grant_since"], now),
            match status["rotates"].as_str() {
                Some("never") => "no",
                Some("single_use") => "yes",
                Some("grace") => "yes, with a grace",
                _ => "not known",
            }
        ));
    }
    let (next, can) = outlook(status, now);
    lines.extend(next.map(|words| format!("next        {words}")));
    lines.extend(can.map(|words| format!("you can     {words}")));
    if status["undurable"] == true {
        lines.push(
            "undurable   the store did not take what became of it; it is kept and tried again, and nothing is presented \
             meanwhile. Mend the store, and do not stop the process"
                .to_owned(),
        );
    }
    lines
}

/// What will happen to a credential by itself, and what an operator can do.
fn outlook(status: &Value, now: UnixTime) -> (Option<String>, Option<&'static str>) {
    const AGAIN: &str =
        "have the user authorize again, and hand the new grant over: `keyfob credentials import`";
    const RISK: &str = "have the user authorize again, and hand the new grant over: `keyfob credentials import`; or risk one more \
                        presentation of this one: `keyfob credentials probe`";
    let cause = status["cause"].as_str().unwrap_or_default();
    match status["state"].as_str().unwrap_or_default() {
        "live" => match status["intent"]["until"].as_u64().map(UnixTime::from_secs) {
            None => (None, None),
            Some(until) if until > now => {
                let words = format!(
                    "an attempt may be under way, for {} at most; nothing else is presented until then",
                    left(until, now)
                );
                (Some(words), None)
            }
            Some(until) => {
                let words = format!(
                    "an attempt was cut off, {} ago at the latest, and its grant may be spent; {}",
                    left(now, until),
                    in_doubt(status)
                );
                (Some(words), Some(RISK))
            }
        },
        "suspended" => {
            let until = cause.strip_prefix("until ").and_then(|at| at.parse().ok());
            let until = until.map(UnixTime::from_secs).filter(|until| *until > now);
            let words = match until {
                Some(until) => format!(
                    "the issuer asked to leave it alone; used again in {}",
                    left(until, now)
                ),
                None => "it is used again with the next refresh".to_owned(),
            };
            (Some(words), None)
        }
        "uncertain" => (Some(in_doubt(status)), Some(RISK)),
        "reauthorization_required" if cause == "lost_answer" => (
            Some("nothing: its grant may be spent, and is not presented again".to_owned()),
            Some(RISK),
        ),
        "reauthorization_required" => (
            Some("nothing: the issuer refused its grant".to_owned()),
            Some(AGAIN),
        ),
        "revoked" => (
            Some("nothing: an operator ended it".to_owned()),
            Some("hand a grant over, if that was a mistake: `keyfob credentials import`"),
        ),
        _ => (None, None),
    }
}

/// What becomes of a grant whose answer was lost.
fn in_doubt(status: &Value) -> String {
    let words = match status["rotates"].as_str() {
        Some("never") => return "it is presented again with the next refresh".to_owned(),
        Some("grace") => {
            "it is presented again while its grace lasts; then, when its last token has ended, a human must authorize"
        }
        Some("single_use") => {
            "its last token is served while it lives; then a human must authorize"
        }
        _ => "its last token is served while it lives; then the grant is presented once more",
    };
    format!("{words}, unless `refresh.after_lost_answer` says otherwise")
}

/// What of a credential does not show in its state, in a few words.
pub(super) fn remark(status: &Value, now: UnixTime) -> String {
    let until = status["intent"]["until"].as_u64().map(UnixTime::from_secs);
    let attempt = until.map(|until| match until > now {
        true => "attempt under way",
        false => "attempt cut off",
    });
    let undurable = (status["undurable"] == true).then_some("undurable");
    let all: Vec<_> = attempt.into_iter().chain(undurable).collect();
    all.join(", ")
}

/// How long ago a moment was, in unix seconds; nothing for none.
pub(super) fn age(at: &Value, now: UnixTime) -> String {
    match at.as_u64() {
        Some(secs) if secs > 0 => left(now, UnixTime::from_secs(secs)),
        _ => "-".to_owned(),
    }
}

fn heading(answer: &Value) -> String {
    let part = |name: &str, member: &str| match leaf(&answer[member]) {
        text if text.is_empty() || text == "-" => String::new(),
        text => format!(", {name} {text}"),
    };
    let subject = match answer["subject"].is_string() {
        true => part("subject", "subject"),
        false => ", own account".to_owned(),
    };
    format!(
        "{}{subject}{}{}{}",
        leaf(&answer["provider"]),
        part("scope", "scope"),
        part("audience", "audience"),
        part("tenant", "tenant"),
    )
}

fn token(answer: &Value, now: UnixTime) -> String {
    let generation = answer["generation"].as_u64();
    let ends = answer["expires_at"].as_u64().map(UnixTime::from_secs);
    let mut line = match (generation, ends) {
        (Some(generation), Some(ends)) if ends > now => {
            let mut line = format!(
                "token       generation {generation}, ends in {}",
                left(ends, now)
            );
            if let Some(due) = answer["refresh_at"].as_u64().map(UnixTime::from_secs) {
                let due = match due > now {
                    true => format!(", to be renewed in {}", left(due, now)),
                    false => ", due for renewal".to_owned(),
                };
                line.push_str(&due);
            }
            line
        }
        (Some(generation), Some(ends)) => {
            format!(
                "token       generation {generation}, ended {} ago",
                left(now, ends)
            )
        }
        _ => "token       none".to_owned(),
    };
    if answer["refreshing"] == true {
        line.push_str(", a refresh is under way");
    }
    line
}

fn row(fact: &Value, now: UnixTime) -> Vec<String> {
    let at = UnixTime::from_millis(fact["at_ms"].as_u64().unwrap_or_default());
    let when = format!("{} ago", left(now, at));
    vec![when, leaf(&fact["what"]), leaf(&fact["detail"])]
}

/// From `earlier` to `later`, in the two largest units.
fn left(later: UnixTime, earlier: UnixTime) -> String {
    let span: Duration = later.since(earlier);
    let secs = span.as_secs();
    match secs {
        0..10 => format!("{:.1} s", span.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    #[test]
    fn a_story_says_how_it_stands_and_then_what_happened() {
        let answer = json!({
            "provider": "acme", "tenant": "default", "subject": null, "audience": null, "scope": "a b",
            "generation": 17, "expires_at": 1_700_000_090_u64, "refresh_at": 1_700_000_030_u64,
            "refreshing": true, "failures": 2, "last_error": "connect: \u{1b}[2J",
            "credential": { "state": "live", "cause": null, "since": 0, "version": 3 },
            "timeline": [{ "at_ms": 1_699_999_998_500_u64, "what": "renewed", "detail": "generation 17" }],
        });
        let text = of(&answer, NOW);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "acme, own account, scope a b, tenant default");
        assert_eq!(
            lines[1],
            "token       generation 17, ends in 1 min 30 s, to be renewed in 30 s, a refresh is under way"
        );
        assert_eq!(lines[2], "credential  live, version 3");
        assert_eq!(lines[3], "failing     2 in a row: \"connect: \\u001b[2J\"");
        assert!(
            lines[6].contains("1.5 s ago") && lines[6].contains("generation 17"),
            "{text}"
        );
    }

    #[test]
    fn every_state_says_what_happens_next_and_what_can_be_done() {
        let status = |state: &str, cause: Value, rotates: &str| {
            json!({
                "state": state, "cause": cause, "since": 1_699_999_880, "version": 7, "grant_since": 1_699_992_800,
                "rotates": rotates, "undurable": false, "intent": null,
            })
        };
        let lost = || Value::from("lost_answer");
        for (status, next, can) in [
            (status("live", Value::Null, "unknown"), "", ""),
            (
                status("suspended", "until 1700000030".into(), "never"),
                "used again in 30 s",
                "",
            ),
            (
                status("uncertain", lost(), "never"),
                "presented again with the next refresh",
                "probe",
            ),
            (
                status("uncertain", lost(), "grace"),
                "while its grace lasts",
                "probe",
            ),
            (
                status("uncertain", lost(), "unknown"),
                "presented once more",
                "probe",
            ),
            (
                status("uncertain", lost(), "single_use"),
                "then a human must",
                "probe",
            ),
            (
                status("reauthorization_required", lost(), "single_use"),
                "may be spent",
                "probe",
            ),
            (
                status("reauthorization_required", "refused".into(), "never"),
                "refused",
                "import",
            ),
            (
                status("revoked", "operator".into(), "never"),
                "ended it",
                "import",
            ),
        ] {
            let text = credential(&status, NOW).join("\n");
            for (name, words) in [("next  ", next), ("you can  ", can)] {
                let line = text.lines().find(|line| line.starts_with(name));
                let said = line.unwrap_or_default();
                assert!(
                    said.contains(words) && said.is_empty() == words.is_empty(),
                    "{text}"
                );
            }
            let refused_probe = status["cause"] == "refused" && text.contains("probe");
            assert!(
                text.contains("grant       2 h 0 min old") && !refused_probe,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_on_record_and_what_was_cut_off_is_told() {
        let mut status = json!({
            "state": "live", "cause": null, "since": 5, "version": 7, "grant_since": 1_699_992_800, "rotates": "single_use",
            "undurable": true, "intent": { "since": 1_699_999_990, "until": 1_700_000_005 },
        });
        let text = credential(&status, NOW).join("\n");
        assert!(
            text.contains("under way, for 5.0 s") && text.contains("undurable   the store"),
            "{text}"
        );
        assert_eq!(remark(&status, NOW), "attempt under way, undurable");
        status["intent"]["until"] = 1_699_999_940.into();
        status["undurable"] = false.into();
        let text = credential(&status, NOW).join("\n");
        assert!(
            text.contains("cut off, 1 min 0 s ago") && text.contains("a human must"),
            "{text}"
        );
        assert_eq!(remark(&status, NOW), "attempt cut off");
        assert!(credential(&Value::Null, NOW)[0].contains("cannot be reached"));
    }

    #[test]
    fn a_token_that_is_over_or_absent_is_told_as_that() {
        let over = json!({ "generation": 1, "expires_at": 1_699_996_400_u64 });
        assert_eq!(
            token(&over, NOW),
            "token       generation 1, ended 1 h 0 min ago"
        );
        assert_eq!(token(&json!({}), NOW), "token       none");
    }
}
