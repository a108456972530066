//! The credentials file (§7): a document is a sorted list of records and a keyring.

mod encode;
mod lines;
mod parse;

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

use subtle::ConstantTimeEq;

use crate::expiry::{self, Expires};
use crate::manifest::{self, Hash, Manifest};
use crate::slots::{KeyId, Protection, StoredKeyring};
use crate::suite::Suite;
use crate::{Error, Failure, Identity, Keyring, OwnedIdentity, limits, value};

/// A parsed or new document. Cloning shares the records.
///
/// ```
/// # use omni_credentials_core::{Entropy, Error, kdf};
/// use omni_credentials_core::{Document, Entry, Identity, Keyring, XChaCha20Poly1305};
///
/// # struct Source;
/// # impl Entropy for Source {
/// #     fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> { out.fill(7); Ok(()) }
/// # }
/// # let mut source = Source;
/// # let secret = kdf::generate_master_key(&mut source)?;
/// let (keyring, _kek) = Keyring::<XChaCha20Poly1305>::create(&secret, None, &mut source)?;
/// let mail = Identity { name: b"mail", kind: b"password", principal: b"app", scope: b"{}" };
/// let sealed = keyring.seal(&mail, None, b"hunter2", &mut source)?;
///
/// let mut document = Document::create(&keyring.to_bytes())?;
/// document.put([Entry { identity: mail, expires: None, sealed: Some(&sealed) }])?;
/// let file = document.write(&keyring, 0)?;
///
/// let read = Document::parse(&file)?;
/// read.verify(&keyring)?;
/// assert_eq!((read.generation(), read.entries().len()), (1, 1));
/// # Ok::<(), omni_credentials_core::Failure>(())
/// ```
pub struct Document<S: Suite> {
    keyring: Vec<u8>,
    protection: Protection,
    /// The id of the keyring's current key.
    current: KeyId,
    generation: u64,
    /// Every deletion that was made after this generation has its tombstone here.
    deletions_since: u64,
    /// Sorted by identity, no two alike.
    records: Vec<Rc<Record>>,
    /// Whether these are the rows of a table, with a keyring from elsewhere.
    is_table: bool,
    /// The trailer's seal, where the document came with one: key id and keyed hash.
    seal: Option<(KeyId, [u8; 32])>,
    suite: PhantomData<fn() -> S>,
}

/// A record of a document.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) identity: OwnedIdentity,
    /// When it expires; `None` for a tombstone.
    pub(crate) expires: Expires,
    /// The sealed value; `None` for a tombstone.
    pub(crate) sealed: Option<Vec<u8>>,
    /// When a tombstone was made.
    deletion: Deletion,
    /// Where it came from a file: how it stands there, which is how it is written.
    text: Option<Text>,
}

/// A sealed value, and what it is bound to besides its identity. Ordered by its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value<'a> {
    pub(crate) sealed: &'a [u8],
    pub(crate) expires: Expires,
}

/// When a record was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deletion {
    /// By the write of this generation.
    In(u64),
    /// By the next write.
    Pending,
}

impl Deletion {
    /// The generation, if it has been written.
    fn generation(self) -> Option<u64> {
        if let Self::In(generation) = self { Some(generation) } else { None }
    }

    /// The deletion if it was made after this generation; otherwise it is made by the next write.
    pub(crate) fn after(self, generation: u64) -> Self {
        if self > Self::In(generation) { self } else { Self::Pending }
    }
}

/// A piece of a file.
#[derive(Clone, Debug)]
struct Text {
    file: Rc<Vec<u8>>,
    range: Range<usize>,
}

impl Record {
    pub(crate) fn new(identity: OwnedIdentity, value: Option<Value<'_>>) -> Self {
        match value {
            Some(Value { expires, sealed }) => Self::live(identity, expires, sealed.to_vec()),
            None => Self::deleted(identity, Deletion::Pending),
        }
    }

