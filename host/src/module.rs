use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker};
use zeroize::Zeroizing;

use crate::bindings::CryptoModuleIndices;
use crate::bindings::exports::omni::credentials::key_derivation;
use crate::runtime::Shared;
use crate::store::{Kind, Sandbox, State};
use crate::{Costs, Description, Digest, Error, Failure, Files, Kek, Keyring, ProtectedKeyring, check};

/// The one interface a module may import, of any patch version.
const ENTROPY: &str = "wasi:random/random@0.2.";

/// The contract this host knows.
pub(crate) const CONTRACT: &str = "omni:credentials@0.1.0";

/// A loaded module. A clone is another handle on the same one.
#[derive(Clone)]
pub struct Module {
    shared: Arc<Shared>,
    loaded: Arc<Loaded>,
    digest: Digest,
}

/// A component that was looked over and linked.
pub(crate) struct Loaded {
    instance_pre: InstancePre<State>,
    indices: CryptoModuleIndices,
}

/// The published constructions that a module is made of, for known-answer tests.
pub struct Primitives {
    sandbox: Sandbox,
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
        Ok(Primitives { sandbox: self.sandbox(Kind::Work)? })
    }

    /// The names of the functions that the module imports, such as
    /// `wasi:random/random@0.2.3#get-random-bytes`. More than entropy was refused when it was loaded.
    pub fn imports(&self) -> Vec<String> {
        let component = self.loaded.instance_pre().component().component_type();
        let engine = self.shared.engine();
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

    /// Runs known-answer tests and the properties that every module must have, in throw-away stores.
    /// A host does so before it trusts a module for the first time; it takes about a second.
    ///
    /// # Errors
    ///
    /// [`Error::FailedCheck`] names the first that fails; or the error that a call ended with.
    pub fn check(&self) -> Result<(), Error> {
        check::run(self)
    }

    pub(crate) fn sandbox(&self, kind: Kind) -> Result<Sandbox, Error> {
        Sandbox::new(&self.shared, &self.loaded, kind)
    }
}

impl Primitives {
    /// The suite's AEAD, opened with explicit key (32 bytes), nonce (the suite's length) and associated
    /// data. `sealed` is ciphertext and 16-byte tag.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `NotAuthentic`, `InvalidArgument`.
    pub fn aead_open(
        &mut self,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("primitives.aead-open", |module, store| {
            module.omni_credentials_primitives().call_aead_open(store, key, nonce, aad, sealed)
        })
    }

    /// HKDF-SHA-256 (RFC 5869), extract and expand; `length` at most 8,160 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `InvalidArgument`.
    pub fn hkdf_sha256(
        &mut self,
        ikm: &[u8],
        salt: &[u8],
        info: &[u8],
        length: u32,
    ) -> Result<Vec<u8>, Error> {
        self.sandbox.call("primitives.hkdf-sha256", |module, store| {
            module.omni_credentials_primitives().call_hkdf_sha256(store, ikm, salt, info, length)
        })
    }

    /// Argon2id version 0x13 (RFC 9106) without secret and associated data; a tag of `length` bytes, 4
    /// to 1,024.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `KdfOutOfBounds`, `InvalidArgument`.
    pub fn argon2id(
        &mut self,
        password: &[u8],
        salt: &[u8],
        costs: Costs,
        length: u32,
    ) -> Result<Vec<u8>, Error> {
        let Costs { memory_kib, passes, lanes } = costs;
        self.sandbox.call("primitives.argon2id", |module, store| {
            module
                .omni_credentials_primitives()
                .call_argon2id(store, password, salt, memory_kib, passes, lanes, length)
        })
    }
}

impl Loaded {
    /// Looks a component over: what it imports, and that it exports what the contract says.
    pub(crate) fn new(engine: &Engine, linker: &Linker<State>, component: &Component) -> Result<Self, Error> {
        refuse_imports(engine, component)?;
        let pre = linker.instantiate_pre(component).map_err(|error| wrong_contract(format!("{error:#}")))?;
        let indices = CryptoModuleIndices::new(&pre).map_err(|error| wrong_contract(format!("{error:#}")))?;
        Ok(Self { instance_pre: pre, indices })
    }

    pub(crate) fn instance_pre(&self) -> &InstancePre<State> {
        &self.instance_pre
    }

    pub(crate) fn indices(&self) -> &CryptoModuleIndices {
        &self.indices
    }
}

pub(crate) fn wrong_contract(detail: String) -> Error {
    Error::WrongContract { contract: CONTRACT, detail }
}

/// Entropy is the one thing a module may import: one interface with one function.
fn refuse_imports(engine: &Engine, component: &Component) -> Result<(), Error> {
    for (name, import) in component.component_type().imports(engine) {
        let (true, ComponentItem::ComponentInstance(instance)) = (name.starts_with(ENTROPY), import.ty)
        else {
            return Err(Error::ForbiddenImport(name.to_owned()));
        };
        for (item, export) in instance.exports(engine) {
            if item != "get-random-bytes" || !matches!(export.ty, ComponentItem::ComponentFunc(_)) {
                return Err(Error::ForbiddenImport(format!("{name}#{item}")));
            }
        }
    }
    Ok(())
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
