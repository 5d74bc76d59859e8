//! What does one request over a socket cost? The daemon's token calls, next to servers that have nothing to look up (nginx)
//! or only that (Redis, PostgreSQL): the same keys, the same token, the same load, TCP and Unix sockets.
//!
//! All servers run all the time on one core, and one of them is asked at a time, from the other core. Rounds go through all
//! of them and are repeated, so that what the machine does meanwhile happens to everybody; figures are medians of rounds.

#[path = "front/table.rs"]
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keyfob::testing::issuer::{Behaviour, Issuer, IssuerConfig};
use keyfob_benches::cached::{TOKEN_BYTES, subject};
use keyfob_benches::cores;
use keyfob_benches::load::h2::H2;
use keyfob_benches::load::http::{Call, Http};
use keyfob_benches::load::postgres::Prepared;
use keyfob_benches::load::resp::Resp;
use keyfob_benches::load::{self, Client, Line, Protocol, Span};
use keyfob_benches::record::Record;
use keyfob_benches::servers::hyper::Constant;
use keyfob_benches::servers::keyfob::{CALLER_KEY, Keyfob, Setup, question};
use keyfob_benches::servers::nginx::Nginx;
use keyfob_benches::servers::postgres::Postgres;
use keyfob_benches::servers::redis::Redis;
use keyfob_benches::servers::{Address, Server};
use serde_json::json;

use table::{Found, Table};

/// How many tokens there are.
const KEYS: usize = 1_000;
/// How many connections ask.
const CONNECTIONS: usize = 16;
/// How many tokens the call for many asks for.
const TOGETHER: usize = 32;
/// How often everybody is measured: the median of three is not the one that was disturbed.
const ROUNDS: usize = 3;
/// How long, each time: thousands of the kernel's ticks would take too long, hundreds tell one percent.
const SPAN: Span = Span {
    warm: Duration::from_millis(300),
    counted: Duration::from_secs(2),
};
/// What everybody here can take on one core.
const PER_SECOND: u32 = 10_000;
/// Longer than the suite.
const LIFETIME_SECONDS: u64 = 86_400;
const CLIENT: &str = "bench";
const CLIENT_SECRET: &str = "correct-horse";
/// Whom others are told next to: nginx, which is asked the least that can be asked and answers as many bytes as we do.
const CONSTANT: &str = "nginx, a constant";
/// The same over HTTP/2.
const CONSTANT_H2C: &str = "nginx, a constant, h2c";
/// What PostgreSQL is asked.
const SELECT: &str = "SELECT token FROM tokens WHERE key = $1";

/// Whoever is asked.
struct Asked<'s, P> {
    who: &'static str,
    server: &'s Server,
    address: &'s Address,
    protocol: P,
    tokens: usize,
    /// Whether each answer holds the token.
    tells: bool,
    /// Whom it is told next to.
    peer: Option<&'static str>,
}

fn main() -> Result<()> {
    let back = cores::back()?;
    let front = cores::front()?;
    let issuer = {
        let _entered = back.enter();
        Issuer::start(IssuerConfig::default())?
    };
    let token = "t".repeat(TOKEN_BYTES);
    issuer.behave(Behaviour::Custom {
        status: 200,
        content_type: "application/json".into(),
        body: json!({
            "access_token": token, "token_type": "Bearer", "expires_in": LIFETIME_SECONDS,
        })
        .to_string(),
    });
    let mut record = Record::new("front");
    let is_whole = front.block_on(measure(&issuer, &token, &mut record))?;
    record.save()?;
    ensure!(
        is_whole,
        "the rows of many tokens in one call are missing: this daemon answers POST /v1/tokens with 404"
    );
    Ok(())
}

