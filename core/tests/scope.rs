//! Canonical scopes (§6.2): one form for all that jsonb calls equal, and another for all else.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::collections::BTreeMap;

use omni_credentials_core::{Error, scope};
use proptest::prelude::*;

fn canonical(text: &str) -> String {
    scope::canonical(text.as_bytes()).unwrap_or_else(|failure| panic!("{text}: {failure}")).into_owned()
}

#[test]
fn forms() {
    for (given, expected) in [
        (r#"{"all": true}"#, r#"{"all":true}"#),
        (" \t\r\n{ } ", "{}"),
        ("[ ]", "[]"),
        ("[1 , [2,null] , false]", "[1,[2,null],false]"),
        (r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"a":{"x":1},"b":3,"\u0061":[]}"#, r#"{"a":[],"b":3}"#),
        // Sorted by bytes, not by UTF-16 units.
        ("{\"\u{10000}\":1,\"\u{ffff}\":2}", "{\"\u{ffff}\":2,\"\u{10000}\":1}"),
        (r#""\u0041\/\u00e9\uD83D\uDE00\u007f""#, "\"A/\u{e9}\u{1f600}\u{7f}\""),
        (r#""\u0008\u0009\u000a\u000c\u000d\u0001\u001F\u0022\u005c""#, r#""\b\t\n\f\r\u0001\u001f\"\\""#),
        ("1.0", "1"),
        ("1.10", "1.1"),
        ("-0", "0"),
        ("-0.0e5", "0"),
        ("0e99999999999999999999", "0"),
        ("100", "100"),
        ("1e2", "100"),
        ("12.5e1", "125"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1.5e-7", "1.5e-7"),
        ("123456789012345678901", "123456789012345678901"),
        ("1234567890123456789012", "1.234567890123456789012e+21"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("-1E+00021", "-1e+21"),
        ("0.1e131072", "1e+131071"),
        ("1e-16383", "1e-16383"),
        ("12345678901234567890.123456789", "12345678901234567890.123456789"),
    ] {
        assert_eq!(canonical(given), expected, "{given}");
        assert_eq!(canonical(expected), expected, "canonical form is its own");
    }
}

#[test]
fn refused() {
    for text in [
        "",
        " ",
        "nul",
        "tru",
        "{",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "--1",
        "NaN",
        "1 2",
        "\"\t\"",
        r#""\x""#,
        r#""\u00""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\u0000""#,
        r#"{"\u0000":1}"#,
        r#"{"a":"\u0000","a":1}"#,
        r#"{"a":1e999999,"a":1}"#,
        "1e131072",
        "1e-16384",
        "12e131071",
        "1.2e-16383",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "\u{feff}1",
        "'a'",
        r#"{"$serde_json::private::Number":"1"#,
    ] {
        let failure = scope::canonical(text.as_bytes()).expect_err(text);
        assert_eq!(failure.error, Error::InvalidScope, "{text}");
    }
}

#[test]
fn keys_of_a_library_are_ordinary_keys() {
    for text in [r#"{"$serde_json::private::Number":"12"}"#, r#"{"$serde_json::private::RawValue":"[1]"}"#] {
        assert_eq!(canonical(text), text);
    }
}

#[test]
fn limits() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(canonical(&nested(32)), nested(32));
    assert_eq!(scope::canonical(nested(33).as_bytes()).unwrap_err().error, Error::InvalidScope);
    assert_eq!(scope::canonical(nested(8_000).as_bytes()).unwrap_err().error, Error::InvalidScope);

    let string = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
    assert_eq!(canonical(&string(2_048)).len(), 2_048);
    let failure = scope::canonical(string(2_049).as_bytes()).unwrap_err();
    assert_eq!((failure.error, failure.found), (Error::ScopeTooLarge, 2_049));

    let spaces = |len: usize| " ".repeat(len - 1) + "1";
    assert_eq!(canonical(&spaces(16_384)), "1");
    let failure = scope::canonical(spaces(16_385).as_bytes()).unwrap_err();
    assert_eq!((failure.error, failure.found), (Error::ScopeTooLarge, 16_385));
}

/// A JSON value and how it is compared: numbers as sign, digits and exponent.
#[derive(Clone, Debug)]
enum Json {
    Literal(&'static str),
    Number { negative: bool, digits: String, exponent: i32 },
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What jsonb compares: objects as maps in which the last of a key counts, numbers by value.
#[derive(Debug, PartialEq)]
enum Meaning {
    Literal(&'static str),
    Number(bool, String, i64),
    Text(String),
    Array(Vec<Meaning>),
    Object(BTreeMap<String, Meaning>),
}

fn meaning(json: &Json) -> Meaning {
    match json {
        Json::Literal(word) => Meaning::Literal(word),
        Json::Number { negative, digits, exponent } => {
            let significant = digits.trim_start_matches('0');
            let trimmed = significant.trim_end_matches('0');
            if trimmed.is_empty() {
                return Meaning::Number(false, String::new(), 0);
            }
            let dropped = i64::try_from(significant.len() - trimmed.len()).unwrap();
            Meaning::Number(*negative, trimmed.into(), i64::from(*exponent) + dropped)
        }
        Json::Text(text) => Meaning::Text(text.clone()),
        Json::Array(items) => Meaning::Array(items.iter().map(meaning).collect()),
        Json::Object(members) => {
            Meaning::Object(members.iter().map(|(key, value)| (key.clone(), meaning(value))).collect())
        }
    }
}

/// Choices of a writer, from a seed.
struct Style(u64);

impl Style {
    fn choose(&mut self, of: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % of
    }

    fn space(&mut self) -> &'static str {
        ["", "", " ", "\n\t"].get(self.choose(4)).unwrap()
    }

    fn text(&mut self, text: &str) -> String {
        let mut out = String::from("\"");
        for c in text.chars() {
            let mut units = [0; 2];
            let escaped: String =
                c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}")).collect();
            match c {
                '"' | '\\' if self.choose(2) == 0 => out.extend(['\\', c]),
                '\n' if self.choose(2) == 0 => out.push_str("\\n"),
                '/' if self.choose(2) == 0 => out.push_str("\\/"),
                '"' | '\\' | '\0'..='\u{1f}' => out.push_str(&escaped),
                _ if self.choose(4) == 0 => out.push_str(&escaped),
                _ => out.push(c),
            }
        }
        out + "\""
    }

    fn number(&mut self, negative: bool, digits: &str, exponent: i32) -> String {
        let zero = digits.bytes().all(|digit| digit == b'0');
        let sign = if negative || (zero && self.choose(2) == 0) { "-" } else { "" };
        let digits = match digits.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        };
        let zeros = self.choose(3);
        match self.choose(4) {
            // d.ddd00e±x
            0 => {
                let (first, rest) = digits.split_at(1);
                let shifted = i64::from(exponent) + i64::try_from(rest.len()).unwrap();
                format!("{sign}{first}.{rest}{}e{shifted:+}", "0".repeat(zeros + 1))
            }
            // 0.ddddE±x
            1 => {
                let shifted = i64::from(exponent) + i64::try_from(digits.len()).unwrap();
                format!("{sign}0.{digits}{}E{shifted}", "0".repeat(zeros))
            }
            // Trailing zeros taken out of the exponent.
            2 if digits != "0" => {
                let shifted = i64::from(exponent) - i64::try_from(zeros).unwrap();
                format!("{sign}{digits}{}e{shifted}", "0".repeat(zeros))
            }
            _ if exponent == 0 => format!("{sign}{digits}"),
            _ => format!("{sign}{digits}e{exponent:+04}"),
        }
    }

    fn write(&mut self, json: &Json) -> String {
        let body = match json {
            Json::Literal(word) => (*word).to_owned(),
            Json::Number { negative, digits, exponent } => self.number(*negative, digits, *exponent),
            Json::Text(text) => self.text(text),
            Json::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.write(item)).collect();
                format!("[{}{}]", self.space(), items.join(","))
            }
            Json::Object(members) => self.members(members),
        };
        format!("{}{body}{}", self.space(), self.space())
    }

    /// Members in any order that keeps the last of each key last, and at times an earlier one that loses.
    fn members(&mut self, members: &[(String, Json)]) -> String {
        let mut last: BTreeMap<&String, &Json> = BTreeMap::new();
        last.extend(members.iter().map(|(key, value)| (key, value)));
        let mut order: Vec<_> = last.into_iter().collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.choose(at + 1));
        }
        let mut written = Vec::new();
        for (key, _) in &order {
            if self.choose(4) == 0 {
                written.push(format!("{}:[0]", self.text(key)));
            }
        }
        for (key, value) in order {
            written.push(format!("{}{}:{}", self.space(), self.text(key), self.write(value)));
        }
        format!("{{{}{}}}", self.space(), written.join(","))
    }
}

