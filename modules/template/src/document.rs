//! The resource `document` of the contract, over the contents of a file.

use std::cell::RefCell;

use crate::bindings::exports::omni::credentials::encryption::{Keyring, KeyringBorrow};
use crate::bindings::exports::omni::credentials::file_store::{
    Document, DocumentBorrow, Entry, Guest, GuestDocument, Preference, Reconciled,
};
use crate::bindings::exports::omni::credentials::types::{Error, Failure};
use crate::contents::{Contents, FILE_RECORDS, PENDING, State, entry, fits};
use crate::identity::Canonical;
use crate::kdf::Key;
use crate::keys::{self, Keys, Sealed, Unlocked};
use crate::manifest::{self, Manifest};
use crate::reconcile::{self, Side};
use crate::{Module, kdf, packed, refuse, stamp};

/// The resource of the contract.
pub(crate) struct Opened(RefCell<Contents>);

impl Guest for Module {
    type Document = Opened;

    fn reconcile(
        ancestor: Vec<u8>,
        ours: DocumentBorrow<'_>,
        our_keyring: KeyringBorrow<'_>,
        theirs: DocumentBorrow<'_>,
        their_keyring: KeyringBorrow<'_>,
        ours_complete: bool,
        prefer: Preference,
    ) -> Result<Reconciled, Failure> {
        let (ours, theirs) = (ours.get::<Opened>().0.borrow(), theirs.get::<Opened>().0.borrow());
        let our_keys = our_keyring.get::<Unlocked>().0.borrow();
        let their_keys = their_keyring.get::<Unlocked>().0.borrow();
        let (ours, theirs) =
            (Side { contents: &ours, keys: &our_keys }, Side { contents: &theirs, keys: &their_keys });
        let found = reconcile::reconcile(&ancestor, ours, theirs, ours_complete, prefer)?;
        Ok(Reconciled {
            document: resource(found.contents),
            keyring: Keyring::new(Unlocked(RefCell::new(found.keys))),
            wrapping: found.wrapping,
            to_ours: found.to_ours,
            to_theirs: found.to_theirs,
            conflicts: found.conflicts,
        })
    }

    fn agreed(
        ancestor: Vec<u8>,
        ours: DocumentBorrow<'_>,
        theirs: DocumentBorrow<'_>,
        generation: u64,
    ) -> Result<Vec<u8>, Failure> {
        let (ours, theirs) = (ours.get::<Opened>().0.borrow(), theirs.get::<Opened>().0.borrow());
        manifest::agreed(&ancestor, &ours, &theirs, generation)
    }

    fn agreed_changes(
        ancestor: Vec<u8>,
        ours: DocumentBorrow<'_>,
        theirs: DocumentBorrow<'_>,
        generation: u64,
    ) -> Result<Vec<u8>, Failure> {
        let before = Manifest::parse(&ancestor)?.to_bytes();
        let after = Self::agreed(ancestor, ours, theirs, generation)?;
        Ok(if after == before { Vec::new() } else { manifest::as_changes(after) })
    }

    fn fold(manifest: Vec<u8>) -> Result<Vec<u8>, Failure> {
        Ok(Manifest::parse(&manifest)?.to_bytes())
    }

    fn settled(confirmed: Vec<u8>, pending: Vec<u8>, file: DocumentBorrow<'_>) -> Result<Vec<u8>, Failure> {
        manifest::settled(&confirmed, &pending, &file.get::<Opened>().0.borrow())
    }
}

impl GuestDocument for Opened {
    fn create(keyring: Vec<u8>) -> Result<Document, Failure> {
        Contents::create(keyring).map(resource)
    }

    fn parse(file: Vec<u8>) -> Result<Document, Failure> {
        Contents::parse(file).map(resource)
    }

