//! The core, linked.

use std::marker::PhantomData;

use omni_credentials_core::{self as core, Document, Entry, Failure, Keyring, Side, Suite, primitives};

use omni_credentials_conformance::{
    Answer, Costs, Identity, Prefer, ReconcileCase, ReconcileResult, Record, Refusal, Subject, kebab,
};

use crate::generate::Fixed;

/// The core with suite `S`.
#[derive(Debug)]
pub struct Native<S>(PhantomData<S>);

impl<S> Default for Native<S> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<S: Suite> Subject for Native<S> {
    fn suite(&self) -> u8 {
        S::ID
    }

    fn aead_open(&mut self, key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Answer<Vec<u8>> {
        primitives::aead_open::<S>(key, nonce, aad, sealed).map_err(refusal)
    }

    fn hkdf_sha256(&mut self, ikm: &[u8], salt: &[u8], info: &[u8], length: u32) -> Answer<Vec<u8>> {
        primitives::hkdf_sha256(ikm, salt, info, usize::try_from(length).unwrap_or(usize::MAX))
            .map_err(refusal)
    }

    fn argon2id(&mut self, password: &[u8], salt: &[u8], costs: Costs, length: u32) -> Answer<Vec<u8>> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Costs { memory_kib, passes, lanes } = costs;
        let costs = core::kdf::Costs { memory_kib, passes, lanes };
        primitives::argon2id(password, salt, costs, length).map_err(refusal)
    }

    fn derive_kek(&mut self, secret: &[u8], keyring: &[u8]) -> Answer<[u8; 32]> {
        Keyring::<S>::derive_kek(secret, keyring).map(|kek| *kek).map_err(refusal)
    }

    fn unlock(&mut self, keyring: &[u8], kek: &[u8; 32]) -> Answer<Vec<u8>> {
        Keyring::<S>::unlock(keyring, kek).map(|keyring| keyring.to_bytes()).map_err(refusal)
    }

    fn seal(&mut self, keyring: &[u8], kek: &[u8; 32], identity: &Identity, value: &[u8]) -> Answer<Vec<u8>> {
        let keyring = Keyring::<S>::unlock(keyring, kek).map_err(refusal)?;
        keyring
            .seal(&borrowed(identity), identity.expires, value, &mut Fixed::new("native seal"))
            .map_err(refusal)
    }

    fn open(
        &mut self,
        keyring: &[u8],
        kek: &[u8; 32],
        identity: &Identity,
        sealed: &[u8],
    ) -> Answer<Vec<u8>> {
        let keyring = Keyring::<S>::unlock(keyring, kek).map_err(refusal)?;
        keyring.open(&borrowed(identity), identity.expires, sealed).map_err(refusal)
    }

    fn canonical_scope(&mut self, keyring: &[u8], scope: &[u8]) -> Answer<Vec<u8>> {
        let mut document = Document::<S>::create(keyring).map_err(refusal)?;
        let identity = core::Identity { name: b"n", kind: b"k", principal: b"p", scope };
        document.put([Entry { identity, expires: None, sealed: None }]).map_err(refusal)?;
        Ok(document.entries().flat_map(|entry| entry.identity.scope.to_vec()).collect())
    }

    fn read_file(&mut self, file: &[u8], kek: &[u8; 32]) -> Answer<(Vec<Record>, u64)> {
        let document = Document::<S>::parse(file).map_err(refusal)?;
        let keyring = Keyring::<S>::unlock(document.keyring_bytes(), kek).map_err(refusal)?;
        document.verify(&keyring).map_err(refusal)?;
        Ok((records(&document, &keyring), document.generation()))
    }

    fn reconcile(&mut self, case: ReconcileCase<'_>) -> Answer<ReconcileResult> {
        let ours = Document::<S>::parse(case.ours).map_err(refusal)?;
        let theirs = Document::<S>::parse(case.theirs).map_err(refusal)?;
        let unlock = |document: &Document<S>, kek: Option<&[u8; 32]>| {
            kek.map(|kek| Keyring::<S>::unlock(document.keyring_bytes(), kek).map_err(refusal)).transpose()
        };
        let (our_keyring, their_keyring) = (unlock(&ours, case.our_kek)?, unlock(&theirs, case.their_kek)?);
        let Some(any) = our_keyring.as_ref().or(their_keyring.as_ref()) else {
            return Err(Refusal { class: "no keyring is unlocked".to_owned(), line: 0, found: 0 });
        };
        let our_side = Side { document: &ours, keyring: our_keyring.as_ref().unwrap_or(any) };
        let their_side = Side { document: &theirs, keyring: their_keyring.as_ref().unwrap_or(any) };
        for side in [&our_side, &their_side] {
            side.document.verify(side.keyring).map_err(refusal)?;
        }
        let prefer = match case.prefer {
            Prefer::Neither => core::Preference::Neither,
            Prefer::Ours => core::Preference::Ours,
            Prefer::Theirs => core::Preference::Theirs,
        };
        let entropy = &mut Fixed::new("native reconcile");
        let found =
            core::reconcile(case.ancestor, &our_side, &their_side, case.ours_complete, prefer, entropy)
                .map_err(refusal)?;
        let agreed = core::agreed(case.ancestor, &ours, &theirs, theirs.generation()).map_err(refusal)?;
        let changes = match case.ancestor {
            [] => Vec::new(),
            ancestor => {
                core::agreed_changes(ancestor, &ours, &theirs, theirs.generation()).map_err(refusal)?
            }
        };
        Ok(ReconcileResult {
            records: records(&found.document, &found.keyring),
            to_ours: found.to_ours().map(|entry| text(entry.identity.name)).collect(),
            to_theirs: found.to_theirs().map(|entry| text(entry.identity.name)).collect(),
            conflicts: found
                .conflicts
                .iter()
                .map(|(identity, reason)| (identity.name.clone(), kebab(reason)))
                .collect(),
            wrapping: kebab(found.wrapping),
            manifest: hex::encode(found.document.manifest()),
            agreed: hex::encode(agreed),
            changes: hex::encode(changes),
        })
    }
}

pub(crate) fn borrowed(identity: &Identity) -> core::Identity<'_> {
    core::Identity {
        name: identity.name.as_bytes(),
        kind: identity.kind.as_bytes(),
        principal: identity.principal.as_bytes(),
        scope: identity.scope.as_bytes(),
    }
}

fn records<S: Suite>(document: &Document<S>, keyring: &Keyring<S>) -> Vec<Record> {
    let record = |entry: Entry<'_>| {
        let value = entry.sealed.map(|sealed| {
            let opened = keyring.open(&entry.identity, entry.expires, sealed);
            opened.map_or_else(|failure| refusal(failure).class, hex::encode)
        });
        let core::Identity { name, kind, principal, scope } = entry.identity;
        let identity = Identity {
            name: text(name),
            kind: text(kind),
            principal: text(principal),
            scope: text(scope),
            expires: entry.expires,
        };
        Record { identity, value }
    };
    document.entries().map(record).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The contract's name of a refusal: the variant's, in kebab case.
pub(crate) fn refusal(failure: impl Into<Failure>) -> Refusal {
    let Failure { error, line, found } = failure.into();
    let mut class = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !class.is_empty() {
            class.push('-');
        }
        class.push(c.to_ascii_lowercase());
    }
    Refusal { class, line, found }
}
