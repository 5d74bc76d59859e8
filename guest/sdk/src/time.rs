//! Times as servers write them, as seconds since 1970. Pure arithmetic: nobody here asks what time it is.

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Two-digit years below this belong to this century (RFC 9110, section 5.6.7, leaves 50 years either way).
const PIVOT_YEAR: u32 = 70;

/// Reads a date of HTTP in any of its three forms (RFC 9110, section 5.6.7).
pub fn parse_http_date(text: &str) -> Option<u32> {
    let text = text.trim();
    let Some((_, date)) = text.split_once(',') else {
        return parse_asctime(text);
    };
    // `06 Nov 1994 08:49:37 GMT`, or `06-Nov-94 08:49:37 GMT`
    let mut parts = date.split([' ', '-']).filter(|part| !part.is_empty());
    let day = digits(parts.next()?)?;
    let month = month(parts.next()?)?;
    let year = match digits(parts.next()?)? {
        short @ ..PIVOT_YEAR => 2000 + short,
        short @ ..100 => 1900 + short,
        year => year,
    };
    let clock = clock(parts.next()?)?;
    let zone = parts.next()?;
    (matches!(zone, "GMT" | "UTC") && parts.next().is_none()).then_some(())?;
    seconds(year, month, day, clock, 0)
}

/// `Sun Nov  6 08:49:37 1994`
fn parse_asctime(text: &str) -> Option<u32> {
    let mut parts = text.split_ascii_whitespace().skip(1);
    let month = month(parts.next()?)?;
    let day = digits(parts.next()?)?;
    let clock = clock(parts.next()?)?;
    let year = digits(parts.next()?)?;
    seconds(year, month, day, clock, 0)
}

/// Reads a timestamp of RFC 3339, such as `2026-07-11T22:14:10Z`; fractions of a second are dropped.
pub fn parse_rfc3339(text: &str) -> Option<u32> {
    let (date, rest) = text.trim().split_once(['T', 't', ' '])?;
    let mut date = date.split('-');
    let (year, month, day) = (
        digits(date.next()?)?,
        digits(date.next()?)?,
        digits(date.next()?)?,
    );
    date.next().is_none().then_some(())?;
    let cut = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(cut);
    let clock = clock(time.split_once('.').map_or(time, |(whole, _)| whole))?;
    let ahead = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let offset = i64::from(digits(hours)?) * 3600 + i64::from(digits(minutes)?) * 60;
            if sign == "-" { -offset } else { offset }
        }
    };
    seconds(year, month, day, clock, ahead)
}

/// `08:49:37` as seconds of the day. A leap second counts as the one before the next minute.
fn clock(text: &str) -> Option<u32> {
    let mut parts = text.split(':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = parts.next().is_none() && hour < 24 && minute < 60 && second <= 60;
    valid.then_some(hour * 3600 + minute * 60 + second.min(59))
}

fn month(name: &str) -> Option<u32> {
    let at = MONTHS
        .iter()
        .position(|month| month.eq_ignore_ascii_case(name))?;
    u32::try_from(at + 1).ok()
}

/// A short run of digits and nothing else: no sign, no more than a year needs.
fn digits(text: &str) -> Option<u32> {
    let plain = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A moment of the proleptic Gregorian calendar, `ahead` seconds ahead of UTC. Years count from March, so that the
/// leap day is a year's last.
fn seconds(year: u32, month: u32, day: u32, clock: u32, ahead: i64) -> Option<u32> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || !(1..=longest).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH_DAYS: u32 = 719_468;
    let total = i64::from(before.checked_sub(EPOCH_DAYS)?) * 86_400 + i64::from(clock) - ahead;
    u32::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_of_an_http_date_name_the_same_moment() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn rfc3339_knows_offsets_fractions_and_leap_days() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339("2016-07-11T22:14:10Z"), Some(1_468_275_250));
        assert_eq!(
            parse_rfc3339("2016-07-12T00:14:10.999+02:00"),
            Some(1_468_275_250)
        );
        assert_eq!(
            parse_rfc3339("2016-07-11T20:14:10-02:00"),
            Some(1_468_275_250)
        );
        assert_eq!(parse_rfc3339("2024-02-29T00:00:00Z"), Some(1_709_164_800));
        assert_eq!(parse_rfc3339("2100-12-31T23:59:59Z"), Some(4_133_980_799));
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in [
            "",
            "Z",
            "2016-07-11",
            "2023-02-29T00:00:00Z",
            "2016-13-01T00:00:00Z",
            "2016-07-11T25:00:00Z",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "2016-07-11T22:14:10",
            "+016-07-11T22:14:10Z",
            "2016-00-11T22:14:10Z",
            "2016-07-11T22:14:10+0200",
            "é2016-07-11T22:14:10Zé",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
        for text in [
            "",
            ",",
            "Sun, 31 Feb 2024 00:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 06 Nov",
        ] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }
}
