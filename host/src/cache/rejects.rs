//! What a resource's refusal of a token leads to (I5). Pure bookkeeping of one slot, kept under its lock.

use std::time::Duration;

use crate::model::freshness::Life;
use crate::model::time::UnixTime;
use crate::model::token::Generation;

/// How many generations before the latest are remembered as a key's own. A caller that holds an older one has held it over
/// as many renewals: it is long dead. Every key pays for them, so they are few.
const FORMER: usize = 3;
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

/// Which generations were a key's, and the memory that decides about rejecting them. Small: every key has one.
#[derive(Default)]
pub(super) struct Rejects {
    /// The last generation that was current; outlives its token, so that numbers only grow.
    latest: Option<Generation>,
    /// When the current generation took the place of a rejected one; long ago if it never did.
    replaced_at: UnixTime,
    /// By how much the numbers before the latest are smaller, the newest first; zero is none, and so is what is too far away
    /// for a word: numbers are milliseconds, so such a token is weeks old.
    former: [u32; FORMER],
    /// The current generation was rejected.
    rejected: bool,
}

// === impl Rejects ===

impl Rejects {
    /// The last generation that was current.
    pub(super) fn latest(&self) -> Option<Generation> {
        self.latest
    }

    /// A token was published; `generation` is the former one when the issuer answered with the same token.
    pub(super) fn published(&mut self, generation: Generation, now: UnixTime) {
        let rejected = std::mem::take(&mut self.rejected);
        self.replaced_at = if rejected { now } else { UnixTime::default() };
        let Some(before) = self.latest.replace(generation) else {
            return;
        };
        let step = generation.number().saturating_sub(before.number());
        if step > 0 {
            self.former.rotate_right(1);
            self.former[0] = 0;
            for (at, former) in self.former.iter_mut().enumerate() {
                if at == 0 || *former > 0 {
                    *former = u32::try_from(u64::from(*former) + step).unwrap_or(0);
                }
            }
        }
    }

    /// Whether it was one of the latest of this key.
    fn knows(&self, generation: Generation) -> bool {
        self.latest.is_some_and(|latest| {
            let earlier = latest.number().checked_sub(generation.number());
            let is_former = |earlier| {
                self.former
                    .iter()
                    .any(|former| u64::from(*former) == earlier)
            };
            earlier.is_some_and(|earlier| earlier == 0 || is_former(earlier))
        })
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
                let protection = PROTECTION_MAX.min(life.length() / 10);
                let protected = self.replaced_at.plus(protection).since(now);
                if protected.is_zero() {
                    self.rejected = true;
                    Rejection::Renew
                } else {
                    Rejection::Kept {
                        retry_after: Some(protected),
                    }
                }
            }
            _ if self.knows(generation) => Rejection::AlreadyReplaced,
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
            rejects.decide(generation(97), current, at(0)),
            Rejection::AlreadyReplaced
        );
        assert_eq!(
            rejects.decide(generation(96), current, at(0)),
            Rejection::Kept { retry_after: None }
        );
    }

    #[test]
    fn former_generations_are_known_by_their_numbers_and_no_others_are() {
        let mut rejects = Rejects::default();
        let far = 5 + u64::from(u32::MAX);
        for number in [5, 7, 7, 20, far, far + 3] {
            rejects.published(generation(number), at(0));
        }
        let known = |number| rejects.knows(generation(number));
        assert!([20, far, far + 3].map(known).iter().all(|known| *known));
        // The first two are too far away to be told apart from none.
        assert!(
            ![5, 7, 6, 19, far - 1, far + 2, far + 4]
                .map(known)
                .contains(&true)
        );
    }
}
