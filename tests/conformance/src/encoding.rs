//! Reading the vectors.
#![allow(clippy::needless_pass_by_value, reason = "what is compared is used up")]

use std::fs;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};

use crate::{Mismatch, vectors};

/// Bytes written in hexadecimal.
#[derive(Clone, Debug)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(D::Error::custom)
    }
}

pub(crate) fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, Mismatch> {
    let path = vectors().join(path);
    fs::read(&path).map_err(|cause| mismatch(path.display(), "a file", cause))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &str) -> Result<T, Mismatch> {
    serde_json::from_slice(&read(path)?).map_err(|cause| mismatch(path, "JSON", cause))
}

pub(crate) fn mismatch(case: impl ToString, expected: impl ToString, found: impl ToString) -> Mismatch {
    Mismatch { case: case.to_string(), expected: expected.to_string(), found: found.to_string() }
}

/// That a case came out as it says.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(
    case: impl ToString,
    expected: T,
    found: T,
) -> Result<(), Mismatch> {
    if expected == found {
        Ok(())
    } else {
        Err(mismatch(case, format!("{expected:?}"), format!("{found:?}")))
    }
}
