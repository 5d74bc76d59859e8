//! The row: token and grant in a table that all services share. Each request reads it. Whoever is told 401 by a resource
//! refreshes, writes the row, and tries again; nobody coordinates anything.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Context, Result};
use keyfob_benches::servers::postgres::{Postgres, USER};
use tokio_postgres::{Client, NoTls, Statement};

use crate::refresher::Refresher;
use crate::scene::{Counts, Design, Scene, Worker};

/// Connections of the pool: what poolers recommend for a server with few cores. Queries share them, pipelined, so nobody
/// waits for a free one.
const POOL: usize = 8;

/// The table, and a pool of connections to it.
pub struct Row(Rc<Shared>);

struct Shared {
    pool: Vec<Connection>,
    turn: Cell<usize>,
    refresher: Refresher,
    counts: Counts,
}

/// One connection with what is prepared on it.
struct Connection {
    client: Client,
    read: Statement,
    write: Statement,
}

/// One request at a time.
pub struct Reader(Rc<Shared>);

/// What the row holds.
pub struct Held {
    token: String,
    grant: String,
}

// === impl Row ===

impl Row {
    /// A new table with the scene's grants and no tokens yet.
    pub async fn new(scene: &Scene, postgres: &Postgres) -> Result<Self> {
        let mut pool = Vec::with_capacity(POOL);
        for number in 0..POOL {
            let client = connect(postgres).await?;
            if number == 0 {
                let tables = "DROP TABLE IF EXISTS tokens;
                    CREATE TABLE tokens (owner int PRIMARY KEY, token text, grant_now text)";
                client.batch_execute(tables).await?;
                for (owner, grant) in (0_i32..).zip(&scene.grants) {
                    let insert = "INSERT INTO tokens VALUES ($1, '', $2)";
                    client.execute(insert, &[&owner, grant]).await?;
                }
                client.batch_execute("ANALYZE tokens").await?;
            }
            let read = "SELECT token, grant_now FROM tokens WHERE owner = $1";
            let write = "UPDATE tokens SET token = $2, grant_now = $3 WHERE owner = $1";
            pool.push(Connection {
                read: client.prepare(read).await?,
                write: client.prepare(write).await?,
                client,
            });
        }
        Ok(Self(Rc::new(Shared {
            pool,
            turn: Cell::new(0),
            refresher: Refresher::new(scene)?,
            counts: Counts::default(),
        })))
    }
}

async fn connect(postgres: &Postgres) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(postgres.tcp.ip().to_string())
        .port(postgres.tcp.port());
    config.user(USER).dbname(USER);
    let (client, connection) = config.connect(NoTls).await.context("PostgreSQL")?;
    // Ends with its client.
    tokio::task::spawn_local(connection);
    Ok(client)
}

impl Design for Row {
    type Worker = Reader;

    async fn worker(&self) -> Result<Reader> {
        Ok(Reader(Rc::clone(&self.0)))
    }

    fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

// === impl Shared ===

impl Shared {
    fn connection(&self) -> &Connection {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % POOL);
        &self.pool[turn]
    }
}

// === impl Reader ===

impl Worker for Reader {
    type Token = Held;

    async fn token(&mut self, user: usize) -> Result<Held> {
        let Connection { client, read, .. } = self.0.connection();
        self.0.counts.read();
        let row = client.query_one(read, &[&i32::try_from(user)?]).await?;
        Ok(Held {
            token: row.get(0),
            grant: row.get(1),
        })
    }

    async fn instead_of(&mut self, user: usize, refused: Held) -> Result<Held> {
        let refreshed = self.0.refresher.refresh(&refused.grant).await?;
        let held = Held {
            token: refreshed.access_token,
            grant: refreshed.refresh_token.unwrap_or(refused.grant),
        };
        let Connection { client, write, .. } = self.0.connection();
        self.0.counts.write();
        let owner = i32::try_from(user)?;
        client
            .execute(write, &[&owner, &held.token, &held.grant])
            .await?;
        Ok(held)
    }
}

// === impl Held ===

impl AsRef<str> for Held {
    fn as_ref(&self) -> &str {
        &self.token
    }
}
