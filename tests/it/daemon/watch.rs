//! `/v1/watch`: server-sent events, from a real daemon.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// How long an event may take to come: it is looked for, not timed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Changes that a client does not read.
const ROUNDS: usize = 20;

/// A client that listens.
struct Listener {
    response: reqwest::Response,
    heard: String,
    /// Of what was heard, how much was looked at.
    read: usize,
}

impl Listener {
    /// Watches as the caller with this key, by query or by body.
    async fn open(
        daemon: &KeyfobDaemon,
        key: &str,
        keys: &[Value],
        by_body: bool,
    ) -> anyhow::Result<Self> {
        let client = daemon.client();
        let url = format!("{}/v1/watch", daemon.data_url());
        let request = if by_body {
            let body = json!({ "keys": keys }).to_string();
            let request = client.post(url).body(body);
            request.header("content-type", "application/json")
        } else {
            let mut url = url::Url::parse(&url)?;
            for key in keys {
                url.query_pairs_mut().append_pair("key", &key.to_string());
            }
            client.get(url)
        };
        let response = request.bearer_auth(key).send().await?;
        ensure!(
            response.status() == 200,
            "{}: {}",
            response.status(),
            response.text().await?
        );
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let (heard, read) = (String::new(), 0);
        Ok(Self {
            response,
            heard,
            read,
        })
    }

    /// The next event with its data; `None` at the end.
    async fn next(&mut self) -> anyhow::Result<Option<(String, Value)>> {
        loop {
            if let Some(length) = self.heard[self.read..].find("\n\n") {
                let block = &self.heard[self.read..self.read + length];
                self.read += length + 2;
                let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                let Some(event) = line("event: ") else {
                    continue;
                };
                let data = line("data: ").context("an event has data")?;
                return Ok(Some((event.to_owned(), serde_json::from_str(data)?)));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            match chunk.context("no event came")?? {
                Some(chunk) => self.heard.push_str(std::str::from_utf8(&chunk)?),
                None => return Ok(None),
            }
        }
    }

    async fn expect(&mut self, event: &str, key: usize) -> anyhow::Result<Value> {
        let (name, data) = self.next().await?.context("the stream ended")?;
        ensure!(name == event && data["key"] == key, "{name} {data}");
        Ok(data)
    }

    /// Everything that it heard, for the search for secrets.
    fn heard(&self) -> &str {
        &self.heard
    }
}

#[tokio::test]
async fn a_client_hears_of_every_generation_and_never_sees_a_token() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let held = daemon.token(stage.key(), &wanted()).await?.token()?;
    let keys = [
        wanted(),
        json!({ "provider": "acme", "subject": "u" }),
        json!({ "provider": "no" }),
    ];
    let mut listeners = Vec::new();
    for by_body in [false, true] {
        listeners.push(Listener::open(&daemon, &stage.key, &keys, by_body).await?);
    }
    for listener in &mut listeners {
        let told = listener.expect("generation", 0).await?;
        assert_eq!(told["generation"], held.generation);
        assert_eq!(told["expires_at"], held.expires_at);
        listener.expect("revoked", 1).await?;
        let denied = listener.expect("denied", 2).await?;
        assert_eq!(denied, json!({ "key": 2 }));
        assert!(
            listener.heard().starts_with("retry: "),
            "{}",
            listener.heard()
        );
    }
    let renewed = daemon
        .reject(&stage.key, &wanted(), held.generation)
        .await?
        .token()?;
    let other = daemon.token(stage.key(), &keys[1]).await?.token()?;
    for listener in &mut listeners {
        let told = listener.expect("generation", 0).await?;
        assert_eq!(told["generation"], renewed.generation);
        let told = listener.expect("generation", 1).await?;
        assert_eq!(told["generation"], other.generation);
        for token in [&held, &renewed, &other] {
            assert!(!listener.heard().contains(&token.access_token));
        }
        daemon
            .canary()
            .assert_absent("an event", listener.heard().as_bytes());
    }
    drop(listeners);
    daemon.stop().await
}

#[tokio::test]
async fn events_come_the_same_over_tls_with_http_2_and_over_a_unix_socket() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let dir = tempfile::tempdir()?;
    let pki = Pki::create(dir.path())?;
    for (launch, version) in [
        (stage.launch("").tls(&pki), http::Version::HTTP_2),
        (stage.launch("").unix(), http::Version::HTTP_11),
    ] {
        let daemon = launch.start().await?;
        let held = daemon.token(stage.key(), &wanted()).await?.token()?;
        let mut listener = Listener::open(&daemon, &stage.key, &[wanted()], false).await?;
        assert_eq!(listener.response.version(), version);
        listener.expect("generation", 0).await?;
        let renewed = daemon
            .reject(&stage.key, &wanted(), held.generation)
            .await?
            .token()?;
        let told = listener.expect("generation", 0).await?;
        assert_eq!(told["generation"], renewed.generation);
        // The stream ends with the daemon, which does not wait for whoever listens.
        daemon.signal("TERM").await?;
        while let Some((event, _)) = listener.next().await? {
            ensure!(event != "revoked", "{}", listener.heard());
        }
        daemon.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_comes_back_is_told_how_things_stand_then() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let held = daemon.token(stage.key(), &wanted()).await?.token()?;
    let mut first = Listener::open(&daemon, &stage.key, &[wanted()], false).await?;
    first.expect("generation", 0).await?;
    drop(first);
    let renewed = daemon
        .reject(&stage.key, &wanted(), held.generation)
        .await?
        .token()?;
    let mut second = Listener::open(&daemon, &stage.key, &[wanted()], false).await?;
    let told = second.expect("generation", 0).await?;
    assert_eq!(told["generation"], renewed.generation);
    drop(second);
    daemon.stop().await
}

