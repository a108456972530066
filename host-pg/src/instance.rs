//! A copy of the credential store: where its keyring and settings are, and the unlocked keyrings of this backend.
//!
//! A copy is a schema with the tables `encrypted_credentials`, `credentials_keyrings` and `credentials_config`. The
//! owner of all three must be allowed to execute `omni_credentials.instantiate`: otherwise anyone could build such
//! tables, name a variable of the server's environment in them and try out secrets against it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use omni_credentials_host::{self as host, Costs, Digest, Identity, Kek, Keyring, Module};
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::error::{Error, Unreadable};
use crate::heap::{self, Table, Visit, datum};
use crate::keys::{self, KeyId};
use crate::{identity, modules, secret};

/// Columns of `credentials_config`, counted from 0.
mod config_column {
    pub(super) const ENVIRONMENT_VARIABLE: usize = 1;
    pub(super) const MODULE: usize = 2;
    pub(super) const MEMORY_KIB: usize = 3;
    pub(super) const PASSES: usize = 4;
    pub(super) const LANES: usize = 5;
}

/// Columns of `credentials_keyrings`, counted from 0.
mod keyring_column {
    pub(super) const ID: usize = 0;
    pub(super) const MODULE: usize = 1;
    pub(super) const KEYRING: usize = 2;
}

/// What `credentials_config` says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) variable: String,
    /// The module for a new keyring; `None` means the default one.
    pub(crate) module: Option<Digest>,
    pub(crate) costs: Option<Costs>,
}

/// A keyring as stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredKeyring {
    pub(crate) id: i32,
    pub(crate) module: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// A copy, as this backend knows it.
pub(crate) struct Instance {
    pub(crate) schema: pg_sys::Oid,
    pub(crate) table: pg_sys::Oid,
    /// The view `credentials`; `None` where it was dropped or is somebody else's.
    pub(crate) view: Option<pg_sys::Oid>,
    config: pg_sys::Oid,
    keyrings: pg_sys::Oid,
    settings: Settings,
    /// Newest first; the first one is current.
    rings: Vec<Ring>,
    stale: bool,
}

struct Ring {
    stored: StoredKeyring,
    kek: Option<Kek>,
    unlocked: Option<Keyring>,
}

/// A shared handle to a copy.
pub(crate) type Handle = Rc<RefCell<Instance>>;

thread_local! {
    static INSTANCES: RefCell<HashMap<pg_sys::Oid, Handle>> = RefCell::default();
    static STALE: Cell<bool> = const { Cell::new(false) };
}

/// The copy that a table belongs to.
pub(crate) fn of_table(table: pg_sys::Oid) -> Result<Handle, Error> {
    if STALE.replace(false) {
        INSTANCES.with_borrow(|known| {
            for instance in known.values() {
                instance.borrow_mut().stale = true;
            }
        });
    }
    let known = INSTANCES.with_borrow(|known| known.get(&table).cloned());
    let handle = match known {
        Some(handle) => handle,
        None => {
            let handle = Rc::new(RefCell::new(Instance::locate(table)?));
            INSTANCES.with_borrow_mut(|known| known.insert(table, Rc::clone(&handle)));
            handle
        }
    };
    handle.borrow_mut().refresh()?;
    Ok(handle)
}

/// The copy in a schema.
pub(crate) fn of_schema(schema: pg_sys::Oid) -> Result<Handle, Error> {
    match heap::relation_oid(schema, c"encrypted_credentials") {
        Some(table) => of_table(table),
        None => Err(Error::NotAnInstance { relation: format!("schema {}", heap::schema_name(schema)) }),
    }
}

/// Listens for changes of keyrings and settings. Called once, when the library is loaded.
pub(crate) fn register() {
    // SAFETY: called from _PG_init; the callbacks are plain C functions that only set a flag.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_invalidation), pg_sys::Datum::null());
        pg_sys::RegisterXactCallback(Some(on_transaction), core::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), core::ptr::null_mut());
    }
}

/// Runs whenever the server likes, possibly while an instance is in use: so it only leaves a note. Reading the few
/// rows again is cheap, and what is unlocked stays unlocked where the rows are the same.
unsafe extern "C-unwind" fn on_invalidation(_: pg_sys::Datum, _: pg_sys::Oid) {
    STALE.set(true);
}

