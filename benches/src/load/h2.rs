//! HTTP/2 without TLS, known beforehand (RFC 9113, section 3.3): one request at a time on each connection, its headers
//! sent in full once and by their number in the table afterwards, as a client library does (RFC 7541).

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::{Line, Protocol};

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// RFC 9113, section 4.1.
const FRAME_HEADER_BYTES: usize = 9;
/// What the server may send before it has to wait: as much as there can be, so that a run never waits for it. The window of
/// a connection begins with 65,535 bytes (RFC 9113, section 6.9.2).
const WINDOW_MORE_BYTES: u32 = (1 << 31) - 1 - 65_535;
/// `:status: 200` in the static table, as one byte (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
/// What a header that is sent by its number in the table begins with (RFC 7541, section 6.1).
const INDEXED: u8 = 0x80;
/// What a header that goes into the table begins with (RFC 7541, section 6.2.1).
const INTO_TABLE: u8 = 0x40;
/// The first number of the dynamic table: what went in last (RFC 7541, section 2.3.3).
const NEWEST: u8 = 62;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Calls with a body each, by key, all with the same headers; each answer is a 200 with at least so much in it.
#[derive(Clone, Debug)]
pub struct H2 {
    calls: Arc<Calls>,
    /// Of this connection; odd ones are a client's.
    last_stream: u32,
}

#[derive(Debug)]
struct Calls {
    method: Method,
    /// Names by their number in the static table, and values.
    headers: Vec<(u8, String)>,
    bodies: Vec<String>,
    body_min_bytes: usize,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Without a body.
    Get,
    /// With one.
    Post,
}

/// A frame's header.
struct Frame {
    kind: u8,
    flags: u8,
    payload_bytes: usize,
}

// === impl H2 ===

impl H2 {
    /// `POST` of these to a path.
    pub fn post(
        path: &str,
        authorization: &str,
        bodies: Vec<String>,
        body_min_bytes: usize,
    ) -> Self {
        // `:path`, `:authority`, `authorization` and `content-type` in the static table.
        let headers = vec![
            (4, path.to_owned()),
            (1, "localhost".to_owned()),
            (23, authorization.to_owned()),
            (31, "application/json".to_owned()),
        ];
        Self::new(Method::Post, headers, bodies, body_min_bytes)
    }

    /// `GET` of a path, whatever the key.
    pub fn get(path: &str, keys: usize, body_min_bytes: usize) -> Self {
        let headers = vec![(4, path.to_owned()), (1, "localhost".to_owned())];
        Self::new(
            Method::Get,
            headers,
            vec![String::new(); keys],
            body_min_bytes,
        )
    }

    fn new(
        method: Method,
        headers: Vec<(u8, String)>,
        bodies: Vec<String>,
        body_min_bytes: usize,
    ) -> Self {
        Self {
            calls: Arc::new(Calls {
                method,
                headers,
                bodies,
                body_min_bytes,
            }),
            last_stream: 0,
        }
    }
}

impl Protocol for H2 {
    async fn greet(&mut self, line: &mut Line) -> Result<()> {
        let mut hello = PREFACE.to_vec();
        frame(&mut hello, SETTINGS, 0, 0, &[]);
        frame(
            &mut hello,
            WINDOW_UPDATE,
            0,
            0,
            &WINDOW_MORE_BYTES.to_be_bytes(),
        );
        line.write(&hello).await?;
        let mut seen = Vec::new();
        // The server's settings come first (RFC 9113, section 3.4), and are to be acknowledged; the answer to ours follows.
        let (mut theirs, mut ours) = (false, false);
        while !(theirs && ours) {
            line.read(&mut seen).await?;
            while let Some(frame) = Frame::parse(&seen) {
                match (frame.kind, frame.flags & ACK) {
                    (SETTINGS, 0) => theirs = true,
                    (SETTINGS, _) => ours = true,
                    (WINDOW_UPDATE, _) => {}
                    (kind, _) => bail!("a frame of kind {kind} instead of settings"),
                }
                seen.drain(..frame.bytes());
            }
        }
        let mut agreed = Vec::new();
        frame(&mut agreed, SETTINGS, ACK, 0, &[]);
        line.write(&agreed).await
    }

    fn ask(&mut self, key: usize, out: &mut Vec<u8>) {
        let calls = &self.calls;
        let is_first = self.last_stream == 0;
        self.last_stream = if is_first { 1 } else { self.last_stream + 2 };
        // `:method: GET` and `:method: POST`, then `:scheme: http`, in the static table.
        let method = match calls.method {
            Method::Get => 2,
            Method::Post => 3,
        };
        let mut block = vec![INDEXED | method, INDEXED | 6];
        let many = u8::try_from(calls.headers.len()).expect("a few");
        for ((name, value), place) in calls.headers.iter().zip(1..) {
            if is_first {
                block.push(INTO_TABLE | name);
                // Shorter than 127 bytes, so that its length is one byte (RFC 7541, section 5.1).
                block.push(u8::try_from(value.len()).expect("a short one"));
                block.extend_from_slice(value.as_bytes());
            } else {
                block.push(INDEXED | (NEWEST + many - place));
            }
        }
        let body = calls.bodies[key].as_bytes();
        match calls.method {
            Method::Get => frame(
                out,
                HEADERS,
                END_HEADERS | END_STREAM,
                self.last_stream,
                &block,
            ),
            Method::Post => {
                frame(out, HEADERS, END_HEADERS, self.last_stream, &block);
                frame(out, DATA, END_STREAM, self.last_stream, body);
            }
        }
    }

    fn length(&self, seen: &[u8]) -> Result<Option<usize>> {
        let mut at = 0;
        let mut body_bytes = 0;
        while let Some(frame) = Frame::parse(&seen[at..]) {
            let payload = &seen[at + FRAME_HEADER_BYTES..at + frame.bytes()];
            at += frame.bytes();
            match frame.kind {
                HEADERS => {
                    let status = payload.first().context("an answer without headers")?;
                    ensure!(*status == STATUS_200, "no 200: {payload:?}");
                }
                DATA => body_bytes += frame.payload_bytes,
                RESET | GO_AWAY => bail!("the server gave up: {payload:?}"),
                // Windows that are opened, settings that are acknowledged.
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                ensure!(
                    body_bytes >= self.calls.body_min_bytes,
                    "{body_bytes} bytes"
                );
                // What follows is about windows only: the next answer cannot come before its question.
                return Ok(Frame::all_whole(&seen[at..]).then_some(seen.len()));
            }
        }
        Ok(None)
    }
}

/// Writes a frame.
fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a short one");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

// === impl Frame ===

impl Frame {
    /// None while it is not whole.
    fn parse(seen: &[u8]) -> Option<Self> {
        let header = seen.first_chunk::<FRAME_HEADER_BYTES>()?;
        let payload_bytes = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let frame = Self {
            kind: header[3],
            flags: header[4],
            payload_bytes: usize::try_from(payload_bytes).ok()?,
        };
        (seen.len() >= frame.bytes()).then_some(frame)
    }

    fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload_bytes
    }

    fn all_whole(mut seen: &[u8]) -> bool {
        while let Some(frame) = Self::parse(seen) {
            seen = &seen[frame.bytes()..];
        }
        seen.is_empty()
    }
}