    fn live(identity: OwnedIdentity, expires: Expires, sealed: Vec<u8>) -> Self {
        Self { identity, expires, sealed: Some(sealed), deletion: Deletion::Pending, text: None }
    }

    pub(crate) fn deleted(identity: OwnedIdentity, deletion: Deletion) -> Self {
        Self { identity, expires: None, sealed: None, deletion, text: None }
    }

    /// The record as it goes out.
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry {
            identity: Identity {
                name: self.identity.name.as_bytes(),
                kind: self.identity.kind.as_bytes(),
                principal: self.identity.principal.as_bytes(),
                scope: self.identity.scope.as_bytes(),
            },
            expires: self.expires,
            sealed: self.sealed.as_deref(),
        }
    }

    /// The value, unless it is a tombstone.
    pub(crate) fn value(&self) -> Option<Value<'_>> {
        Some(Value { expires: self.expires, sealed: self.sealed.as_deref()? })
    }

    /// When the record was deleted, if it was.
    pub(crate) fn deletion(&self) -> Option<Deletion> {
        self.sealed.is_none().then_some(self.deletion)
    }

    fn text(&self) -> Option<&[u8]> {
        let text = self.text.as_ref()?;
        text.file.get(text.range.clone())
    }
}

/// A record as it goes in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose record; from a document its scope is in canonical form.
    pub identity: Identity<'a>,
    /// When it expires, in seconds since 1970, as it was sealed; `None` for a tombstone.
    pub expires: Option<u64>,
    /// The sealed value; `None` for a tombstone.
    pub sealed: Option<&'a [u8]>,
}

impl<S: Suite> Document<S> {
    /// An empty document of generation 0 that carries this keyring.
    ///
    /// # Errors
    /// Those of a keyring's bytes: [`Error::Malformed`], [`Error::UnknownVersion`], [`Error::UnknownSuite`],
    /// [`Error::KdfOutOfBounds`].
    pub fn create(keyring: &[u8]) -> Result<Self, Failure> {
        Self::from_parts(keyring.to_vec(), 0, Vec::new(), None)
    }

    /// Parses a file: syntax, limits and canonical form, but no cryptography. What is accepted is the one
    /// encoding of what it says.
    ///
    /// # Errors
    /// Each with its line; see the cases of [`Error`] that speak of a file.
    pub fn parse(file: &[u8]) -> Result<Self, Failure> {
        Self::parse_owned(file.to_vec())
    }

    /// As [`Document::parse`], for bytes that the document may keep.
    ///
    /// # Errors
    /// As [`Document::parse`].
    pub fn parse_owned(file: Vec<u8>) -> Result<Self, Failure> {
        parse::parse(&Rc::new(file))
    }

    /// Parses a file as far as its records are whole, whatever its trailer says: what a textual merge leaves
    /// when only the trailer is in conflict. [`Document::verify`] refuses it.
    ///
    /// # Errors
    /// As [`Document::parse`], except for those of the trailer.
    pub fn parse_unsealed(file: &[u8]) -> Result<Self, Failure> {
        parse::parse_unsealed(&Rc::new(file.to_vec()))
    }

    pub(crate) fn from_parts(
        keyring: Vec<u8>,
        generation: u64,
        records: Vec<Rc<Record>>,
        seal: Option<(KeyId, [u8; 32])>,
    ) -> Result<Self, Failure> {
        let stored = StoredKeyring::parse::<S>(&keyring)?;
        let (current, protection) = (stored.current()?, stored.protection);
        Ok(Self {
            keyring,
            protection,
            current,
            generation,
            deletions_since: 0,
            records,
            is_table: false,
            seal,
            suite: PhantomData,
        })
    }

    /// What two documents are to hold.
    pub(crate) fn reconciled(
        ours: &Self,
        theirs: &Self,
        keyring: Vec<u8>,
        records: Vec<Rc<Record>>,
    ) -> Result<Self, Failure> {
        let (records, deletions_since) = limited(records, ours.deletions_since.max(theirs.deletions_since))?;
        let generation = ours.generation.max(theirs.generation);
        Ok(Self { deletions_since, ..Self::from_parts(keyring, generation, records, None)? })
    }

