use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::ResourceAny;

use crate::bindings::CryptoModule;
use crate::bindings::exports::omni::credentials::types::Failure;
use crate::limits::{Kind, State};
use crate::module::Module;
use crate::sandbox::Sandbox;
use crate::{Error, Identity, Kek, KeyOf, Value};

/// Values longer than this, in bytes, are sealed and opened in a work store: a row store would keep
/// the memory permanently.
const LARGE: usize = 64 << 10;

/// An unlocked keyring in a row store of its own.
///
/// When a call traps or is interrupted its store is dropped; the next call makes a new one from the
/// keyring and the KEK, which are remembered here. Dropping the keyring returns its memory, keys
/// included, to the system.
///
/// A value of more than 64 KiB goes through a *work store*, which the runtime keeps for the next one until
/// [`Runtime::release_large`](crate::Runtime::release_large).
pub struct Keyring {
    /// Among the keyrings of this process.
    id: u64,
    module: Module,
    bytes: Vec<u8>,
    kek: Kek,
    row: Option<Unlocked>,
    instantiations: u64,
    /// The identity of a call, as it goes to the module: its memory, kept for the next one.
    packed: Vec<u8>,
}

/// A sandbox and the keyring unlocked in it.
pub(crate) struct Unlocked {
    sandbox: Sandbox,
    keyring: ResourceAny,
}

type Store = wasmtime::Store<State>;
/// What a call gives: the module's result, unless it traps.
type Called<T> = wasmtime::Result<Result<T, Failure>>;

impl Keyring {
    pub(crate) fn unlock(module: Module, bytes: &[u8], kek: &Kek) -> Result<Self, Error> {
        let mut keyring = Self {
            id: new_id(),
            module,
            bytes: bytes.to_vec(),
            kek: kek.clone(),
            row: None,
            instantiations: 0,
            packed: Vec::new(),
        };
        keyring.row()?;
        Ok(keyring)
    }

    /// Seals a value of 0 to 1 MiB under the current key with a fresh nonce.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `InvalidName`, `InvalidKind`, `InvalidPrincipal`, `InvalidScope`,
    /// `ScopeTooLarge`, `InvalidExpiry`, `ValueTooLarge`.
    pub fn seal(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        value: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.with_packed(identity, |this, identity| {
            this.call(value.len(), "encryption.keyring.seal", |module, store, keyring| {
                let exports = module.omni_credentials_encryption().keyring();
                exports.call_seal(store, keyring, identity, expires, value)
            })
        })
    }

