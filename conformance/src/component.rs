//! A crypto module inside the sandbox.

use omni_credentials_host as host;

use host::{Digest, EntryRef, Error, Files, Kek, KeyringHandle, Module, Runtime, Side};

use crate::{Answer, Costs, Identity, Prefer, ReconcileCase, ReconcileResult, Record, Refusal, Subject};

/// A loaded module.
pub struct Component {
    module: Module,
    suite: u8,
}

impl Component {
    /// Loads a module from its bytes.
    ///
    /// # Errors
    /// Those of the host.
    pub fn load(wasm: &[u8]) -> Result<Self, Error> {
        Self::new(Runtime::new(host::Config::default())?.load(wasm, &Digest::of(wasm))?)
    }

    /// A module that is loaded already.
    ///
    /// # Errors
    /// Those of the host.
    pub fn new(module: Module) -> Result<Self, Error> {
        let suite = module.describe()?.suite.id;
        Ok(Self { module, suite })
    }

    fn files(&self) -> Answer<Files> {
        self.module.files().map_err(refusal)
    }
}

impl Subject for Component {
    fn suite(&self) -> u8 {
        self.suite
    }

    fn aead_open(&mut self, key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Answer<Vec<u8>> {
        let mut primitives = self.module.primitives().map_err(refusal)?;
        primitives.aead_open(key, nonce, aad, sealed).map(|bytes| bytes.to_vec()).map_err(refusal)
    }

    fn hkdf_sha256(&mut self, ikm: &[u8], salt: &[u8], info: &[u8], length: u32) -> Answer<Vec<u8>> {
        let mut primitives = self.module.primitives().map_err(refusal)?;
        primitives.hkdf_sha256(ikm, salt, info, length).map(|bytes| bytes.to_vec()).map_err(refusal)
    }

    fn argon2id(&mut self, password: &[u8], salt: &[u8], costs: Costs, length: u32) -> Answer<Vec<u8>> {
        let mut primitives = self.module.primitives().map_err(refusal)?;
        primitives.argon2id(password, salt, costs, length).map(|bytes| bytes.to_vec()).map_err(refusal)
    }

    fn derive_kek(&mut self, secret: &[u8], keyring: &[u8]) -> Answer<[u8; 32]> {
        self.module.derive_kek(secret, keyring).map(|kek| *kek.as_bytes()).map_err(refusal)
    }

    fn unlock(&mut self, keyring: &[u8], kek: &[u8; 32]) -> Answer<Vec<u8>> {
        let mut keyring = self.module.unlock(keyring, &Kek::from_bytes(kek)).map_err(refusal)?;
        keyring.to_bytes().map_err(refusal)
    }

    fn seal(&mut self, keyring: &[u8], kek: &[u8; 32], identity: &Identity, value: &[u8]) -> Answer<Vec<u8>> {
        let mut keyring = self.module.unlock(keyring, &Kek::from_bytes(kek)).map_err(refusal)?;
        keyring.seal(&borrowed(identity), identity.expires, value).map_err(refusal)
    }

    fn open(
        &mut self,
        keyring: &[u8],
        kek: &[u8; 32],
        identity: &Identity,
        sealed: &[u8],
    ) -> Answer<Vec<u8>> {
        let mut keyring = self.module.unlock(keyring, &Kek::from_bytes(kek)).map_err(refusal)?;
        keyring
            .open(&borrowed(identity), identity.expires, sealed)
            .map(|value| value.to_vec())
            .map_err(refusal)
    }

    fn canonical_scope(&mut self, keyring: &[u8], scope: &[u8]) -> Answer<Vec<u8>> {
        let mut files = self.files()?;
        let document = files.create(keyring).map_err(refusal)?;
        let identity = host::Identity { name: b"n", kind: b"k", principal: b"p", scope };
        files
            .put(document, &[EntryRef { identity, expires: None, sealed: &[], deleted: true }])
            .map_err(refusal)?;
        Ok(files.entries(document).map_err(refusal)?.into_iter().flat_map(|entry| entry.scope).collect())
    }

    fn read_file(&mut self, file: &[u8], kek: &[u8; 32]) -> Answer<(Vec<Record>, u64)> {
        let mut files = self.files()?;
        let document = files.parse(file).map_err(refusal)?;
        let keyring = files.keyring_bytes(document).map_err(refusal)?;
        let kek = Kek::from_bytes(kek);
        let handle = files.unlock(&keyring, &kek).map_err(refusal)?;
        files.verify(document, handle).map_err(refusal)?;
        let generation = files.generation(document).map_err(refusal)?;
        let mut keys = self.module.unlock(&keyring, &kek).map_err(refusal)?;
        Ok((records(&mut files, document, &mut keys)?, generation))
    }

    fn reconcile(&mut self, case: ReconcileCase<'_>) -> Answer<ReconcileResult> {
        let mut files = self.files()?;
        let ours = files.parse(case.ours).map_err(refusal)?;
        let theirs = files.parse(case.theirs).map_err(refusal)?;
        let mut unlock = |document, kek: Option<&[u8; 32]>| -> Answer<Option<KeyringHandle>> {
            let Some(kek) = kek else { return Ok(None) };
            let keyring = files.keyring_bytes(document).map_err(refusal)?;
            files.unlock(&keyring, &Kek::from_bytes(kek)).map(Some).map_err(refusal)
        };
        let (our_keyring, their_keyring) = (unlock(ours, case.our_kek)?, unlock(theirs, case.their_kek)?);
        let Some(any) = our_keyring.or(their_keyring) else { return Err(no_keyring()) };
        let ours = Side { document: ours, keyring: our_keyring.unwrap_or(any) };
        let theirs = Side { document: theirs, keyring: their_keyring.unwrap_or(any) };
        for side in [ours, theirs] {
            files.verify(side.document, side.keyring).map_err(refusal)?;
        }
        let prefer = match case.prefer {
            Prefer::Neither => host::Preference::Neither,
            Prefer::Ours => host::Preference::Ours,
            Prefer::Theirs => host::Preference::Theirs,
        };
        let found =
            files.reconcile(case.ancestor, ours, theirs, case.ours_complete, prefer).map_err(refusal)?;
        let generation = files.generation(theirs.document).map_err(refusal)?;
        let agreed =
            files.agreed(case.ancestor, ours.document, theirs.document, generation).map_err(refusal)?;
        let changes = match case.ancestor {
            [] => Vec::new(),
            ancestor => {
                files.agreed_changes(ancestor, ours.document, theirs.document, generation).map_err(refusal)?
            }
        };
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let keyring = files.to_bytes(found.keyring).map_err(refusal)?;
        let kek = match found.wrapping {
            host::Wrapping::Same | host::Wrapping::Ours => case.our_kek.or(case.their_kek),
            host::Wrapping::Conflict if case.prefer == Prefer::Ours => case.our_kek.or(case.their_kek),
            host::Wrapping::Theirs | host::Wrapping::Conflict => case.their_kek.or(case.our_kek),
        };
        let kek = Kek::from_bytes(kek.ok_or_else(no_keyring)?);
        let mut keys = self.module.unlock(&keyring, &kek).map_err(refusal)?;
        Ok(ReconcileResult {
            records: records(&mut files, found.document, &mut keys)?,
            to_ours: found.to_ours.iter().map(|entry| name(&entry.name)).collect(),
            to_theirs: found.to_theirs.iter().map(|entry| name(&entry.name)).collect(),
            conflicts: found
                .conflicts
                .iter()
                .map(|conflict| (name(&conflict.identity.name), kebab(conflict.reason)))
                .collect(),
            wrapping: kebab(found.wrapping),
            manifest: hex::encode(files.manifest(found.document).map_err(refusal)?),
            agreed: hex::encode(agreed),
            changes: hex::encode(changes),
        })
    }
}

/// A case of an enum as the contract writes it.
pub fn kebab(case: impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for letter in format!("{case:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn no_keyring() -> Refusal {
    Refusal { class: "no keyring is unlocked".to_owned(), line: 0, found: 0 }
}

fn borrowed(identity: &Identity) -> host::Identity<'_> {
    host::Identity {
        name: identity.name.as_bytes(),
        kind: identity.kind.as_bytes(),
        principal: identity.principal.as_bytes(),
        scope: identity.scope.as_bytes(),
    }
}

fn records(files: &mut Files, document: host::Document, keys: &mut host::Keyring) -> Answer<Vec<Record>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut records = Vec::new();
    for entry in files.entries(document).map_err(refusal)? {
        let value = match entry.deleted {
            true => None,
            false => {
                let opened = keys.open(&entry.identity(), entry.expires, &entry.sealed);
                Some(opened.map_or_else(|error| refusal(error).class, |value| hex::encode(&*value)))
            }
        };
        records.push(Record {
            identity: Identity {
                name: text(&entry.name),
                kind: text(&entry.kind),
                principal: text(&entry.principal),
                scope: text(&entry.scope),
                expires: entry.expires,
            },
            value,
        });
    }
    Ok(records)
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused(failure) => {
            Refusal { class: failure.code.name().to_owned(), line: failure.line, found: failure.found }
        }
        other => Refusal { class: format!("trap: {other}"), line: 0, found: 0 },
    }
}
