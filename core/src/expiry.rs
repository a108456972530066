//! When a credential expires (§6.3).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::{format_rfc3339_seconds, parse_rfc3339};

use crate::{Error, Failure, limits};

/// Seconds since 1970, or none.
pub(crate) type Expires = Option<u64>;

/// Refuses what no file can say.
pub(crate) fn check(expires: Expires) -> Result<(), Failure> {
    match expires {
        Some(expires) if expires > limits::EXPIRY => Err(Failure::found(Error::InvalidExpiry, expires)),
        _ => Ok(()),
    }
}

/// As a file has it: `2027-01-31T00:00:00Z`. `None` for what [`check`] refuses.
pub(crate) fn to_text(expires: u64) -> Option<String> {
    check(Some(expires)).ok()?;
    Some(format_rfc3339_seconds(UNIX_EPOCH.checked_add(Duration::from_secs(expires))?).to_string())
}

/// From a file. `None` for anything but the one way to write it.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let time: SystemTime = parse_rfc3339(text).ok()?;
    let expires = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (to_text(expires)? == text).then_some(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_text() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", limits::EXPIRY),
        ] {
            assert_eq!(parse(text), Some(seconds));
            assert_eq!(to_text(seconds).as_deref(), Some(text));
        }
        for text in [
            "",
            "1969-12-31T23:59:59Z",
            "2027-02-29T00:00:00Z",
            "2027-01-01T24:00:00Z",
            "2027-01-01T00:00:60Z",
            "2027-01-01T00:00:00.0Z",
            "2027-01-01T00:00:00+00:00",
            "2027-01-01T00:00:00",
            "2027-01-01 00:00:00Z",
            "2027-01-01t00:00:00z",
            " 2027-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(to_text(limits::EXPIRY + 1), None);
        assert_eq!(to_text(u64::MAX), None);
    }
}
