//! A credentials file: read, unlocked, changed and written.

use std::path::{Path, PathBuf};

use omni_credentials_host::shared_file::{self, Lock};
use omni_credentials_host::{
    Document, Entry, EntryRef, Error as HostError, Files, Identity, Kek, Keyring, KeyringHandle, Value,
};
use zeroize::Zeroizing;

use crate::context::{Context, MAX_FILE};
use crate::error::Error;
use crate::{identity, interrupt};

/// How many documents one sandbox is used for.
const MAX_DOCUMENTS: u32 = 1000;

/// What a record holds, or why that does not open.
pub(crate) type OpenedValue = Result<Value, String>;

/// A parsed file. Its seal is not checked yet: see [`Store::unlock`].
pub(crate) struct Store {
    pub(crate) path: PathBuf,
    pub(crate) files: Files,
    pub(crate) document: Document,
    pub(crate) entries: Vec<Entry>,
    pub(crate) generation: u64,
    pub(crate) keyring_bytes: Vec<u8>,
}

/// A file with an unlocked keyring and a valid seal.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) kek: Kek,
    pub(crate) keyring: Keyring,
    pub(crate) handle: KeyringHandle,
}

impl Store {
    /// Reads the file that the command works on.
    pub(crate) fn read(context: &Context) -> Result<Self, Error> {
        Self::parse(context, &context.file, &context.read()?)
    }

    /// Reads a file.
    pub(crate) fn read_at(context: &Context, path: &Path) -> Result<Self, Error> {
        let bytes = shared_file::read(path, MAX_FILE)?;
        Self::parse(context, path, &bytes)
    }

    /// Parses the bytes of a file; `path` is for messages.
    pub(crate) fn parse(context: &Context, path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut files = context.module()?.files()?;
        let document = files.parse(bytes).map_err(Error::of_file(path))?;
        Self::of(path, files, document)
    }

    /// A document made in `files`.
    pub(crate) fn of(path: &Path, mut files: Files, document: Document) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            entries: files.entries(document)?,
            generation: files.generation(document)?,
            keyring_bytes: files.keyring_bytes(document)?,
            files,
            document,
        })
    }

    /// Unlocks the keyring and checks the seal.
    pub(crate) fn unlock(self, context: &Context) -> Result<Opened, Error> {
        let mut opened = self.unlock_unsealed(context)?;
        let Store { path, files, document, .. } = &mut opened.store;
        files.verify(*document, opened.handle).map_err(Error::of_file(path))?;
        Ok(opened)
    }

    /// Unlocks the keyring of a document that has no seal yet.
    pub(crate) fn unlock_unsealed(mut self, context: &Context) -> Result<Opened, Error> {
        let kek = context.kek(&self.path, &self.keyring_bytes)?;
        let keyring = context.module()?.unlock(&self.keyring_bytes, &kek);
        let keyring = keyring.map_err(Error::of_file(&self.path))?;
        let handle = self.files.unlock(&self.keyring_bytes, &kek).map_err(Error::of_file(&self.path))?;
        Ok(Opened { store: self, kek, keyring, handle })
    }

    /// The credentials that are not deleted.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.deleted)
    }

    /// The credential of an identity in canonical form, unless it is deleted.
    pub(crate) fn record(&self, identity: &Identity<'_>) -> Option<&Entry> {
        live_record(&self.entries, identity)
    }

    /// The canonical form of an identity.
    pub(crate) fn canonical(&mut self, identity: Identity<'_>) -> Result<Entry, Error> {
        canonical(&mut self.files, &self.keyring_bytes, identity)
    }
}

/// The credential of an identity in canonical form among the entries of a document, which are sorted; unless it is
/// deleted.
pub(crate) fn live_record<'a>(entries: &'a [Entry], identity: &Identity<'_>) -> Option<&'a Entry> {
    fn key<'a>(it: &Identity<'a>) -> [&'a [u8]; 4] {
        [it.name, it.kind, it.principal, it.scope]
    }
    let at = entries.binary_search_by(|entry| key(&entry.identity()).cmp(&key(identity))).ok()?;
    entries.get(at).filter(|entry| !entry.deleted)
}

