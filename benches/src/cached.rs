//! A cache full of tokens, as the suites about hits look at it, and the plain map that it cannot be faster than.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyfob::cache::{
    Cache, CacheLimits, CoarseClock, Decision, Hit, Nudge, PolicyEpoch, Slot, TokenHandle,
};
use keyfob::model::event::{Event, Observer};
use keyfob::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey};
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob::model::time::{Clock, SystemClock, UnixTime};
use keyfob::model::token::{AccessToken, ObtainedToken};

/// As long as the tokens of one common issuer.
pub const TOKEN_BYTES: usize = 1_200;
/// Tokens and decisions outlast every suite.
const LIFETIME: Duration = Duration::from_secs(86_400);

/// Hears nothing and renews nothing.
pub struct Idle;

/// Keys with a token each, and the decision that lets one caller have them.
pub struct Cached {
    /// The cache.
    pub cache: Cache,
    /// Who asks.
    pub caller: Principal,
    /// By number of the key.
    pub slots: Vec<Arc<Slot>>,
    /// Of policy.
    pub epoch: PolicyEpoch,
    /// What every key was decided with.
    pub decision: Decision,
    /// When all this was set up.
    pub now: UnixTime,
}

/// The floor: one map, nobody else near it, the end of each token beside its key.
pub type Plain = hashbrown::HashMap<Box<str>, Held, foldhash::quality::RandomState>;

/// A token with its end.
pub type Held = (UnixTime, Arc<str>);

/// A clock that costs nothing, so that what is looked up shows.
#[derive(Debug)]
pub struct Still(AtomicU64);

// === impl Cached ===

impl Cached {
    /// This many keys.
    pub fn new(keys: usize) -> Self {
        let now = SystemClock.now();
        let epoch = PolicyEpoch::default();
        let decision = Decision {
            epoch: epoch.current(),
            allowed_until: now.plus(LIFETIME),
            max_lifetime: None,
        };
        let limits = CacheLimits {
            keys_max: keys,
            keys_per_caller_max: keys,
        };
        let mut cached = Self {
            cache: Cache::new(limits, Arc::new(Idle)),
            caller: Principal::new("billing", Tenant::default(), Vec::new()),
            slots: Vec::with_capacity(keys),
            epoch,
            decision,
            now,
        };
        for number in 0..keys {
            let key = key(number);
            let slot = cached.cache.slot_or_insert(&key, &cached.caller, now);
            let slot = slot.expect("as much room as keys");
            publish(&slot, number as u64, now);
            let remembered =
                cached
                    .cache
                    .remember(&cached.caller, &request(number), &slot, decision, now);
            assert!(remembered, "as much room as keys");
            cached.slots.push(slot);
        }
        cached
    }

    /// A handle to the first key.
    pub fn handle(&self, clock: CoarseClock) -> TokenHandle {
        let pin = self.slots[0].pin().expect("nobody closes it");
        let epoch = self.epoch.clone();
        TokenHandle::new(pin, self.decision, epoch, clock, Arc::new(Idle))
    }

    /// Looks a token up as a gateway does, and lends it.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[inline]
    pub fn borrow(&self, request: &TokenRequest) -> usize {
        let (now, epoch) = (CoarseClock::Kernel.latest(), self.epoch.current());
        let lent = |token: &Arc<AccessToken>, _| std::ptr::from_ref(token).addr();
        let found = self.cache.with(&self.caller, request, epoch, now, lent);
        found.expect("all are fresh")
    }

    /// Looks a token up, to keep it.
    #[inline]
    pub fn lookup(&self, request: &TokenRequest) -> Option<Hit> {
        let (now, epoch) = (CoarseClock::Kernel.latest(), self.epoch.current());
        self.cache.lookup(&self.caller, request, epoch, now)
    }

    /// The same keys and tokens in a plain map.
    pub fn plain(&self) -> Plain {
        let mut plain = Plain::default();
        for (number, slot) in self.slots.iter().enumerate() {
            let token = slot.current().expect("each has one");
            let header = token.header().to_str().expect("made of ASCII");
            plain.insert(subject(number).into(), (token.expires(), header.into()));
        }
        plain
    }
}

/// Looks up, reads the clock, compares the end, and lends the token.
///
/// # Panics
///
/// When there is none, or it is over.
#[inline]
pub fn peek(plain: &Plain, request: &TokenRequest) -> usize {
    let found = plain.get(subject_of(request)).filter(|held| is_fresh(held));
    found.expect("all are there").1.len()
}

/// Whose token is asked for: what a map has it by.
#[inline]
pub fn subject_of(request: &TokenRequest) -> &str {
    let subject = request.subject.as_ref();
    subject.map_or("", |subject| subject.as_str())
}

/// Reads the clock and compares the end.
#[inline]
pub fn is_fresh((expires, _): &Held) -> bool {
    CoarseClock::Kernel.latest() < *expires
}

/// The name of a user.
pub fn subject(number: usize) -> String {
    format!("user-{number:032}")
}

/// The request for a user's token: names of its own, as if they had just come over the wire.
pub fn request(number: usize) -> TokenRequest {
    let provider = ProviderName::parse("acme").expect("a name");
    TokenRequest::new(provider).subject(Subject::parse(&subject(number)).expect("a name"))
}

/// The key that this request leads to.
pub fn key(number: usize) -> TokenKey {
    let request = request(number);
    TokenKey {
        credential: CredentialKey {
            tenant: Tenant::default(),
            provider: request.provider,
            subject: request.subject,
        },
        audience: None,
        scopes: ScopeSet::default(),
    }
}

/// Publishes another token.
///
/// # Panics
///
/// When the slot was closed.
pub fn publish(slot: &Slot, serial: u64, now: UnixTime) {
    let token = ObtainedToken {
        value: format!("{serial:0>TOKEN_BYTES$}").into(),
        token_type: "Bearer".into(),
        expires: now.plus(LIFETIME),
        issued: now,
        scopes: ScopeSet::default(),
        extra: Vec::new(),
    };
    slot.publish(slot.era(), &token, now)
        .expect("a good token for an open slot");
}

// === impl Idle ===

impl Observer for Idle {
    fn observe(&self, _: &Event) {}
}

impl Nudge for Idle {
    fn nudge(&self, _: &Arc<Slot>) {}
}

// === impl Still ===

impl Still {
    /// Stands at `now`.
    pub fn at(now: UnixTime) -> Self {
        Self(AtomicU64::new(now.as_millis()))
    }
}

impl Clock for Still {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::Relaxed))
    }
}
