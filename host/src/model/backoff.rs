//! How long to leave a failing issuer alone: by our own measure, or by its word.

use std::time::Duration;

use super::credential::SUSPENSION_MAX;
use super::time::UnixTime;

/// After the first failure: longer than a herd of callers needs to be answered with it.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// After many: an issuer that heals is noticed within this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The least an issuer can ask for: "now" after a refusal would be a loop.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// The most an issuer can ask for: a date in a wrong year must not stop a provider for good.
pub const RETRY_AFTER_MAX: Duration = SUSPENSION_MAX;

/// The pause after the `attempts`-th failure in a row, 1 being the first: doubled each time up to [`BACKOFF_MAX`], and
/// somewhere in its upper half by `draw` in [0, 1). The lower half is certain, so that a first pause is never almost
/// none; the upper keeps keys that failed together from coming back together.
#[must_use]
pub fn backoff(attempts: u32, draw: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let full = BACKOFF_FIRST
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MAX);
    let draw = if draw.is_nan() {
        1.0
    } else {
        draw.clamp(0.0, 1.0)
    };
    full / 2 + (full / 2).mul_f64(draw)
}

/// Reads a `Retry-After` (RFC 9110, section 10.2.3), seconds or an HTTP date, within the clamps. `None` for anything
/// else.
#[must_use]
pub fn retry_after(value: &str, now: UnixTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number holds is "very long".
        return Some(clamp(Duration::from_secs(
            value.parse().unwrap_or(u64::MAX),
        )));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let at = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Some(clamp(UnixTime::default().plus(at).since(now)))
}

/// A pause that an issuer or a plugin asks for, between [`RETRY_AFTER_MIN`] and [`RETRY_AFTER_MAX`].
#[must_use]
pub fn clamp(pause: Duration) -> Duration {
    pause.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let longest: Vec<u64> = (0..9).map(|n| backoff(n, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff(u32::MAX, 0.0), BACKOFF_MAX / 2);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_clamped() {
        let now = UnixTime::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let table = [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("0", Some(1)),
            ("99999999999999999999999999", Some(3_600)),
            ("86400", Some(3_600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(1)),
            ("Thu, 01 Jan 2099 00:00:00 GMT", Some(3_600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(
                retry_after(value, now),
                expected.map(Duration::from_secs),
                "{value:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_never_nothing_and_never_above_the_cap(attempts in any::<u32>(), draw in any::<f64>()) {
            let pause = backoff(attempts, draw);
            prop_assert!(pause >= BACKOFF_FIRST / 2 && pause <= BACKOFF_MAX);
        }

        #[test]
        fn no_header_value_panics(value in "\\PC*", now in any::<u64>()) {
            if let Some(pause) = retry_after(&value, UnixTime::from_millis(now)) {
                prop_assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&pause));
            }
        }
    }
}
