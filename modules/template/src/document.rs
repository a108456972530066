//! The file: JSON over several lines, so that people can review it and git can merge it; a line with the generation; and
//! a last line that authenticates everything before it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bindings::exports::omni::credentials::encryption::KeyringBorrow;
use crate::bindings::exports::omni::credentials::file_store::{
    Document, DocumentBorrow, Entry, Guest, GuestDocument, Merged, Preference,
};
use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::identity::{Canonical, short};
use crate::kdf::Key;
use crate::keys::{self, Keys, Unlocked};
use crate::{Module, kdf, merge, refuse, refuse_found, stamp};

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

/// The resource of the contract.
pub(crate) struct Opened(pub(crate) RefCell<Contents>);

impl Contents {
    pub(crate) fn resource(self) -> Document {
        Document::new(Opened(RefCell::new(self)))
    }

    fn parse(file: Vec<u8>) -> Result<Self, Failure> {
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
    fn parse_unsealed(file: &[u8]) -> Result<Self, Failure> {
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

    fn create(keyring: Vec<u8>) -> Result<Self, Failure> {
        keys::is_keyring(&keyring)?;
        Ok(Self { keyring, ..Self::default() })
    }

    fn insert(&mut self, identity: Canonical, sealed: Option<Vec<u8>>) -> Result<(), Failure> {
        if let Some(sealed) = &sealed {
            keys::split(sealed)?;
        }
        self.records.insert(identity, sealed);
        Ok(())
    }

    /// The file without its last line.
    fn body(&self) -> Result<Vec<u8>, Failure> {
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

fn fits(file: &[u8]) -> Result<(), Failure> {
    if file.len() > FILE_BYTES { Err(refuse_found(Error::FileTooLarge, file.len())) } else { Ok(()) }
}

/// What a file is authenticated with: a key of its own under the current data key.
fn seal_key(keys: &Keys) -> Result<Key, Failure> {
    kdf::subkey(keys.key(keys.current())?, b"example file")
}

/// Takes a field off the front: its length in four bytes, and its bytes.
fn field(rest: &mut &[u8]) -> Result<Vec<u8>, Failure> {
    let short = || refuse(Error::InvalidArgument);
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (field, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(short)?;
    *rest = after;
    Ok(field.to_vec())
}

pub(crate) fn entry((identity, sealed): (&Canonical, &Option<Vec<u8>>)) -> Entry {
    Entry {
        identity: identity.to_contract(),
        sealed: sealed.clone().unwrap_or_default(),
        deleted: sealed.is_none(),
    }
}

impl Guest for Module {
    type Document = Opened;

    fn merge(
        base: Vec<u8>,
        ours: DocumentBorrow<'_>,
        theirs: DocumentBorrow<'_>,
        ours_complete: bool,
        keyring: KeyringBorrow<'_>,
        prefer: Preference,
    ) -> Result<Merged, Failure> {
        let (ours, theirs) = (ours.get::<Opened>().0.borrow(), theirs.get::<Opened>().0.borrow());
        let keys = keyring.get::<Unlocked>().0.borrow();
        merge::merge(&base, &ours, &theirs, ours_complete, &keys, prefer)
    }

    fn agreed(
        base: Vec<u8>,
        ours: DocumentBorrow<'_>,
        theirs: DocumentBorrow<'_>,
    ) -> Result<Vec<u8>, Failure> {
        merge::agreed(&base, &ours.get::<Opened>().0.borrow(), &theirs.get::<Opened>().0.borrow())
    }
}

impl GuestDocument for Opened {
    fn create(keyring: Vec<u8>) -> Result<Document, Failure> {
        Contents::create(keyring).map(Contents::resource)
    }

    fn parse(file: Vec<u8>) -> Result<Document, Failure> {
        Contents::parse(file).map(Contents::resource)
    }

    fn parse_unsealed(file: Vec<u8>) -> Result<Document, Failure> {
        Contents::parse_unsealed(&file).map(Contents::resource)
    }

    fn keyring_bytes(&self) -> Vec<u8> {
        self.0.borrow().keyring.clone()
    }

    fn set_keyring(&self, keyring: Vec<u8>) -> Result<(), Failure> {
        keys::is_keyring(&keyring)?;
        self.0.borrow_mut().keyring = keyring;
        Ok(())
    }

    fn verify(&self, keyring: KeyringBorrow<'_>) -> Result<(), Failure> {
        let keys = keyring.get::<Unlocked>().0.borrow();
        let contents = self.0.borrow();
        match &contents.file {
            Some(file) if stamp::holds(&*seal_key(&keys)?, file) => Ok(()),
            _ => Err(refuse(Error::SealMismatch)),
        }
    }

    fn generation(&self) -> u64 {
        self.0.borrow().generation
    }

    fn entries(&self) -> Vec<Entry> {
        self.0.borrow().records.iter().map(entry).collect()
    }

    fn put(&self, entries: Vec<Entry>) -> Result<(), Failure> {
        let mut changed = self.0.borrow().clone();
        for entry in entries {
            if entry.deleted && !entry.sealed.is_empty() {
                return Err(refuse(Error::InvalidArgument));
            }
            let sealed = (!entry.deleted).then_some(entry.sealed);
            changed.insert(Canonical::new(&entry.identity)?, sealed)?;
        }
        if changed.records.len() > FILE_RECORDS {
            return Err(refuse(Error::TooManyRecords));
        }
        changed.file = None;
        self.0.replace(changed);
        Ok(())
    }

    fn table(&self, rows: Vec<u8>) -> Result<Document, Failure> {
        let mut table = Contents::create(self.0.borrow().keyring.clone())?;
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            // Evaluated in this order, which is that of the fields.
            let identity = Identity {
                name: field(&mut rest)?,
                kind: field(&mut rest)?,
                principal: field(&mut rest)?,
                scope: field(&mut rest)?,
            };
            table.insert(Canonical::new(&identity)?, Some(field(&mut rest)?))?;
        }
        if table.records.len() > FILE_RECORDS {
            return Err(refuse(Error::TooManyRecords));
        }
        Ok(table.resource())
    }

    fn manifest(&self) -> Vec<u8> {
        merge::to_bytes(&self.0.borrow().manifest())
    }

    fn write(&self, keyring: KeyringBorrow<'_>, at_least: u64) -> Result<Vec<u8>, Failure> {
        let keys = keyring.get::<Unlocked>().0.borrow();
        let mut written = self.0.borrow().clone();
        if keys.to_bytes()? != written.keyring {
            return Err(refuse(Error::InvalidArgument));
        }
        let next = written.generation.max(at_least).checked_add(1);
        written.generation = next.ok_or_else(|| refuse(Error::InvalidArgument))?;
        let file = stamp::put(&*seal_key(&keys)?, written.body()?);
        fits(&file)?;
        Ok(file)
    }
}
