//! The canonical form of a scope (§6.2): equal for two scopes exactly when jsonb calls them equal.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Error, Failure, json, limits, number};

/// The scope that nearly every credential has, in canonical form.
pub const ALL: &str = r#"{"all":true}"#;
/// The same as jsonb prints it.
const ALL_AS_JSONB: &str = r#"{"all": true}"#;

/// The canonical form of a scope.
///
/// ```
/// use omni_credentials_core::{Error, scope};
///
/// assert_eq!(scope::canonical(br#"{"port": 5.0e3, "host": "db"}"#)?, r#"{"host":"db","port":5000}"#);
/// assert_eq!(scope::canonical(b"{").unwrap_err().error, Error::InvalidScope);
/// # Ok::<(), omni_credentials_core::Failure>(())
/// ```
///
/// # Errors
/// [`Error::InvalidScope`] for what is not JSON, contains U+0000, nests too deep or has a number out of range;
/// [`Error::ScopeTooLarge`].
pub fn canonical(scope: &[u8]) -> Result<Cow<'_, str>, Failure> {
    if is_all(scope) {
        return Ok(Cow::Borrowed(ALL));
    }
    if scope.len() > limits::SCOPE_GIVEN_BYTES {
        return Err(Failure::found(Error::ScopeTooLarge, scope.len() as u64));
    }
    let text = str::from_utf8(scope).map_err(|_| Error::InvalidScope)?;
    let raw: &RawValue = parse(text).ok_or(Error::InvalidScope)?;
    let mut out = String::with_capacity(text.len());
    push_value(&mut out, raw, 0).ok_or(Error::InvalidScope)?;
    if out.len() > limits::SCOPE_BYTES {
        return Err(Failure::found(Error::ScopeTooLarge, out.len() as u64));
    }
    Ok(if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) })
}

/// The scope met last and its canonical form. Rows that are opened one after another have few scopes, and to find the
/// canonical form takes as long as to open a short value.
#[derive(Clone, Default)]
pub(crate) struct LastScope(RefCell<Option<(Vec<u8>, String)>>);

impl LastScope {
    /// The same as [`canonical`].
    pub(crate) fn canonical<'a>(&self, scope: &'a [u8]) -> Result<Cow<'a, str>, Failure> {
        if is_all(scope) {
            return canonical(scope);
        }
        let mut last = self.0.borrow_mut();
        if let Some((given, found)) = &*last
            && given == scope
        {
            return Ok(Cow::Owned(found.clone()));
        }
        let found = canonical(scope)?;
        *last = Some((scope.to_vec(), found.clone().into_owned()));
        Ok(found)
    }
}

fn is_all(scope: &[u8]) -> bool {
    scope == ALL_AS_JSONB.as_bytes() || scope == ALL.as_bytes()
}

/// Appends a value; `None` for one that is refused. The type to read is chosen by the first character, so
/// that numbers stay the characters they were and no key of an object can pass for something else.
fn push_value(out: &mut String, raw: &RawValue, depth: usize) -> Option<()> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' => push_checked_string(out, &parse::<String>(text)?),
        b'[' if depth < limits::SCOPE_DEPTH => {
            let items: Vec<&RawValue> = parse(text)?;
            out.push('[');
            for (i, item) in items.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                push_value(out, item, depth + 1)?;
            }
            out.push(']');
            Some(())
        }
        b'{' if depth < limits::SCOPE_DEPTH => {
            // Each member is looked at, also one that a later one of the same key replaces.
            let mut members = BTreeMap::new();
            for (key, value) in parse::<Members<'_>>(text)?.0 {
                let mut canonical = String::new();
                push_value(&mut canonical, value, depth + 1)?;
                members.insert(key, canonical);
            }
            out.push('{');
            for (i, (key, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                push_checked_string(out, &key)?;
                out.push(':');
                out.push_str(&value);
            }
            out.push('}');
            Some(())
        }
        b'-' | b'0'..=b'9' => number::push_canonical(out, text),
        b't' | b'f' | b'n' => {
            out.push_str(text);
            Some(())
        }
        _ => None,
    }
}

fn push_checked_string(out: &mut String, text: &str) -> Option<()> {
    if text.contains('\0') {
        return None;
    }
    json::push_string(out, text);
    Some(())
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// The members of an object in the order they stand, duplicates included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
