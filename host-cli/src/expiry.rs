//! When a credential expires: what people write, and what they read.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::{format_rfc3339_seconds, parse_duration, parse_rfc3339_weak};

/// An expiry as an argument; the credential never expires where it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry(pub(crate) Option<u64>);

/// A point in time (`2027-01-31`, `2027-01-31T12:00:00Z`, in UTC), a time from now (`90d`, `1y 6months`), or `never`.
pub(crate) fn parse(text: &str) -> Result<Expiry, String> {
    let text = text.trim();
    if text == "never" {
        return Ok(Expiry(None));
    }
    let wrong = || {
        "write a date, such as 2027-01-31 or 2027-01-31T12:00:00Z, a time from now, such as 90d, or never"
            .to_owned()
    };
    let time = match parse_duration(text) {
        Ok(duration) => SystemTime::now().checked_add(duration),
        Err(_) => parse_rfc3339_weak(text).or_else(|_| parse_rfc3339_weak(&format!("{text}T00:00:00"))).ok(),
    };
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).ok_or_else(wrong)?;
    Ok(Expiry(Some(since.as_secs())))
}

/// A time from now, such as `30d`.
pub(crate) fn parse_within(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|_| "write a time from now, such as 30d or 12h".to_owned())
}

/// The second that lies so far ahead.
pub(crate) fn after(within: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_add(within).as_secs()
}

/// For people, in UTC: `2027-01-31T12:00:00Z`, or `never`.
pub(crate) fn shown(expires: Option<u64>) -> String {
    text(expires).unwrap_or_else(|| "never".to_owned())
}

/// As a file has it. What is later than the year 9999, which no file can say, is none.
pub(crate) fn text(expires: Option<u64>) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(expires?))?;
    let mut text = String::new();
    write!(text, "{}", format_rfc3339_seconds(time)).ok()?;
    Some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (written, seconds) in [
            ("2027-01-15", 1_799_971_200),
            ("2027-01-15T08:00:00Z", 1_800_000_000),
            ("2027-01-15 08:00:00", 1_800_000_000),
            (" 2027-01-15T08:00:00.9Z ", 1_800_000_000),
        ] {
            assert_eq!(parse(written), Ok(Expiry(Some(seconds))), "{written}");
        }
        assert_eq!(parse("never"), Ok(Expiry(None)));
        let Expiry(later) = parse("90d").unwrap();
        let days = (later.unwrap() - after(Duration::ZERO)).div_ceil(86_400);
        assert!((89..=90).contains(&days), "{days}");
        for wrong in ["", "soon", "90", "2027-13-01", "1969-12-31", "-1d", "2027-01-15T08:00:00+01:00"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(Some(1_800_000_000)), "2027-01-15T08:00:00Z");
        assert_eq!(shown(None), "never");
        assert_eq!(text(Some(u64::MAX)), None);
    }
}
