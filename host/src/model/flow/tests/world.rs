//! A world for flows: one credential in a store, an issuer, a plugin by script, processes that drive flows and die, and a
//! fate for each run. Values in, values out; time is moved by hand.

mod fate;
mod issuer;
mod plugin;
mod row;

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::super::*;
use crate::model::contract::Limited;
use crate::model::credential::{CredentialState, Seen};
use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Tenant, TokenKey};
use crate::model::transport::{Answer, Delivery, FaultKind, TransportFault};
use crate::settings::{PluginSource, ProviderSettings};
pub(crate) use fate::{Commit, Crash, Fate, Wire, commits, fates, wires};
pub(crate) use issuer::{Issuer, Manner};
pub(crate) use row::{OneRow, Row};

const TOKEN_URL: &str = "https://issuer.example/token";
pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// How long a flow may take; a lost answer takes all of it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// More effects than the longest flow has: plugin steps and every try of every commit.
const EFFECTS_MAX: usize = 64;

/// What is declared, what was learned, and what the issuer really does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) rotation: Rotation,
    pub(crate) after_lost_answer: Option<AfterLostAnswer>,
    pub(crate) seen: Seen,
    pub(crate) manner: Manner,
}

pub(crate) fn single_use() -> Setup {
    Setup {
        rotation: Rotation::SingleUse,
        after_lost_answer: None,
        seen: Seen::default(),
        manner: Manner::Rotates,
    }
}

/// The one credential of a world.
pub(crate) fn credential_key() -> CredentialKey {
    CredentialKey {
        tenant: Tenant::default(),
        provider: ProviderName::parse("acme").unwrap(),
        subject: None,
    }
}

/// Undeclared, and the issuer rotates.
pub(crate) fn unknown() -> Setup {
    Setup {
        rotation: Rotation::Unknown,
        ..single_use()
    }
}

/// Good once, and for a while after that.
pub(crate) fn grace() -> Setup {
    Setup {
        rotation: Rotation::Grace,
        manner: Manner::Forgives(GRACE),
        ..single_use()
    }
}

/// A process: the flow that it drives, and what it alone knows.
#[derive(Default)]
pub(crate) struct Process {
    stage: Stage,
    deadline: UnixTime,
    /// What the store did not take, which a crash forgets.
    stranded: Option<Record>,
    /// The grant in the last answer that reached it.
    received: Option<String>,
    effects: usize,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Next(Box<(Flow, Effect)>),
    /// The effect was performed, and its result is on the way.
    Heard(Box<(Flow, Input)>),
}

/// What performing an effect led to.
enum Performed {
    Going,
    Landed(Landing),
    Died,
}

pub(crate) struct World<R = OneRow> {
    setup: Setup,
    pub(crate) now: UnixTime,
    pub(crate) row: R,
    pub(crate) issuer: Issuer,
    pub(crate) served_until: Option<UnixTime>,
    pub(crate) limited: Option<Limited>,
    pub(crate) cause: Cause,
    pub(crate) processes: [Process; 2],
    /// Marks are answered even while other commits are not.
    pub(crate) fail_after_marks: bool,
    /// Somebody commits the same credential while the request is out.
    pub(crate) touched_meanwhile: bool,
    /// Commits that are still on their way to the store.
    late: Vec<(Version, Credential)>,
    /// How many flows were begun: names their attempts.
    begun: u64,
    /// Every grant that was on record once.
    pub(crate) recorded: BTreeSet<String>,
    /// Every grant that was dropped for a revoke or a replacement: `unsaved` has it revoked.
    orphaned: BTreeSet<String>,
    /// The last commit that the store answered, heard or not.
    answered: Stored,
    /// The commit that its process died within.
    attempted: Option<Credential>,
    /// How the last run's process died: the kind of crash, and the effect.
    pub(crate) died: Option<(&'static str, &'static str)>,
    pub(crate) log: Vec<&'static str>,
}

// === impl World ===

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        Self::on(OneRow::default(), setup)
    }
}

impl<R: Row> World<R> {
    /// Until what was lost can no longer reach the issuer.
    pub(crate) fn wait_it_out(&mut self) {
        self.now = self.now.plus(INTENT_SLACK);
    }

