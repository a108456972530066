//! A copy of the credential store: where its keyring and settings are, and the unlocked keyrings of this backend.
//!
//! A copy is a schema with the tables `encrypted_credentials`, `credentials_keyrings` and `credentials_config`. The
//! owner of all three must be allowed to execute `omni_credentials.instantiate`: otherwise anyone could build such
//! tables, name a variable of the server's environment in them and try out secrets against it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use omni_credentials_host::{self as host, Costs, Digest, Identity, Kek, Module};
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::error::{Error, Unreadable};
use crate::heap::{self, Seen, Table, Visit};
use crate::keys::{self, KeyId};
use crate::rings::{Rings, StoredKeyring, column};
use crate::{identity, modules, secret, stale};

/// Columns of `credentials_config`, counted from 0.
mod config_column {
    use pgrx::pg_sys;

    use crate::heap::Type;

    pub(super) const ENVIRONMENT_VARIABLE: usize = 1;
    pub(super) const MODULE: usize = 2;
    pub(super) const MEMORY_KIB: usize = 3;
    pub(super) const PASSES: usize = 4;
    pub(super) const LANES: usize = 5;

    pub(super) const TYPES: &[Type] = &[
        Type::Is(pg_sys::BOOLOID),
        Type::Is(pg_sys::TEXTOID),
        Type::Is(pg_sys::BYTEAOID),
        Type::Is(pg_sys::INT4OID),
        Type::Is(pg_sys::INT4OID),
        Type::Is(pg_sys::INT4OID),
    ];
}

/// What `credentials_config` says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) variable: String,
    /// The module for a new keyring; `None` means the default one.
    pub(crate) module: Option<Digest>,
    pub(crate) costs: Option<Costs>,
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
    /// The first one is current.
    rings: Rings,
    /// What an older snapshot shows, and is pruned since.
    pruned: Rings,
    stale: bool,
}

/// A shared handle to a copy.
pub(crate) type Handle = Rc<RefCell<Instance>>;

thread_local! {
    static INSTANCES: RefCell<HashMap<pg_sys::Oid, Handle>> = RefCell::default();
}

