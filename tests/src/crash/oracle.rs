//! What must hold: every grant that was handed over is a line of rotations, and the issuer's ledger says how often each
//! was presented, and what it brought. Nothing here asks the process under test whether it is well.

use std::collections::{BTreeMap, HashMap};

use super::upstream::Declared;
use crate::daemon::Token;

/// More would say the same again.
const VIOLATIONS_MAX: usize = 20;

/// One request at the token endpoint. Grants are numbers or hashes, never themselves.
pub(super) struct Presentation {
    pub(super) presented: Option<String>,
    pub(super) brought: Option<String>,
    pub(super) answered: Answered,
    /// When the connection ended, in milliseconds since 1970.
    pub(super) read_at: Option<u64>,
}

pub(super) enum Answered {
    Granted,
    Refused(String),
    /// The grant was spent before, and what came of it is dead.
    Replayed,
}

/// Whose grant it is.
pub(super) struct Whose {
    pub(super) declared: Declared,
    pub(super) subject: String,
}

/// A grant that was handed over, and all that came of it.
struct Life {
    credential: usize,
    first: String,
    ended: Option<String>,
    /// How many presentations the issuer had seen when another was handed over in its place.
    replaced_at: Option<usize>,
}

/// One refresh token.
struct Grant {
    life: usize,
    /// The round in which it was issued or handed over.
    round: usize,
    /// The rounds in which it was presented.
    presented: Vec<usize>,
    brought: Vec<Brought>,
    /// The issuer's last word on it was a complete refusal: nothing was done.
    refused: bool,
    /// A caller has the access token that came with it.
    told: bool,
}

struct Brought {
    grant: String,
    /// The process had read the answer so many milliseconds before it was killed.
    in_hand_for: Option<u64>,
}

/// What became of all rotations.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Grants that the issuer replaced.
    pub rotations: usize,
    /// Of these: presented later, or a caller got the token that came with it.
    pub kept: usize,
    /// Of those kept: issued before a kill and presented after it.
    pub kept_over_a_kill: usize,
    /// The answer was lost in a kill, and the grant before was presented again inside its grace.
    pub recovered_in_grace: usize,
    /// The answer was lost in a kill, and the credential ended with the cause `lost_answer`.
    pub lost_with_their_credential: usize,
    /// Of the answers lost: the connection had been closed by the process before the kill.
    pub lost_in_hand: usize,
    /// Of these, the longest time between, in milliseconds.
    pub in_hand_at_most_ms: u64,
    /// Credentials that ended.
    pub ended: usize,
    /// Of these: the mark was made and the grant never reached the issuer.
    pub ended_unsent: usize,
    /// Grants of unknown kind that were presented once more because their first answer was lost.
    pub probes: usize,
    /// Of these: the issuer took it for a theft.
    pub probes_refused: usize,
    /// A probe that was refused, sent again because the refusal was not on record when the process was killed.
    pub probes_repeated: usize,
    /// Replays that no probe explains.
    pub replays: usize,
}

/// The judge.
pub(super) struct Oracle {
    credentials: Vec<Declared>,
    lives: Vec<Life>,
    /// By credential.
    current: Vec<Option<usize>>,
    grants: HashMap<String, Grant>,
    /// Tokens that callers got and whose grant is not looked up yet, with what was asked.
    heard: BTreeMap<String, usize>,
    /// By credential: the highest version that was told.
    versions: Vec<u64>,
    /// Presentations that were absorbed.
    absorbed: usize,
    /// By credential: whether it was served in this round.
    served: Vec<bool>,
    /// When the process of each round was killed, in milliseconds since 1970.
    killed: Vec<Option<u64>>,
    probes: usize,
    probes_refused: usize,
    probes_repeated: usize,
    replays: usize,
    pub(super) tokens: usize,
    pub(super) violations: Vec<String>,
}

// === impl Oracle ===

impl Oracle {
    pub(super) fn new(credentials: Vec<Declared>) -> Self {
        let many = credentials.len();
        Self {
            credentials,
            lives: Vec::new(),
            current: vec![None; many],
            grants: HashMap::new(),
            heard: BTreeMap::new(),
            versions: vec![0; many],
            absorbed: 0,
            served: vec![false; many],
            killed: vec![None],
            probes: 0,
            probes_refused: 0,
            probes_repeated: 0,
            replays: 0,
            tokens: 0,
            violations: Vec::new(),
        }
    }

