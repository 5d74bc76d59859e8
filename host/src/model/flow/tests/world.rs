//! A world for one flow: a store of one row, an issuer that rotates, a plugin by script, and a fate for each run.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::super::*;
use crate::model::contract::Reason;
use crate::model::contract::{
    AnswerFormat, Body, Expiry, Field, HttpRequest, Limited, SealedValue, Segment, SignRequest,
    TokenSet,
};
use crate::model::credential::CredentialState;
use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Tenant, TokenKey};
use crate::model::transport::{Answer, Delivery, FaultKind, TransportFault};
use crate::settings::{PluginSource, ProviderSettings};

const TOKEN_URL: &str = "https://issuer.example/token";
pub(super) const GRACE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is declared.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) rotation: Rotation,
    pub(super) after_lost_answer: Option<AfterLostAnswer>,
}

pub(super) fn single_use() -> Setup {
    Setup {
        rotation: Rotation::SingleUse,
        after_lost_answer: None,
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Answered,
    NotSent,
    /// It never reached the issuer, and nobody knows.
    LostBefore,
    /// The issuer did it, and the answer was lost.
    LostAfter,
    /// The issuer did it, and the answer is a page for humans.
    Garbled,
    /// `invalid_grant`.
    Refused,
    /// A complete answer with this status; the issuer did nothing.
    Status(u16),
}

/// What befalls one run.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    pub(super) wire: Wire,
    /// The process dies before this effect, counted from zero.
    pub(super) crash_at: Option<usize>,
    /// This many commits in a row are not answered.
    pub(super) store_fails: u32,
    pub(super) plugin_traps_after_answer: bool,
    pub(super) plugin_never_ends: bool,
    pub(super) revoked_meanwhile: bool,
}

impl Default for Fate {
    fn default() -> Self {
        Self {
            wire: Wire::Answered,
            crash_at: None,
            store_fails: 0,
            plugin_traps_after_answer: false,
            plugin_never_ends: false,
            revoked_meanwhile: false,
        }
    }
}

pub(super) fn fates() -> impl Strategy<Value = Fate> {
    let wire = prop_oneof![
        4 => Just(Wire::Answered),
        1 => Just(Wire::NotSent),
        1 => Just(Wire::LostBefore),
        1 => Just(Wire::LostAfter),
        1 => Just(Wire::Garbled),
        1 => Just(Wire::Refused),
        2 => prop_oneof![Just(429_u16), Just(500), Just(502), Just(503), Just(504)]
            .prop_map(Wire::Status),
    ];
    (
        wire,
        prop::option::weighted(0.3, 0_usize..9),
        0_u32..7,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(wire, crash_at, store_fails, trap, revoked)| Fate {
            wire,
            crash_at,
            store_fails: if store_fails > 5 { store_fails } else { 0 },
            plugin_traps_after_answer: trap && wire == Wire::Answered,
            plugin_never_ends: false,
            revoked_meanwhile: revoked && crash_at.is_none() && store_fails == 0,
        })
}

pub(super) struct World {
    setup: Setup,
    pub(super) now: UnixTime,
    pub(super) stored: Stored,
    pub(super) served_until: Option<UnixTime>,
    pub(super) limited: Option<Limited>,
    pub(super) cause: Cause,
    /// The grant that the issuer takes.
    current: u32,
    /// Grants that may have been spent: seen by the issuer, or lost on the way.
    spent: Vec<String>,
    pub(super) presented: u32,
    pub(super) replays: u32,
    /// The grant in the last answer that reached the process.
    pub(super) received: Option<String>,
    /// Marks are answered even while other commits are not.
    pub(super) fail_after_marks: bool,
    /// Somebody commits the same credential while the request is out.
    pub(super) touched_meanwhile: bool,
    /// What the store did not take: kept in memory, which a crash empties.
    pub(super) stranded: Option<Record>,
    pub(super) log: Vec<&'static str>,
}