/// The copy that a table belongs to.
pub(crate) fn of_table(table: pg_sys::Oid) -> Result<Handle, Error> {
    if stale::take() {
        look_again();
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

/// The same, with keyrings and settings as they are now: logical replication changes them without telling the backends.
pub(crate) fn of_table_anew(table: pg_sys::Oid) -> Result<Handle, Error> {
    stale::mark();
    of_table(table)
}

/// Marks what is known of copies as old. What is known of copies that were dropped goes, sandbox and keys included.
fn look_again() {
    let dropped = INSTANCES.with_borrow_mut(|known| {
        let before = known.len();
        // SAFETY: a syscache lookup by oid; InvalidOid where there is no such relation.
        known.retain(|table, _| unsafe { pg_sys::get_rel_namespace(*table) } != pg_sys::InvalidOid);
        for instance in known.values() {
            instance.borrow_mut().stale = true;
        }
        known.len() < before
    });
    if dropped {
        modules::release_unused();
    }
}

/// The rows of a copy, to be looked at directly.
pub(crate) fn table_of_credentials(table: pg_sys::Oid) -> Result<Table, Error> {
    let table = Table::open(table, pg_sys::AccessShareLock)?;
    table.must_have(heap::CREDENTIAL)?;
    Ok(table)
}

/// The copy in a schema.
pub(crate) fn of_schema(schema: pg_sys::Oid) -> Result<Handle, Error> {
    match heap::relation_oid(schema, c"encrypted_credentials") {
        Some(table) => of_table(table),
        None => Err(Error::NotAnInstance { relation: format!("schema {}", heap::schema_name(schema)) }),
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
        self.rings.rings.first().map(|ring| &ring.stored)
    }

    /// Opens a value with whichever keyring has its key.
    pub(crate) fn open(
        &mut self,
        identity: &Identity<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let reason = match self.rings.open(identity, sealed)? {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        // A statement whose lock on the table is older than a new keyring is not told of it, but sees the rows that were
        // sealed with it; and logical replication brings keyrings without telling the backends.
        if reason.is_of_another_key() && self.reread()? {
            return self.rings.open(identity, sealed)?.map_err(OpenError::Value);
        }
        Err(OpenError::Value(reason))
    }

    /// Opens a value that the active snapshot shows. Where its keyring was pruned since, the same snapshot shows that
    /// keyring.
    pub(crate) fn open_as_seen(
        &mut self,
        identity: &Identity<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if !self.pruned.rings.is_empty()
            && let Ok(value) = self.pruned.open(identity, sealed)?
        {
            return Ok(value);
        }
        match self.open(identity, sealed) {
            Err(OpenError::Value(reason)) if reason.is_of_another_key() && self.find_pruned()? => {
                self.pruned.open(identity, sealed)?.map_err(OpenError::Value)
            }
            result => result,
        }
    }

    /// Whether the current keyring opens a value.
    pub(crate) fn opens_with_current(
        &mut self,
        identity: &Identity<'_>,
        sealed: &[u8],
    ) -> Result<bool, Error> {
        Ok(self.rings.open_with(0, identity, sealed)?.is_ok())
    }

    /// Whether a superseded keyring has the key of a value, or may have it: where the value's format is unknown,
    /// nobody can tell.
    pub(crate) fn needs_superseded(&mut self, sealed: &[u8]) -> Result<bool, Error> {
        // No value was sealed for this identity, so what counts is whether it is the key that is missing.
        const NOBODY: Identity<'_> = Identity { name: b"?", kind: b"?", principal: b"?", scope: b"null" };
        for index in 1..self.rings.rings.len() {
            match self.rings.open_with(index, &NOBODY, sealed)? {
                Err(Unreadable::Malformed) => {}
                Err(reason) if reason.is_of_another_key() => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Looks for keyrings that the active snapshot shows and that are pruned since.
    fn find_pruned(&mut self) -> Result<bool, Error> {
        let mut seen = StoredKeyring::read_all(self.keyrings, Seen::BySnapshot)?;
        seen.retain(|seen| self.rings.rings.iter().all(|ring| ring.stored.id != seen.id));
        if seen.is_empty() {
            return Ok(false);
        }
        stale::mark_at_end();
        // The secret of that time: the snapshot is of this run of the server, and so is the environment.
        let settings = read_settings(self.config, Seen::BySnapshot)?;
        self.pruned.replace(settings.variable, seen);
        Ok(true)
    }

    /// Seals a value under the current key, making the keyring where the copy has none yet.
    pub(crate) fn seal(&mut self, identity: &Identity<'_>, value: &[u8]) -> Result<Vec<u8>, Error> {
        if self.rings.rings.is_empty() {
            self.mint()?;
        }
        self.rings.unlocked(0)?.seal(identity, value).map_err(|error| refused_field(error, identity))
    }

    /// Adds a key to the current keyring and stores it.
    pub(crate) fn add_key(&mut self) -> Result<(), Error> {
        if self.rings.rings.is_empty() {
            return self.mint();
        }
        let schema = self.schema_name();
        let kek = self.rings.kek(0)?;
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
        self.replace_current(&bytes, kek)
    }

    /// Makes a keyring with a module, which becomes the current one. The keyrings before it stay, for reading.
    pub(crate) fn add_keyring(&mut self, digest: &Digest) -> Result<(), Error> {
        if !self.rings.rings.is_empty() {
            // Tells a wrong master secret before anything is written.
            self.rings.unlocked(0)?;
        }
        let module = modules::module(digest)?;
        let secret = secret::master_secret(&self.settings.variable)?;
        let made = module
            .create_keyring(&secret, self.settings.costs)
            .map_err(|error| self.rings.secret_error(error, "this store"))?;
        keys::remember(&KeyId::new(&secret, digest, &made.keyring), &made.kek);
        self.store_keyring(digest, &made.keyring, made.kek)
    }

    /// Wraps every keyring under another master secret.
    pub(crate) fn rewrap(&mut self, secret: &[u8]) -> Result<(), Error> {
        for index in 0..self.rings.rings.len() {
            let kek = self.rings.kek(index)?;
            let Some(stored) = self.rings.rings.get(index).map(|ring| ring.stored.clone()) else { break };
            let made = modules::module(&stored.module)?
                .rewrap(&stored.bytes, &kek, secret, self.settings.costs)
                .map_err(|error| self.rings.secret_error(error, &format!("schema {}", self.schema_name())))?;
            keys::remember(&KeyId::new(secret, &stored.module, &made.keyring), &made.kek);
            self.replace(&stored, &made.keyring, made.kek)?;
        }
        Ok(())
    }

    /// The keyrings before the current one, newest first.
    pub(crate) fn superseded(&self) -> Vec<StoredKeyring> {
        self.rings.rings.iter().skip(1).map(|ring| ring.stored.clone()).collect()
    }

    /// Whether the copy has no row, whoever may see it.
    pub(crate) fn holds_nothing(&self) -> Result<bool, Error> {
        table_of_credentials(self.table)?.is_empty()
    }

    /// The KEK of the current keyring.
    pub(crate) fn current_kek(&mut self) -> Result<Kek, Error> {
        self.rings.kek(0)
    }

    /// The module of the current keyring.
    pub(crate) fn current_module(&self) -> Result<Module, Error> {
        match self.current() {
            Some(current) => modules::module(&current.module),
            None => modules::module(&self.module_for_new_keyring()?),
        }
    }

    /// The module that a new keyring of this copy is made with.
    pub(crate) fn module_for_new_keyring(&self) -> Result<Digest, Error> {
        self.settings.module.map_or_else(modules::builtin_digest, Ok)
    }

    /// Derives the KEK of any keyring with this copy's master secret. `what` names it in errors.
    pub(crate) fn derive(&self, module: &Module, keyring: &[u8], what: &str) -> Result<Kek, Error> {
        self.rings.derive(module, keyring, what)
    }

    /// Removes the keyrings before the current one, if they are still these. That nothing refers to them is for the
    /// caller to know.
    pub(crate) fn remove_superseded(&mut self, superseded: &[StoredKeyring]) -> Result<(), Error> {
        let table = StoredKeyring::table(self.keyrings, pg_sys::ShareRowExclusiveLock)?;
        // Whatever happens now, look at the table before the next use.
        self.stale = true;
        table.scan(|row| {
            if let Some(gone) = superseded.iter().find(|keyring| keyring.is_in(row)) {
                gone.must_be_as_in(row, self.schema)?;
                table.delete(row);
            }
            Ok(Visit::Continue)
        })?;
        table.announce_change();
        self.reread()?;
        Ok(())
    }

    /// Stores a changed keyring in place of the current one.
    pub(crate) fn replace_current(&mut self, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        match self.current().cloned() {
            Some(current) => self.replace(&current, bytes, kek),
            None => Err(Error::KeyringMissing { schema: self.schema_name() }),
        }
    }

    fn replace(&mut self, before: &StoredKeyring, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        let table = StoredKeyring::table(self.keyrings, pg_sys::ShareRowExclusiveLock)?;
        // Whatever happens now, look at the table before the next use.
        self.stale = true;
        table.scan(|row| {
            if !before.is_in(row) {
                return Ok(Visit::Continue);
            }
            before.must_be_as_in(row, self.schema)?;
            table.update(row, &StoredKeyring::row(before.id, &before.module, bytes))?;
            Ok(Visit::Stop)
        })?;
        table.announce_change();
        self.reread()?;
        self.keep_kek(bytes, kek);
        Ok(())
    }

    /// Stores a further keyring, which becomes the current one.
    pub(crate) fn store_keyring(&mut self, module: &Digest, bytes: &[u8], kek: Kek) -> Result<(), Error> {
        modules::pin(module)?;
        let table = StoredKeyring::table(self.keyrings, pg_sys::ShareRowExclusiveLock)?;
        let mut last = 0;
        table.scan(|row| {
            last = last.max(row.get::<i32>(column::ID).unwrap_or(0));
            Ok(Visit::Continue)
        })?;
        table.insert(&StoredKeyring::row(last.saturating_add(1), module, bytes))?;
        table.announce_change();
        self.reread()?;
        self.keep_kek(bytes, kek);
        Ok(())
    }

    /// Remembers the KEK of a keyring that was made or changed here.
    fn keep_kek(&mut self, bytes: &[u8], kek: Kek) {
        if let Some(ring) = self.rings.rings.iter_mut().find(|ring| ring.stored.bytes == bytes) {
            ring.kek = Some(kek);
        }
    }

    /// Reads settings and keyrings again. Tells whether the keyrings are others than before.
    fn reread(&mut self) -> Result<bool, Error> {
        let before: Vec<_> = self.rings.rings.iter().map(|ring| ring.stored.clone()).collect();
        self.stale = true;
        self.refresh()?;
        Ok(!self.rings.rings.iter().map(|ring| &ring.stored).eq(&before))
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
        let parts = [(table, heap::CREDENTIAL), (config, config_column::TYPES), (keyrings, column::TYPES)];
        for (part, types) in parts {
            let part = Table::open(part, pg_sys::AccessShareLock)?;
            part.must_have(types)?;
            if !crate::may_instantiate(part.owner()) {
                return Err(refused());
            }
        }
        let view = heap::relation_oid(schema, c"credentials")
            .filter(|view| heap::owner(*view).is_some_and(crate::may_instantiate));
        let settings = Settings { variable: String::new(), module: None, costs: None };
        let (rings, pruned) = (Rings::none(schema), Rings::none(schema));
        Ok(Self { schema, table, view, config, keyrings, settings, rings, pruned, stale: true })
    }

    /// Reads settings and keyrings again where they may have changed.
    fn refresh(&mut self) -> Result<(), Error> {
        if !self.stale {
            return Ok(());
        }
        // Parts may have been dropped, renamed, made anew or given to another owner: look again from the start, but
        // keep what is unlocked.
        let known = std::mem::take(&mut self.rings.rings);
        *self = Self::locate(self.table)?;
        self.rings.rings = known;
        self.settings = read_settings(self.config, Seen::Now)?;
        let stored = StoredKeyring::read_all(self.keyrings, Seen::Now)?;
        self.rings.replace(self.settings.variable.clone(), stored);
        self.stale = false;
        Ok(())
    }

    /// Makes the copy's first keyring, unless another session just did. A copy that holds sealed values gets none:
    /// a fresh key would hide that theirs is lost.
    fn mint(&mut self) -> Result<(), Error> {
        // The lock makes two first writers wait for each other; it is held to the end of the transaction.
        let keyrings = StoredKeyring::table(self.keyrings, pg_sys::ShareRowExclusiveLock)?;
        drop(keyrings);
        self.reread()?;
        if !self.rings.rings.is_empty() {
            return Ok(());
        }
        if !self.holds_nothing()? {
            return Err(Error::KeyringMissing { schema: self.schema_name() });
        }
        self.add_keyring(&self.module_for_new_keyring()?)
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

fn read_settings(config: pg_sys::Oid, seen: Seen) -> Result<Settings, Error> {
    let mut settings = None;
    let table = Table::open(config, pg_sys::AccessShareLock)?;
    table.must_have(config_column::TYPES)?;
    table.scan_as(seen, |row| {
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
