//! What PostgreSQL speaks (protocol 3.0, message formats in its manual's chapter 55): one prepared `SELECT`, executed again
//! and again with another parameter, and simple queries to fill a table.

use anyhow::{Context, Result, ensure};

use super::{Line, Protocol};
use crate::servers::postgres::USER;

/// The name of the prepared statement.
const STATEMENT: &str = "token";
/// The type byte and the length of a message.
const HEADER_BYTES: usize = 5;
/// Version 3.0.
const VERSION: i32 = 3 << 16;

/// Executes one prepared statement; each answer is one row of at least so many bytes.
#[derive(Clone, Debug)]
pub struct Prepared {
    statement: &'static str,
    questions: std::sync::Arc<[Vec<u8>]>,
    row_min_bytes: usize,
}

// === impl Prepared ===

impl Prepared {
    /// This statement with one parameter, which is each of `keys`.
    pub fn new(statement: &'static str, keys: &[String], row_min_bytes: usize) -> Self {
        Self {
            statement,
            questions: keys.iter().map(|key| execute(key)).collect(),
            row_min_bytes,
        }
    }
}

impl Protocol for Prepared {
    async fn greet(&mut self, line: &mut Line) -> Result<()> {
        log_in(line).await?;
        let mut parse = Message::new(b'P');
        parse.text(STATEMENT).text(self.statement);
        // The server infers the types of parameters.
        parse.number16(0);
        let mut bytes = parse.bytes();
        bytes.extend(Message::new(b'S').bytes());
        line.write(&bytes).await?;
        until_ready(line).await
    }

    fn ask(&mut self, key: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.questions[key]);
    }

    fn length(&self, seen: &[u8]) -> Result<Option<usize>> {
        let mut at = 0;
        let mut row_bytes = 0;
        while let Some((kind, length)) = message(&seen[at..])? {
            at += length;
            match kind {
                b'D' => row_bytes += length,
                b'Z' => {
                    ensure!(
                        row_bytes >= self.row_min_bytes,
                        "a row of {row_bytes} bytes"
                    );
                    return Ok(Some(at));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Runs statements without parameters, one after the other.
///
/// # Errors
///
/// When one fails.
pub async fn run(line: &mut Line, statements: &[String]) -> Result<()> {
    log_in(line).await?;
    for statement in statements {
        let mut query = Message::new(b'Q');
        query.text(statement);
        line.write(&query.bytes()).await?;
        until_ready(line).await.context(statement.clone())?;
    }
    Ok(())
}

async fn log_in(line: &mut Line) -> Result<()> {
    let mut startup = Message::without_kind();
    startup.number32(VERSION);
    startup.text("user").text(USER).text("database").text(USER);
    startup.text("");
    line.write(&startup.bytes()).await?;
    until_ready(line).await.context("logging in")
}

async fn until_ready(line: &mut Line) -> Result<()> {
    let mut seen = Vec::new();
    loop {
        line.read(&mut seen).await?;
        let mut at = 0;
        while let Some((kind, length)) = message(&seen[at..])? {
            at += length;
            if kind == b'Z' {
                return Ok(());
            }
        }
    }
}

/// Kind and length of the message at the beginning; none while it is not whole.
fn message(seen: &[u8]) -> Result<Option<(u8, usize)>> {
    let Some(header) = seen.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let [kind, length @ ..] = *header;
    // The length counts itself and not the kind.
    let length = usize::try_from(u32::from_be_bytes(length))? + 1;
    if seen.len() < length {
        return Ok(None);
    }
    let said = || String::from_utf8_lossy(&seen[..length]).replace('\0', " ");
    ensure!(kind != b'E', "PostgreSQL says: {}", said());
    Ok(Some((kind, length)))
}

fn execute(parameter: &str) -> Vec<u8> {
    let mut bind = Message::new(b'B');
    // The unnamed portal; the parameter and the row as text.
    bind.text("").text(STATEMENT).number16(0).number16(1);
    bind.number32(i32::try_from(parameter.len()).expect("a short one"));
    bind.raw(parameter.as_bytes()).number16(0);
    let mut execute = Message::new(b'E');
    execute.text("").number32(0);
    let sync = Message::new(b'S');
    [bind.bytes(), execute.bytes(), sync.bytes()].concat()
}

/// A message in the making.
struct Message {
    kind: Option<u8>,
    body: Vec<u8>,
}

// === impl Message ===

impl Message {
    fn new(kind: u8) -> Self {
        Self {
            kind: Some(kind),
            body: Vec::new(),
        }
    }

    /// The first message of a connection has none.
    fn without_kind() -> Self {
        Self {
            kind: None,
            body: Vec::new(),
        }
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.raw(text.as_bytes()).raw(&[0])
    }

    fn number16(&mut self, number: i16) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    fn number32(&mut self, number: i32) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len() + 4).expect("far less than 4 GiB");
        let mut bytes: Vec<u8> = self.kind.into_iter().collect();
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }
}
