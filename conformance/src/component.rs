//! A crypto module inside the sandbox.

use omni_credentials_host as host;

use host::{Digest, EntryRef, Error, Files, Kek, KeyringHandle, Module, Runtime};

use crate::{Answer, Costs, Identity, MergeCase, MergeResult, Prefer, Record, Refusal, Subject};

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
        keyring.seal(&borrowed(identity), value).map_err(refusal)
    }

    fn open(
        &mut self,
        keyring: &[u8],
        kek: &[u8; 32],
        identity: &Identity,
        sealed: &[u8],
    ) -> Answer<Vec<u8>> {
        let mut keyring = self.module.unlock(keyring, &Kek::from_bytes(kek)).map_err(refusal)?;
        keyring.open(&borrowed(identity), sealed).map(|value| value.to_vec()).map_err(refusal)
    }

    fn canonical_scope(&mut self, keyring: &[u8], scope: &[u8]) -> Answer<Vec<u8>> {
        let mut files = self.files()?;
        let document = files.create(keyring).map_err(refusal)?;
        let identity = host::Identity { name: b"n", kind: b"k", principal: b"p", scope };
        files.put(document, &[EntryRef { identity, sealed: &[], deleted: true }]).map_err(refusal)?;
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

    fn merge(&mut self, case: MergeCase<'_>) -> Answer<MergeResult> {
        let mut files = self.files()?;
        let ours = files.parse(case.ours).map_err(refusal)?;
        let theirs = files.parse(case.theirs).map_err(refusal)?;
        let keyring = files.keyring_bytes(theirs).map_err(refusal)?;
        let kek = Kek::from_bytes(case.kek);
        let handle: KeyringHandle = files.unlock(&keyring, &kek).map_err(refusal)?;
        files.verify(ours, handle).map_err(refusal)?;
        files.verify(theirs, handle).map_err(refusal)?;
        let prefer = match case.prefer {
            Prefer::Neither => host::Preference::Neither,
            Prefer::Ours => host::Preference::Ours,
            Prefer::Theirs => host::Preference::Theirs,
        };
        let merged =
            files.reconcile(case.base, host::Side{document:ours,keyring:handle}, host::Side{document:theirs,keyring:handle}, case.ours_complete, prefer).map_err(refusal)?;
        let agreed = files.agreed(case.base, ours, theirs, 0).map_err(refusal)?;
        let mut keys = self.module.unlock(&keyring, &kek).map_err(refusal)?;
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(MergeResult {
            records: records(&mut files, merged.document, &mut keys)?,
            to_ours: merged.to_ours.iter().map(|entry| name(&entry.name)).collect(),
            to_theirs: merged.to_theirs.iter().map(|entry| name(&entry.name)).collect(),
            conflicts: merged.conflicts.iter().map(|it| name(&it.identity.name)).collect(),
            manifest: hex::encode(files.manifest(merged.document).map_err(refusal)?),
            agreed: hex::encode(agreed),
        })
    }
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
            false => Some(keys.open(&entry.identity(), &entry.sealed).map_err(refusal)?),
        };
        records.push(Record {
            identity: Identity {
                name: text(&entry.name),
                kind: text(&entry.kind),
                principal: text(&entry.principal),
                scope: text(&entry.scope),
            },
            value: value.map(|value| hex::encode(&*value)),
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
