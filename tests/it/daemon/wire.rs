//! The ways in which one connection carries many calls: kept alive, pipelined, in pieces, HTTP/2 in the clear.

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// More calls than one look at a connection takes in.
const CALLS: usize = 20;

fn call(path: &str, key: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn connect(daemon: &KeyfobDaemon) -> anyhow::Result<TcpStream> {
    let address = daemon.data_url().trim_start_matches("http://");
    Ok(TcpStream::connect(address).await?)
}

/// Reads one answer: its head, and the body that the head announces.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<(String, Value)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(
            stream
                .read_u8()
                .await
                .context("the connection ended in a head")?,
        );
    }
    let head = String::from_utf8(head)?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("no length")?.trim().parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((head, serde_json::from_slice(&body)?))
}

#[tokio::test]
async fn pipelined_calls_are_answered_in_order_on_one_connection() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let served = daemon.token(stage.key(), &wanted()).await?.token()?;
    let mut stream = connect(&daemon).await?;
    let good = call("/v1/token", &stage.key, &wanted().to_string());
    let bad = call("/v1/token", &stage.key, "{}");
    let lost = call("/v1/nowhere", &stage.key, "{}");
    let many = call(
        "/v1/tokens",
        &stage.key,
        &json!({ "requests": [wanted()] }).to_string(),
    );
    let health = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..CALLS {
        // Hits, what the router answers, and refusals take turns.
        let together = [&good, &bad, &many, health, &lost, &good]
            .map(str::as_bytes)
            .concat();
        stream.write_all(&together).await?;
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let (head, body) = answer(&mut stream).await?;
            statuses.push(head[9..12].parse::<u16>()?);
            if let Some(generation) = body["generation"].as_u64() {
                assert_eq!(generation, served.generation);
            }
        }
        assert_eq!(statuses, [200, 400, 200, 200, 404, 200]);
    }
    daemon.stop().await
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let mut stream = connect(&daemon).await?;
    stream.set_nodelay(true)?;
    let whole = call("/v1/token", &stage.key, &wanted().to_string());
    let chunked = format!(
        "POST /v1/token HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\n{{\"pro\r\nb\r\nvider\":\"acm\r\n3\r\ne\"}}\r\n0\r\n\r\n",
        stage.key
    );
    for request in [whole, chunked] {
        for piece in request.as_bytes().chunks(7) {
            stream.write_all(piece).await?;
            // Each is a packet of its own; when exactly it arrives does not matter.
            tokio::task::yield_now().await;
        }
        let (head, body) = answer(&mut stream).await?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body["token_type"], "Bearer");
    }
    daemon.stop().await
}

#[tokio::test]
async fn http_2_in_the_clear_needs_no_upgrade() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()?;
    let url = format!("{}/v1/token", daemon.data_url());
    let ask = || {
        let request = client.post(&url).bearer_auth(&stage.key);
        let request = request.header("content-type", "application/json");
        request.body(wanted().to_string()).send()
    };
    let answers = join_all((0..CALLS).map(|_| ask())).await;
    for answer in answers {
        let answer = answer?;
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let token: Token = serde_json::from_slice(&answer.bytes().await?)?;
        daemon.canary().add(&token.access_token);
    }
    assert_eq!(stage.issuer.ledger().count(), 1);
    let refused = client.post(&url).body("{}").send().await?;
    assert_eq!(refused.status(), 401);
    daemon.stop().await
}
