//! How fresh a token is, when to renew it, and whether it lives long enough for the one who asks.
//!
//! Pure: `now`, the measured latency and the random draw come in. Who wakes up at the planned time is `schedule`.

use std::time::Duration;

use super::time::UnixTime;

/// Tokens are handed out until this long before their end, or a tenth of their life: a request under way must not
/// arrive with a dead token, and a token of one second must still be usable for most of it.
pub const HAND_OUT_MARGIN_MAX: Duration = Duration::from_secs(1);
/// Lives shorter than this are renewed when somebody asks: a timer per second and key would outnumber the callers.
pub const DEMAND_DRIVEN_BELOW: Duration = Duration::from_secs(10);
/// On top of the measured latency: scheduling, the store, and the plugin.
pub const NEED_FIXED: Duration = Duration::from_millis(100);
/// How many answers in a row may bring no longer life before renewal waits for the end: the first may come out of the
/// issuer's own cache, a second says that it will stay so.
pub const STALLED_MAX: u32 = 2;

/// How a token stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Hand it out.
    Fresh,
    /// Hand it out, and renew it.
    Expiring,
    /// Never hand it out.
    Expired,
}

/// From just before a token was asked for to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// Just before the request that obtained it was sent.
    pub issued: UnixTime,
    /// Its end.
    pub expires: UnixTime,
}

/// How long before its end a token is renewed, as the operator wishes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ahead {
    /// As a share of its life, 0 to 1.
    pub share: f64,
    /// The longest that may be.
    pub at_most: Duration,
}

/// When a token is due for renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// From here on it is [`Freshness::Expiring`].
    pub due: UnixTime,
    /// The window that it was drawn from, both ends included.
    window: [UnixTime; 2],
    /// Whether the scheduler wakes it then; otherwise the next caller does.
    pub scheduled: bool,
}

/// Whether a token lives long enough for a caller who names a minimum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// It does.
    Enough,
    /// It does not, and another would.
    Renew,
    /// It does not, and asking again now would bring no better one, or bring them in a loop.
    BestThereIs,
}

// === impl Life ===

impl Life {
    /// From request to end.
    #[must_use]
    pub fn length(self) -> Duration {
        self.expires.since(self.issued)
    }

    /// Until when it is handed out: a margin before its end.
    #[must_use]
    pub fn serve_until(self) -> UnixTime {
        self.expires
            .minus((self.length() / 10).min(HAND_OUT_MARGIN_MAX))
    }

    /// How it stands at `now` when it is due for renewal at `due`.
    #[must_use]
    pub fn freshness(self, due: UnixTime, now: UnixTime) -> Freshness {
        if now >= self.serve_until() {
            Freshness::Expired
        } else if now >= due {
            Freshness::Expiring
        } else {
            Freshness::Fresh
        }
    }

    /// Whether `self`, obtained to replace `old`, is worth less than a renewal: it ends hardly later. An issuer that
    /// answers out of its own cache, or caps every token at the end of one session, would otherwise be asked at ever
    /// shorter distances. A true renewal comes after half the life, so it adds at least half of it.
    #[must_use]
    pub fn is_no_gain_over(self, old: Self) -> bool {
        self.expires.since(old.expires) < old.length() / 4
    }

