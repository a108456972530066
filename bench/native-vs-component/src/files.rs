//! Whole files: one that is as long as the limits allow.

use std::error::Error;

use omni_credentials_core::{self as core, Document, Entry, Identity, Keyring, Preference, Side, Suite};
use omni_credentials_host::{self as host, Module};

use crate::clock::race;
use crate::{Stream, row};

const RECORDS: usize = 100_000;

pub(crate) fn files<S: Suite>(module: &Module) -> Result<(), Box<dyn Error>> {
    let secret = core::kdf::generate_master_key(&mut Stream(4))?;
    let (keyring, kek) = Keyring::<S>::create(&secret, None, &mut Stream(5))?;
    let stored = keyring.to_bytes();
    let kek = host::Kek::from_bytes(&kek);
    let ours = file(&keyring, 0)?;
    let theirs = file(&keyring, 100)?;
    let ancestor = Document::<S>::parse(&ours)?.manifest();

    let timed = race(
        || Document::<S>::parse(&ours).is_ok_and(|document| document.verify(&keyring).is_ok()),
        || parse(module, &stored, &kek, &ours).is_ok(),
    )?;
    row(&format!("file of {RECORDS} records: parse and verify"), timed);

    let timed = race(
        || native_reconcile(&keyring, &ancestor, &ours, &theirs).is_ok_and(|len| len == theirs.len()),
        || {
            component_reconcile(module, &stored, &kek, [&ancestor, &ours, &theirs])
                .is_ok_and(|len| len == theirs.len())
        },
    )?;
    row(&format!("files of {RECORDS} records: parse both, reconcile, write"), timed);
    Ok(())
}

/// A file of equal values; the last `edited` of them are sealed again.
fn file<S: Suite>(keyring: &Keyring<S>, edited: usize) -> Result<Vec<u8>, core::Failure> {
    let names: Vec<String> = (0..RECORDS).map(|i| format!("credential-{i:06}")).collect();
    let mut entropy = Stream(6);
    let mut records = Vec::with_capacity(RECORDS);
    for (i, name) in names.iter().enumerate() {
        if i + edited == RECORDS {
            entropy = Stream(7);
        }
        let scope = br#"{"all": true}"#;
        let identity = Identity { name: name.as_bytes(), kind: b"api_key", principal: b"app", scope };
        records.push((
            identity,
            keyring.seal(&identity, None, b"sk_live_4eC39HqLyjWDarjtT1zdp7dc", &mut entropy)?,
        ));
    }
    let mut document = Document::<S>::create(&keyring.to_bytes())?;
    document.put(records.iter().map(|(identity, sealed)| Entry {
        identity: *identity,
        expires: None,
        sealed: Some(sealed),
    }))?;
    document.write(keyring, 0)
}

fn parse(module: &Module, keyring: &[u8], kek: &host::Kek, file: &[u8]) -> Result<(), host::Error> {
    let mut files = module.files()?;
    let keyring = files.unlock(keyring, kek)?;
    let document = files.parse(file)?;
    files.verify(document, keyring)
}

fn native_reconcile<S: Suite>(
    keyring: &Keyring<S>,
    ancestor: &[u8],
    ours: &[u8],
    theirs: &[u8],
) -> Result<usize, core::Failure> {
    let (ours, theirs) = (Document::<S>::parse(ours)?, Document::<S>::parse(theirs)?);
    let (ours, theirs) = (Side { document: &ours, keyring }, Side { document: &theirs, keyring });
    let found = core::reconcile(ancestor, &ours, &theirs, false, Preference::Neither, &mut Stream(8))?;
    Ok(found.document.write(&found.keyring, 0)?.len())
}

fn component_reconcile(
    module: &Module,
    keyring: &[u8],
    kek: &host::Kek,
    [ancestor, ours, theirs]: [&[u8]; 3],
) -> Result<usize, host::Error> {
    let mut files = module.files()?;
    let keyring = files.unlock(keyring, kek)?;
    let ours = host::Side { document: files.parse(ours)?, keyring };
    let theirs = host::Side { document: files.parse(theirs)?, keyring };
    let found = files.reconcile(ancestor, ours, theirs, false, host::Preference::Neither)?;
    Ok(files.write(found.document, found.keyring, 0)?.len())
}
