//! HTTP/1.1 on a connection that is kept: answers have a `Content-Length`, or no body.

use anyhow::{Context, Result, bail, ensure};

use super::{Line, Protocol};

/// The longest head of an answer.
const HEAD_MAX_BYTES: usize = 8 * 1024;

/// Questions laid out by key; each answer is a 200 with at least so much in it.
#[derive(Clone, Debug)]
pub struct Http {
    questions: std::sync::Arc<[Vec<u8>]>,
    body_min_bytes: usize,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// In capitals.
    pub method: &'c str,
    /// With its query.
    pub path: &'c str,
    /// The whole header.
    pub authorization: Option<&'c str>,
    /// Of the body.
    pub content_type: &'c str,
    /// Sent with its length; an empty one is not announced for `GET`.
    pub body: &'c str,
}

/// Where an answer's body is.
struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
}

// === impl Http ===

impl Http {
    /// Asks these.
    pub fn new(questions: Vec<Vec<u8>>, body_min_bytes: usize) -> Self {
        Self {
            questions: questions.into(),
            body_min_bytes,
        }
    }
}

impl Protocol for Http {
    async fn greet(&mut self, _: &mut Line) -> Result<()> {
        Ok(())
    }

    fn ask(&mut self, key: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.questions[key]);
    }

    fn length(&self, seen: &[u8]) -> Result<Option<usize>> {
        let Some(head) = Head::parse(seen)? else {
            return Ok(None);
        };
        ensure!(
            head.status == 200 && head.body_bytes >= self.body_min_bytes,
            "{} with {} bytes: {}",
            head.status,
            head.body_bytes,
            String::from_utf8_lossy(seen)
        );
        Ok((seen.len() >= head.bytes + head.body_bytes).then_some(head.bytes + head.body_bytes))
    }
}

// === impl Call ===

impl Call<'_> {
    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let Self { method, path, .. } = self;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        if let Some(authorization) = self.authorization {
            text += &format!("Authorization: {authorization}\r\n");
        }
        if *method != "GET" || !self.body.is_empty() {
            let (kind, length) = (self.content_type, self.body.len());
            text += &format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n");
        }
        text += "\r\n";
        text += self.body;
        text.into_bytes()
    }
}

/// Sends a request and waits for its answer: status and body, whatever they are.
///
/// # Errors
///
/// When the connection ends, or it is no HTTP.
pub async fn answer(line: &mut Line, call: &Call<'_>) -> Result<(u16, Vec<u8>)> {
    line.write(&call.bytes()).await?;
    let mut seen = Vec::new();
    loop {
        line.read(&mut seen).await?;
        let Some(head) = Head::parse(&seen)? else {
            continue;
        };
        if seen.len() >= head.bytes + head.body_bytes {
            seen.drain(..head.bytes);
            return Ok((head.status, seen));
        }
    }
}

// === impl Head ===

impl Head {
    /// None while it is not whole.
    fn parse(seen: &[u8]) -> Result<Option<Self>> {
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else {
            ensure!(seen.len() <= HEAD_MAX_BYTES, "a head without an end");
            return Ok(None);
        };
        let head = std::str::from_utf8(&seen[..end]).context("a head of text")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|status| status.parse().ok());
        let Some(status) = status else {
            bail!("no HTTP: {head}");
        };
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse())
        });
        let body_bytes = match (length, status) {
            (Some(length), _) => length.context("a length that is a number")?,
            (None, 204) => 0,
            (None, _) => bail!("an answer that does not say how long it is: {head}"),
        };
        Ok(Some(Self {
            status,
            bytes: end + 4,
            body_bytes,
        }))
    }
}