    fn parse_unsealed(file: Vec<u8>) -> Result<Document, Failure> {
        Contents::parse_unsealed(&file).map(resource)
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
            Some(file) if stamp::holds(&*seal_key(&contents, &keys)?, file) => Ok(()),
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
            if let (true, Some(found)) = (entry.deleted, entry.expires) {
                return Err(Failure { error: Error::InvalidExpiry, line: 0, found });
            }
            let state = match entry.deleted {
                true => State::Deleted(PENDING),
                false => State::Live(Sealed { bytes: entry.sealed, expires: entry.expires }),
            };
            changed.insert(Canonical::new(&entry.identity)?, state)?;
        }
        changed.limit()?;
        changed.file = None;
        self.0.replace(changed);
        Ok(())
    }

    fn table(&self, rows: Vec<u8>) -> Result<Document, Failure> {
        let mut table = Contents::create(self.0.borrow().keyring.clone())?;
        table.is_table = true;
        add(&mut table, &rows)?;
        Ok(resource(table))
    }

    fn table_changes(&self, gone: Vec<u8>, rows: Vec<u8>) -> Result<Document, Failure> {
        let mut table = Contents::create(self.0.borrow().keyring.clone())?;
        table.is_table = true;
        let live = |state: &State| matches!(state, State::Live(_));
        let records = &self.0.borrow().records;
        table.records.extend(records.iter().filter(|it| live(it.1)).map(|it| (it.0.clone(), it.1.clone())));
        let mut rest = gone.as_slice();
        while !rest.is_empty() {
            let identity = packed::identity(&mut rest)?;
            table.records.remove(&identity).ok_or_else(|| refuse(Error::InvalidArgument))?;
        }
        add(&mut table, &rows)?;
        Ok(resource(table))
    }

    fn forget_deletions(&self) {
        let mut contents = self.0.borrow_mut();
        let generation = contents.generation;
        contents.forget(generation);
        contents.file = None;
    }

    fn retire_keys(&self, keyring: KeyringBorrow<'_>) -> Result<u32, Failure> {
        let contents = self.0.borrow();
        let sealed = contents.records.values().filter_map(|state| match state {
            State::Live(sealed) => Some(sealed.bytes.as_slice()),
            State::Deleted(_) => None,
        });
        Ok(keyring.get::<Unlocked>().0.borrow_mut().retire(sealed))
    }

    fn manifest(&self) -> Vec<u8> {
        Manifest::of(&self.0.borrow()).map(|manifest| manifest.to_bytes()).unwrap_or_default()
    }

    fn matches(&self, manifest: Vec<u8>) -> Result<bool, Failure> {
        Ok(Manifest::parse(&manifest)?.versions == Manifest::of(&self.0.borrow())?.versions)
    }

    fn write(&self, keyring: KeyringBorrow<'_>, at_least: u64) -> Result<Vec<u8>, Failure> {
        Ok(written(&self.0.borrow(), &keyring.get::<Unlocked>().0.borrow(), at_least)?.1)
    }

    fn rewrite(&self, keyring: KeyringBorrow<'_>, at_least: u64) -> Result<Vec<u8>, Failure> {
        let (mut contents, file) =
            written(&self.0.borrow(), &keyring.get::<Unlocked>().0.borrow(), at_least)?;
        contents.file = Some(file.clone());
        contents.is_table = false;
        self.0.replace(contents);
        Ok(file)
    }
}

/// The contents after the next write, and the file that it makes of them.
fn written(before: &Contents, keys: &Keys, at_least: u64) -> Result<(Contents, Vec<u8>), Failure> {
    let mut written = before.clone();
    if keys.to_bytes()? != written.keyring {
        return Err(refuse(Error::InvalidArgument));
    }
    let next = written.generation.max(at_least).checked_add(1).filter(|next| *next < PENDING);
    written.generation = next.ok_or_else(|| refuse(Error::InvalidArgument))?;
    for state in written.records.values_mut() {
        if *state == State::Deleted(PENDING) {
            *state = State::Deleted(written.generation);
        }
    }
    let file = stamp::put(&*seal_key(&written, keys)?, written.body()?);
    fits(&file)?;
    Ok((written, file))
}

/// Adds the rows of a table, each of an identity of its own.
fn add(table: &mut Contents, rows: &[u8]) -> Result<(), Failure> {
    let mut rest = rows;
    while !rest.is_empty() {
        let identity = packed::identity(&mut rest)?;
        let expires = match packed::field(&mut rest)?.as_slice() {
            [] => None,
            bytes => {
                let bytes = bytes.try_into().map_err(|_| refuse(Error::InvalidArgument))?;
                Some(u64::from_be_bytes(bytes))
            }
        };
        let sealed = Sealed { bytes: packed::field(&mut rest)?, expires };
        if table.records.contains_key(&identity) {
            return Err(refuse(Error::DuplicateRecord));
        }
        table.insert(identity, State::Live(sealed))?;
    }
    if table.records.len() > FILE_RECORDS {
        return Err(refuse(Error::TooManyRecords));
    }
    Ok(())
}

fn resource(contents: Contents) -> Document {
    Document::new(Opened(RefCell::new(contents)))
}

/// What a file is authenticated with: a key of its own under the current data key of its keyring. `keys` may be another
/// keyring, which has that key as well.
fn seal_key(contents: &Contents, keys: &Keys) -> Result<Key, Failure> {
    kdf::subkey(keys.key(keys::current_of(&contents.keyring)?)?, b"example file")
}
