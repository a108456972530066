use wasmtime::component::ResourceAny;

use crate::sandbox::Sandbox;
use crate::{Entry, EntryRef, Error, Failure, Identity, Kek, Merged, Preference};

/// A work store in which credentials files are parsed, merged and written.
///
/// Handles are good in the `Files` they came from. After a trap or an interruption every further
/// call fails: drop it and start again.
pub struct Files {
    sandbox: Sandbox,
}

/// A parsed or new document.
#[derive(Debug, Clone, Copy)]
pub struct Document(ResourceAny);

/// An unlocked keyring in a [`Files`].
#[derive(Debug, Clone, Copy)]
pub struct KeyringHandle(ResourceAny);

/// The rows of a table, as they go to a module: all in one list of bytes.
#[derive(Debug, Default)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// Adds a row.
    pub fn push(&mut self, identity: &Identity<'_>, sealed: &[u8]) {
        for field in [identity.name, identity.kind, identity.principal, identity.scope, sealed] {
            // No field comes near 4 GiB, and a module's memory has less.
            self.0.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            self.0.extend_from_slice(field);
        }
    }
}

impl Files {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self { sandbox }
    }

    /// An empty document of generation 0 carrying this keyring.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for what is not a keyring.
    pub fn create(&mut self, keyring: &[u8]) -> Result<Document, Error> {
        self.sandbox
            .call("file-store.document.create", |module, store| {
                module.omni_credentials_file_store().document().call_create(store, keyring)
            })
            .map(Document)
    }

    /// Parses a file: syntax, limits and canonical form, but no cryptography, so it needs no key.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the line and what is wrong with it.
    pub fn parse(&mut self, file: &[u8]) -> Result<Document, Error> {
        self.sandbox
            .call("file-store.document.parse", |module, store| {
                module.omni_credentials_file_store().document().call_parse(store, file)
            })
            .map(Document)
    }

    /// Parses a file as far as its records are whole, whatever its trailer says.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_unsealed(&mut self, file: &[u8]) -> Result<Document, Error> {
        self.sandbox
            .call("file-store.document.parse-unsealed", |module, store| {
                module.omni_credentials_file_store().document().call_parse_unsealed(store, file)
            })
            .map(Document)
    }

    /// Unlocks a keyring for use with this store's documents.
    ///
    /// # Errors
    ///
    /// Those of [`Module::unlock`](crate::Module::unlock).
    pub fn unlock(&mut self, keyring: &[u8], kek: &Kek) -> Result<KeyringHandle, Error> {
        self.sandbox
            .call("encryption.keyring.unlock", |module, store| {
                module.omni_credentials_encryption().keyring().call_unlock(store, keyring, kek.as_bytes())
            })
            .map(KeyringHandle)
    }

    /// The keyring in the header.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn keyring_bytes(&mut self, document: Document) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.document.keyring-bytes", |module, store| {
            let documents = module.omni_credentials_file_store();
            Ok(Ok::<_, Failure>(documents.document().call_keyring_bytes(store, document.0)?))
        })
    }

    /// Replaces the keyring in the header.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for what is not a keyring.
    pub fn set_keyring(&mut self, document: Document, keyring: &[u8]) -> Result<(), Error> {
        self.sandbox.call("file-store.document.set-keyring", |module, store| {
            module.omni_credentials_file_store().document().call_set_keyring(store, document.0, keyring)
        })
    }

    /// Checks the trailer's seal. To be called before a parsed document is believed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `SealMismatch`, `UnknownKey`.
    pub fn verify(&mut self, document: Document, keyring: KeyringHandle) -> Result<(), Error> {
        self.sandbox.call("file-store.document.verify", |module, store| {
            module.omni_credentials_file_store().document().call_verify(store, document.0, keyring.0)
        })
    }

    /// How often the file was written.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn generation(&mut self, document: Document) -> Result<u64, Error> {
        self.sandbox.call("file-store.document.generation", |module, store| {
            let documents = module.omni_credentials_file_store();
            Ok(Ok::<_, Failure>(documents.document().call_generation(store, document.0)?))
        })
    }

    /// All records, sorted by identity; scopes in canonical form.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn entries(&mut self, document: Document) -> Result<Vec<Entry>, Error> {
        let entries = self.sandbox.call("file-store.document.entries", |module, store| {
            let documents = module.omni_credentials_file_store();
            Ok(Ok::<_, Failure>(documents.document().call_entries(store, document.0)?))
        })?;
        Ok(entries.into_iter().map(Into::into).collect())
    }

    /// Adds or replaces records, tombstones included. All or none.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: those of an identity, `Malformed`, `TooManyRecords`.
    pub fn put(&mut self, document: Document, entries: &[EntryRef<'_>]) -> Result<(), Error> {
        let entries: Vec<_> = entries.iter().map(Into::into).collect();
        self.sandbox.call("file-store.document.put", |module, store| {
            module.omni_credentials_file_store().document().call_put(store, document.0, &entries)
        })
    }

    /// The rows of a table as a document, to be merged with `document`: with the same keyring, these records and
    /// no others.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn table(&mut self, document: Document, rows: &Rows) -> Result<Document, Error> {
        self.sandbox
            .call("file-store.document.table", |module, store| {
                module.omni_credentials_file_store().document().call_table(store, document.0, &rows.0)
            })
            .map(Document)
    }

    /// What the document holds, 32 bytes a live record, sorted: a base for a later merge.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn manifest(&mut self, document: Document) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.document.manifest", |module, store| {
            let documents = module.omni_credentials_file_store();
            Ok(Ok::<_, Failure>(documents.document().call_manifest(store, document.0)?))
        })
    }

    /// The file's bytes, with the generation one above the higher of the document's own and
    /// `at_least`, sealed with the current key. Untouched records keep their bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `FileTooLarge`, `TooManyRecords`, `InvalidArgument` for another keyring.
    pub fn write(
        &mut self,
        document: Document,
        keyring: KeyringHandle,
        at_least: u64,
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.document.write", |module, store| {
            let documents = module.omni_credentials_file_store();
            documents.document().call_write(store, document.0, keyring.0, at_least)
        })
    }

    /// Three-way merge. `base` is a manifest of what both sides last agreed on; with `ours_complete`
    /// a record that ours lacks was deleted by ours.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for a manifest that is none, `InvalidArgument`.
    pub fn merge(
        &mut self,
        base: &[u8],
        ours: Document,
        theirs: Document,
        ours_complete: bool,
        keyring: KeyringHandle,
        prefer: Preference,
    ) -> Result<Merged, Error> {
        let merged = self.sandbox.call("file-store.merge", |module, store| {
            module.omni_credentials_file_store().call_merge(
                store,
                base,
                ours.0,
                theirs.0,
                ours_complete,
                keyring.0,
                prefer.into(),
            )
        })?;
        Ok(Merged {
            document: Document(merged.document),
            to_ours: merged.to_ours.into_iter().map(Into::into).collect(),
            to_theirs: merged.to_theirs.into_iter().map(Into::into).collect(),
            conflicts: merged.conflicts.into_iter().map(Into::into).collect(),
        })
    }

    /// The manifest that both sides now agree on.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for a manifest that is none.
    pub fn agreed(&mut self, base: &[u8], ours: Document, theirs: Document) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.agreed", |module, store| {
            module.omni_credentials_file_store().call_agreed(store, base, ours.0, theirs.0)
        })
    }
}