    /// The keyring in the header.
    #[must_use]
    pub fn keyring_bytes(&self) -> &[u8] {
        &self.keyring
    }

    /// Replaces the keyring in the header.
    ///
    /// # Errors
    /// As [`Document::create`].
    pub fn set_keyring(&mut self, keyring: &[u8]) -> Result<(), Failure> {
        let stored = StoredKeyring::parse::<S>(keyring)?;
        self.current = stored.current()?;
        self.protection = stored.protection;
        self.keyring = keyring.to_vec();
        Ok(())
    }

    /// Checks the trailer's seal against all the document says, so that a document changed after parsing
    /// does not pass either.
    ///
    /// # Errors
    /// [`Error::SealMismatch`]; [`Error::UnknownKey`] where the keyring lacks the key of the seal.
    pub fn verify(&self, keyring: &Keyring<S>) -> Result<(), Failure> {
        let (key_id, seal) = self.seal.as_ref().ok_or(Error::SealMismatch)?;
        let expected = encode::seal(self, self.generation, &*keyring.file_key(key_id)?)?;
        let same = bool::from(expected.ct_eq(seal));
        if same { Ok(()) } else { Err(Error::SealMismatch.into()) }
    }

    /// How often the file was written; it only grows.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All records, sorted by identity.
    #[must_use]
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.records.iter().map(|record| record.entry())
    }

    /// Adds or replaces records, tombstones included. All or none.
    ///
    /// # Errors
    /// Those of [`Identity::canonical`]; [`Error::InvalidExpiry`]; [`Error::UnknownVersion`], [`Error::UnknownSuite`]
    /// and [`Error::Malformed`] for a sealed value; [`Error::DuplicateRecord`] for two of one identity;
    /// [`Error::TooManyRecords`].
    pub fn put<'a>(&mut self, entries: impl IntoIterator<Item = Entry<'a>>) -> Result<(), Failure> {
        let records = Self::overlaid(&self.records, entries.into_iter().map(Ok), true)?;
        (self.records, self.deletions_since) = limited(records, self.deletions_since)?;
        Ok(())
    }

    /// Forgets all deletions that were written before: a side that last agreed with this document before its present
    /// generation can then no longer tell what was deleted, and is told so when it reconciles.
    pub fn forget_deletions(&mut self) {
        self.records.retain(|record| !matches!(record.deletion(), Some(Deletion::In(_))));
        self.deletions_since = self.generation;
    }

    /// Every deletion that was made after this generation has its tombstone in the document.
    #[must_use]
    pub fn deletions_since(&self) -> u64 {
        self.deletions_since
    }

    /// The rows of a table, to be merged with this document: a document with the same keyring that holds these
    /// records and no others. Records that both have are shared, which makes the merge quick.
    ///
    /// # Errors
    /// As [`Document::put`], and the first that `rows` has.
    pub fn table<'a>(
        &self,
        rows: impl IntoIterator<Item = Result<Entry<'a>, Failure>>,
    ) -> Result<Self, Failure> {
        let records = Self::overlaid(&self.records, rows, false)?;
        if records.len() > limits::FILE_RECORDS {
            return Err(Error::TooManyRecords.into());
        }
        Ok(Self { is_table: true, ..Self::from_parts(self.keyring.clone(), 0, records, None)? })
    }

    /// As [`Document::table`], for a table that holds the live records of this document, except that it lacks those of the
    /// identities in `gone` and has `rows` in addition.
    ///
    /// # Errors
    /// As [`Document::table`]; [`Error::InvalidArgument`] where the document has no live record of an identity in `gone`.
    pub fn table_changes<'a>(
        &self,
        gone: impl IntoIterator<Item = Result<Identity<'a>, Failure>>,
        rows: impl IntoIterator<Item = Result<Entry<'a>, Failure>>,
    ) -> Result<Self, Failure> {
        let gone = gone.into_iter().map(|identity| Ok(identity?.canonical()?.into()));
        let mut gone = gone.collect::<Result<Vec<OwnedIdentity>, Failure>>()?;
        gone.sort_unstable();
        let mut gone = gone.iter().peekable();
        let added = Self::overlaid(&[], rows, false)?;
        let mut added = added.into_iter().peekable();
        let mut records = Vec::with_capacity(self.records.len() + added.len());
        for record in self.records.iter().filter(|record| record.sealed.is_some()) {
            if gone.next_if(|gone| **gone == record.identity).is_some() {
                continue;
            }
            while let Some(added) = added.next_if(|added| added.identity < record.identity) {
                records.push(added);
            }
            if added.peek().is_some_and(|added| added.identity == record.identity) {
                return Err(Error::DuplicateRecord.into());
            }
            records.push(Rc::clone(record));
        }
        records.extend(added);
        if gone.next().is_some() {
            return Err(Error::InvalidArgument.into());
        }
        if records.len() > limits::FILE_RECORDS {
            return Err(Error::TooManyRecords.into());
        }
        Ok(Self { is_table: true, ..Self::from_parts(self.keyring.clone(), 0, records, None)? })
    }

    /// What the document holds (§8.1): an ancestor for reconciling later.
    #[must_use]
    pub fn manifest(&self) -> Vec<u8> {
        self.manifest_of_now().to_bytes()
    }

    /// Whether the document holds the versions of a manifest, and no others.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is not a manifest.
    pub fn matches(&self, manifest: &[u8]) -> Result<bool, Failure> {
        Ok(Manifest::parse(manifest)?.entries == self.manifest_of_now().entries)
    }

    fn manifest_of_now(&self) -> Manifest {
        let entries = self.entries_of_manifest();
        Manifest::new(manifest::wrapping(&self.protection), self.generation, entries)
    }

    /// Identity and version of each live record, in the order of the records.
    pub(crate) fn entries_of_manifest(&self) -> Vec<(Hash, Hash)> {
        let live = self.records.iter().filter_map(|record| Some((&record.identity, record.sealed.as_ref()?)));
        live.map(|(identity, sealed)| (manifest::identity_hash(identity), manifest::version::<S>(sealed)))
            .collect()
    }

    /// The file's bytes, with the generation one above the higher of the document's own and `at_least`, sealed
    /// with the current key. The keyring must be the one in the header (see [`Document::set_keyring`]), or
    /// the file could not be unlocked.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another keyring or a generation that cannot grow;
    /// [`Error::FileTooLarge`].
    pub fn write(&self, keyring: &Keyring<S>, at_least: u64) -> Result<Vec<u8>, Failure> {
        Ok(self.written(keyring, at_least)?.1)
    }

    /// As [`Document::write`], and the document becomes what the bytes say: it need not be parsed to go on with them.
    ///
    /// # Errors
    /// As [`Document::write`]; then the document is as it was.
    pub fn rewrite(&mut self, keyring: &Keyring<S>, at_least: u64) -> Result<Vec<u8>, Failure> {
        let (generation, file, seal) = self.written(keyring, at_least)?;
        self.generation = generation;
        self.is_table = false;
        self.seal = Some((self.current, seal));
        for record in &mut self.records {
            if record.deletion() == Some(Deletion::Pending) {
                Rc::make_mut(record).deletion = Deletion::In(generation);
            }
        }
        Ok(file)
    }

    fn written(&self, keyring: &Keyring<S>, at_least: u64) -> Result<(u64, Vec<u8>, [u8; 32]), Failure> {
        if keyring.to_bytes() != self.keyring {
            return Err(Error::InvalidArgument.into());
        }
        let generation = self.generation.max(at_least).checked_add(1).ok_or(Error::InvalidArgument)?;
        let (file, seal) = encode::file(self, generation, &*keyring.file_key(&self.current)?)?;
        Ok((generation, file, seal))
    }

    pub(crate) fn records(&self) -> &[Rc<Record>] {
        &self.records
    }

    /// How the keyring in the header is protected.
    pub(crate) fn protection(&self) -> &Protection {
        &self.protection
    }

    pub(crate) fn is_table(&self) -> bool {
        self.is_table
    }

    /// The records of `before` with `entries` in them, which replace those of the same identity; and without the
    /// others, unless `keep`.
    fn overlaid<'a>(
        before: &[Rc<Record>],
        entries: impl IntoIterator<Item = Result<Entry<'a>, Failure>>,
        keep: bool,
    ) -> Result<Vec<Rc<Record>>, Failure> {
        let mut fresh = entries
            .into_iter()
            .map(|entry| {
                let entry = entry?;
                expiry::check(entry.expires)?;
                match (entry.sealed, entry.expires) {
                    (Some(sealed), _) => value::check::<S>(sealed)?,
                    (None, Some(expires)) => return Err(Failure::found(Error::InvalidExpiry, expires)),
                    (None, None) => {}
                }
                Ok((entry.identity.canonical()?, entry.expires, entry.sealed))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        fresh.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if !fresh.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Error::DuplicateRecord.into());
        }
        let mut records = Vec::with_capacity(fresh.len() + if keep { before.len() } else { 0 });
        let mut old = before.iter().peekable();
        for (identity, expires, sealed) in fresh {
            let mut order = Ordering::Greater;
            while let Some(before) = old.next_if(|other| {
                order = other.identity.borrowed().cmp(&identity);
                order.is_lt()
            }) {
                records.extend(keep.then(|| Rc::clone(before)));
            }
            let before = if order.is_eq() { old.next() } else { None };
            records.push(match before {
                Some(before) if before.expires == expires && same(before.sealed.as_deref(), sealed) => {
                    Rc::clone(before)
                }
                _ => Rc::new(Record::new(identity.into(), sealed.map(|sealed| Value { sealed, expires }))),
            });
        }
        records.extend(old.filter(|_| keep).cloned());
        Ok(records)
    }
}