/// False when the daemon has no call for many tokens, so that its rows are missing.
async fn measure(issuer: &Issuer, token: &str, record: &mut Record) -> Result<bool> {
    let keys: Vec<String> = (0..KEYS).map(subject).collect();
    let ours = [daemon(issuer, false).await?, daemon(issuer, true).await?];
    let single = |path| {
        let bodies = keys.iter().map(|key| one(key).to_string());
        Http::new(
            bodies.map(|body| question(path, &body)).collect(),
            TOKEN_BYTES,
        )
    };
    let many = {
        let bodies = (0..KEYS).map(|first| {
            let requests = (first..first + TOGETHER).map(|at| one(&keys[at % KEYS]));
            json!({ "requests": requests.collect::<Vec<_>>() }).to_string()
        });
        let questions = bodies.map(|body| question("/v1/tokens", &body));
        Http::new(questions.collect(), TOGETHER * TOKEN_BYTES)
    };
    let h2c = H2::post(
        "/v1/token",
        &format!("Bearer {CALLER_KEY}"),
        keys.iter().map(|key| one(key).to_string()).collect(),
        TOKEN_BYTES,
    );
    let mut answer_bytes = 0;
    for daemon in &ours {
        let mut client = Client::connect(&daemon.address, &single("/v1/token")).await?;
        for key in 0..KEYS {
            answer_bytes = body_of(client.ask(key).await?).len();
        }
    }
    let has_many = answers_many(&ours[0]).await?;

    let redis = Redis::start()?;
    let entries: Vec<_> = keys
        .iter()
        .map(|key| (key.clone(), token.to_owned()))
        .collect();
    load::resp::fill(&mut Line::connect(&redis.unix).await?, &entries).await?;
    let postgres = Postgres::start()?;
    let mut statements = vec!["CREATE TABLE tokens (key text PRIMARY KEY, token text)".to_owned()];
    statements.extend(
        keys.iter()
            .map(|key| format!("INSERT INTO tokens VALUES ('{key}', '{token}')")),
    );
    statements.push("VACUUM ANALYZE tokens".to_owned());
    load::postgres::run(&mut Line::connect(&postgres.unix).await?, &statements).await?;
    let nginx = Nginx::start(&"n".repeat(answer_bytes))?;
    let get = Call {
        method: "GET",
        path: "/",
        authorization: None,
        content_type: "",
        body: "",
    };
    let hyper = Constant::start(Path::new(env!("CARGO_BIN_EXE_constant")), answer_bytes)?;
    let ignored = keys.iter().map(|key| one(key).to_string());
    let ignored = Http::new(
        ignored.map(|body| question("/", &body)).collect(),
        answer_bytes,
    );
    let nothing = Http::new(vec![get.bytes(); KEYS], answer_bytes);
    let [redis_tcp, postgres_tcp] = [redis.tcp, postgres.tcp].map(Address::Tcp);
    record.versions = [&nginx.version, &redis.version, &postgres.version]
        .map(String::clone)
        .to_vec();

    let mut table = Table::default();
    for _ in 0..ROUNDS {
        for address in [&nginx.tcp, &nginx.unix] {
            let asked = Asked::new(CONSTANT, &nginx.server, address, nothing.clone());
            asked.silent().both(&mut table).await?;
        }
        for address in [&hyper.tcp, &hyper.unix] {
            let asked = Asked::new("hyper, a constant", &hyper.server, address, ignored.clone());
            asked.unknowing().both(&mut table).await?;
        }
        let constant = H2::get("/", KEYS, answer_bytes);
        let asked = Asked::new(CONSTANT_H2C, &nginx.server, &nginx.h2c, constant);
        asked.silent().both(&mut table).await?;
        for Keyfob {
            server, address, ..
        } in &ours
        {
            Asked::new("keyfob", server, address, single("/v1/token"))
                .both(&mut table)
                .await?;
            if has_many {
                let asked = Asked::new("keyfob, 32 in one call", server, address, many.clone());
                asked
                    .beside("keyfob")
                    .holding(TOGETHER)
                    .closed(&mut table)
                    .await?;
            }
        }
        let Keyfob {
            server, address, ..
        } = &ours[0];
        Asked::new("keyfob, h2c", server, address, h2c.clone())
            .beside(CONSTANT_H2C)
            .both(&mut table)
            .await?;
        for address in [&redis_tcp, &redis.unix] {
            let get = Resp::new(&keys, TOKEN_BYTES);
            Asked::new("redis, GET", &redis.server, address, get)
                .both(&mut table)
                .await?;
        }
        for address in [&postgres_tcp, &postgres.unix] {
            let select = Prepared::new(SELECT, &keys, TOKEN_BYTES);
            let asked = Asked::new(
                "postgres, prepared SELECT",
                &postgres.server,
                address,
                select,
            );
            asked.both(&mut table).await?;
        }
    }
    ensure!(
        issuer.ledger().count() == 2 * KEYS as u64,
        "a token was obtained while hits were measured"
    );
    table.record(record);
    Ok(has_many)
}

