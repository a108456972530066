//! Numbers by value at any precision (§6.2).

/// Most digits before the decimal point, as in Postgres's `numeric`.
const INTEGER_DIGITS: i64 = 131_072;
/// Most digits after it.
const FRACTION_DIGITS: i64 = 16_383;

/// Appends a JSON number in canonical form. `None` for one out of range, or for what is no JSON number.
pub(crate) fn push_canonical(out: &mut String, lexeme: &str) -> Option<()> {
    let (negative, rest) = match lexeme.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, lexeme),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (rest, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let written = [integer, fraction].concat();
    if written.is_empty() || !written.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = written.trim_start_matches('0');
    let leading_zeros = written.len() - significant.len();
    let digits = significant.trim_end_matches('0');
    if digits.is_empty() {
        out.push('0');
        return Some(());
    }
    // The value is 0.digits × 10^point.
    let point = i64::try_from(integer.len()).ok()?.saturating_sub(i64::try_from(leading_zeros).ok()?);
    let point = point.saturating_add(exponent);
    let count = i64::try_from(digits.len()).ok()?;
    if point > INTEGER_DIGITS || count.saturating_sub(point) > FRACTION_DIGITS {
        return None;
    }
    if negative {
        out.push('-');
    }
    push_digits(out, digits, count, point)
}

fn push_digits(out: &mut String, digits: &str, count: i64, point: i64) -> Option<()> {
    if point <= -6 || point > 21 {
        let (first, rest) = digits.split_at_checked(1)?;
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        out.push_str(if point > 21 { "e+" } else { "e-" });
        out.push_str(&(point - 1).unsigned_abs().to_string());
    } else if point <= 0 {
        out.push_str("0.");
        out.extend((point..0).map(|_| '0'));
        out.push_str(digits);
    } else if point < count {
        let (before, after) = digits.split_at_checked(usize::try_from(point).ok()?)?;
        out.push_str(before);
        out.push('.');
        out.push_str(after);
    } else {
        out.push_str(digits);
        out.extend((count..point).map(|_| '0'));
    }
    Some(())
}

/// The exponent, saturated: what saturates is out of range, or belongs to a zero.
fn parse_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(10)?;
        value = value.saturating_mul(10).saturating_add(digit.into());
    }
    // Half the range, so that later sums cannot wrap around a saturated value.
    let value = value.min(i64::MAX / 4);
    Some(if negative { -value } else { value })
}
