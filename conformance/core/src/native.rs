//! The core, linked.

use std::marker::PhantomData;

use omni_credentials_core::{self as core, Document, Entry, Failure, Keyring, Suite, primitives};

use omni_credentials_conformance::{
    Answer, Costs, Identity, MergeCase, MergeResult, Prefer, Record, Refusal, Subject,
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
        keyring.seal(&borrowed(identity), value, &mut Fixed::new("native seal")).map_err(refusal)
    }

    fn open(
        &mut self,
        keyring: &[u8],
        kek: &[u8; 32],
        identity: &Identity,
        sealed: &[u8],
    ) -> Answer<Vec<u8>> {
        let keyring = Keyring::<S>::unlock(keyring, kek).map_err(refusal)?;
        keyring.open(&borrowed(identity), sealed).map_err(refusal)
    }

    fn canonical_scope(&mut self, keyring: &[u8], scope: &[u8]) -> Answer<Vec<u8>> {
        let mut document = Document::<S>::create(keyring).map_err(refusal)?;
        let identity = core::Identity { name: b"n", kind: b"k", principal: b"p", scope };
        document.put([Entry { identity, sealed: None }]).map_err(refusal)?;
        Ok(document.entries().flat_map(|entry| entry.identity.scope.to_vec()).collect())
    }

    fn read_file(&mut self, file: &[u8], kek: &[u8; 32]) -> Answer<(Vec<Record>, u64)> {
        let document = Document::<S>::parse(file).map_err(refusal)?;
        let keyring = Keyring::<S>::unlock(document.keyring_bytes(), kek).map_err(refusal)?;
        document.verify(&keyring).map_err(refusal)?;
        Ok((records(&document, &keyring)?, document.generation()))
    }

    fn merge(&mut self, case: MergeCase<'_>) -> Answer<MergeResult> {
        let ours = Document::<S>::parse(case.ours).map_err(refusal)?;
        let theirs = Document::<S>::parse(case.theirs).map_err(refusal)?;
        let keyring = Keyring::<S>::unlock(theirs.keyring_bytes(), case.kek).map_err(refusal)?;
        ours.verify(&keyring).map_err(refusal)?;
        theirs.verify(&keyring).map_err(refusal)?;
        let prefer = match case.prefer {
            Prefer::Neither => core::Preference::Neither,
            Prefer::Ours => core::Preference::Ours,
            Prefer::Theirs => core::Preference::Theirs,
        };
        let merged =
            core::reconcile(case.base, &core::Side{document:&ours,keyring:&keyring}, &core::Side{document:&theirs,keyring:&keyring}, case.ours_complete, prefer, &mut Fixed::new("x")).map_err(refusal)?;
        let agreed = core::agreed(case.base, &ours, &theirs, 0).map_err(refusal)?;
        Ok(MergeResult {
            records: records(&merged.document, &keyring)?,
            to_ours: merged.to_ours().map(|(identity, _)| identity.name.clone()).collect(),
            to_theirs: merged.to_theirs().map(|(identity, _)| identity.name.clone()).collect(),
            conflicts: merged.conflicts.iter().map(|it| it.0.name.clone()).collect(),
            manifest: hex::encode(merged.document.manifest()),
            agreed: hex::encode(agreed),
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

fn records<S: Suite>(document: &Document<S>, keyring: &Keyring<S>) -> Answer<Vec<Record>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    document
        .entries()
        .map(|entry| {
            let value = entry.sealed.map(|sealed| keyring.open(&entry.identity, sealed)).transpose();
            let core::Identity { name, kind, principal, scope } = entry.identity;
            Ok(Record {
                identity: Identity {
                    name: text(name),
                    kind: text(kind),
                    principal: text(principal),
                    scope: text(scope),
                },
                value: value.map_err(refusal)?.map(hex::encode),
            })
        })
        .collect()
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
