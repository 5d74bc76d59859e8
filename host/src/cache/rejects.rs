//! What a resource's refusal of a token leads to (I5). Pure bookkeeping of one slot, kept under its lock.

use std::time::Duration;

use crate::model::freshness::Life;
use crate::model::time::UnixTime;
use crate::model::token::Generation;

/// How many generations of a key are remembered as its own. A caller that holds an older one has held it over as many
/// renewals: it is long dead.
const RECENT: usize = 8;
/// The longest a token that replaced a rejected one is protected from being rejected in turn, and the most of its life:
/// a resource that refuses every token must not drive the issuer, one that lags behind it recovers within this.
const PROTECTION_MAX: Duration = Duration::from_secs(30);

/// What to do about a rejected token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// It is the current one: renew it, once, with everybody else who rejects it.
    Renew,
    /// It was a token of this key and is not the current one any more: answer with the current.
    AlreadyReplaced,
    /// Renewing would not help: the token just replaced a rejected one, or never came from here.
    Kept {
        /// When rejecting it again makes sense, if ever.
        retry_after: Option<Duration>,
    },
}

/// The memory that decides it.
#[derive(Default)]
pub(super) struct Rejects {
    /// Numbers of the latest generations, the newest last; zero is none.
    recent: [u64; RECENT],
    /// The current generation was rejected.
    rejected: bool,
    /// When the current generation took the place of a rejected one.
    replaced_at: Option<UnixTime>,
}

// === impl Rejects ===

impl Rejects {
    /// A token was published; `generation` is the former one when the issuer answered with the same token.
    pub(super) fn published(&mut self, generation: Generation, now: UnixTime) {
        let rejected = std::mem::take(&mut self.rejected);
        self.replaced_at = rejected.then_some(now);
        if self.recent[RECENT - 1] != generation.number() {
            self.recent.rotate_left(1);
            self.recent[RECENT - 1] = generation.number();
        }
    }

    /// Somebody rejects `generation`; `current` is what is served now.
    pub(super) fn decide(
        &mut self,
        generation: Generation,
        current: Option<(Generation, Life)>,
        now: UnixTime,
    ) -> Rejection {
        match current {
            Some((held, life)) if held == generation => {
                let protected = self.replaced_at.map_or(Duration::ZERO, |at| {
                    at.plus(PROTECTION_MAX.min(life.length() / 10)).since(now)
                });
                if protected.is_zero() {
                    self.rejected = true;
                    Rejection::Renew
                } else {
                    Rejection::Kept {
                        retry_after: Some(protected),
                    }
                }
            }
            _ if self.recent.contains(&generation.number()) => Rejection::AlreadyReplaced,
            _ => Rejection::Kept { retry_after: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn at(secs: u64) -> UnixTime {
        START.plus(Duration::from_secs(secs))
    }

    fn generation(number: u64) -> Generation {
        Generation::from_number(number).unwrap()
    }

    fn held(number: u64, issued: u64, length: u64) -> Option<(Generation, Life)> {
        Some((
            generation(number),
            Life {
                issued: at(issued),
                expires: at(issued + length),
            },
        ))
    }

    #[test]
    fn only_the_current_generation_is_renewed() {
        let mut rejects = Rejects::default();
        rejects.published(generation(1), at(0));
        rejects.published(generation(2), at(1));
        let current = held(2, 0, 3_600);
        assert_eq!(
            rejects.decide(generation(1), current, at(2)),
            Rejection::AlreadyReplaced
        );
        assert_eq!(
            rejects.decide(generation(9), current, at(2)),
            Rejection::Kept { retry_after: None }
        );
        assert_eq!(
            rejects.decide(generation(2), current, at(2)),
            Rejection::Renew
        );
        // Everybody else who rejects the same one joins.
        assert_eq!(
            rejects.decide(generation(2), current, at(3)),
            Rejection::Renew
        );
    }

    #[test]
    fn a_replacement_is_kept_for_thirty_seconds_or_a_tenth_of_its_life() {
        for (length, protected) in [(3_600, 30), (100, 10)] {
            let mut rejects = Rejects::default();
            rejects.published(generation(1), at(0));
            assert_eq!(
                rejects.decide(generation(1), held(1, 0, length), at(1)),
                Rejection::Renew
            );
            rejects.published(generation(2), at(2));
            let current = held(2, 2, length);
            assert_eq!(
                rejects.decide(generation(2), current, at(3)),
                Rejection::Kept {
                    retry_after: Some(Duration::from_secs(protected - 1))
                }
            );
            assert_eq!(
                rejects.decide(generation(2), current, at(2 + protected)),
                Rejection::Renew
            );
        }
    }

    #[test]
    fn an_issuer_that_answers_a_rejection_with_the_same_token_is_not_asked_again_at_once() {
        let mut rejects = Rejects::default();
        rejects.published(generation(1), at(0));
        assert_eq!(
            rejects.decide(generation(1), held(1, 0, 3_600), at(1)),
            Rejection::Renew
        );
        rejects.published(generation(1), at(2));
        let answer = rejects.decide(generation(1), held(1, 0, 3_600), at(3));
        assert_eq!(
            answer,
            Rejection::Kept {
                retry_after: Some(Duration::from_secs(29))
            }
        );
    }

    #[test]
    fn memory_of_old_generations_is_bounded() {
        let mut rejects = Rejects::default();
        for number in 1..=100 {
            rejects.published(generation(number), at(0));
        }
        let current = held(100, 0, 3_600);
        assert_eq!(
            rejects.decide(generation(93), current, at(0)),
            Rejection::AlreadyReplaced
        );
        assert_eq!(
            rejects.decide(generation(92), current, at(0)),
            Rejection::Kept { retry_after: None }
        );
    }
}
