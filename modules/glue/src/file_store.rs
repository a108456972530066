//! `file-store`.

use std::cell::RefCell;

use omni_credentials_core::{self as core, Suite};

use crate::bindings::exports::omni::credentials::file_store::{
    Document, DocumentBorrow, Entry, Failure, Guest, GuestDocument, KeyringBorrow, Preference, Reconciled,
};
use crate::convert;
use crate::encryption::KeyringResource;
use crate::entropy::Host;

/// A document as a resource.
pub struct DocumentResource<S: Suite>(RefCell<core::Document<S>>);

impl<S: Suite> DocumentResource<S> {
    fn resource(document: core::Document<S>) -> Document {
        Document::new(Self(RefCell::new(document)))
    }
}

impl<S: Suite> Guest for crate::Module<S> {
    type Document = DocumentResource<S>;

    fn reconcile(
        ancestor: Vec<u8>,
        ours: DocumentBorrow<'_>,
        our_keyring: KeyringBorrow<'_>,
        theirs: DocumentBorrow<'_>,
        their_keyring: KeyringBorrow<'_>,
        ours_complete: bool,
        prefer: Preference,
    ) -> Result<Reconciled, Failure> {
        let (ours, theirs) = (ours.get::<DocumentResource<S>>(), theirs.get::<DocumentResource<S>>());
        let (ours, theirs) = (ours.0.borrow(), theirs.0.borrow());
        let our_keyring = our_keyring.get::<KeyringResource<S>>().0.borrow();
        let their_keyring = their_keyring.get::<KeyringResource<S>>().0.borrow();
        let (ours, theirs) = (
            core::Side { document: &ours, keyring: &our_keyring },
            core::Side { document: &theirs, keyring: &their_keyring },
        );
        let prefer = match prefer {
            Preference::Neither => core::Preference::Neither,
            Preference::Ours => core::Preference::Ours,
            Preference::Theirs => core::Preference::Theirs,
        };
        let found = core::reconcile(&ancestor, &ours, &theirs, ours_complete, prefer, &mut Host)
            .map_err(convert::failure)?;
        Ok(Reconciled {
            to_ours: found.to_ours().map(convert::entry_out).collect(),
            to_theirs: found.to_theirs().map(convert::entry_out).collect(),
            conflicts: found.conflicts.iter().map(convert::conflict).collect(),
            wrapping: convert::wrapping(found.wrapping),
            document: DocumentResource::resource(found.document),
            keyring: KeyringResource::resource(found.keyring),
        })
    }

    fn agreed(
        ancestor: Vec<u8>,
        ours: DocumentBorrow<'_>,
        theirs: DocumentBorrow<'_>,
        generation: u64,
    ) -> Result<Vec<u8>, Failure> {
        let (ours, theirs) = (ours.get::<DocumentResource<S>>(), theirs.get::<DocumentResource<S>>());
        core::agreed(&ancestor, &ours.0.borrow(), &theirs.0.borrow(), generation).map_err(convert::failure)
    }

    fn agreed_changes(
        ancestor: Vec<u8>,
        ours: DocumentBorrow<'_>,
        theirs: DocumentBorrow<'_>,
        generation: u64,
    ) -> Result<Vec<u8>, Failure> {
        let (ours, theirs) = (ours.get::<DocumentResource<S>>(), theirs.get::<DocumentResource<S>>());
        core::agreed_changes(&ancestor, &ours.0.borrow(), &theirs.0.borrow(), generation)
            .map_err(convert::failure)
    }

    fn fold(manifest: Vec<u8>) -> Result<Vec<u8>, Failure> {
        core::fold(&manifest).map_err(convert::failure)
    }

    fn settled(confirmed: Vec<u8>, pending: Vec<u8>, file: DocumentBorrow<'_>) -> Result<Vec<u8>, Failure> {
        let file = file.get::<DocumentResource<S>>();
        core::settled(&confirmed, &pending, &file.0.borrow()).map_err(convert::failure)
    }
}

impl<S: Suite> GuestDocument for DocumentResource<S> {
    fn create(keyring: Vec<u8>) -> Result<Document, Failure> {
        core::Document::create(&keyring).map(Self::resource).map_err(convert::failure)
    }

    fn parse(file: Vec<u8>) -> Result<Document, Failure> {
        core::Document::parse_owned(file).map(Self::resource).map_err(convert::failure)
    }

    fn parse_unsealed(file: Vec<u8>) -> Result<Document, Failure> {
        core::Document::parse_unsealed(&file).map(Self::resource).map_err(convert::failure)
    }

    fn keyring_bytes(&self) -> Vec<u8> {
        self.0.borrow().keyring_bytes().to_vec()
    }

    fn set_keyring(&self, keyring: Vec<u8>) -> Result<(), Failure> {
        self.0.borrow_mut().set_keyring(&keyring).map_err(convert::failure)
    }

    fn verify(&self, keyring: KeyringBorrow<'_>) -> Result<(), Failure> {
        let keyring = keyring.get::<KeyringResource<S>>();
        self.0.borrow().verify(&keyring.0.borrow()).map_err(convert::failure)
    }

    fn generation(&self) -> u64 {
        self.0.borrow().generation()
    }

    fn entries(&self) -> Vec<Entry> {
        self.0.borrow().entries().map(convert::entry_out).collect()
    }

    fn put(&self, entries: Vec<Entry>) -> Result<(), Failure> {
        let entries =
            entries.iter().map(convert::entry).collect::<Result<Vec<_>, _>>().map_err(convert::failure)?;
        self.0.borrow_mut().put(entries).map_err(convert::failure)
    }

    fn table(&self, rows: Vec<u8>) -> Result<Document, Failure> {
        self.0.borrow().table(convert::rows(&rows)).map(Self::resource).map_err(convert::failure)
    }

    fn table_changes(&self, gone: Vec<u8>, rows: Vec<u8>) -> Result<Document, Failure> {
        let table = self.0.borrow().table_changes(convert::identities(&gone), convert::rows(&rows));
        table.map(Self::resource).map_err(convert::failure)
    }

    fn forget_deletions(&self) {
        self.0.borrow_mut().forget_deletions();
    }

    fn retire_keys(&self, keyring: KeyringBorrow<'_>) -> Result<u32, Failure> {
        let keyring = keyring.get::<KeyringResource<S>>();
        keyring.0.borrow_mut().retire(&self.0.borrow()).map_err(convert::failure)
    }

    fn manifest(&self) -> Vec<u8> {
        self.0.borrow().manifest()
    }

    fn matches(&self, manifest: Vec<u8>) -> Result<bool, Failure> {
        self.0.borrow().matches(&manifest).map_err(convert::failure)
    }

    fn write(&self, keyring: KeyringBorrow<'_>, at_least: u64) -> Result<Vec<u8>, Failure> {
        let keyring = keyring.get::<KeyringResource<S>>();
        self.0.borrow().write(&keyring.0.borrow(), at_least).map_err(convert::failure)
    }

    fn rewrite(&self, keyring: KeyringBorrow<'_>, at_least: u64) -> Result<Vec<u8>, Failure> {
        let keyring = keyring.get::<KeyringResource<S>>();
        self.0.borrow_mut().rewrite(&keyring.0.borrow(), at_least).map_err(convert::failure)
    }
}
