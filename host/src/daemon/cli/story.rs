//! The story of one token as `explain` tells it to people: how it stands, then what happened, newest last.

use std::time::Duration;

use serde_json::Value;

use super::output::{leaf, table};
use crate::model::time::UnixTime;

/// The story in an answer of the admin plane, told at `now`.
pub(super) fn of(answer: &Value, now: UnixTime) -> String {
    let mut lines = vec![heading(answer), token(answer, now)];
    let credential = &answer["credential"];
    let mut state = format!("credential  {}", leaf(&credential["state"]));
    if credential["cause"].is_string() {
        state.push_str(&format!(" ({})", leaf(&credential["cause"])));
    }
    lines.push(format!("{state}, version {}", leaf(&credential["version"])));
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
    fn a_token_that_is_over_or_absent_is_told_as_that() {
        let over = json!({ "generation": 1, "expires_at": 1_699_996_400_u64 });
        assert_eq!(
            token(&over, NOW),
            "token       generation 1, ended 1 h 0 min ago"
        );
        assert_eq!(token(&json!({}), NOW), "token       none");
    }
}
