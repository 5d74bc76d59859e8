//! The issuer of a world: rotates or does not, forgives a replay for a while or ends the whole family for it, and counts
//! what it must never see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Wire;
use crate::model::time::UnixTime;

/// How an issuer treats a grant that is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The grant stays.
    Keeps,
    /// Each is good once; a second presentation ends the family.
    Rotates,
    /// Each is good once, and for so long after that.
    Forgives(Duration),
}

/// One issuer, and what it saw.
#[derive(Clone, Debug)]
pub(crate) struct Issuer {
    manner: Manner,
    /// One for each time that a human authorized; the last is in force.
    families: Vec<Family>,
    /// Grants that were used, and when for the first time.
    used: BTreeMap<String, UnixTime>,
    /// How often each grant left for here with an effect that its sender must fear.
    pub(crate) feared: BTreeMap<String, u32>,
    /// Grants that it refused.
    pub(crate) refused: Vec<String>,
    /// How many requests left for here.
    pub(crate) presented: u32,
    /// How many of them presented a grant again that may have been spent.
    pub(crate) replays: u32,
    /// How many access tokens there are.
    tokens: u32,
}

#[derive(Clone, Debug)]
struct Family {
    current: u32,
    ended: bool,
}

/// What it answers to a good request.
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    pub(crate) refresh_token: Option<String>,
}

/// Grants sort by their age.
fn grant(family: usize, number: u32) -> String {
    format!("refresh-token-family-{family:02}-number-{number:04}")
}

// === impl Issuer ===

impl Issuer {
    pub(super) fn new(manner: Manner) -> Self {
        Self {
            manner,
            families: vec![Family {
                current: 1,
                ended: false,
            }],
            used: BTreeMap::new(),
            feared: BTreeMap::new(),
            refused: Vec::new(),
            presented: 0,
            replays: 0,
            tokens: 0,
        }
    }

    /// The grant that it takes.
    pub(crate) fn current(&self) -> String {
        let family = self.families.len() - 1;
        grant(family, self.families[family].current)
    }

    /// Whether it took a replay for a theft.
    pub(crate) fn has_ended(&self) -> bool {
        self.families.iter().any(|family| family.ended)
    }

    /// All that decides how it goes on, in words; times as they are seen from now.
    pub(super) fn story(&self, now: UnixTime) -> String {
        let used = self
            .used
            .iter()
            .map(|(grant, first)| (grant, now.since(*first)));
        let used: Vec<_> = used.collect();
        let refused: BTreeSet<_> = self.refused.iter().collect();
        let (families, feared, replays) = (&self.families, &self.feared, self.replays);
        format!("{families:?} {used:?} {feared:?} {refused:?} {replays}")
    }

    /// A human authorizes again.
    pub(crate) fn authorize(&mut self) -> String {
        self.families.push(Family {
            current: 1,
            ended: false,
        });
        self.current()
    }

    /// A request leaves for here; the answer says what the issuer did, if it did something.
    pub(super) fn meet(&mut self, presented: &str, wire: Wire, now: UnixTime) -> Option<Tokens> {
        if wire == Wire::NotSent {
            return None;
        }
        self.presented += 1;
        let before = self.feared.get(presented).copied().unwrap_or_default();
        let forgiven = match self.manner {
            Manner::Keeps => true,
            Manner::Rotates => false,
            Manner::Forgives(grace) => self
                .used
                .get(presented)
                .is_none_or(|first| now.since(*first) < grace),
        };
        if before > 0 && !forgiven {
            self.replays += 1;
        }
        let tokens = wire
            .is_done()
            .then(|| self.exchange(presented, now))
            .flatten();
        let refused = wire == Wire::Refused || (wire.is_done() && tokens.is_none());
        if refused {
            self.refused.push(presented.to_owned());
        }
        // A refusal that is heard says that nothing was done.
        let heard = refused && matches!(wire, Wire::Refused | Wire::Answered);
        if wire.may_be_done() && !heard {
            self.feared.insert(presented.to_owned(), before + 1);
        }
        tokens
    }

    fn exchange(&mut self, presented: &str, now: UnixTime) -> Option<Tokens> {
        let manner = self.manner;
        let first = self.used.get(presented).copied();
        let known = |index: usize, family: &Family| {
            (1..=family.current).find(|number| grant(index, *number) == presented)
        };
        let families = self.families.iter().enumerate();
        let (index, number) = families
            .filter_map(|(index, family)| Some((index, known(index, family)?)))
            .next()?;
        let family = &mut self.families[index];
        if family.ended {
            return None;
        }
        let in_time =
            |grace| first.is_some_and(|first| now.since(first) < grace) || first.is_none();
        let good = match manner {
            Manner::Keeps | Manner::Rotates => number == family.current,
            Manner::Forgives(grace) => in_time(grace),
        };
        if !good {
            family.ended = true;
            return None;
        }
        let refresh_token = (manner != Manner::Keeps).then(|| {
            family.current += 1;
            grant(index, family.current)
        });
        self.used.entry(presented.to_owned()).or_insert(now);
        self.tokens += 1;
        let access_token = format!("access-token-number-{:04}", self.tokens);
        Some(Tokens {
            access_token,
            refresh_token,
        })
    }
}