impl<S: Suite> Clone for Document<S> {
    fn clone(&self) -> Self {
        Self {
            keyring: self.keyring.clone(),
            protection: self.protection.clone(),
            current: self.current,
            generation: self.generation,
            deletions_since: self.deletions_since,
            records: self.records.clone(),
            is_table: self.is_table,
            seal: self.seal,
            suite: PhantomData,
        }
    }
}

/// Forgets the oldest deletions where there are more than live records and more than a thousand; never those that the
/// next write makes. Then checks the number of records.
fn limited(
    mut records: Vec<Rc<Record>>,
    mut deletions_since: u64,
) -> Result<(Vec<Rc<Record>>, u64), Failure> {
    let mut deletions: Vec<Deletion> = records.iter().filter_map(|record| record.deletion()).collect();
    let most = limits::FILE_DELETIONS.max(records.len() - deletions.len());
    if deletions.len() > most {
        deletions.sort_unstable();
        // All of the generation of the newest that is too much; the next write's own are pending.
        let too_much = deletions.iter().take(deletions.len() - most).rev();
        if let Some(generation) = too_much.filter_map(|it| it.generation()).next() {
            records.retain(|record| record.deletion().is_none_or(|it| it > Deletion::In(generation)));
            deletions_since = deletions_since.max(generation);
        }
    }
    if records.len() > limits::FILE_RECORDS {
        return Err(Error::TooManyRecords.into());
    }
    Ok((records, deletions_since))
}

/// Whether two states are the same bytes. Eight at a time, for WebAssembly compares slices byte by byte.
fn same(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return a.is_none() && b.is_none() };
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let words = a.iter().zip(b).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b));
    a.len() == b.len() && words && a_rest == b_rest
}
