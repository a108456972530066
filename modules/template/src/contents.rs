//! The file: JSON over several lines, so that people can review it and git can merge it; a line with the generation; and
//! a last line that authenticates everything before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bindings::exports::omni::credentials::file_store::Entry;
use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::identity::{Canonical, short};
use crate::{keys, refuse, refuse_found, stamp};

/// Longest file, in bytes.
pub(crate) const FILE_BYTES: usize = 64 << 20;
/// Most records of a file.
pub(crate) const FILE_RECORDS: usize = 100_000;
const FORMAT: &str = "example credentials 1";

/// The records of a document: a sealed value, or none for a tombstone.
pub(crate) type Records = BTreeMap<Canonical, Option<Vec<u8>>>;

#[derive(Clone, Default)]
pub(crate) struct Contents {
    pub(crate) keyring: Vec<u8>,
    pub(crate) generation: u64,
    pub(crate) records: Records,
    /// The file that it was parsed from, for `verify`.
    pub(crate) file: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    keyring: String,
    records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    kind: String,
    principal: String,
    scope: String,
    sealed: Option<String>,
}

impl Contents {
    pub(crate) fn parse(file: Vec<u8>) -> Result<Self, Failure> {
        fits(&file)?;
        if !file.starts_with(b"{") {
            return Err(refuse(Error::NotACredentialsFile));
        }
        let body = stamp::body(&file)?;
        let end = body.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| refuse(Error::Truncated))?;
        let mut parsed = Self::records(&body[..end])?;
        let generation = std::str::from_utf8(&body[end + 1..]).ok().and_then(|text| text.parse().ok());
        parsed.generation = generation.ok_or_else(|| refuse(Error::BadSyntax))?;
        if parsed.body()? != body {
            return Err(refuse(Error::NotCanonical));
        }
        parsed.file = Some(file);
        Ok(parsed)
    }

    /// What a textual merge left: the records, whatever stands after them.
    pub(crate) fn parse_unsealed(file: &[u8]) -> Result<Self, Failure> {
        fits(file)?;
        let end =
            file.windows(3).rposition(|part| part == b"\n}\n").ok_or_else(|| refuse(Error::Truncated))?;
        let mut parsed = Self::records(&file[..end + 2])?;
        let after = String::from_utf8_lossy(&file[end + 2..]).into_owned();
        parsed.generation = after.lines().filter_map(|line| line.parse().ok()).max().unwrap_or(0);
        Ok(parsed)
    }

    fn records(json: &[u8]) -> Result<Self, Failure> {
        let syntax = |error: serde_json::Error| Failure {
            error: Error::BadSyntax,
            line: error.line() as u32,
            found: 0,
        };
        let stored: Stored = serde_json::from_slice(json).map_err(syntax)?;
        if stored.format != FORMAT {
            return Err(refuse(Error::UnknownVersion));
        }
        if stored.records.len() > FILE_RECORDS {
            return Err(refuse(Error::TooManyRecords));
        }
        let keyring = hex::decode(&stored.keyring).map_err(|_| refuse(Error::BadSyntax))?;
        let mut parsed = Self::create(keyring)?;
        for record in stored.records {
            let sealed = record.sealed.map(hex::decode).transpose().map_err(|_| refuse(Error::BadSyntax))?;
            let identity = Canonical::new(&Identity {
                name: record.name.into_bytes(),
                kind: record.kind.into_bytes(),
                principal: record.principal.into_bytes(),
                scope: record.scope.into_bytes(),
            })?;
            match parsed.records.last_key_value() {
                Some((last, _)) if *last == identity => return Err(refuse(Error::DuplicateRecord)),
                Some((last, _)) if *last > identity => return Err(refuse(Error::Unsorted)),
                _ => parsed.insert(identity, sealed)?,
            }
        }
        Ok(parsed)
    }

    pub(crate) fn create(keyring: Vec<u8>) -> Result<Self, Failure> {
        keys::is_keyring(&keyring)?;
        Ok(Self { keyring, ..Self::default() })
    }

    pub(crate) fn insert(&mut self, identity: Canonical, sealed: Option<Vec<u8>>) -> Result<(), Failure> {
        if let Some(sealed) = &sealed {
            keys::split(sealed)?;
        }
        self.records.insert(identity, sealed);
        Ok(())
    }

    /// The file without its last line.
    pub(crate) fn body(&self) -> Result<Vec<u8>, Failure> {
        let records = self.records.iter().map(|(identity, sealed)| Record {
            name: identity.name.clone(),
            kind: identity.kind.clone(),
            principal: identity.principal.clone(),
            scope: identity.scope.clone(),
            sealed: sealed.as_ref().map(hex::encode),
        });
        let stored =
            Stored { format: FORMAT.into(), keyring: hex::encode(&self.keyring), records: records.collect() };
        let mut body = serde_json::to_vec_pretty(&stored).map_err(|_| refuse(Error::Other))?;
        body.extend(format!("\n{}", self.generation).into_bytes());
        Ok(body)
    }

    /// Identity and sealed value of each live record, digested, sorted.
    pub(crate) fn manifest(&self) -> BTreeMap<[u8; 16], [u8; 16]> {
        let live = self.records.iter().filter_map(|(identity, sealed)| Some((identity, sealed.as_ref()?)));
        live.map(|(identity, sealed)| (identity.digest(), short(sealed))).collect()
    }
}

pub(crate) fn entry((identity, sealed): (&Canonical, &Option<Vec<u8>>)) -> Entry {
    Entry {
        identity: identity.to_contract(),
        sealed: sealed.clone().unwrap_or_default(),
        deleted: sealed.is_none(),
    }
}

/// Refuses a file that is too long.
pub(crate) fn fits(file: &[u8]) -> Result<(), Failure> {
    if file.len() > FILE_BYTES { Err(refuse_found(Error::FileTooLarge, file.len())) } else { Ok(()) }
}