/// Opens the value of a record. That the module fails is an error.
pub(crate) fn open(keyring: &mut Keyring, entry: &Entry) -> Result<OpenedValue, Error> {
    match keyring.open(&entry.identity(), entry.expires, &entry.sealed) {
        Ok(value) => Ok(Ok(value)),
        Err(error @ HostError::Refused(_)) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// The canonical form of a scope. `keyring` is any keyring.
pub(crate) fn canonical_scope(files: &mut Files, keyring: &[u8], scope: &str) -> Result<Vec<u8>, Error> {
    let any = Identity { name: b"x", kind: b"x", principal: b"x", scope: scope.as_bytes() };
    Ok(canonical(files, keyring, any)?.scope)
}

/// Makes canonical forms of many identities.
pub(crate) struct Canonical<'a> {
    context: &'a Context,
    keyring_bytes: Vec<u8>,
    files: Files,
    used: u32,
}

impl<'a> Canonical<'a> {
    pub(crate) fn new(context: &'a Context, store: &Store) -> Result<Self, Error> {
        let files = context.module()?.files()?;
        Ok(Self { context, keyring_bytes: store.keyring_bytes.clone(), files, used: 0 })
    }

    /// The canonical form of an identity.
    pub(crate) fn form(&mut self, identity: Identity<'_>) -> Result<Entry, Error> {
        // A sandbox holds a limited number of documents.
        if self.used >= MAX_DOCUMENTS {
            self.files = self.context.module()?.files()?;
            self.used = 0;
        }
        self.used += 1;
        canonical(&mut self.files, &self.keyring_bytes, identity)
    }
}

fn canonical(files: &mut Files, keyring: &[u8], identity: Identity<'_>) -> Result<Entry, Error> {
    let scratch = files.create(keyring)?;
    let entry = EntryRef { identity, expires: None, sealed: b"", deleted: true };
    let refused = Error::of_argument(identity::shown(&identity));
    files.put(scratch, &[entry]).map_err(refused)?;
    let mut entries = files.entries(scratch)?;
    entries.pop().ok_or(Error::Module(HostError::FailedCheck("a document holds what was put into it")))
}

impl Opened {
    /// The value of a credential.
    pub(crate) fn value(&mut self, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, HostError> {
        self.keyring.open(&entry.identity(), entry.expires, &entry.sealed).map(Zeroizing::from)
    }

    /// The value of a credential that has to open.
    pub(crate) fn value_of(&mut self, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.value(entry).map_err(Error::of_argument(identity::shown(&entry.identity())))
    }

    /// Seals a value.
    pub(crate) fn seal(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        value: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.keyring.seal(identity, expires, value).map_err(Error::of_argument(identity::shown(identity)))
    }

    /// Seals a value again, under the current key: the same version of the credential.
    pub(crate) fn reseal(&mut self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let identity = entry.identity();
        let sealed = self.keyring.reseal(&identity, entry.expires, &entry.sealed);
        sealed.map_err(Error::of_argument(identity::shown(&identity)))
    }

    /// Drops the keys that no value uses. Another version of the file has those that it needs.
    pub(crate) fn retire_keys(&mut self, context: &Context) -> Result<(), Error> {
        self.store.files.retire_keys(self.store.document, self.handle)?;
        let keyring = self.store.files.to_bytes(self.handle)?;
        let kek = self.kek.clone();
        self.set_keyring(context, &keyring, &kek)
    }

    /// Adds or replaces records.
    pub(crate) fn put(&mut self, entries: &[EntryRef<'_>]) -> Result<(), Error> {
        let put = self.store.files.put(self.store.document, entries);
        put.map_err(Error::of_argument("the file"))
    }

    /// Puts another keyring into the header; `kek` unlocks it.
    pub(crate) fn set_keyring(&mut self, context: &Context, bytes: &[u8], kek: &Kek) -> Result<(), Error> {
        self.store.files.set_keyring(self.store.document, bytes)?;
        self.handle = self.store.files.unlock(bytes, kek)?;
        self.keyring = context.module()?.unlock(bytes, kek)?;
        self.store.keyring_bytes = bytes.to_vec();
        self.kek = kek.clone();
        context.remember(bytes, kek);
        Ok(())
    }

    /// The file's new bytes.
    pub(crate) fn write(&mut self) -> Result<Vec<u8>, Error> {
        let Store { files, document, generation, path, .. } = &mut self.store;
        files
            .write(*document, self.handle, *generation)
            .map_err(Error::of_argument(path.display().to_string()))
    }

    /// Replaces the file, whose lock is held.
    pub(crate) fn save(&mut self, lock: &Lock) -> Result<(), Error> {
        let bytes = self.write()?;
        publish(lock, &bytes)
    }
}

/// Takes the lock of the file that the command works on.
pub(crate) fn lock(context: &Context) -> Result<Lock, Error> {
    Ok(Lock::acquire_at(context.place()?, context.wait, Some(interrupt::requested))?)
}

/// Replaces a file, whose lock is held. After a signal, the file stays as it was.
pub(crate) fn publish(lock: &Lock, bytes: &[u8]) -> Result<(), Error> {
    interrupt::check()?;
    let staged = lock.stage(bytes)?;
    interrupt::check()?;
    Ok(staged.publish()?)
}

/// Changes the file under its lock: `change` gets it unlocked, and says whether to write it. Secrets are asked
/// for and derived from before the lock is taken.
pub(crate) fn change<T>(
    context: &Context,
    change: impl FnOnce(&mut Opened) -> Result<(T, bool), Error>,
) -> Result<T, Error> {
    drop(Store::read(context)?.unlock(context)?);
    let lock = lock(context)?;
    let mut opened = Store::parse(context, lock.path(), &lock.read(MAX_FILE)?)?.unlock(context)?;
    let (result, write) = change(&mut opened)?;
    if write {
        opened.save(&lock)?;
    }
    Ok(result)
}
