//! The file: JSON over several lines, so that people can review it and git can merge it; a line with the generation; and
//! a last line that authenticates everything before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bindings::exports::omni::credentials::file_store::Entry;
use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::identity::Canonical;
use crate::keys::{self, Sealed};
use crate::{refuse, refuse_found, stamp};

/// Longest file, in bytes.
pub(crate) const FILE_BYTES: usize = 64 << 20;
/// Most records of a file.
pub(crate) const FILE_RECORDS: usize = 100_000;
const FORMAT: &str = "example credentials 1";

/// Deletions that a file remembers at least; it remembers as many as it has live records.
const DELETIONS: usize = 1_000;
/// The generation of a deletion that the next write makes.
pub(crate) const PENDING: u64 = u64::MAX;

/// The records of a document.
pub(crate) type Records = BTreeMap<Canonical, State>;

/// What a record is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// A sealed value.
    Live(Sealed),
    /// A tombstone, of the write that made it.
    Deleted(u64),
}

#[derive(Clone, Default)]
pub(crate) struct Contents {
    pub(crate) keyring: Vec<u8>,
    pub(crate) generation: u64,
    /// Every deletion that was made after this generation has its tombstone here.
    pub(crate) deletions_since: u64,
    pub(crate) records: Records,
    /// Whether these are the rows of a table.
    pub(crate) is_table: bool,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
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
        let numbers = std::str::from_utf8(&body[end + 1..]).ok().and_then(numbers);
        (parsed.generation, parsed.deletions_since) = numbers.ok_or_else(|| refuse(Error::BadSyntax))?;
        let seen = parsed.deletions_since + 1..=parsed.generation;
        if !parsed
            .records
            .values()
            .all(|state| !matches!(state, State::Deleted(when) if !seen.contains(when)))
        {
            return Err(refuse(Error::NotCanonical));
        }
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
        let numbers: Vec<_> = after.lines().filter_map(numbers).collect();
        let deletions = parsed.records.values().filter_map(|state| match state {
            State::Deleted(when) => Some(*when),
            State::Live(_) => None,
        });
        parsed.generation = numbers.iter().map(|it| it.0).chain(deletions).max().unwrap_or(0);
        let since = numbers.iter().map(|it| it.1).max().unwrap_or(0).min(parsed.generation);
        parsed.forget(since);
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
            let state = match (record.sealed, record.deleted, record.expires) {
                (Some(sealed), None, expires) => {
                    let bytes = hex::decode(sealed).map_err(|_| refuse(Error::BadSyntax))?;
                    State::Live(Sealed { bytes, expires })
                }
                (None, Some(when), None) => State::Deleted(when),
                _ => return Err(refuse(Error::BadSyntax)),
            };
            let identity = Canonical::new(&Identity {
                name: record.name.into_bytes(),
                kind: record.kind.into_bytes(),
                principal: record.principal.into_bytes(),
                scope: record.scope.into_bytes(),
            })?;
            match parsed.records.last_key_value() {
                Some((last, _)) if *last == identity => return Err(refuse(Error::DuplicateRecord)),
                Some((last, _)) if *last > identity => return Err(refuse(Error::Unsorted)),
                _ => parsed.insert(identity, state)?,
            }
        }
        Ok(parsed)
    }

    pub(crate) fn create(keyring: Vec<u8>) -> Result<Self, Failure> {
        keys::is_keyring(&keyring)?;
        Ok(Self { keyring, ..Self::default() })
    }

    /// A tombstone that is there already stays as it is.
    pub(crate) fn insert(&mut self, identity: Canonical, state: State) -> Result<(), Failure> {
        match (self.records.get(&identity), &state) {
            (Some(State::Deleted(_)), State::Deleted(_)) => return Ok(()),
            (_, State::Live(sealed)) => {
                keys::check_expiry(sealed.expires)?;
                keys::split(&sealed.bytes)?;
            }
            _ => {}
        }
        self.records.insert(identity, state);
        Ok(())
    }

    /// Forgets deletions up to and with a generation.
    pub(crate) fn forget(&mut self, generation: u64) {
        self.records.retain(|_, state| !matches!(state, State::Deleted(when) if *when <= generation));
        self.deletions_since = self.deletions_since.max(generation);
    }

    /// Forgets the oldest deletions where there are too many; then checks the number of records.
    pub(crate) fn limit(&mut self) -> Result<(), Failure> {
        let mut deletions: Vec<u64> = self
            .records
            .values()
            .filter_map(|state| match state {
                State::Deleted(when) => Some(*when),
                State::Live(_) => None,
            })
            .collect();
        let most = DELETIONS.max(self.records.len() - deletions.len());
        deletions.sort_unstable();
        let too_many = deletions.len().saturating_sub(most);
        if let Some(newest) = deletions[..too_many].iter().rev().find(|when| **when != PENDING) {
            self.forget(*newest);
        }
        if self.records.len() > FILE_RECORDS { Err(refuse(Error::TooManyRecords)) } else { Ok(()) }
    }

    /// The file without its last line.
    pub(crate) fn body(&self) -> Result<Vec<u8>, Failure> {
        let records = self.records.iter().map(|(identity, state)| Record {
            name: identity.name.clone(),
            kind: identity.kind.clone(),
            principal: identity.principal.clone(),
            scope: identity.scope.clone(),
            sealed: if let State::Live(sealed) = state { Some(hex::encode(&sealed.bytes)) } else { None },
            expires: if let State::Live(sealed) = state { sealed.expires } else { None },
            deleted: if let State::Deleted(when) = state { Some(*when) } else { None },
        });
        let stored =
            Stored { format: FORMAT.into(), keyring: hex::encode(&self.keyring), records: records.collect() };
        let mut body = serde_json::to_vec_pretty(&stored).map_err(|_| refuse(Error::Other))?;
        body.extend(format!("\n{} {}", self.generation, self.deletions_since).into_bytes());
        Ok(body)
    }
}

pub(crate) fn entry((identity, state): (&Canonical, &State)) -> Entry {
    let identity = identity.to_contract();
    match state.clone() {
        State::Live(Sealed { bytes, expires }) => Entry { identity, expires, sealed: bytes, deleted: false },
        State::Deleted(_) => Entry { identity, expires: None, sealed: Vec::new(), deleted: true },
    }
}

/// The line after the records: the generation, and the one from which deletions are complete.
fn numbers(line: &str) -> Option<(u64, u64)> {
    let (generation, since) = line.split_once(' ')?;
    let (generation, since) = (generation.parse().ok()?, since.parse().ok()?);
    (since <= generation && generation < PENDING).then_some((generation, since))
}

/// Refuses a file that is too long.
pub(crate) fn fits(file: &[u8]) -> Result<(), Failure> {
    if file.len() > FILE_BYTES { Err(refuse_found(Error::FileTooLarge, file.len())) } else { Ok(()) }
}
