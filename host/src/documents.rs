use wasmtime::component::ResourceAny;

use crate::packed::pack;
use crate::sandbox::Sandbox;
use crate::{Entry, EntryRef, Error, Failure, Identity, Kek, Preference, Reconciled};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyringHandle(ResourceAny);

/// One of the two sides that are reconciled.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// What it holds.
    pub document: Document,
    /// The keyring of its header, unlocked; or the other side's, where the secret of this one is not at hand.
    pub keyring: KeyringHandle,
}

/// The rows of a table, as they go to a module: all in one list of bytes.
#[derive(Debug, Default)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// Adds a row.
    pub fn push(&mut self, identity: &Identity<'_>, expires: Option<u64>, sealed: &[u8]) {
        let expires = expires.map(u64::to_be_bytes);
        let expires = expires.as_ref().map_or(&[][..], |bytes| bytes);
        identity.pack(&mut self.0);
        pack(&mut self.0, &[expires, sealed]);
    }
}

/// Identities, as they go to a module: all in one list of bytes.
#[derive(Debug, Default)]
pub struct Identities(Vec<u8>);

impl Identities {
    /// Adds an identity.
    pub fn push(&mut self, identity: &Identity<'_>) {
        identity.pack(&mut self.0);
    }

    /// Adds what another list has.
    pub fn extend(&mut self, other: &[u8]) {
        self.0.extend_from_slice(other);
    }

    /// The list.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
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

    /// The rows of a table as a document, to be reconciled with `document`: with the same keyring, these records and
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

    /// As [`table`](Self::table), for a table that holds the live records of `document`, except that it lacks those of
    /// `gone` and has `rows` in addition.
    ///
    /// # Errors
    ///
    /// As [`table`](Self::table); [`Error::Refused`]: `InvalidArgument` where the document has no live record of an
    /// identity in `gone`.
    pub fn table_changes(
        &mut self,
        document: Document,
        gone: &Identities,
        rows: &Rows,
    ) -> Result<Document, Error> {
        self.sandbox
            .call("file-store.document.table-changes", |module, store| {
                let documents = module.omni_credentials_file_store();
                documents.document().call_table_changes(store, document.0, &gone.0, &rows.0)
            })
            .map(Document)
    }

    /// Forgets all deletions that the file lists. Who last agreed with an older version of it can then no longer tell
    /// what was deleted.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn forget_deletions(&mut self, document: Document) -> Result<(), Error> {
        self.sandbox.call("file-store.document.forget-deletions", |module, store| {
            let documents = module.omni_credentials_file_store();
            Ok(Ok::<_, Failure>(documents.document().call_forget_deletions(store, document.0)?))
        })
    }

    /// Drops the keys that no record of the document uses from a keyring, except for the current one. Returns how many.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn retire_keys(&mut self, document: Document, keyring: KeyringHandle) -> Result<u32, Error> {
        self.sandbox.call("file-store.document.retire-keys", |module, store| {
            module.omni_credentials_file_store().document().call_retire_keys(store, document.0, keyring.0)
        })
    }

    /// The bytes of an unlocked keyring, to be stored.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn to_bytes(&mut self, keyring: KeyringHandle) -> Result<Vec<u8>, Error> {
        self.sandbox.call("encryption.keyring.to-bytes", |module, store| {
            let keyrings = module.omni_credentials_encryption();
            Ok(Ok::<_, Failure>(keyrings.keyring().call_to_bytes(store, keyring.0)?))
        })
    }

    /// What the document holds: an ancestor for a later [`reconcile`](Self::reconcile).
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

    /// As [`write`](Self::write), and the document becomes what the bytes say, as [`parse`](Self::parse) would make it.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn rewrite(
        &mut self,
        document: Document,
        keyring: KeyringHandle,
        at_least: u64,
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.document.rewrite", |module, store| {
            let documents = module.omni_credentials_file_store();
            documents.document().call_rewrite(store, document.0, keyring.0, at_least)
        })
    }

    /// Gives up a document before the store is dropped.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn close(&mut self, document: Document) -> Result<(), Error> {
        self.sandbox.close("file-store.document", document.0)
    }

    /// Gives up a keyring before the store is dropped; its keys are wiped.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`](crate::Module::describe).
    pub fn lock(&mut self, keyring: KeyringHandle) -> Result<(), Error> {
        self.sandbox.close("encryption.keyring", keyring.0)
    }

    /// Makes two sides one. `ancestor` is a manifest of what both last agreed on, or empty where that is not known; with
    /// `ours_complete` a record that ours lacks was deleted by ours.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for an ancestor that is no manifest; `WrongMasterSecret` and `UnknownKey` where a
    /// side came with the other's keyring and that will not do; `TooManyKeys`, `TooManyRecords`, `InvalidArgument`.
    pub fn reconcile(
        &mut self,
        ancestor: &[u8],
        ours: Side,
        theirs: Side,
        ours_complete: bool,
        prefer: Preference,
    ) -> Result<Reconciled, Error> {
        let found = self.sandbox.call("file-store.reconcile", |module, store| {
            module.omni_credentials_file_store().call_reconcile(
                store,
                ancestor,
                ours.document.0,
                ours.keyring.0,
                theirs.document.0,
                theirs.keyring.0,
                ours_complete,
                prefer.into(),
            )
        })?;
        Ok(Reconciled {
            document: Document(found.document),
            keyring: KeyringHandle(found.keyring),
            wrapping: found.wrapping.into(),
            to_ours: found.to_ours.into_iter().map(Into::into).collect(),
            to_theirs: found.to_theirs.into_iter().map(Into::into).collect(),
            conflicts: found.conflicts.into_iter().map(Into::into).collect(),
        })
    }

    /// The manifest that both sides now agree on; ours is complete, and the file of theirs is of this generation.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for an ancestor that is neither empty nor a manifest.
    pub fn agreed(
        &mut self,
        ancestor: &[u8],
        ours: Document,
        theirs: Document,
        generation: u64,
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.agreed", |module, store| {
            module.omni_credentials_file_store().call_agreed(store, ancestor, ours.0, theirs.0, generation)
        })
    }

    /// The changes that make `ancestor` what [`agreed`](Self::agreed) returns. They go before its manifest, after the
    /// changes that stand there already.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for an ancestor that is no manifest, as an empty one.
    pub fn agreed_changes(
        &mut self,
        ancestor: &[u8],
        ours: Document,
        theirs: Document,
        generation: u64,
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.agreed-changes", |module, store| {
            let files = module.omni_credentials_file_store();
            files.call_agreed_changes(store, ancestor, ours.0, theirs.0, generation)
        })
    }

    /// One manifest of a manifest and the changes before it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for what is no manifest.
    pub fn fold(&mut self, manifest: &[u8]) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.fold", |module, store| {
            module.omni_credentials_file_store().call_fold(store, manifest)
        })
    }

    /// What both sides last agreed on where it is not known whether a file that holds `pending` came into place after
    /// `confirmed`, given the file as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for a manifest that is neither empty nor one.
    pub fn settled(&mut self, confirmed: &[u8], pending: &[u8], file: Document) -> Result<Vec<u8>, Error> {
        self.sandbox.call("file-store.settled", |module, store| {
            module.omni_credentials_file_store().call_settled(store, confirmed, pending, file.0)
        })
    }

    /// Whether a document holds the versions of a manifest, and no others.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed` for what is not a manifest.
    pub fn matches(&mut self, document: Document, manifest: &[u8]) -> Result<bool, Error> {
        self.sandbox.call("file-store.document.matches", |module, store| {
            module.omni_credentials_file_store().document().call_matches(store, document.0, manifest)
        })
    }
}
