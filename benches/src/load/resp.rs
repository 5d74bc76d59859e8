//! What Redis speaks (RESP 2): `GET`, and `SET` to fill it.

use anyhow::{Context, Result, bail, ensure};

use super::{Line, Protocol};

/// Asks for the value of a key; each has one of at least so many bytes.
#[derive(Clone, Debug)]
pub struct Resp {
    questions: std::sync::Arc<[Vec<u8>]>,
    value_min_bytes: usize,
}

// === impl Resp ===

impl Resp {
    /// `GET` of these.
    pub fn new(keys: &[String], value_min_bytes: usize) -> Self {
        Self {
            questions: keys.iter().map(|key| command(&["GET", key])).collect(),
            value_min_bytes,
        }
    }
}

impl Protocol for Resp {
    async fn greet(&mut self, _: &mut Line) -> Result<()> {
        Ok(())
    }

    fn ask(&mut self, key: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.questions[key]);
    }

    fn length(&self, seen: &[u8]) -> Result<Option<usize>> {
        let Some(end) = seen.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let first = String::from_utf8_lossy(&seen[..end]);
        let Some(length) = first.strip_prefix('$') else {
            bail!("no value: {first}");
        };
        // `$-1` is a key without a value.
        let length: usize = length
            .parse()
            .with_context(|| format!("no value: {first}"))?;
        ensure!(length >= self.value_min_bytes, "a value of {length} bytes");
        let whole = end + 2 + length + 2;
        Ok((seen.len() >= whole).then_some(whole))
    }
}

/// Sets keys to values.
///
/// # Errors
///
/// When one is refused.
pub async fn fill(line: &mut Line, entries: &[(String, String)]) -> Result<()> {
    for (key, value) in entries {
        line.write(&command(&["SET", key, value])).await?;
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n") {
            line.read(&mut seen).await?;
        }
        let said = String::from_utf8_lossy(&seen);
        ensure!(said == "+OK\r\n", "SET {key}: {said}");
    }
    Ok(())
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}