fn grant(number: u32) -> String {
    format!("refresh-token-number-{number:04}")
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let credential = Credential {
            refresh_token: Some(Secret::new(grant(1))),
            ..Credential::default()
        };
        Self {
            setup,
            now: UnixTime::from_secs(1_700_000_000),
            stored: Stored {
                version: Version(1),
                credential,
            },
            served_until: None,
            limited: None,
            cause: Cause::First,
            current: 1,
            spent: Vec::new(),
            presented: 0,
            replays: 0,
            received: None,
            fail_after_marks: false,
            touched_meanwhile: false,
            stranded: None,
            log: Vec::new(),
        }
    }

    pub(super) fn stored_grant(&self) -> Option<String> {
        self.stored
            .credential
            .refresh_token
            .as_ref()
            .map(|grant| grant.expose().clone())
    }

    pub(super) fn issuers_grant(&self) -> String {
        grant(self.current)
    }

    pub(super) fn plan(&self) -> Plan {
        let provider = ProviderName::parse("acme").unwrap();
        let plugin = PluginSource::Builtin("oauth2".into());
        let mut settings = ProviderSettings::new(provider.clone(), plugin);
        settings.allow = vec![TOKEN_URL.into()];
        Plan {
            key: TokenKey {
                credential: CredentialKey {
                    tenant: Tenant::default(),
                    provider,
                    subject: None,
                },
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
            owner: [3; 16],
            spent_key: Secret::new([4; 32]),
        }
    }

    /// One flow from lease to landing; `None` when the process died on the way.
    pub(super) fn run(&mut self, fate: Fate) -> Option<Landing> {
        self.log.clear();
        self.save();
        let mut failing = fate.store_fails;
        let (mut flow, mut effect) = Flow::new(self.plan(), self.now);
        for step in 0..64 {
            if fate.crash_at == Some(step) {
                self.stranded = None;
                return None;
            }
            let input = match effect {
                Effect::Land(landing) => return Some(landing),
                Effect::Lease | Effect::Reload => {
                    self.log.push("lease");
                    Input::Leased(Ok(self.stored.clone()))
                }
                Effect::Strand(record) => {
                    self.log.push("strand");
                    self.stranded = Some(record);
                    Input::Stranded
                }
                Effect::Consult => {
                    self.log.push("consult");
                    Input::Consulted(self.plugin(&fate, &flow))
                }
                Effect::Send(request) => {
                    self.log.push("send");
                    assert!(request.carries_grant);
                    if self.touched_meanwhile {
                        self.stored.version = Version(self.stored.version.0 + 1);
                    }
                    if fate.revoked_meanwhile {
                        self.stored.version = Version(self.stored.version.0 + 1);
                        self.stored.credential = Credential {
                            state: CredentialState::Revoked { at: self.now },
                            ..Credential::default()
                        };
                    }
                    let body = String::from_utf8(request.body.expose().clone()).unwrap();
                    Input::Delivered(self.wire(fate.wire, &body))
                }
                Effect::Mark(record) => {
                    self.log.push("mark");
                    let mut none = 0;
                    let failing = if self.fail_after_marks {
                        &mut none
                    } else {
                        &mut failing
                    };
                    Input::Recorded(self.commit(record, failing))
                }
                Effect::Persist(record) => {
                    self.log.push("persist");
                    Input::Recorded(self.commit(record, &mut failing))
                }
            };
            (flow, effect) = flow.advance(input, self.now);
        }
        panic!("the flow did not end: {:?}", self.log);
    }

    /// The store is back, before anything else is presented.
    fn save(&mut self) {
        if let Some(record) = self.stranded.take()
            && record.still_fits(&self.stored)
        {
            self.stored.version = Version(self.stored.version.0 + 1);
            self.stored.credential = record.onto(self.stored.credential.clone());
        }
    }

    /// The grant on record, or about to be.
    pub(super) fn safe_grant(&self) -> Option<String> {
        let stranded = self
            .stranded
            .as_ref()
            .and_then(|it| it.credential.refresh_token.as_ref());
        stranded
            .map(|grant| grant.expose().clone())
            .or_else(|| self.stored_grant())
    }

    fn commit(&mut self, record: Record, failing: &mut u32) -> Result<Version, CommitFault> {
        if *failing > 0 {
            *failing -= 1;
            return Err(CommitFault::Unreachable("no answer".into()));
        }
        if record.expected != self.stored.version {
            return Err(CommitFault::Conflict);
        }
        self.stored.version = Version(self.stored.version.0 + 1);
        self.stored.credential = record.credential;
        Ok(self.stored.version)
    }

    fn plugin(&self, fate: &Fate, flow: &Flow) -> Result<Result<Step, Refusal>, PluginFault> {
        let reason = |code: &str| Reason {
            code: code.into(),
            message: String::new(),
        };
        let send = || {
            let grant = flow
                .call()
                .refresh_token
                .clone()
                .expect("the flow sealed the grant");
            HttpRequest {
                method: "POST".into(),
                url: TOKEN_URL.into(),
                query: Vec::new(),
                headers: Vec::new(),
                auth: None,
                body: Body::Form(vec![Field {
                    name: "refresh_token".into(),
                    value: vec![Segment::Sealed(grant)],
                }]),
                answer: AnswerFormat::Json,
                captures: Vec::new(),
            }
        };
        let Some(Reply::Response(response)) = flow.replies().last() else {
            return Ok(Ok(Step::Send(send())));
        };
        if fate.plugin_traps_after_answer {
            return Err(PluginFault::Trap("a bug".into()));
        }
        if fate.plugin_never_ends {
            let key = "none".to_owned();
            let (header, claims) = (String::new(), String::new());
            return Ok(Ok(Step::Sign(SignRequest::Jwt {
                key,
                header,
                claims,
            })));
        }
        let after = Some(Duration::from_secs(60));
        if let (429, Some(scope)) = (response.status, self.limited) {
            return Ok(Err(Refusal::RateLimited { after, scope }));
        }
        if response.status == 400 {
            return Ok(Err(Refusal::Reauthorize(reason("invalid_grant"))));
        }
        if response.status != 200 {
            return Ok(Err(Refusal::Transient {
                reason: reason("server"),
                after: None,
            }));
        }
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        let handle = |name: &str| SealedValue {
            handle: body[name].as_str().unwrap().into(),
        };
        Ok(Ok(Step::Done(TokenSet {
            access_token: handle("access_token"),
            token_type: "Bearer".into(),
            expires: Expiry::FromAnswer(60),
            scopes: None,
            refresh_token: Some(handle("refresh_token")),
            extra: Vec::new(),
            held: Vec::new(),
            memo: Vec::new(),
        })))
    }

    fn wire(&mut self, wire: Wire, body: &str) -> Delivery {
        let fault = |kind| TransportFault {
            kind,
            detail: "as scripted".into(),
        };
        let presented = body.rsplit('=').next().unwrap().to_owned();
        if wire == Wire::NotSent {
            return Delivery::NotSent(fault(FaultKind::Connect));
        }
        self.presented += 1;
        if self.spent.contains(&presented) {
            self.replays += 1;
        }
        let happened = !matches!(wire, Wire::Status(429 | 500 | 503) | Wire::Refused);
        if happened {
            self.spent.push(presented.clone());
        }
        let good = presented == self.issuers_grant();
        if good && matches!(wire, Wire::Answered | Wire::LostAfter | Wire::Garbled) {
            self.current += 1;
        }
        match wire {
            Wire::Answered if good => {
                let (next, number) = (self.issuers_grant(), self.current);
                self.received = Some(next.clone());
                let body = serde_json::json!({
                    "access_token": format!("access-token-number-{number:04}"),
                    "token_type": "Bearer",
                    "expires_in": 60,
                    "refresh_token": next,
                });
                self.answer(200, &body.to_string())
            }
            Wire::Answered | Wire::Refused => self.answer(400, r#"{"error":"invalid_grant"}"#),
            Wire::Garbled => self.answer(200, "<html>maintenance</html>"),
            Wire::Status(status) => self.answer(status, "busy"),
            Wire::LostBefore | Wire::LostAfter | Wire::NotSent => {
                Delivery::Lost(fault(FaultKind::Broken))
            }
        }
    }

    fn answer(&self, status: u16, body: &str) -> Delivery {
        Delivery::Answered(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
            sent_at: self.now,
            took: Duration::from_millis(5),
        })
    }
}