    /// Whether it is enough for a caller who wants `min_validity` left at `now`.
    ///
    /// A wish beyond what the issuer grants costs one renewal per half life; any other at most one per tenth.
    #[must_use]
    pub fn validity(self, min_validity: Duration, now: UnixTime) -> Validity {
        let (length, age) = (self.length(), now.since(self.issued));
        if self.expires.since(now) >= min_validity {
            Validity::Enough
        } else if age
            >= if min_validity > length {
                length / 2
            } else {
                length / 10
            }
        {
            Validity::Renew
        } else {
            Validity::BestThereIs
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Plans the renewal of a token: a time drawn uniformly from the window that ends when waiting longer would let
    /// callers wait, and never in the first half of its life. `None` when asking again is useless until it ends:
    /// `stalled` answers in a row brought no longer life, and [`STALLED_MAX`] is the most.
    ///
    /// The window is counted back from the end of handing out, not from the end of life: in the margin between them
    /// callers would already wait. `draw` is uniform in [0, 1) and drawn once per node, key and generation
    /// ([`draw`]): drawing again on each look would only shorten the life.
    #[must_use]
    pub fn new(
        life: Life,
        ahead: Ahead,
        latency_p95: Duration,
        draw: f64,
        stalled: u32,
    ) -> Option<Self> {
        let length = life.length();
        if stalled >= STALLED_MAX || length.is_zero() {
            return None;
        }
        let need = latency_p95 + latency_p95 / 10 + NEED_FIXED;
        let ahead = length
            .mul_f64(unit(ahead.share))
            .min(ahead.at_most)
            .max(need);
        let half = life.issued.plus(length / 2);
        let last = life.serve_until().minus(need).max(half);
        // Cut off at half the life before the draw: cut off after it, every early draw would be the same moment.
        let first = life.serve_until().minus(ahead).max(half).min(last);
        // A second look at what came out of the issuer's cache is as late as can be.
        let due = if stalled > 0 {
            last
        } else {
            within([first, last], unit(draw))
        };
        Some(Self {
            due,
            window: [first, last],
            scheduled: length >= DEMAND_DRIVEN_BELOW,
        })
    }

    /// The same plan where nothing can be renewed before `now`: the process or the machine was not there, or the
    /// provider asked for a pause. What lies ahead stays; what has passed is drawn anew, uniformly over what is left of
    /// the window, so that those who missed their moments do not all come at once. With nothing left it is due at `now`.
    ///
    /// `draw` is another one than the plan's: those who missed their moments are not evenly spread over the past, for
    /// whose moment came before the pause was renewed then.
    #[must_use]
    pub fn resume(self, now: UnixTime, draw: f64) -> Self {
        if self.due >= now {
            return self;
        }
        let last = self.window[1].max(now);
        Self {
            due: within([now, last], unit(draw)),
            ..self
        }
    }
}

/// A point of a window, by a share of it.
fn within([first, last]: [UnixTime; 2], share: f64) -> UnixTime {
    first.plus(last.since(first).mul_f64(share))
}

/// A number in [0, 1) that differs between nodes, keys and generations and is the same each time it is asked for.
#[must_use]
pub fn draw(node_seed: u64, key_hash: u64, generation: u64) -> f64 {
    let mixed = mix(mix(mix(node_seed) ^ key_hash) ^ generation);
    // The upper 53 bits are exactly what a double holds.
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// The finalizer of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A share between nothing and all; what is no number is nothing.
fn unit(share: f64) -> f64 {
    if share.is_nan() {
        0.0
    } else {
        share.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_700_000_000);
    const AHEAD: Ahead = Ahead {
        share: 0.2,
        at_most: Duration::from_secs(300),
    };

    fn life(millis: u64) -> Life {
        Life {
            issued: START,
            expires: START.plus(Duration::from_millis(millis)),
        }
    }

    fn due(millis: u64, latency: u64, draw: f64) -> u64 {
        let plan = Plan::new(life(millis), AHEAD, Duration::from_millis(latency), draw, 0);
        u64::try_from(plan.unwrap().due.since(START).as_millis()).unwrap()
    }

    #[test]
    fn renewal_starts_inside_the_window() {
        // life, p95 latency, draw → when, all in milliseconds
        let table = [
            // A fifth ahead of the end of handing out, up to what the issuer needs.
            (600_000, 0, 0.0, 599_000 - 120_000),
            (600_000, 0, 1.0, 599_000 - 100),
            // Five minutes at most.
            (3_600_000, 100, 0.0, 3_599_000 - 300_000),
            // A slow issuer: what it needs, whatever the draw.
            (10_000, 2_000, 0.0, 6_700),
            (10_000, 2_000, 0.9, 6_700),
            // Never in the first half.
            (1_000, 2_000, 0.0, 500),
            (1_000, 0, 0.0, 700),
        ];
        for (length, latency, draw, expected) in table {
            assert_eq!(
                due(length, latency, draw),
                expected,
                "{length} {latency} {draw}"
            );
        }
    }

    #[test]
    fn a_moment_that_was_missed_is_drawn_anew_from_what_is_left() {
        // first draw, when it can be acted on, second draw → when, in milliseconds; the window is 479,000 to 598,900
        let (first, last) = (479_000, 598_900);
        let table = [
            // Not missed.
            (0.5, 0, 0.9, 538_950),
            (0.5, 538_950, 0.9, 538_950),
            // Missed, by a moment or by all of the window.
            (0.0, first + 1, 0.0, first + 1),
            (0.0, 500_000, 0.0, 500_000),
            (0.5, 598_800, 0.5, 598_850),
            (0.25, 538_950, 0.5, 568_925),
            // Nothing is left.
            (0.0, last, 0.5, last),
            (0.9, 599_950, 0.5, 599_950),
            (0.9, 700_000, 0.5, 700_000),
        ];
        for (drawn, now, again, expected) in table {
            let plan = Plan::new(life(600_000), AHEAD, Duration::ZERO, drawn, 0).unwrap();
            let resumed = plan.resume(START.plus(Duration::from_millis(now)), again);
            let due = resumed.due.since(START).as_millis();
            assert_eq!(due, u128::from(expected), "{drawn} {now} {again}");
        }
    }

    #[test]
    fn a_window_that_reaches_back_over_half_the_life_has_no_crowd_at_its_start() {
        let ahead = Ahead {
            share: 1.0,
            at_most: Duration::from_secs(86_400),
        };
        let due = |draw| {
            let plan = Plan::new(life(600_000), ahead, Duration::ZERO, draw, 0).unwrap();
            plan.due.since(START)
        };
        assert_eq!(due(0.0), Duration::from_secs(300));
        assert!(due(0.1) > Duration::from_secs(329), "{:?}", due(0.1));
    }

    #[test]
    fn short_lives_wait_for_demand() {
        let scheduled = |millis| {
            Plan::new(life(millis), AHEAD, Duration::ZERO, 0.5, 0)
                .unwrap()
                .scheduled
        };
        assert!(!scheduled(9_999));
        assert!(scheduled(10_000));
    }

    #[test]
    fn an_unchanged_token_earns_one_more_attempt() {
        let plan = |stalled| Plan::new(life(600_000), AHEAD, Duration::ZERO, 0.0, stalled);
        assert_eq!(
            plan(1).unwrap().due,
            START.plus(Duration::from_millis(599_000 - 100))
        );
        assert_eq!(plan(2), None);
    }

    #[test]
    fn a_token_of_no_life_has_no_plan_and_is_expired() {
        assert_eq!(Plan::new(life(0), AHEAD, Duration::ZERO, 0.0, 0), None);
        assert_eq!(life(0).freshness(UnixTime::MAX, START), Freshness::Expired);
    }

    #[test]
    fn handing_out_ends_before_the_token_does() {
        let at = |length, now| {
            life(length).freshness(
                START.plus(Duration::from_millis(800)),
                START.plus(Duration::from_millis(now)),
            )
        };
        assert_eq!(at(1_000, 799), Freshness::Fresh);
        assert_eq!(at(1_000, 800), Freshness::Expiring);
        assert_eq!(at(1_000, 899), Freshness::Expiring);
        assert_eq!(at(1_000, 900), Freshness::Expired);
        assert_eq!(
            life(3_600_000).serve_until(),
            START.plus(Duration::from_secs(3_599))
        );
    }

    #[test]
    fn a_wish_beyond_what_the_issuer_grants_costs_one_renewal_per_half_life() {
        let hour = life(3_600_000);
        let at = |secs, wish| {
            hour.validity(
                Duration::from_secs(wish),
                START.plus(Duration::from_secs(secs)),
            )
        };
        assert_eq!(at(0, 3_600), Validity::Enough);
        assert_eq!(at(1, 3_600), Validity::BestThereIs);
        assert_eq!(at(360, 3_600), Validity::Renew);
        assert_eq!(at(600, 3_000), Validity::Enough);
        assert_eq!(at(601, 3_000), Validity::Renew);
        assert_eq!(at(1_799, 7_200), Validity::BestThereIs);
        assert_eq!(at(1_800, 7_200), Validity::Renew);
    }

    #[test]
    fn a_session_that_caps_every_token_does_not_draw_the_renewals_together() {
        let old = life(1_000_000);
        let capped = Life {
            issued: START.plus(Duration::from_secs(800)),
            expires: old.expires,
        };
        assert!(capped.is_no_gain_over(old));
        let renewed = Life {
            issued: capped.issued,
            expires: capped.issued.plus(old.length()),
        };
        assert!(!renewed.is_no_gain_over(old));
    }

    #[test]
    fn draws_differ_between_nodes_and_keys_and_do_not_change() {
        assert_eq!(draw(1, 2, 3).to_bits(), draw(1, 2, 3).to_bits());
        let near = [draw(1, 2, 3), draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)];
        for (at, one) in near.iter().enumerate() {
            assert!((0.0..1.0).contains(one));
            assert!(
                near[at + 1..]
                    .iter()
                    .all(|other| (one - other).abs() > 1e-6)
            );
        }
        let mean = (0..10_000).map(|key| draw(7, key, 1)).sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }

    proptest! {
        #[test]
        fn renewal_comes_before_the_end_and_after_half_the_life(
            length in 1u64..100_000_000_000, share in -1.0f64..2.0, at_most in 0u64..1_000_000_000,
            latency in 0u64..1_000_000, draw in 0.0f64..1.0, stalled in 0u32..2,
        ) {
            let ahead = Ahead { share, at_most: Duration::from_millis(at_most) };
            let plan = Plan::new(life(length), ahead, Duration::from_millis(latency), draw, stalled).unwrap();
            prop_assert!(plan.due > UnixTime::default());
            prop_assert!(plan.due < life(length).expires);
            prop_assert!(plan.due >= START.plus(Duration::from_millis(length / 2)));
        }

        #[test]
        fn what_was_missed_comes_evenly_over_what_is_left(
            length in 60_000u64..100_000_000, share in 0.1f64..1.0, latency in 0u64..5_000,
            began in 0.0f64..0.9, ended in 0.0f64..0.9, seed in any::<u64>(),
        ) {
            const KEYS: u64 = 2_000;
            let ahead = Ahead { share, at_most: Duration::MAX };
            let plan = |draw| Plan::new(life(length), ahead, Duration::from_millis(latency), draw, 0).unwrap();
            let window = plan(0.0).window;
            let (began, now) = (within(window, began), within(window, began.max(ended)));
            let left = window[1].since(now).as_millis();
            let (mut missed, mut halves) = (0u32, [0u32; 2]);
            for key in 0..KEYS {
                let planned = plan(draw(seed, key, 1));
                // What was due before the pause began was renewed then.
                if planned.due < began || planned.due >= now {
                    continue;
                }
                let due = planned.resume(now, draw(seed, key ^ now.as_millis(), 1)).due;
                prop_assert!(due >= now && due <= window[1]);
                missed += 1;
                halves[usize::from(due.since(now).as_millis() * 2 >= left)] += 1;
            }
            // Six times the standard deviation of so many throws of a coin.
            let slack = 3.0 * f64::from(missed).sqrt() + 1.0;
            prop_assert!((f64::from(halves[0]) - f64::from(missed) / 2.0).abs() <= slack, "{halves:?}");
        }

        #[test]
        fn no_lifetime_sees_more_than_two_calls(
            length in 1_000u64..120_000, latency in 0u64..5_000, window in 0u64..600_000, seed in any::<u64>(),
        ) {
            // An issuer that answers at once while the estimate says `latency`; callers ask all the time.
            let ahead = Ahead { share: 1.0, at_most: Duration::from_millis(window) };
            let mut calls = vec![START];
            for round in 0..20 {
                let issued = calls[round];
                let life = Life { issued, expires: issued.plus(Duration::from_millis(length)) };
                let draw = draw(seed, 1, round as u64);
                let plan = Plan::new(life, ahead, Duration::from_millis(latency), draw, 0).unwrap();
                calls.push(plan.due);
            }
            for (at, call) in calls.iter().enumerate() {
                let end = call.plus(Duration::from_millis(length - 1));
                let within = calls[at..].iter().filter(|other| **other < end).count();
                prop_assert!(within <= 2, "{within} calls in one life");
            }
        }

        #[test]
        fn an_issuer_that_never_gives_longer_life_is_not_asked_in_a_loop(
            length in 1_000u64..10_000_000, latency in 0u64..5_000, draw in 0.0f64..1.0,
        ) {
            // Every answer ends when the first one did.
            let first = life(length);
            let (mut current, mut stalled, mut calls) = (first, 0, 0);
            let plan = |life, stalled| {
                Plan::new(life, AHEAD, Duration::from_millis(latency), draw, stalled)
            };
            // Bounded, so that a loop fails instead of hanging.
            while calls <= 2 && let Some(plan) = plan(current, stalled) {
                calls += 1;
                let next = Life { issued: plan.due, expires: first.expires };
                stalled = if next.is_no_gain_over(current) { stalled + 1 } else { 0 };
                current = next;
            }
            prop_assert!(calls <= 2, "{calls} calls");
        }
    }
}
