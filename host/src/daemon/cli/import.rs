//! `keyfob credentials import`: grants on their way to the daemon, one or many. They come from files or standard input, never
//! from arguments, and no message repeats a byte of one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::ImportArgs;
use super::client::Daemon;
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::daemon::environment::{self, Environment};
use crate::model::secret::Secret;
use crate::settings::SecretSource;

/// The longest line, and the longest grant: what the daemon takes as a body.
const LINE_MAX_BYTES: usize = 64 * 1024;

/// One line of many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tenant: Option<String>,
    provider: String,
    subject: Option<String>,
    #[serde(deserialize_with = "secret")]
    refresh_token: Secret<String>,
}

fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(text).map(Secret::new)
}

/// What became of many.
#[derive(Default)]
struct Tally {
    taken: u64,
    unchanged: u64,
    failed: u64,
    /// Whether all that were taken survive a restart.
    durable: bool,
    /// How the first that failed did.
    exit: Option<Exit>,
}

pub(super) async fn import(
    args: ImportArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    if let Some(lines) = &args.lines {
        let mut input = BufReader::new(reader(lines)?);
        return many(&daemon, &args.tenant, &mut input, output).await;
    }
    let (provider, file) = args
        .provider
        .as_deref()
        .zip(args.grant_file.as_deref())
        .ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "name a provider and --grant-file FILE, or --lines FILE",
            )
        })?;
    let grant = grant(file, environment)?;
    let request = request(
        &daemon,
        &args.tenant,
        provider,
        args.subject.as_deref(),
        &grant,
    );
    let answer = daemon.call(request).await?;
    output.answer(&answer, || words(&answer).to_owned())
}

async fn many(
    daemon: &Daemon,
    tenant: &str,
    input: &mut impl BufRead,
    output: &Output,
) -> Result<(), Failure> {
    let mut tally = Tally {
        durable: true,
        ..Tally::default()
    };
    // Held once and wiped at the end: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES + 1));
    let mut number = 0_u64;
    while next_line(input, &mut bytes)? {
        number += 1;
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let taken = match parse(&bytes) {
            Ok(line) => {
                let tenant = line.tenant.as_deref().unwrap_or(tenant);
                let subject = line.subject.as_deref();
                daemon
                    .call(request(
                        daemon,
                        tenant,
                        &line.provider,
                        subject,
                        &line.refresh_token,
                    ))
                    .await
            }
            Err(failure) => Err(failure),
        };
        match taken {
            Ok(answer) => tally.count(&answer),
            // Nobody there, or nobody known: the rest would fare the same.
            Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Denied) => {
                return Err(failure.at_line(number));
            }
            Err(failure) => {
                tally.failed += 1;
                tally.exit.get_or_insert(failure.exit);
                output.failure(&failure.at_line(number));
            }
        }
    }
    let answer = tally.answer();
    output.answer(&answer, || tally.words())?;
    match tally.exit {
        None => Ok(()),
        Some(exit) => {
            let total = tally.failed + tally.taken + tally.unchanged;
            let message = format!("{} of {total} grants were not taken over", tally.failed);
            Err(Failure::new(exit, message))
        }
    }
}

/// A request that hands a grant over and asks what became of it (RFC 7240).
fn request(
    daemon: &Daemon,
    tenant: &str,
    provider: &str,
    subject: Option<&str>,
    grant: &Secret<String>,
) -> RequestBuilder {
    let mut segments = vec!["admin", "v1", "credentials", provider];
    segments.extend(subject);
    let url = daemon.url(&segments, &[("tenant", Some(tenant))]);
    let body = json!({ "refresh_token": grant.expose() });
    daemon
        .json(Method::PUT, url, &body)
        .header("prefer", "return=representation")
}

fn words(answer: &Value) -> &'static str {
    match (answer["unchanged"] == true, answer["durable"] == true) {
        (true, _) => "unchanged: this is the grant in force",
        (false, true) => "taken over, and kept over a restart",
        (false, false) => {
            "taken over, in memory only: a restart forgets it, for there is no [store]"
        }
    }
}

