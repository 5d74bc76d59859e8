//! Servers of a few lines, to see that what is asked, told apart and counted is what was meant.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::http::{Call, Http};
use super::postgres::Prepared;
use super::resp::Resp;
use super::*;

/// One byte is asked, one is answered.
#[derive(Clone)]
struct Byte;

impl Protocol for Byte {
    async fn greet(&mut self, _: &mut Line) -> Result<()> {
        Ok(())
    }

    fn ask(&mut self, _: usize, out: &mut Vec<u8>) {
        out.push(b'?');
    }

    fn length(&self, seen: &[u8]) -> Result<Option<usize>> {
        ensure!(seen[0] == b'!', "no answer");
        Ok(Some(1))
    }
}

/// Answers every byte of every connection; the first that many times as late as `pauses` says.
async fn bytes(folder: &std::path::Path, answer: u8, pauses: &[Duration]) -> Address {
    let path = folder.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut pauses: VecDeque<_> = pauses.to_vec().into();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let pause = pauses.pop_front().unwrap_or_default();
            connections.spawn(async move {
                let mut pause = pause;
                while stream.read_u8().await.is_ok() {
                    tokio::time::sleep(pause).await;
                    pause = Duration::ZERO;
                    stream.write_u8(answer).await.unwrap();
                }
            });
        }
    });
    serving.detach_all();
    Address::Unix(path)
}

const SPAN: Span = Span {
    warm: Duration::from_millis(5),
    counted: Duration::from_millis(50),
};

#[tokio::test]
async fn a_closed_loop_counts_answers_and_what_the_server_used_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let address = bytes(folder.path(), b'!', &[]).await;
    let clients = connect(&address, &Byte, 4).await.unwrap();
    let readings = std::cell::RefCell::new(VecDeque::from([7, 9].map(Duration::from_millis)));
    let found = closed(clients, 1, SPAN, || {
        Ok(readings.borrow_mut().pop_front().unwrap())
    });
    let found = found.await.unwrap();
    assert!(found.requests > 0 && found.took >= SPAN.counted);
    assert_eq!(found.used, Duration::from_millis(2));
}

#[tokio::test]
async fn a_wrong_answer_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let address = bytes(folder.path(), b'x', &[]).await;
    let clients = connect(&address, &Byte, 2).await.unwrap();
    assert!(open(clients, 1, SPAN, 1_000).await.is_err());
}

#[tokio::test]
async fn a_request_waits_from_when_it_was_to_come() {
    let folder = tempfile::tempdir().unwrap();
    // One connection, whose first answer is late: all that were to come meanwhile waited too.
    let address = bytes(folder.path(), b'!', &[Duration::from_millis(60)]).await;
    let clients = connect(&address, &Byte, 1).await.unwrap();
    let span = Span {
        warm: Duration::ZERO,
        counted: Duration::from_millis(100),
    };
    let found = open(clients, 1, span, 1_000).await.unwrap();
    assert_eq!(
        (found.latencies.len(), found.left),
        (100, 0),
        "every request that was to come is counted"
    );
    let waited = found
        .latencies
        .count_between(Duration::from_millis(10).as_nanos() as u64, u64::MAX);
    assert!(waited >= 49, "{waited} waited");
}

#[tokio::test]
async fn arrivals_come_in_order_and_end() {
    let arrivals = Arrivals::new(1_000, Duration::from_millis(5));
    let mut numbers = Vec::new();
    while let Some(arrival) = arrivals.next().await {
        assert!(now() >= arrival.planned);
        numbers.push(arrival.number);
    }
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(arrivals.left().await, 0);
}

#[tokio::test]
async fn whoever_is_far_behind_gives_up_and_says_how_much_is_left() {
    let long_ago = now() - BEHIND_MAX * 2;
    let arrivals = Arrivals::starting(long_ago, 1_000, Duration::from_millis(5));
    assert!(arrivals.next().await.is_none());
    assert_eq!(arrivals.left().await, 5);
}

/// No part of an answer passes for the whole, and the whole is as long as it is.
fn whole_only(protocol: &impl Protocol, answer: &[u8]) {
    for length in 1..answer.len() {
        let part = protocol.length(&answer[..length]).unwrap();
        assert_eq!(part, None, "the first {length} bytes");
    }
    assert_eq!(protocol.length(answer).unwrap(), Some(answer.len()));
}

#[test]
fn http_answers_end_where_they_say() {
    let http = Http::new(vec![b"GET".to_vec()], 3);
    whole_only(
        &http,
        b"HTTP/1.1 200 OK\r\nX: 1\r\ncontent-length: 3\r\n\r\nabc",
    );
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 503 Sorry\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "SSH-2.0\r\n\r\n",
    ] {
        assert!(http.length(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_call_says_how_long_its_body_is() {
    let call = Call {
        method: "POST",
        path: "/x",
        authorization: Some("Bearer k"),
        content_type: "text/plain",
        body: "four",
    };
    assert_eq!(
        String::from_utf8(call.bytes()).unwrap(),
        "POST /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\nContent-Type: text/plain\r\n\
         Content-Length: 4\r\n\r\nfour"
    );
}

#[test]
fn redis_values_end_where_they_say() {
    let resp = Resp::new(&["k".to_owned()], 3);
    whole_only(&resp, b"$3\r\nabc\r\n");
    for bad in ["$-1\r\n", "$2\r\nab\r\n", "-ERR no\r\n"] {
        assert!(resp.length(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn postgres_rows_end_with_ready() {
    let prepared = Prepared::new("SELECT", &["k".to_owned()], 8);
    let bound = b"2\0\0\0\x04";
    let row = b"D\0\0\0\x0d\0\x01\0\0\0\x03abc";
    let (done, ready) = (b"C\0\0\0\x0dSELECT 1\0", b"Z\0\0\0\x05I");
    whole_only(&prepared, &[&bound[..], row, done, ready].concat());
    let nothing = [&bound[..], done, ready].concat();
    assert!(prepared.length(&nothing).is_err(), "no row");
    let error = b"E\0\0\0\x0bSERROR\0";
    assert!(prepared.length(error).is_err(), "an error");
}

#[test]
fn http2_answers_end_with_their_stream() {
    let h2 = h2::H2::get("/", 1, 3);
    let headers = b"\0\0\x01\x01\x04\0\0\0\x01\x88";
    let data = b"\0\0\x03\0\x01\0\0\0\x01abc";
    let window = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01";
    whole_only(&h2, &[&window[..], headers, data].concat());
    let refused = b"\0\0\x01\x01\x05\0\0\0\x01\x8d";
    assert!(h2.length(refused).is_err(), "404");
    let reset = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";
    assert!(h2.length(reset).is_err(), "a reset");
    let short = b"\0\0\x02\0\x01\0\0\0\x01ab";
    assert!(h2.length(&[&headers[..], short].concat()).is_err(), "short");
}

#[test]
fn http2_headers_are_sent_in_full_once() {
    let mut h2 = h2::H2::post("/v1/token", "Bearer k", vec!["{}".to_owned()], 1);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    h2.ask(0, &mut first);
    h2.ask(0, &mut second);
    assert_eq!((first[8], second[8]), (1, 3), "the streams");
    assert!(first.windows(9).any(|part| part == b"/v1/token"));
    // Method and scheme of the static table, then path, authority, authorization and type of the dynamic one.
    assert_eq!(second[9..15], [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]);
    assert_eq!(second[15 + 9..], *b"{}");
}
