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
    /// By round and credential: rotations that the log told as recorded.
    recorded: HashMap<(usize, usize), usize>,
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
            recorded: HashMap::new(),
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

    /// The log told that a rotation is on record.
    pub(super) fn recorded(&mut self, credential: usize) {
        let told = self.recorded.entry((self.round(), credential));
        *told.or_default() += 1;
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
        let last_round = self.round();
        for (number, life) in self.lives.iter().enumerate() {
            let grants = || {
                self.grants
                    .values()
                    .filter(move |grant| grant.life == number)
            };
            let kept = |id: &str| self.grants.get(id).is_some_and(Grant::is_kept);
            // The last life ended in order: a renewal that nobody waited for is on record, and the log says so.
            let in_last = grants().flat_map(|grant| &grant.brought);
            let in_last = in_last.filter(|brought| {
                let next = self.grants.get(&brought.grant);
                next.is_some_and(|next| next.round == last_round)
            });
            let told = self.recorded.get(&(last_round, life.credential));
            let all_recorded = told.is_some_and(|told| *told >= in_last.count());
            let mut lost_here = 0;
            for grant in grants() {
                for (nth, brought) in grant.brought.iter().enumerate() {
                    tally.rotations += 1;
                    let Some(next) = self.grants.get(&brought.grant) else {
                        continue;
                    };
                    if next.is_kept() || (all_recorded && next.round == last_round) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One credential of each kind, each with a grant handed over: `0`, `1` and `2`.
    fn oracle() -> Oracle {
        let kinds = vec![Declared::SingleUse, Declared::Grace, Declared::Unknown];
        let mut oracle = Oracle::new(kinds);
        for credential in 0..3 {
            oracle.hand_over(credential, credential.to_string(), 0);
        }
        oracle
    }

    fn rotated(presented: &str, brought: &str) -> Presentation {
        Presentation {
            presented: Some(presented.to_owned()),
            brought: Some(brought.to_owned()),
            answered: Answered::Granted,
            read_at: None,
        }
    }

    fn refused(presented: &str, answered: Answered) -> Presentation {
        Presentation {
            presented: Some(presented.to_owned()),
            brought: None,
            answered,
            read_at: None,
        }
    }

    fn finds(oracle: &mut Oracle, what: &str) {
        oracle.close(false);
        let found = &oracle.violations;
        assert!(found.iter().any(|it| it.contains(what)), "{found:?}");
    }

    #[test]
    fn a_chain_that_goes_on_over_a_kill_is_kept_and_counted() {
        let mut oracle = oracle();
        oracle.absorb(vec![rotated("0", "a")]);
        oracle.killed(1);
        oracle.next_round();
        oracle.absorb(vec![rotated("a", "b")]);
        oracle.told(0, Some("b"));
        let tally = oracle.close(false);
        assert!(oracle.violations.is_empty(), "{:?}", oracle.violations);
        assert_eq!(
            (tally.rotations, tally.kept, tally.kept_over_a_kill),
            (2, 2, 1)
        );
    }

    #[test]
    fn a_grant_presented_twice_is_found_even_if_the_issuer_let_it_pass() {
        let mut oracle = oracle();
        oracle.absorb(vec![rotated("0", "a"), rotated("0", "b")]);
        finds(&mut oracle, "2 times");
    }

    #[test]
    fn a_replay_is_found_whatever_is_declared() {
        for id in ["0", "1"] {
            let mut oracle = oracle();
            oracle.absorb(vec![rotated(id, "a"), refused(id, Answered::Replayed)]);
            finds(&mut oracle, "replayed grant");
            assert_eq!(oracle.close(false).replays, 1);
        }
    }

    #[test]
    fn a_probe_is_once_and_of_an_unknown_grant_that_was_never_refreshed() {
        let mut probed = oracle();
        probed.absorb(vec![rotated("2", "a"), refused("2", Answered::Replayed)]);
        probed.ended(2, "refused");
        let tally = probed.close(false);
        assert!(probed.violations.is_empty(), "{:?}", probed.violations);
        assert_eq!((tally.probes, tally.replays), (1, 0));

        let mut later = oracle();
        later.absorb(vec![rotated("2", "a"), rotated("a", "b")]);
        later.absorb(vec![refused("a", Answered::Replayed)]);
        finds(&mut later, "replayed grant a");

        let mut twice = oracle();
        twice.absorb(vec![
            rotated("2", "a"),
            rotated("2", "b"),
            rotated("2", "c"),
        ]);
        finds(&mut twice, "3 times");
    }

    #[test]
    fn a_rotation_that_nothing_accounts_for_is_found() {
        let mut oracle = oracle();
        oracle.absorb(vec![rotated("0", "a")]);
        finds(&mut oracle, "neither kept nor in doubt");
    }

    #[test]
    fn a_lost_answer_is_accounted_for_by_an_ended_credential_or_a_second_try_in_grace() {
        let mut oracle = oracle();
        oracle.absorb(vec![
            rotated("0", "a"),
            rotated("1", "b"),
            rotated("1", "c"),
        ]);
        oracle.ended(0, "lost_answer");
        oracle.told(1, Some("c"));
        let tally = oracle.close(false);
        assert!(oracle.violations.is_empty(), "{:?}", oracle.violations);
        assert_eq!(
            (tally.lost_with_their_credential, tally.recovered_in_grace),
            (1, 1)
        );
    }

    #[test]
    fn a_credential_that_ended_for_another_reason_is_found() {
        let mut oracle = oracle();
        oracle.ended(0, "refused");
        finds(&mut oracle, "ended: refused");
    }

    #[test]
    fn a_store_that_went_back_is_found() {
        let mut oracle = oracle();
        oracle.version(0, 7);
        oracle.audited(0, 6);
        finds(&mut oracle, "is at 6, and 7 was told");
    }

    #[test]
    fn a_token_of_another_credential_or_of_nobody_is_found() {
        let mut oracle = oracle();
        oracle.absorb(vec![rotated("0", "a")]);
        oracle.told(1, Some("a"));
        oracle.told(0, None);
        assert_eq!(oracle.violations.len(), 2, "{:?}", oracle.violations);
    }

    #[test]
    fn a_grant_that_was_replaced_is_not_to_be_presented() {
        let mut oracle = oracle();
        oracle.hand_over(0, "new".to_owned(), 1);
        oracle.absorb(vec![rotated("0", "a")]);
        assert!(oracle.violations.is_empty(), "seen before the other came");
        oracle.absorb(vec![rotated("a", "b")]);
        finds(&mut oracle, "presented a grant that was replaced");
    }
}