    pub(super) fn violated(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let round = self.round();
            self.violations.push(format!("life {round}: {what}"));
        }
    }

    pub(super) fn next_round(&mut self) {
        self.killed.push(None);
        self.served.fill(false);
    }

    pub(super) fn killed(&mut self, now: u64) {
        let round = self.round();
        self.killed[round] = Some(now);
    }

    fn round(&self) -> usize {
        self.killed.len() - 1
    }

    /// A grant is about to be handed over; the issuer has seen so many presentations.
    pub(super) fn hand_over(&mut self, credential: usize, first: String, seen: usize) {
        if let Some(before) = self.current[credential] {
            self.lives[before].replaced_at = Some(seen);
        }
        let life = self.lives.len();
        let grant = Grant::new(life, self.round());
        self.grants.insert(first.clone(), grant);
        self.lives.push(Life {
            credential,
            first,
            ended: None,
            replaced_at: None,
        });
        self.current[credential] = Some(life);
    }

    /// Whether a grant reached the issuer, and so was taken over for certain.
    pub(super) fn was_presented(&self, grant: &str) -> bool {
        self.grants
            .get(grant)
            .is_some_and(|grant| !grant.presented.is_empty())
    }

    /// The operator was told that a credential ended.
    pub(super) fn ended(&mut self, credential: usize, cause: &str) {
        if let Some(life) = self.current[credential] {
            self.lives[life].ended = Some(cause.to_owned());
        }
    }

    /// A caller got a token.
    pub(super) fn served(&mut self, credential: usize, token: &Token) {
        self.tokens += 1;
        self.served[credential] = true;
        if token.expires_in == 0 {
            self.violated("a token without any life left was served".to_owned());
        }
        if let Some(other) = self.heard.insert(token.access_token.clone(), credential)
            && other != credential
        {
            self.violated("one token was served for two credentials".to_owned());
        }
    }

    pub(super) fn all_served(&self) -> bool {
        self.served.iter().all(|served| *served)
    }

    /// Tokens that callers got in this round.
    pub(super) fn heard_now(&self) -> impl Iterator<Item = &str> {
        self.heard.keys().map(String::as_str)
    }

    /// Tokens to look up.
    pub(super) fn heard(&mut self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.heard).into_iter().collect()
    }

    /// A caller of this credential got the token that was issued beside this grant.
    pub(super) fn told(&mut self, credential: usize, grant: Option<&str>) {
        let found = grant.and_then(|grant| self.grants.get_mut(grant));
        let Some(found) = found else {
            return self.violated("a token was served that came with no known grant".to_owned());
        };
        found.told = true;
        let owner = self.lives[found.life].credential;
        if owner != credential {
            self.violated(format!(
                "credential {credential} was served the token of {owner}"
            ));
        }
    }

    /// Somebody was told this version: the log, or an operator.
    pub(super) fn version(&mut self, credential: usize, version: u64) {
        let known = &mut self.versions[credential];
        *known = version.max(*known);
    }

    /// After a start, before anything is asked: the version that the store has.
    pub(super) fn audited(&mut self, credential: usize, version: u64) {
        let told = self.versions[credential];
        if version < told {
            self.violated(format!(
                "credential {credential} is at {version}, and {told} was told"
            ));
        }
        self.version(credential, version);
    }

    /// What the issuer saw since the last time.
    pub(super) fn absorb(&mut self, news: Vec<Presentation>) {
        for presentation in news {
            self.presented(presentation);
        }
    }

    fn presented(&mut self, it: Presentation) {
        let number = self.absorbed;
        self.absorbed += 1;
        let round = self.round();
        let killed = self.killed[round];
        let Some(id) = it.presented else {
            return self.violated("a grant was presented that was never issued".to_owned());
        };
        let Some(grant) = self.grants.get_mut(&id) else {
            return self.violated(format!("grant {id} belongs to nobody here"));
        };
        grant.presented.push(round);
        let refused_before = grant.refused;
        grant.refused = !matches!(it.answered, Answered::Granted);
        let (times, life) = (grant.presented.len(), grant.life);
        // In the same millisecond it may as well have been the kill that closed it.
        let before_kill = |at: u64| {
            let span = killed.and_then(|killed| killed.checked_sub(at));
            span.filter(|span| *span > 0)
        };
        if let Some(brought) = &it.brought {
            grant.brought.push(Brought {
                grant: brought.clone(),
                in_hand_for: it.read_at.and_then(before_kill),
            });
            self.grants.insert(brought.clone(), Grant::new(life, round));
        }
        let whole = &self.lives[life];
        let (credential, first) = (whole.credential, whole.first == id);
        if whole.replaced_at.is_some_and(|at| number >= at) {
            self.violated(format!(
                "credential {credential} presented a grant that was replaced"
            ));
        }
        let declared = self.credentials[credential];
        // What the documentation says of a grant of which nothing is known: once more, when nothing is left to lose.
        let probe = declared == Declared::Unknown && first && (times == 2 || refused_before);
        self.probes += usize::from(probe && times == 2);
        self.probes_repeated += usize::from(probe && times > 2);
        if times > 1 && declared != Declared::Grace && !probe {
            self.violated(format!(
                "credential {credential} presented grant {id} {times} times"
            ));
        }
        match it.answered {
            Answered::Granted => {}
            Answered::Replayed | Answered::Refused(_) if probe => {
                self.probes_refused += usize::from(times == 2);
            }
            Answered::Replayed => {
                self.replays += 1;
                self.violated(format!("credential {credential} replayed grant {id}"));
            }
            Answered::Refused(code) => {
                self.violated(format!("credential {credential}: the issuer said {code}"));
            }
        }
    }

    /// Accounts for every rotation; one that nothing accounts for is a violation, unless the run was cut short.
    pub(super) fn close(&mut self, cut_short: bool) -> Tally {
        let mut tally = Tally {
            probes: self.probes,
            probes_refused: self.probes_refused,
            probes_repeated: self.probes_repeated,
            replays: self.replays,
            ..Tally::default()
        };
        let mut found = Vec::new();
        for (number, life) in self.lives.iter().enumerate() {
            let grants = || {
                self.grants
                    .values()
                    .filter(move |grant| grant.life == number)
            };
            let kept = |id: &str| self.grants.get(id).is_some_and(Grant::is_kept);
            let mut lost_here = 0;
            for grant in grants() {
                for (nth, brought) in grant.brought.iter().enumerate() {
                    tally.rotations += 1;
                    let Some(next) = self.grants.get(&brought.grant) else {
                        continue;
                    };
                    if next.is_kept() {
                        tally.kept += 1;
                        let later = next.presented.first().is_some_and(|at| *at > next.round);
                        tally.kept_over_a_kill += usize::from(later);
                        continue;
                    }
                    if let Some(span) = brought.in_hand_for {
                        tally.lost_in_hand += 1;
                        tally.in_hand_at_most_ms = tally.in_hand_at_most_ms.max(span);
                    }
                    let again = grant.brought[nth + 1..]
                        .iter()
                        .any(|later| kept(&later.grant));
                    if again {
                        tally.recovered_in_grace += 1;
                    } else if life.ended.is_some() {
                        lost_here += 1;
                        tally.lost_with_their_credential += 1;
                    } else if !cut_short {
                        found.push(format!(
                            "credential {}: rotation {} is neither kept nor in doubt",
                            life.credential, brought.grant
                        ));
                    }
                }
            }
            let Some(cause) = &life.ended else { continue };
            tally.ended += 1;
            let probed = self
                .grants
                .get(&life.first)
                .is_some_and(|first| first.presented.len() > 1);
            match cause.as_str() {
                "lost_answer" => tally.ended_unsent += usize::from(lost_here == 0 && !probed),
                "refused" if probed && self.credentials[life.credential] == Declared::Unknown => {}
                cause => found.push(format!("credential {} ended: {cause}", life.credential)),
            }
        }
        found.into_iter().for_each(|what| self.violated(what));
        tally
    }
}

// === impl Grant ===

impl Grant {
    fn new(life: usize, round: usize) -> Self {
        Self {
            life,
            round,
            presented: Vec::new(),
            brought: Vec::new(),
            refused: false,
            told: false,
        }
    }

    /// The process had it: it presented it, or gave out what came with it.
    fn is_kept(&self) -> bool {
        self.told || !self.presented.is_empty()
    }
}
