//! Names within names, as other stores have them: `stripe` with a `key` in it becomes `stripe.key`, and the elements of a
//! list are counted from 0.

use serde_json::Value;
use zeroize::Zeroizing;

/// What stands between the names.
const SEPARATOR: char = '.';

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A value: text, or a whole number, true or false as text.
    Text(Zeroizing<String>),
    /// Names, in order.
    Names(Vec<(String, Node)>),
    /// A list.
    List(Vec<Node>),
    /// Nothing, or what might be written otherwise than it was: a fraction, a date.
    Other,
}

impl Node {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Zeroizing::new(text.into()))
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            Value::Number(number) if !number.is_f64() => Self::text(number.to_string()),
            Value::Bool(truth) => Self::text(truth.to_string()),
            Value::Object(object) => {
                Self::Names(object.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
            Value::Array(elements) => Self::List(elements.into_iter().map(Self::from).collect()),
            Value::Null | Value::Number(_) => Self::Other,
        }
    }
}

/// The values with their whole names, in order. An error says which name, and never a value.
pub(crate) fn flatten(names: Vec<(String, Node)>) -> Result<Vec<(String, Zeroizing<String>)>, String> {
    let mut found = Vec::new();
    add("", names, &mut found)?;
    Ok(found)
}

fn add(
    before: &str,
    names: Vec<(String, Node)>,
    found: &mut Vec<(String, Zeroizing<String>)>,
) -> Result<(), String> {
    for (key, node) in names {
        let name = if before.is_empty() { key } else { format!("{before}{SEPARATOR}{key}") };
        match node {
            Node::Text(text) => found.push((name, text)),
            Node::Names(inner) => add(&name, inner, found)?,
            Node::List(elements) => {
                let counted = elements.into_iter().enumerate().map(|(at, node)| (at.to_string(), node));
                add(&name, counted.collect(), found)?;
            }
            Node::Other => {
                return Err(format!(
                    "{name:?} is neither text nor a whole number, true or false; if it is text, put it between quotes"
                ));
            }
        }
    }
    Ok(())
}