fn grant(file: &Path, environment: &Environment) -> Result<Secret<String>, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    if file != Path::new("-") {
        let fetched = environment::fetch(&SecretSource::File(file.to_owned()), environment);
        return fetched.map_err(|(what, fix)| usage(format!("--grant-file: {what}: {fix}")));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES + 1));
    io::stdin()
        .take(LINE_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    let text = std::str::from_utf8(&bytes).ok();
    let text = text.filter(|text| text.len() <= LINE_MAX_BYTES);
    let text = text.ok_or_else(|| {
        usage(format!(
            "standard input is no text of at most {LINE_MAX_BYTES} bytes"
        ))
    })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.is_empty() {
        true => Err(usage("standard input holds no grant".to_owned())),
        false => Ok(Secret::from(text)),
    }
}

fn reader(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(file) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => {
            let message = format!("--lines {}: {error}", file.display());
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Reads the next line, and of one that is too long no more than shows that; false at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let most = LINE_MAX_BYTES as u64 + 1;
    let read = input.by_ref().take(most).read_until(b'\n', line)?;
    if line.len() > LINE_MAX_BYTES && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

fn parse(line: &[u8]) -> Result<Line, Failure> {
    let wrong = |message: String| Err(Failure::new(Exit::Usage, message));
    if line.len() > LINE_MAX_BYTES {
        return wrong(format!("is longer than {LINE_MAX_BYTES} bytes"));
    }
    match serde_json::from_slice::<Line>(line) {
        Ok(line) if line.refresh_token.is_empty() => wrong("`refresh_token` is empty".to_owned()),
        Ok(line) => Ok(line),
        // The words of the parser may repeat what it read.
        Err(error) => wrong(format!(
            "column {}: write one JSON object with `provider`, `refresh_token` and perhaps `subject` and `tenant`, all strings",
            error.column()
        )),
    }
}

// === impl Tally ===

impl Tally {
    fn count(&mut self, answer: &Value) {
        if answer["unchanged"] == true {
            self.unchanged += 1;
            return;
        }
        self.taken += 1;
        self.durable &= answer["durable"] == true;
    }

    fn answer(&self) -> Value {
        json!({
            "imported": self.taken,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "durable": self.durable,
        })
    }

    fn words(&self) -> String {
        let Self {
            taken,
            unchanged,
            failed,
            ..
        } = self;
        let mut words = format!("taken over: {taken}, unchanged: {unchanged}, failed: {failed}");
        if !self.durable {
            words.push_str("\nin memory only: a restart forgets them, for there is no [store]");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_makes_no_sense_is_refused_without_repeating_it() {
        let long = format!(
            "{{\"refresh_token\":\"{}\"}}",
            "hunter2".repeat(LINE_MAX_BYTES)
        );
        for bad in [
            "hunter2",
            "{\"provider\":\"a\",\"refresh_token\":1234567}",
            "{\"provider\":\"a\",\"refresh_token\":\"\"}",
            "{\"provider\":\"a\",\"hunter2\":\"x\",\"refresh_token\":\"y\"}",
            "{\"refresh_token\":\"hunter2\"}",
            "[\"a\",\"hunter2\"]",
            &long,
        ] {
            let failure = parse(bad.as_bytes()).err().unwrap();
            assert_eq!(failure.exit, Exit::Usage);
            let words = format!("{failure:?}");
            assert!(
                !words.contains("hunter2") && !words.contains("1234567"),
                "{words}"
            );
        }
        let good = "{\"tenant\":\"t\",\"provider\":\"a\",\"subject\":null,\"refresh_token\":\"y\"}";
        assert_eq!(
            parse(good.as_bytes()).ok().unwrap().tenant.as_deref(),
            Some("t")
        );
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_and_not_the_next() {
        let long = "x".repeat(3 * LINE_MAX_BYTES);
        let exact = "y".repeat(LINE_MAX_BYTES - 1);
        let text = format!("a\n{long}\n{exact}\nlast");
        let mut input = BufReader::with_capacity(1024, text.as_bytes());
        let (mut line, mut lengths) = (Vec::new(), Vec::new());
        while next_line(&mut input, &mut line).unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [2, LINE_MAX_BYTES + 1, LINE_MAX_BYTES, 4]);
        assert!(line.capacity() <= 2 * LINE_MAX_BYTES);
    }
}