/// Whether the daemon has the call for many tokens.
async fn answers_many(daemon: &Keyfob) -> Result<bool> {
    let body = json!({ "requests": [one(&subject(0))] }).to_string();
    let call = Call {
        method: "POST",
        path: "/v1/tokens",
        authorization: Some(&format!("Bearer {CALLER_KEY}")),
        content_type: "application/json",
        body: &body,
    };
    let mut line = Line::connect(&daemon.address).await?;
    match load::http::answer(&mut line, &call).await? {
        (200, _) => Ok(true),
        (404, _) => Ok(false),
        (status, said) => bail!(
            "POST /v1/tokens answers {status}: {}",
            String::from_utf8_lossy(&said)
        ),
    }
}

/// A daemon with all tokens to be had.
async fn daemon(issuer: &Issuer, unix: bool) -> Result<Keyfob> {
    let daemon = Keyfob::start(&Setup {
        unix,
        token_url: issuer.token_url(),
        client: (CLIENT, CLIENT_SECRET),
        rotation: "never",
    })?;
    // The issuer answers whatever it is asked, so any grant will do.
    let grants = (0..KEYS).map(|key| (subject(key), format!("grant-{key}")));
    daemon.import(grants).await?;
    Ok(daemon)
}

fn one(key: &str) -> serde_json::Value {
    json!({ "provider": "acme", "subject": key })
}

fn body_of(answer: &[u8]) -> &[u8] {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    head.map_or(answer, |end| &answer[end + 4..])
}

// === impl Asked ===

impl<'s, P: Protocol> Asked<'s, P> {
    fn new(who: &'static str, server: &'s Server, address: &'s Address, protocol: P) -> Self {
        Self {
            who,
            server,
            address,
            protocol,
            tokens: 1,
            tells: true,
            peer: Some(CONSTANT),
        }
    }

    /// Its answers hold no token, and others are told next to it.
    fn silent(self) -> Self {
        Self {
            peer: None,
            ..self.unknowing()
        }
    }

    /// Its answers hold no token.
    fn unknowing(self) -> Self {
        Self {
            tells: false,
            ..self
        }
    }

    /// Its answers hold this many.
    fn holding(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// It is told next to this one.
    fn beside(self, peer: &'static str) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }

    fn name(&self) -> String {
        format!("{}, {}", self.who, self.address.kind())
    }

    /// Fresh connections; the first answers are looked at closely.
    async fn connect(&self) -> Result<Vec<Client<P>>> {
        let mut clients = load::connect(self.address, &self.protocol, CONNECTIONS).await?;
        let token = "t".repeat(TOKEN_BYTES);
        for (key, client) in clients.iter_mut().enumerate() {
            let answer = client.ask(key).await?;
            let found = answer
                .windows(TOKEN_BYTES)
                .filter(|part| *part == token.as_bytes())
                .count();
            let expected = if self.tells { self.tokens } else { 0 };
            ensure!(found == expected, "{}: {found} tokens", self.name());
        }
        Ok(clients)
    }

    /// Whom its row is told next to: over the same transport, so that only what is spoken differs.
    fn peer(&self) -> Option<String> {
        let peer = self.peer?;
        Some(format!("{peer}, {}", self.address.kind()))
    }

    /// As fast as it answers, then at a rate that all can take.
    async fn both(self, table: &mut Table) -> Result<()> {
        self.closed(table).await?;
        let clients = self.connect().await?;
        let found = load::open(clients, KEYS, SPAN, PER_SECOND).await;
        let found = found.with_context(|| self.name())?;
        self.row(table).open.push(found);
        Ok(())
    }

    async fn closed(&self, table: &mut Table) -> Result<()> {
        let clients = self.connect().await?;
        let used = || self.server.processor_time();
        let found = load::closed(clients, KEYS, SPAN, used).await;
        let found = found.with_context(|| self.name())?;
        self.row(table).closed.push(found);
        Ok(())
    }

    fn row<'t>(&self, table: &'t mut Table) -> &'t mut Found {
        table.row(&self.name(), self.peer(), self.tokens)
    }
}
