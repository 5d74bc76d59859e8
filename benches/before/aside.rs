//! Cache-aside: the token in Redis with an end, and a lock for whoever finds it missing, as Redis' documentation has it: set
//! if absent, with a random value and an end, released by a script that compares. Who does not get the lock looks again
//! every 50 ms.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use keyfob_benches::draw::Draw;
use keyfob_benches::load::now;
use keyfob_benches::servers::redis::Redis;
use redis::aio::MultiplexedConnection;
use redis::{Script, cmd};

use crate::refresher::Refresher;
use crate::scene::{Counts, Design, LATENCY, Scene, Worker};

/// How long a lock stands when its holder is gone: far longer than any refresh.
const LOCK: Duration = Duration::from_millis(5_000);
/// How long to wait before looking again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long to look: longer than a lock stands.
const PATIENCE: Duration = Duration::from_millis(6_000);
/// How long before its end a token is not handed out any more: as Keyfob has it, so that neither sees more 401s for that.
const MARGIN: Duration = Duration::from_secs(1);
/// Releases a lock that is still ours.
const RELEASE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// Redis, over one connection that all requests share, which is what its client recommends.
pub struct Aside(Rc<Shared>);

struct Shared {
    redis: MultiplexedConnection,
    release: Script,
    refresher: Refresher,
    /// For values of locks.
    values: Cell<u64>,
    counts: Counts,
}

/// One request at a time.
pub struct Looker {
    shared: Rc<Shared>,
    redis: MultiplexedConnection,
}

// === impl Aside ===

impl Aside {
    /// An empty cache, but for the scene's grants.
    pub async fn new(scene: &Scene, server: &Redis) -> Result<Self> {
        let client = redis::Client::open(format!("redis://{}/", server.tcp))?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        cmd("FLUSHALL").query_async::<()>(&mut redis).await?;
        for (user, grant) in scene.grants.iter().enumerate() {
            let mut set = cmd("SET");
            set.arg(format!("grant:{user}")).arg(grant);
            set.query_async::<()>(&mut redis).await?;
        }
        Ok(Self(Rc::new(Shared {
            redis,
            release: Script::new(RELEASE),
            refresher: Refresher::new(scene)?,
            values: Cell::new(0),
            counts: Counts::default(),
        })))
    }
}

impl Design for Aside {
    type Worker = Looker;

    async fn worker(&self) -> Result<Looker> {
        Ok(Looker {
            redis: self.0.redis.clone(),
            shared: Rc::clone(&self.0),
        })
    }

    fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

// === impl Looker ===

impl Worker for Looker {
    type Token = String;

    async fn token(&mut self, user: usize) -> Result<String> {
        let arrived = now();
        loop {
            if let Some(token) = self.cached(user).await? {
                return Ok(token);
            }
            let value = self.lock_value();
            if self.lock(user, &value).await? {
                // Somebody may have been quicker between the look and the lock.
                let token = match self.cached(user).await? {
                    Some(token) => Ok(token),
                    None => self.refresh(user).await,
                };
                self.unlock(user, &value).await?;
                return token;
            }
            if arrived.elapsed() > PATIENCE {
                bail!("no token within {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn instead_of(&mut self, user: usize, refused: String) -> Result<String> {
        // Another may be there by now; only the refused one is forgotten.
        if self.cached(user).await?.as_deref() == Some(refused.as_str()) {
            self.shared.counts.write();
            let mut forget = cmd("DEL");
            forget.arg(format!("token:{user}"));
            forget.query_async::<()>(&mut self.redis).await?;
        }
        self.token(user).await
    }
}

impl Looker {
    async fn cached(&mut self, user: usize) -> Result<Option<String>> {
        self.shared.counts.read();
        let mut look = cmd("GET");
        look.arg(format!("token:{user}"));
        Ok(look.query_async(&mut self.redis).await?)
    }

    fn lock_value(&self) -> String {
        let next = self.shared.values.get() + 1;
        self.shared.values.set(next);
        format!("{:016x}", Draw::new(next).word())
    }

    async fn lock(&mut self, user: usize, value: &str) -> Result<bool> {
        self.shared.counts.write();
        let mut set = cmd("SET");
        set.arg(format!("lock:{user}")).arg(value).arg("NX");
        set.arg("PX").arg(u64::try_from(LOCK.as_millis())?);
        let set: Option<String> = set.query_async(&mut self.redis).await?;
        Ok(set.is_some())
    }

    async fn unlock(&mut self, user: usize, value: &str) -> Result<()> {
        self.shared.counts.write();
        let mut release = self.shared.release.key(format!("lock:{user}"));
        release.arg(value);
        release.invoke_async::<i64>(&mut self.redis).await?;
        Ok(())
    }

    async fn refresh(&mut self, user: usize) -> Result<String> {
        let grant_key = format!("grant:{user}");
        self.shared.counts.read();
        let mut look = cmd("GET");
        look.arg(&grant_key);
        let grant: Option<String> = look.query_async(&mut self.redis).await?;
        let grant = grant.context("every user has a grant")?;
        let asked = now();
        let refreshed = self.shared.refresher.refresh(&grant).await?;
        if let Some(grant) = &refreshed.refresh_token {
            // First: a token that is lost is fetched again, a grant is not.
            self.shared.counts.write();
            let mut keep = cmd("SET");
            keep.arg(&grant_key).arg(grant);
            keep.query_async::<()>(&mut self.redis).await?;
        }
        let left = Duration::from_secs(refreshed.expires_in).saturating_sub(asked.elapsed());
        let left = left.saturating_sub(MARGIN).max(LATENCY);
        self.shared.counts.write();
        let mut keep = cmd("SET");
        keep.arg(format!("token:{user}"))
            .arg(&refreshed.access_token);
        keep.arg("PX").arg(u64::try_from(left.as_millis())?);
        keep.query_async::<()>(&mut self.redis).await?;
        Ok(refreshed.access_token)
    }
}
