use std::sync::Arc;

use wasmtime::component::types::ComponentItem;
use zeroize::Zeroizing;

use crate::bindings::exports::omni::credentials::key_derivation;
use crate::error::wrong_contract;
use crate::large::LastLarge;
use crate::limits::Kind;
use crate::loaded::Loaded;
use crate::runtime::Shared;
use crate::sandbox::Sandbox;
use crate::{Costs, Description, Digest, Error, Failure, Files, Kek, Keyring, Primitives, ProtectedKeyring};

/// A loaded module. A clone is another handle on the same one.
#[derive(Clone)]
pub struct Module {
    shared: Arc<Shared>,
    loaded: Arc<Loaded>,
    digest: Digest,
}

impl Module {
    pub(crate) fn new(shared: Arc<Shared>, loaded: Loaded, digest: Digest) -> Self {
        Self { shared, loaded: Arc::new(loaded), digest }
    }

    /// What the module is pinned by.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether there are other handles on the module; an unlocked keyring has one.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.loaded) > 1
    }

    /// What the module says of itself.
    ///
    /// # Errors
    ///
    /// Those of a module that misbehaves: [`Error::Trap`], [`Error::OutOfMemory`],
    /// [`Error::WrongContract`]; and [`Error::Interrupted`]. They may come from every call.
    pub fn describe(&self) -> Result<Description, Error> {
        self.sandbox(Kind::Row)?.call("module-info.describe", |module, store| {
            Ok(Ok::<_, Failure>(module.omni_credentials_module_info().call_describe(store)?.into()))
        })
    }

    /// A new keyring with one key, under a master secret of 1 to 4,096 bytes. A generated master key is
    /// expanded and `costs` is not looked at; any other secret goes through Argon2id with `costs`, or
    /// with the module's default.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `InvalidMasterSecret`, `KdfOutOfBounds`.
    pub fn create_keyring(&self, secret: &[u8], costs: Option<Costs>) -> Result<ProtectedKeyring, Error> {
        let made = self.sandbox(Kind::Work)?.call("key-derivation.create-keyring", |module, store| {
            let costs = costs.map(Into::into);
            module.omni_credentials_key_derivation().call_create_keyring(store, secret, costs)
        })?;
        protected(made)
    }

    /// The KEK of a keyring.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `WrongMasterSecret`, `InvalidMasterSecret`, `KdfOutOfBounds`, and those of a
    /// damaged keyring.
    pub fn derive_kek(&self, secret: &[u8], keyring: &[u8]) -> Result<Kek, Error> {
        let kek = self.sandbox(Kind::Work)?.call("key-derivation.derive-kek", |module, store| {
            module.omni_credentials_key_derivation().call_derive_kek(store, secret, keyring)
        })?;
        to_kek(kek)
    }

    /// The same keys under another master secret. What was sealed stays as it is.
    ///
    /// # Errors
    ///
    /// Those of [`create_keyring`](Self::create_keyring) and [`unlock`](Self::unlock).
    pub fn rewrap(
        &self,
        keyring: &[u8],
        kek: &Kek,
        new_secret: &[u8],
        costs: Option<Costs>,
    ) -> Result<ProtectedKeyring, Error> {
        let made = self.sandbox(Kind::Work)?.call("key-derivation.rewrap", |module, store| {
            module.omni_credentials_key_derivation().call_rewrap(
                store,
                keyring,
                kek.as_bytes(),
                new_secret,
                costs.map(Into::into),
            )
        })?;
        protected(made)
    }

    /// A fresh generated master key, ASCII.
    ///
    /// # Errors
    ///
    /// See [`describe`](Self::describe).
    pub fn generate_master_key(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.sandbox(Kind::Row)?
            .call("key-derivation.generate-master-key", |module, store| {
                module.omni_credentials_key_derivation().call_generate_master_key(store)
            })
            .map(Zeroizing::new)
    }

    /// Unlocks a keyring for sealing and opening.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `WrongMasterSecret`, `KeyringTampered`, `Malformed`, `UnknownVersion`,
    /// `UnknownSuite`.
    pub fn unlock(&self, keyring: &[u8], kek: &Kek) -> Result<Keyring, Error> {
        Keyring::unlock(self.clone(), keyring, kek)
    }

    /// A work store for documents. Drop it when the file is done with: its memory is not given back
    /// before.
    ///
    /// # Errors
    ///
    /// See [`describe`](Self::describe).
    pub fn files(&self) -> Result<Files, Error> {
        Ok(Files::new(self.sandbox(Kind::Work)?))
    }

    /// The published constructions the module is made of.
    ///
    /// # Errors
    ///
    /// See [`describe`](Self::describe).
    pub fn primitives(&self) -> Result<Primitives, Error> {
        Ok(Primitives::new(self.sandbox(Kind::Work)?))
    }

    /// The names of the functions that the module imports, such as
    /// `wasi:random/random@0.2.3#get-random-bytes`. More than entropy was refused when it was loaded.
    pub fn imports(&self) -> Vec<String> {
        let component = self.loaded.instance_pre().component().component_type();
        let engine = &self.shared.engine;
        let mut found = Vec::new();
        for (name, import) in component.imports(engine) {
            if let ComponentItem::ComponentInstance(instance) = import.ty {
                let functions = instance
                    .exports(engine)
                    .filter(|(_, export)| matches!(export.ty, ComponentItem::ComponentFunc(_)));
                found.extend(functions.map(|(item, _)| format!("{name}#{item}")));
            }
        }
        found
    }

    pub(crate) fn large(&self) -> &LastLarge {
        &self.shared.large
    }

    pub(crate) fn sandbox(&self, kind: Kind) -> Result<Sandbox, Error> {
        Sandbox::new(&self.shared, &self.loaded, kind)
    }
}

fn protected(made: key_derivation::ProtectedKeyring) -> Result<ProtectedKeyring, Error> {
    Ok(ProtectedKeyring { keyring: made.keyring, kek: to_kek(made.kek)? })
}

fn to_kek(bytes: Vec<u8>) -> Result<Kek, Error> {
    let bytes = Zeroizing::new(bytes);
    match <&[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(kek) => Ok(Kek::from_bytes(kek)),
        Err(_) => Err(wrong_contract(format!("a KEK of {} bytes", bytes.len()))),
    }
}
