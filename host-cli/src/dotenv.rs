//! The part of the .env format that its readers agree on. There is no standard: what they read in different ways is
//! refused, in both directions.

use zeroize::Zeroizing;

/// A value as every reader understands it; none where they do not agree on any way to write it.
pub(crate) fn quoted(value: &str) -> Option<String> {
    if value.contains(['\r', '\0']) {
        return None;
    }
    // Everything between single quotes is itself. Between double quotes some replace variables and escapes.
    if !value.contains('\'') {
        return Some(format!("'{value}'"));
    }
    let plain = !value.contains(['"', '\\', '$', '`', '\n']);
    plain.then(|| format!("\"{value}\""))
}

/// The variables of a text, in order. An error says the line, and never a value.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, Zeroizing<String>)>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if first.trim().is_empty() || first.trim_start().starts_with('#') {
            rest = after;
            continue;
        }
        let line = text.get(..text.len() - rest.len()).unwrap_or_default().matches('\n').count() + 1;
        let wrong = |what: &str| format!("line {line}: {what}");
        let (before, _) = first.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        let name = before.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(is_of_name) {
            return Err(wrong("what stands before = is no name"));
        }
        let value = rest.get(before.len() + 1..).unwrap_or_default();
        let (value, after) = read(value.trim_start_matches([' ', '\t'])).map_err(wrong)?;
        found.push((name.to_owned(), value));
        rest = after;
    }
    Ok(found)
}

/// A value, and what stands after its line.
fn read(text: &str) -> Result<(Zeroizing<String>, &str), &'static str> {
    let mut characters = text.chars();
    let quote = characters.next();
    let (value, after) = match quote {
        Some(quote @ ('\'' | '"' | '`')) => {
            let (value, after) = characters.as_str().split_once(quote).ok_or("the quote is not closed")?;
            if quote == '"' && value.contains(['\\', '$']) {
                return Err("readers differ on \\ and $ between double quotes: use single quotes");
            }
            let (end, after) = after.split_once('\n').unwrap_or((after, ""));
            let end = end.trim();
            if !end.is_empty() && !end.starts_with('#') {
                return Err("there is something after the closing quote");
            }
            (value, after)
        }
        _ => {
            let (value, after) = text.split_once('\n').unwrap_or((text, ""));
            let value = value.split_once(" #").map_or(value, |(value, _)| value).trim();
            if value.contains(['$', '"', '\'', '`', '\\']) {
                return Err("readers differ on quotes, \\ and $ outside of quotes: use single quotes");
            }
            (value, after)
        }
    };
    Ok((Zeroizing::new(value.to_owned()), after))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for value in
            ["", "a", "a b", "a#b", " # ", "a\nb\n", "$HOME", "a\"b", "a\\nb", "it's", "é\u{1f511}", "="]
        {
            let text = format!("# first\n\nA={}\nB='2'\n", quoted(value).unwrap());
            let found = parse(&text).unwrap();
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, [("A", value), ("B", "2")], "{text}");
        }
        for value in ["a\rb", "it's $5", "it's \"it\"", "it's\nit"] {
            assert_eq!(quoted(value), None, "{value}");
        }
    }

    #[test]
    fn what_others_write() {
        let found =
            parse("\u{feff}A = 1 # one\r\nexport B=\"x y\" # two\nC=\nD=\"a\nb\"\n  # E=1\nF.g-h='1'")
                .unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("A", "1"), ("B", "x y"), ("C", ""), ("D", "a\nb"), ("F.g-h", "1")]);
    }

    #[test]
    fn mistakes_name_their_line_and_no_value() {
        for (text, line) in [
            ("A=1\nhunter2\n", 2),
            ("A='x\ny'\nB='hunter2", 3),
            ("A=hunter2$X", 1),
            ("A=\"hunter2\\n\"", 1),
            ("A='hunter2' x", 1),
            ("A B=hunter2", 1),
            ("=hunter2", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")) && !error.contains("hunter2"), "{error}");
        }
    }
}