/// A keyring or a setting that an aborted transaction wrote was never there.
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _: *mut core::ffi::c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        STALE.set(true);
    }
}

unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut core::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        STALE.set(true);
    }
}

/// How opening a value can fail: the value, or the store.
pub(crate) enum OpenError {
    Value(Unreadable),
    Store(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Instance {
    /// The schema's name.
    pub(crate) fn schema_name(&self) -> String {
        heap::schema_name(self.schema)
    }

    /// The current keyring as stored, if there is one.
    pub(crate) fn current(&self) -> Option<&StoredKeyring> {
        self.rings.first().map(|ring| &ring.stored)
    }

    /// Opens a value with whichever keyring has its key.
    pub(crate) fn open(
        &mut self,
        identity: &Identity<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let reason = match self.try_open(identity, sealed)? {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        // A statement whose lock on the table is older than a new keyring is not told of it, but sees the rows that were
        // sealed with it; and logical replication brings keyrings without telling the backends.
        if matches!(reason, Unreadable::UnknownKey | Unreadable::UnknownSuite(_)) && self.reread()? {
            return self.try_open(identity, sealed)?.map_err(OpenError::Value);
        }
        Err(OpenError::Value(reason))
    }

    fn try_open(
        &mut self,
        identity: &Identity<'_>,
        sealed: &[u8],
    ) -> Result<Result<Zeroizing<Vec<u8>>, Unreadable>, Error> {
        let mut first = None;
        for index in 0..self.rings.len() {
            match self.unlocked(index)?.open(identity, sealed) {
                Ok(value) => return Ok(Ok(value)),
                Err(host::Error::Refused(failure)) => {
                    let reason = Unreadable::of(&failure)
                        .ok_or_else(|| Error::ModuleFailed { reason: failure.to_string() })?;
                    first.get_or_insert(reason);
                    if !matches!(reason, Unreadable::UnknownKey | Unreadable::UnknownSuite(_)) {
                        return Ok(Err(reason));
                    }
                }
                Err(error) => return Err(modules::module_error(error)),
            }
        }
        Ok(Err(first.unwrap_or(Unreadable::UnknownKey)))
    }

    /// Seals a value under the current key, making the keyring where the copy has none yet.
    pub(crate) fn seal(&mut self, identity: &Identity<'_>, value: &[u8]) -> Result<Vec<u8>, Error> {
        if self.rings.is_empty() {
            self.mint()?;
        }
        self.unlocked(0)?.seal(identity, value).map_err(|error| refused_field(error, identity))
    }

    /// Adds a key to the current keyring and stores it.
    pub(crate) fn add_key(&mut self) -> Result<(), Error> {
        if self.rings.is_empty() {
            return self.mint();
        }
        let schema = self.schema_name();
        let kek = self.kek(0)?;
        // Not in the keyring that seals: if storing the new key fails, nothing may have been sealed with it.
        let current = self.current().map(|current| current.bytes.clone()).unwrap_or_default();
        let bytes = self
            .current_module()?
            .unlock(&current, &kek)
            .and_then(|mut keyring| keyring.add_key().and_then(|()| keyring.to_bytes()))
            .map_err(|error| match error {
                host::Error::Refused(failure) if failure.code == host::ErrorCode::TooManyKeys => {
                    Error::KeyringFull { schema }
                }
                other => modules::module_error(other),
            })?;
        self.replace_current(bytes, kek)
    }

    /// Makes a keyring with a module, which becomes the current one. The keyrings before it stay, for reading.
    pub(crate) fn add_keyring(&mut self, digest: &Digest) -> Result<(), Error> {
        if !self.rings.is_empty() {
            // Tells a wrong master secret before anything is written.
            self.unlocked(0)?;
        }
        let module = modules::module(digest)?;
        let secret = secret::master_secret(&self.settings.variable)?;
        let made = module
            .create_keyring(&secret, self.settings.costs)
            .map_err(|error| self.secret_error(error, "this store"))?;
        keys::remember(&KeyId::new(&secret, digest, &made.keyring), &made.kek);
        self.store_keyring(digest, &made.keyring, made.kek)
    }

    /// Wraps every keyring under another master secret.
    pub(crate) fn rewrap(&mut self, secret: &[u8]) -> Result<(), Error> {
        for index in 0..self.rings.len() {
            let kek = self.kek(index)?;
            let Some(stored) = self.rings.get(index).map(|ring| ring.stored.clone()) else { break };
            let made = modules::module(&stored.module)?
                .rewrap(&stored.bytes, &kek, secret, self.settings.costs)
                .map_err(|error| self.secret_error(error, &format!("schema {}", self.schema_name())))?;
            keys::remember(&KeyId::new(secret, &stored.module, &made.keyring), &made.kek);
            self.replace(&stored, made.keyring, made.kek)?;
        }
        Ok(())
    }

    /// The keyrings before the current one, newest first.
    pub(crate) fn superseded(&self) -> Vec<StoredKeyring> {
        self.rings.iter().skip(1).map(|ring| ring.stored.clone()).collect()
    }

    /// Whether the copy has no row, whoever may see it.
    pub(crate) fn holds_nothing(&self) -> Result<bool, Error> {
        Table::open(self.table, pg_sys::AccessShareLock)?.is_empty()
    }

    /// The KEK of the current keyring.
    pub(crate) fn current_kek(&mut self) -> Result<Kek, Error> {
        self.kek(0)
    }

    /// The module of the current keyring.
    pub(crate) fn current_module(&self) -> Result<Module, Error> {
        match self.rings.first() {
            Some(ring) => modules::module(&ring.stored.module),
            None => modules::module(&self.module_for_new_keyring()?),
        }
    }

    /// The module that a new keyring of this copy is made with.
    pub(crate) fn module_for_new_keyring(&self) -> Result<Digest, Error> {
        self.settings.module.map_or_else(modules::builtin_digest, Ok)
    }

    /// Derives the KEK of any keyring with this copy's master secret. `what` names it in errors.
    pub(crate) fn derive(&self, module: &Module, keyring: &[u8], what: &str) -> Result<Kek, Error> {
        let secret = secret::master_secret(&self.settings.variable)?;
        let id = KeyId::new(&secret, module.digest(), keyring);
        if let Some(kek) = keys::known(&id) {
            return Ok(kek);
        }
        let kek = module.derive_kek(&secret, keyring).map_err(|error| self.secret_error(error, what))?;
        keys::remember(&id, &kek);
        Ok(kek)
    }

    /// Stores a changed keyring in place of the current one.
    pub(crate) fn replace_current(&mut self, bytes: Vec<u8>, kek: Kek) -> Result<(), Error> {
        match self.current().cloned() {
            Some(current) => self.replace(&current, bytes, kek),
            None => Err(Error::KeyringMissing { schema: self.schema_name() }),
        }
    }

    fn replace(&mut self, before: &StoredKeyring, bytes: Vec<u8>, kek: Kek) -> Result<(), Error> {
        let table = Table::open(self.keyrings, pg_sys::ShareRowExclusiveLock)?;
        // Whatever happens now, look at the table before the next use.
        self.stale = true;
        table.scan(|row| {
            if row.get::<i32>(keyring_column::ID) != Some(before.id) {
                return Ok(Visit::Continue);
            }
            if row.get::<Vec<u8>>(keyring_column::KEYRING).as_deref() != Some(before.bytes.as_slice()) {
                return Err(Error::ConcurrentChange {
                    what: format!("the keyring of schema {}", heap::schema_name(self.schema)),
                });
            }
            table.update(row, &keyring_row(before.id, &before.module, &bytes))?;
            Ok(Visit::Stop)
        })?;
        table.announce_change();
        self.reread()?;
        self.keep_kek(&bytes, kek);
        Ok(())
    }

    /// Stores a further keyring, which becomes the current one.
    pub(crate) fn store_keyring(&mut self, module: &Digest, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        modules::pin(module)?;
        let table = Table::open(self.keyrings, pg_sys::ShareRowExclusiveLock)?;
        let mut last = 0;
        table.scan(|row| {
            last = last.max(row.get::<i32>(keyring_column::ID).unwrap_or(0));
            Ok(Visit::Continue)
        })?;
        table.insert(&keyring_row(last.saturating_add(1), module, bytes))?;
        table.announce_change();
        self.reread()?;
        self.keep_kek(bytes, kek);
        Ok(())
    }

    /// Remembers the KEK of a keyring that was made or changed here.
    fn keep_kek(&mut self, bytes: &[u8], kek: Kek) {
        if let Some(ring) = self.rings.iter_mut().find(|ring| ring.stored.bytes == bytes) {
            ring.kek = Some(kek);
        }
    }

    /// Reads settings and keyrings again. Tells whether the keyrings are others than before.
    fn reread(&mut self) -> Result<bool, Error> {
        let before: Vec<_> = self.rings.iter().map(|ring| ring.stored.clone()).collect();
        self.stale = true;
        self.refresh()?;
        Ok(!self.rings.iter().map(|ring| &ring.stored).eq(&before))
    }

    /// Finds the tables beside `table` and checks whose they are.
    fn locate(table: pg_sys::Oid) -> Result<Self, Error> {
        let refused = || Error::NotAnInstance { relation: heap::relation_name(table) };
        // SAFETY: a syscache lookup by oid; InvalidOid where there is no such relation.
        let schema = unsafe { pg_sys::get_rel_namespace(table) };
        let found = |name| heap::relation_oid(schema, name).ok_or_else(refused);
        if found(c"encrypted_credentials")? != table {
            return Err(refused());
        }
        let (config, keyrings) = (found(c"credentials_config")?, found(c"credentials_keyrings")?);
        for part in [table, config, keyrings] {
            let owner = Table::open(part, pg_sys::AccessShareLock)?.owner();
            if !crate::may_instantiate(owner) {
                return Err(refused());
            }
        }
        let view = heap::relation_oid(schema, c"credentials")
            .filter(|view| heap::owner(*view).is_some_and(crate::may_instantiate));
        let settings = Settings { variable: String::new(), module: None, costs: None };
        Ok(Self { schema, table, view, config, keyrings, settings, rings: Vec::new(), stale: true })
    }

    /// Reads settings and keyrings again where they may have changed.
    fn refresh(&mut self) -> Result<(), Error> {
        if !self.stale {
            return Ok(());
        }
        // Parts may have been dropped, renamed, made anew or given to another owner: look again from the start, but
        // keep what is unlocked.
        let rings = std::mem::take(&mut self.rings);
        *self = Self { rings, ..Self::locate(self.table)? };
        self.settings = read_settings(self.config)?;
        let mut stored = read_keyrings(self.keyrings)?;
        stored.sort_by_key(|keyring| std::cmp::Reverse(keyring.id));
        let mut known = std::mem::take(&mut self.rings);
        self.rings = stored
            .into_iter()
            .map(|stored| match known.iter().position(|ring| ring.stored == stored) {
                Some(index) => known.swap_remove(index),
                None => Ring { stored, kek: None, unlocked: None },
            })
            .collect();
        self.stale = false;
        Ok(())
    }

    fn unlocked(&mut self, index: usize) -> Result<&mut Keyring, Error> {
        if self.rings.get(index).is_some_and(|ring| ring.unlocked.is_none()) {
            let kek = self.kek(index)?;
            let schema = self.schema_name();
            let ring = self.ring(index)?;
            let module = modules::module(&ring.stored.module)?;
            let keyring = module.unlock(&ring.stored.bytes, &kek).map_err(|error| match error {
                host::Error::Refused(_) => Error::KeyringTampered { schema },
                other => modules::module_error(other),
            })?;
            ring.unlocked = Some(keyring);
        }
        let schema = self.schema;
        let ring = self.ring(index)?;
        ring.unlocked.as_mut().ok_or_else(|| Error::KeyringMissing { schema: heap::schema_name(schema) })
    }

    fn kek(&mut self, index: usize) -> Result<Kek, Error> {
        let ring = self.ring(index)?;
        if let Some(kek) = &ring.kek {
            return Ok(kek.clone());
        }
        let stored = ring.stored.clone();
        let module = modules::module(&stored.module)?;
        let kek = self.derive(&module, &stored.bytes, &format!("schema {}", self.schema_name()))?;
        self.ring(index)?.kek = Some(kek.clone());
        Ok(kek)
    }

    fn ring(&mut self, index: usize) -> Result<&mut Ring, Error> {
        let schema = self.schema;
        self.rings.get_mut(index).ok_or_else(|| Error::KeyringMissing { schema: heap::schema_name(schema) })
    }

    /// Makes the copy's first keyring, unless another session just did. A copy that holds sealed values gets none:
    /// a fresh key would hide that theirs is lost.
    fn mint(&mut self) -> Result<(), Error> {
        // The lock makes two first writers wait for each other; it is held to the end of the transaction.
        let keyrings = Table::open(self.keyrings, pg_sys::ShareRowExclusiveLock)?;
        drop(keyrings);
        self.reread()?;
        if !self.rings.is_empty() {
            return Ok(());
        }
        if !self.holds_nothing()? {
            return Err(Error::KeyringMissing { schema: self.schema_name() });
        }
        self.add_keyring(&self.module_for_new_keyring()?)
    }

    /// What a failure of key derivation means to the person who set the secret.
    pub(crate) fn secret_error(&self, error: host::Error, what: &str) -> Error {
        use host::ErrorCode as E;
        let variable = self.settings.variable.clone();
        match error {
            host::Error::Refused(failure) => match failure.code {
                E::WrongMasterSecret => Error::MasterSecretWrong { variable, what: what.to_owned() },
                E::InvalidMasterSecret => Error::MasterSecretInvalid { variable },
                E::KdfOutOfBounds => Error::InvalidArgument(
                    "the key derivation costs are outside the module's limits".to_owned(),
                ),
                _ => Error::KeyringTampered { schema: self.schema_name() },
            },
            other => modules::module_error(other),
        }
    }
}

/// Which field the module refused, and why.
fn refused_field(error: host::Error, identity: &Identity<'_>) -> Error {
    use host::ErrorCode as E;
    let host::Error::Refused(failure) = error else {
        return modules::module_error(error);
    };
    let name = identity::display_name(identity.name);
    let (field, problem) = match failure.code {
        E::InvalidName => ("name", "must have 1 to 512 bytes".to_owned()),
        E::InvalidKind => ("kind", "must have 1 to 63 bytes".to_owned()),
        E::InvalidPrincipal => ("principal", "must be a role name of 1 to 255 bytes".to_owned()),
        E::InvalidScope => ("scope", "must be JSON nested at most 32 levels deep".to_owned()),
        E::ScopeTooLarge => ("scope", format!("has {} bytes as JSON, more than 2048", failure.found)),
        E::ValueTooLarge => ("value", format!("has {} bytes, more than 1048576", failure.found)),
        _ => return Error::ModuleFailed { reason: failure.to_string() },
    };
    Error::InvalidField { name, field, problem }
}

fn keyring_row(id: i32, module: &Digest, bytes: &[u8]) -> [Option<pg_sys::Datum>; 3] {
    [datum(id), datum(module.as_bytes().as_slice()), datum(bytes)]
}

fn read_settings(config: pg_sys::Oid) -> Result<Settings, Error> {
    let mut settings = None;
    Table::open(config, pg_sys::AccessShareLock)?.scan(|row| {
        let module = match row.raw(config_column::MODULE) {
            Some(_) => Some(modules::digest_of_column(row, config_column::MODULE)?),
            None => None,
        };
        let cost = |column| row.get::<i32>(column).and_then(|n| u32::try_from(n).ok());
        let costs = match (
            cost(config_column::MEMORY_KIB),
            cost(config_column::PASSES),
            cost(config_column::LANES),
        ) {
            (Some(memory_kib), Some(passes), Some(lanes)) => Some(Costs { memory_kib, passes, lanes }),
            _ => None,
        };
        let variable = row.get::<String>(config_column::ENVIRONMENT_VARIABLE).unwrap_or_default();
        settings = Some(Settings { variable, module, costs });
        Ok(Visit::Stop)
    })?;
    settings
        .ok_or_else(|| Error::NotAnInstance { relation: format!("{} (empty)", heap::relation_name(config)) })
}

fn read_keyrings(keyrings: pg_sys::Oid) -> Result<Vec<StoredKeyring>, Error> {
    let mut stored = Vec::new();
    Table::open(keyrings, pg_sys::AccessShareLock)?.scan(|row| {
        stored.push(StoredKeyring {
            id: row.get(keyring_column::ID).unwrap_or(0),
            module: modules::digest_of_column(row, keyring_column::MODULE)?,
            bytes: row.get(keyring_column::KEYRING).unwrap_or_default(),
        });
        Ok(Visit::Continue)
    })?;
    Ok(stored)
}
