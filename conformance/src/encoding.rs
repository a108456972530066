//! Reading the vectors.
#![allow(clippy::needless_pass_by_value, reason = "what is compared is used up")]

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};

use crate::Mismatch;

/// The vectors by their path below `conformance/vectors`, sorted.
static VECTORS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/vectors.rs"));

/// Bytes written in hexadecimal.
#[derive(Clone, Debug)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(D::Error::custom)
    }
}

pub(crate) fn read(path: &str) -> Result<&'static [u8], Mismatch> {
    let at = VECTORS.binary_search_by_key(&path, |(name, _)| name);
    let file = at.ok().and_then(|at| VECTORS.get(at));
    file.map(|(_, bytes)| *bytes).ok_or_else(|| mismatch(path, "a file of vectors", "none"))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &str) -> Result<T, Mismatch> {
    serde_json::from_slice(read(path)?).map_err(|cause| mismatch(path, "JSON", cause))
}

pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, Mismatch> {
    hex::decode(text).map_err(|cause| mismatch(text, "hexadecimal", cause))
}

pub(crate) fn kek(text: &str) -> Result<[u8; 32], Mismatch> {
    bytes(text)?.try_into().map_err(|_| mismatch("a KEK", "32 bytes", "another length"))
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