    /// A world whose store is `row`; a human has just handed the first grant over.
    pub(crate) fn on(row: R, setup: Setup) -> Self {
        let mut world = Self {
            setup,
            now: UnixTime::from_secs(1_700_000_000),
            row,
            issuer: Issuer::new(setup.manner),
            served_until: None,
            limited: None,
            cause: Cause::First,
            processes: Default::default(),
            fail_after_marks: false,
            touched_meanwhile: false,
            late: Vec::new(),
            begun: 0,
            recorded: BTreeSet::new(),
            orphaned: BTreeSet::new(),
            answered: Stored::default(),
            attempted: None,
            died: None,
            log: Vec::new(),
        };
        let first = Credential {
            refresh_token: Some(Secret::new(world.issuer.current())),
            seen: setup.seen,
            ..Credential::default()
        };
        world.make(Version(0), first).unwrap();
        world
    }

    /// The same world with another store that holds the same.
    pub(crate) fn moved_to<S: Row>(&self, row: S) -> World<S> {
        World {
            setup: self.setup,
            now: self.now,
            row,
            issuer: self.issuer.clone(),
            served_until: self.served_until,
            limited: self.limited,
            cause: self.cause,
            processes: Default::default(),
            fail_after_marks: self.fail_after_marks,
            touched_meanwhile: self.touched_meanwhile,
            late: self.late.clone(),
            begun: self.begun,
            recorded: self.recorded.clone(),
            orphaned: self.orphaned.clone(),
            answered: self.answered.clone(),
            attempted: None,
            died: None,
            log: Vec::new(),
        }
    }

    /// Fails unless the row is what the store answered last, or the whole of the commit that died with its process; true
    /// when it is that.
    pub(crate) fn what_was_committed_is_there(&mut self) -> bool {
        let row = self.row.load();
        let made = self.attempted.take().is_some_and(|attempted| {
            row.version == Version(self.answered.version.0 + 1) && row.credential == attempted
        });
        if made {
            self.recorded.extend(exposed(&row.credential));
            self.answered = row;
        } else {
            assert_eq!(row.version, self.answered.version);
            assert!(row.credential == self.answered.credential);
        }
        made
    }

    /// All that decides how it goes on, in words; times as they are seen from now, so that equal stories are found.
    pub(crate) fn story(&mut self) -> String {
        let Credential {
            refresh_token,
            state,
            intent,
            seen,
            spent,
            ..
        } = self.row.load().credential;
        let now = self.now;
        let grant = refresh_token.map(|grant| grant.expose().clone());
        let label = state.label();
        let state = match state {
            CredentialState::Uncertain { since } => Some((now.since(since), Duration::ZERO)),
            CredentialState::Suspended { until } => Some((Duration::ZERO, until.since(now))),
            _ => None,
        };
        let intent = intent.map(|it| (now.since(it.at), it.over_at.since(now)));
        let (spent, issuer) = (spent.len(), self.issuer.story(now));
        format!("{grant:?} {label} {state:?} {intent:?} {seen:?} {spent} spent; {issuer}")
    }

    pub(crate) fn stored(&mut self) -> Stored {
        self.row.load()
    }

    pub(crate) fn stored_grant(&mut self) -> Option<String> {
        exposed(&self.row.load().credential)
    }

    /// The grant on record, or about to be.
    pub(crate) fn safe_grant(&mut self) -> Option<String> {
        let kept = self.processes.iter().find_map(Process::kept_grant);
        kept.or_else(|| self.stored_grant())
    }

    /// Whether what came back of the flow that just landed is where the protocol says.
    pub(crate) fn is_kept(&self, who: usize, landing: &Landing) -> bool {
        let process = &self.processes[who];
        let Some(received) = &process.received else {
            return true;
        };
        let orphan = matches!(
            landing,
            Landing::Superseded { orphan: Some(orphan), .. } if orphan.expose() == received
        );
        orphan
            || self.recorded.contains(received)
            || self.orphaned.contains(received)
            || process.kept_grant().as_ref() == Some(received)
    }