#[tokio::test]
async fn a_drain_tells_clients_to_come_back_and_does_not_wait_for_them() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    daemon.token(stage.key(), &wanted()).await?.token()?;
    let mut listener = Listener::open(&daemon, &stage.key, &[wanted()], false).await?;
    listener.expect("generation", 0).await?;
    daemon.signal("TERM").await?;
    let last = listener.next().await?.context("something is said")?;
    assert_eq!(last, ("draining".to_owned(), json!({})));
    assert!(listener.next().await?.is_none(), "and then the end");
    let log = daemon.log();
    daemon.end().await?;
    assert!(!log.contains("drain_cut"), "{log}");
    Ok(())
}

#[tokio::test]
async fn another_key_for_the_caller_ends_what_the_old_one_opened() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    daemon.token(stage.key(), &wanted()).await?.token()?;
    let mut listener = Listener::open(&daemon, &stage.key, &[wanted()], false).await?;
    listener.expect("generation", 0).await?;
    let new_key = random_secret()?;
    daemon.canary().add(&new_key);
    std::fs::write(daemon.dir().join("new.key"), &new_key)?;
    let config = std::fs::read_to_string(daemon.config())?;
    let changed = config.replace("{ env = \"APP_KEY\" }", "{ file = \"new.key\" }");
    assert_ne!(changed, config);
    std::fs::write(daemon.config(), changed)?;
    daemon.signal("HUP").await?;
    listener.expect("denied", 0).await?;
    assert!(listener.next().await?.is_none());
    daemon.token(Some(&new_key), &wanted()).await?.token()?;
    // The old one is no caller's any more, and no secret that the kit would miss.
    daemon.stop().await
}

#[tokio::test]
async fn a_client_that_does_not_read_hears_of_the_last_token_when_it_does() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let config = stage
        .config("")
        .replace("client_credentials", "refresh_token");
    let daemon = stage.with(config).start().await?;
    let wanted = json!({ "provider": "acme", "subject": "alice" });
    let address = daemon.data_url().trim_start_matches("http://");
    let mut idle = TcpStream::connect(address).await?;
    let body = json!({ "keys": vec![wanted.clone(); 1024] }).to_string();
    let head = format!(
        "POST /v1/watch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        stage.key,
        body.len()
    );
    idle.write_all(head.as_bytes()).await?;
    idle.write_all(body.as_bytes()).await?;
    let mut first = [0; 16];
    idle.read_exact(&mut first).await?;
    // Each round makes all thousand keys other ones: far more than sockets hold, were every change told.
    let mut last = 0;
    for round in 0..=ROUNDS {
        let grant = stage.issuer.issue_refresh_token("svc", "alice");
        let grant = grant.context("the issuer knows its client")?;
        daemon.hand_over("acme/alice", &grant).await?;
        let before = std::mem::replace(
            &mut last,
            daemon
                .token(stage.key(), &wanted)
                .await?
                .token()?
                .generation,
        );
        assert_ne!(last, before);
        if round < ROUNDS {
            let path = "/admin/v1/credentials/acme/alice";
            let revoked = daemon.admin(Method::DELETE, path, "").await?;
            ensure!(revoked.status.is_success(), "{}", revoked.text());
        }
    }
    let mut heard = String::from_utf8_lossy(&first).into_owned();
    let name = format!("\"generation\":{last}");
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        while heard.matches(&name).count() < 1024 {
            let length = idle.read(&mut buffer).await?;
            ensure!(length > 0, "the connection ended");
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .context("the last token is told of every key")??;
    drop(idle);
    daemon.stop().await
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_watched() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ask = async |query: &str, key: &str| {
        let url = format!("{}/v1/watch{query}", daemon.data_url());
        let response = client.get(url).bearer_auth(key).send().await?;
        let (status, text) = (response.status().as_u16(), response.text().await?);
        Ok::<_, anyhow::Error>((status, text))
    };
    for (query, words) in [
        ("", "`key` is missing"),
        ("?key=1", "`key[0]` must be: one JSON object"),
        ("?key=%7B%7D", "`key[0].provider` is missing"),
        (
            "?key=%7B%22provider%22:%22acme%22%7D&key=%7B%22provider%22:1%7D",
            "`key[1].provider` must be",
        ),
        ("?keys=%7B%7D", "unknown parameter"),
    ] {
        let (status, text) = ask(query, &stage.key).await?;
        assert_eq!(status, 400, "{query}: {text}");
        assert!(text.contains(words), "{query}: {text}");
    }
    assert_eq!(ask("?key=%7B%7D", "stranger").await?.0, 401);
    let many = json!({ "keys": vec![wanted(); 1025] }).to_string();
    let refused = daemon
        .post("/v1/watch", &stage.key, "application/json", many)
        .await?;
    refused.problem(400, "invalid_request")?;
    assert!(refused.text().contains("1 to 1024"), "{}", refused.text());
    daemon.stop().await
}