fn json() -> impl Strategy<Value = Json> {
    let leaf =
        prop_oneof![
            prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(Json::Literal),
            (any::<bool>(), "[0-9]{1,30}", -40_i32..40)
                .prop_map(|(negative, digits, exponent)| Json::Number { negative, digits, exponent }),
            (any::<bool>(), "[0-2]{1,3}", -3_i32..3).prop_map(|(negative, digits, exponent)| Json::Number {
                negative,
                digits,
                exponent
            }),
            "[^\\x00]{0,6}".prop_map(Json::Text),
            "[ab\"/\\\\\n]{0,2}".prop_map(Json::Text),
        ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::vec(("[ab]{0,2}|[^\\x00]{1,2}", inner), 0..4).prop_map(Json::Object),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn equal_values_have_the_same_bytes(json in json(), one: u64, other: u64) {
        let one = Style(one).write(&json);
        let other = Style(other).write(&json);
        prop_assert_eq!(canonical(&one), canonical(&other), "{} and {}", one, other);
        prop_assert_eq!(canonical(&canonical(&one)), canonical(&one));
    }

    #[test]
    fn different_values_never_do(a in json(), b in json(), seed: u64) {
        let mut style = Style(seed);
        let same = canonical(&style.write(&a)) == canonical(&style.write(&b));
        prop_assert_eq!(same, meaning(&a) == meaning(&b), "{:?} {:?}", a, b);
    }

    #[test]
    fn nearby_numbers_are_told_apart(
        digits in "[0-9]{1,25}", exponent in -30_i32..30, other in "[0-9]{1,25}", shift in -2_i32..3, seed: u64,
    ) {
        let a = Json::Number { negative: false, digits: digits.clone(), exponent };
        let mut style = Style(seed);
        let text = canonical(&style.write(&a));
        for b in [
            Json::Number { negative: true, digits: digits.clone(), exponent },
            Json::Number { negative: false, digits: digits.clone(), exponent: exponent + shift },
            Json::Number { negative: false, digits: digits.clone() + "1", exponent: exponent - 1 },
            Json::Number { negative: false, digits: other.clone(), exponent },
        ] {
            prop_assert_eq!(text == canonical(&style.write(&b)), meaning(&a) == meaning(&b), "{:?} {:?}", a, b);
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,40}", json in "[\\[\\]{}\",:0-9eE.+\\-u\\\\a]{0,40}") {
        let _ = scope::canonical(text.as_bytes());
        let _ = scope::canonical(json.as_bytes());
    }
}