    pub(crate) fn plan(&self, who: usize) -> Plan {
        let plugin = PluginSource::Builtin("oauth2".into());
        let mut settings = ProviderSettings::new(credential_key().provider, plugin);
        settings.allow = vec![TOKEN_URL.into()];
        // Every attempt has a name of its own, as random bytes would give it.
        let mut owner = [who as u8 + 1; 16];
        owner[..8].copy_from_slice(&self.begun.to_le_bytes());
        Plan {
            key: TokenKey {
                credential: credential_key(),
                audience: None,
                scopes: ScopeSet::default(),
            },
            cause: self.cause,
            deadline: self.now.plus(TIMEOUT),
            settings: "{}".into(),
            rules: Arc::new(Rules::new(&settings).unwrap()),
            secrets: Vec::new(),
            rotation: self.setup.rotation,
            grace: GRACE,
            after_lost_answer: self.setup.after_lost_answer,
            default_lifetime: Duration::from_secs(300),
            served_until: self.served_until,
            entropy: [1; 32],
            seed: Secret::new([2; 32]),
            owner,
            spent_key: Secret::new([4; 32]),
        }
    }

    /// One flow from lease to landing, by the first process; `None` when it died on the way.
    pub(crate) fn run(&mut self, fate: Fate) -> Option<Landing> {
        self.log.clear();
        self.died = None;
        while self.arrive() {}
        self.save(0);
        self.begin(0);
        let mut commits = fate.commits.clone().into_iter();
        for effect in 0.. {
            let next = self.next(0)?;
            let within = match fate.crash {
                Some(Crash::Before(at)) if at == effect => {
                    self.die(0, "before", next);
                    return None;
                }
                Some(Crash::Within(at, writes)) if at == effect => Some(writes),
                _ => None,
            };
            let how = match next {
                "mark" if self.fail_after_marks => Commit::Answered,
                "mark" | "persist" => commits.next().unwrap_or_default(),
                _ => Commit::Answered,
            };
            let performed = self.perform_or_die(0, &fate, how, within);
            let died = fate.crash == Some(Crash::After(effect));
            if died {
                self.die(0, "after", next);
            }
            match performed {
                Performed::Landed(landing) => return Some(landing),
                Performed::Going if !died => self.hear(0),
                Performed::Going | Performed::Died => return None,
            }
        }
        None
    }

    /// The first half of a process's step: performs its next effect. The landing, if it is one.
    pub(crate) fn perform(&mut self, who: usize, fate: &Fate, commit: Commit) -> Option<Landing> {
        match self.perform_or_die(who, fate, commit, None) {
            Performed::Landed(landing) => Some(landing),
            Performed::Going | Performed::Died => None,
        }
    }

    /// The other half: the process hears what became of it.
    pub(crate) fn hear(&mut self, who: usize) {
        if !self.is_waiting(who) {
            return;
        }
        let now = self.now;
        let process = &mut self.processes[who];
        if let Stage::Heard(heard) = std::mem::take(&mut process.stage) {
            let (flow, input) = *heard;
            process.stage = Stage::Next(Box::new(flow.advance(input, now)));
        }
    }

    /// Whether a process has performed an effect, and not heard of it.
    pub(crate) fn is_waiting(&self, who: usize) -> bool {
        matches!(self.processes[who].stage, Stage::Heard(_))
    }

    pub(crate) fn is_idle(&self, who: usize) -> bool {
        matches!(self.processes[who].stage, Stage::Idle)
    }

    /// A process begins a flow.
    pub(crate) fn begin(&mut self, who: usize) {
        self.begun += 1;
        let plan = self.plan(who);
        let process = &mut self.processes[who];
        process.deadline = plan.deadline;
        process.received = None;
        process.effects = 0;
        process.stage = Stage::Next(Box::new(Flow::new(plan, self.now)));
    }

    /// A process is gone, with all that it alone knew.
    pub(crate) fn crash(&mut self, who: usize) {
        self.processes[who] = Process::default();
        self.row.reopen();
    }