    /// Opens a sealed value. Anything but what was sealed for this very identity and expiry is a failure.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `NotAuthentic`, `Malformed`, `UnknownVersion`, `UnknownSuite`, `UnknownKey`, and
    /// those of an identity and an expiry. None of them costs a new store.
    pub fn open(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Value, Error> {
        self.with_packed(identity, |this, identity| this.open_packed(identity, expires, sealed))
    }

    /// The same for an identity that is packed already, or for bytes that are none.
    pub(crate) fn open_packed(
        &mut self,
        identity: &[u8],
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Value, Error> {
        self.call(sealed.len(), "encryption.keyring.open", |module, store, keyring| {
            let exports = module.omni_credentials_encryption().keyring();
            exports.call_open(store, keyring, identity, expires, sealed)
        })
        .map(Value::from)
    }

    /// Seals again, under the current key, what was sealed for this very identity and expiry. It stays the same version of the
    /// credential; a value of the current key comes back as it is.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn reseal(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.with_packed(identity, |this, identity| {
            this.call(sealed.len(), "encryption.keyring.reseal", |module, store, keyring| {
                let exports = module.omni_credentials_encryption().keyring();
                exports.call_reseal(store, keyring, identity, expires, sealed)
            })
        })
    }

    /// What the key of a sealed value is to this keyring. Authenticates nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `Malformed`, `UnknownVersion`, `UnknownSuite`.
    pub fn key_of(&mut self, sealed: &[u8]) -> Result<KeyOf, Error> {
        self.call(sealed.len(), "encryption.keyring.key-of", |module, store, keyring| {
            module.omni_credentials_encryption().keyring().call_key_of(store, keyring, sealed)
        })
        .map(KeyOf::from)
    }

    /// The keyring, to be stored.
    ///
    /// # Errors
    ///
    /// See [`Module::describe`].
    pub fn to_bytes(&mut self) -> Result<Vec<u8>, Error> {
        self.call(0, "encryption.keyring.to-bytes", |module, store, keyring| {
            let bytes = module.omni_credentials_encryption().keyring().call_to_bytes(store, keyring)?;
            Ok(Ok(bytes))
        })
    }

    /// Adds a fresh key and makes it current. Older keys stay, for opening.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `TooManyKeys`.
    pub fn add_key(&mut self) -> Result<(), Error> {
        self.call(0, "encryption.keyring.add-key", |module, store, keyring| {
            module.omni_credentials_encryption().keyring().call_add_key(store, keyring)
        })?;
        self.remember()
    }

    /// Takes over the keys of another keyring; the newest key of both becomes the current one, and the master secret
    /// stays. Returns how many were new.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `TooManyKeys`, `InvalidArgument`, and those of [`Module::unlock`].
    pub fn unite(&mut self, other_keyring: &[u8], other_kek: &Kek) -> Result<u32, Error> {
        let added = self.call(0, "encryption.keyring.unite", |module, store, keyring| {
            let encryption = module.omni_credentials_encryption();
            let other =
                match encryption.keyring().call_unlock(&mut *store, other_keyring, other_kek.as_bytes())? {
                    Ok(other) => other,
                    Err(failure) => return Ok(Err(failure)),
                };
            let added = encryption.keyring().call_unite(&mut *store, keyring, other)?;
            other.resource_drop(store)?;
            Ok(added)
        })?;
        self.remember()?;
        Ok(added)
    }

    /// How many row stores this keyring has had: 1, and one more after each call that trapped.
    pub fn instantiations(&self) -> u64 {
        self.instantiations
    }

    /// Lends an identity as it goes to the module.
    fn with_packed<T>(
        &mut self,
        identity: &Identity<'_>,
        call: impl FnOnce(&mut Self, &[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut packed = std::mem::take(&mut self.packed);
        packed.clear();
        identity.pack(&mut packed);
        let result = call(self, &packed);
        self.packed = packed;
        result
    }

    fn call<T>(
        &mut self,
        length: usize,
        export: &'static str,
        call: impl FnOnce(&CryptoModule, &mut Store, ResourceAny) -> Called<T>,
    ) -> Result<T, Error> {
        if length > LARGE {
            let mut work = match self.module.large().take(self.id) {
                Some(work) => work,
                None => Unlocked::new(&self.module, Kind::Work, &self.bytes, &self.kek)?,
            };
            let keyring = work.keyring;
            let result = work.sandbox.call(export, |module, store| call(module, store, keyring));
            if is_sound(&result) {
                self.module.large().keep(self.id, work);
            }
            return result;
        }
        let row = self.row()?;
        let keyring = row.keyring;
        let result = row.sandbox.call(export, |module, store| call(module, store, keyring));
        if !is_sound(&result) {
            self.row = None;
        }
        result
    }

    fn row(&mut self) -> Result<&mut Unlocked, Error> {
        match &mut self.row {
            Some(row) => Ok(row),
            empty => {
                self.instantiations += 1;
                Ok(empty.insert(Unlocked::new(&self.module, Kind::Row, &self.bytes, &self.kek)?))
            }
        }
    }

    fn remember(&mut self) -> Result<(), Error> {
        // A work store that is kept has the keys of before.
        drop(self.module.large().take(self.id));
        self.bytes = self.to_bytes()?;
        Ok(())
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        drop(self.module.large().take(self.id));
    }
}

/// Whether the store can be used again.
fn is_sound<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Ok(_) | Err(Error::Refused(_)))
}

fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Unlocked {
    fn new(module: &Module, kind: Kind, bytes: &[u8], kek: &Kek) -> Result<Self, Error> {
        let mut sandbox = module.sandbox(kind)?;
        let keyring = sandbox.call("encryption.keyring.unlock", |module, store| {
            module.omni_credentials_encryption().keyring().call_unlock(store, bytes, kek.as_bytes())
        })?;
        Ok(Self { sandbox, keyring })
    }
}