    fn die(&mut self, who: usize, kind: &'static str, effect: &'static str) {
        self.died = Some((kind, effect));
        self.crash(who);
    }

    /// What a process does next.
    pub(crate) fn next(&self, who: usize) -> Option<&'static str> {
        match &self.processes[who].stage {
            Stage::Next(next) => Some(match next.1 {
                Effect::Lease | Effect::Reload => "lease",
                Effect::Mark(_) => "mark",
                Effect::Consult => "consult",
                Effect::Send(_) => "send",
                Effect::Persist(_) => "persist",
                Effect::Strand(_) => "strand",
                Effect::Land(_) => "land",
            }),
            Stage::Idle | Stage::Heard(_) => None,
        }
    }

    fn perform_or_die(
        &mut self,
        who: usize,
        fate: &Fate,
        how: Commit,
        within: Option<usize>,
    ) -> Performed {
        let Some(label) = self.next(who) else {
            return Performed::Going;
        };
        let Stage::Next(next) = std::mem::take(&mut self.processes[who].stage) else {
            return Performed::Going;
        };
        let (flow, effect) = *next;
        self.log.push(label);
        self.processes[who].effects += 1;
        assert!(
            self.processes[who].effects < EFFECTS_MAX,
            "the flow does not end: {:?}",
            self.log
        );
        let input = match effect {
            Effect::Land(landing) => return Performed::Landed(landing),
            Effect::Lease if self.processes[who].stranded.is_some() => {
                Input::Leased(Err(Unreachable("not on record yet".into())))
            }
            Effect::Lease | Effect::Reload => Input::Leased(Ok(self.row.load())),
            Effect::Strand(record) => {
                self.strand(who, record);
                Input::Stranded
            }
            Effect::Consult => {
                Input::Consulted(plugin::consult(&flow, fate, self.limited, TOKEN_URL))
            }
            Effect::Send(request) => {
                assert!(request.carries_grant);
                if self.touched_meanwhile {
                    self.touch();
                }
                if fate.revoked_meanwhile {
                    self.revoke();
                }
                let body = String::from_utf8(request.body.expose().clone()).unwrap();
                Input::Delivered(self.send(who, fate.wire, &body))
            }
            Effect::Mark(record) | Effect::Persist(record) => match within {
                Some(writes) => {
                    self.attempted = Some(record.credential.clone());
                    self.row
                        .die_within(writes, record.expected, record.credential);
                    self.die(who, "within", label);
                    return Performed::Died;
                }
                None => Input::Recorded(self.commit(&record, how)),
            },
        };
        self.processes[who].stage = Stage::Heard(Box::new((flow, input)));
        Performed::Going
    }

    /// As `unsaved::keep` does it: what is already kept of the grant stays to be recorded.
    fn strand(&mut self, who: usize, mut record: Record) {
        let kept = &mut self.processes[who].stranded;
        if kept.as_ref().is_some_and(|it| it.change == Change::Rotated) {
            record.change = Change::Rotated;
        }
        *kept = Some(record);
    }

    /// The store is back: what a process kept is committed on top of what is there.
    pub(crate) fn save(&mut self, who: usize) {
        let Some(record) = self.processes[who].stranded.take() else {
            return;
        };
        let row = self.row.load();
        if record.still_fits(&row) {
            let merged = record.onto(&row.credential);
            self.make(row.version, merged).unwrap();
        } else {
            self.orphaned.extend(exposed(&record.credential));
        }
    }

    /// The oldest commit on its way arrives; false when there is none.
    pub(crate) fn arrive(&mut self) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let (expected, next) = self.late.remove(0);
        drop(self.make(expected, next));
        true
    }

    /// An operator ends the credential.
    pub(crate) fn revoke(&mut self) {
        let state = CredentialState::Revoked { at: self.now };
        self.operate(Credential {
            state,
            ..Credential::default()
        });
    }

    /// A human authorizes anew, and the new grant is handed over.
    pub(crate) fn replace(&mut self) {
        let grant = self.issuer.authorize();
        self.operate(Credential {
            refresh_token: Some(Secret::new(grant)),
            grant_since: self.now,
            ..Credential::default()
        });
    }

    /// Somebody commits the credential as it is.
    pub(crate) fn touch(&mut self) {
        let same = self.row.load().credential;
        self.operate(same);
    }

    /// The same grant is handed over again, as the broker does it; which, if that orders one more presentation.
    pub(crate) fn hand_over_again(&mut self) -> Option<String> {
        let Credential {
            refresh_token,
            state,
            intent,
            seen,
            spent,
            ..
        } = self.row.load().credential;
        let grant = refresh_token.filter(|_| state != CredentialState::Live)?;
        self.operate(Credential {
            refresh_token: Some(grant.clone()),
            grant_since: self.now,
            intent: intent.filter(|it| it.over_at > self.now),
            seen,
            spent,
            ..Credential::default()
        });
        Some(grant.expose().clone())
    }

    fn operate(&mut self, next: Credential) {
        let version = self.row.load().version;
        self.make(version, next).unwrap();
    }

    fn make(&mut self, expected: Version, next: Credential) -> Result<Version, CommitFault> {
        let version = self.row.commit(expected, next.clone())?;
        self.recorded.extend(exposed(&next));
        self.answered = Stored {
            version,
            credential: next,
        };
        Ok(version)
    }

    /// As the driver does it, with what may become of a commit on the way.
    fn commit(&mut self, record: &Record, how: Commit) -> Result<Version, CommitFault> {
        let (expected, next) = (record.expected, record.credential.clone());
        let no_answer = Err(CommitFault::Unreachable("no answer".into()));
        let done = match how {
            Commit::Answered => self.make(expected, next),
            Commit::Lost => no_answer,
            Commit::Unanswered => {
                drop(self.make(expected, next));
                no_answer
            }
            Commit::Late => {
                self.late.push((expected, next));
                no_answer
            }
            Commit::Twice => {
                drop(self.make(expected, next.clone()));
                self.make(expected, next)
            }
        };
        match done {
            Err(CommitFault::Conflict) => {
                let row = self.row.load();
                record.is_made(&row).ok_or(CommitFault::Conflict)
            }
            done => done,
        }
    }

    fn send(&mut self, who: usize, wire: Wire, body: &str) -> Delivery {
        let fault = |kind| TransportFault {
            kind,
            detail: "as scripted".into(),
        };
        let sent_at = self.now;
        if wire == Wire::NotSent || sent_at >= self.processes[who].deadline {
            return Delivery::NotSent(fault(FaultKind::Connect));
        }
        let presented = body.rsplit('=').next().unwrap();
        let tokens = self.issuer.meet(presented, wire, sent_at);
        match (wire, tokens) {
            (Wire::Answered, Some(tokens)) => {
                let received = tokens.refresh_token.clone();
                self.processes[who].received = received;
                let mut body = serde_json::json!({
                    "access_token": tokens.access_token,
                    "token_type": "Bearer",
                    "expires_in": 60,
                });
                if let Some(grant) = tokens.refresh_token {
                    body["refresh_token"] = grant.into();
                }
                answer(200, &body.to_string(), sent_at)
            }
            (Wire::Answered | Wire::Refused, _) => {
                answer(400, r#"{"error":"invalid_grant"}"#, sent_at)
            }
            (Wire::Garbled, _) => answer(200, "<html>maintenance</html>", sent_at),
            (Wire::Status(status), _) => answer(status, "busy", sent_at),
            (Wire::LostBefore | Wire::LostAfter | Wire::NotSent, _) => {
                self.now = self.processes[who].deadline;
                Delivery::Lost(fault(FaultKind::Broken))
            }
        }
    }
}

// === impl Process ===

impl Process {
    fn kept_grant(&self) -> Option<String> {
        exposed(&self.stranded.as_ref()?.credential)
    }
}

fn exposed(credential: &Credential) -> Option<String> {
    let grant = credential.refresh_token.as_ref()?;
    Some(grant.expose().clone())
}

fn answer(status: u16, body: &str, sent_at: UnixTime) -> Delivery {
    Delivery::Answered(Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: body.to_owned().into(),
        sent_at,
        took: Duration::from_millis(5),
    })
}
