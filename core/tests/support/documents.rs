//! Documents whose values are known, and what comes of two of them.

use std::collections::BTreeMap;

use omni_credentials_core::{
    Document, Entry, Keyring, Preference, Reconciled, Side, XChaCha20Poly1305, reconcile,
};

use super::{ALL, Dry, Fixed, identity};

pub type Doc = Document<XChaCha20Poly1305>;
pub type Keys = Keyring<XChaCha20Poly1305>;

/// What a side has of the records that it has: a value, or a tombstone.
pub type State = BTreeMap<String, Option<u8>>;

/// A document; the same value of a name in two documents with the same `salt` has the same sealed bytes.
pub fn document(keys: &Keys, state: &State, salt: u64) -> Doc {
    let mut document = Doc::create(&keys.to_bytes()).unwrap();
    for (name, value) in state {
        let identity = identity(name, ALL);
        let seed = salt * 1_000_000 + u64::from(value.unwrap_or(0)) * 1_000 + u64::from(name.as_bytes()[0]);
        let expires = value.and_then(expiry);
        let sealed =
            value.map(|value| keys.seal(&identity, expires, &[value], &mut Fixed::new(seed)).unwrap());
        document.put([Entry { identity, expires, sealed: sealed.as_deref() }]).unwrap();
    }
    document
}

/// Every other value expires.
pub fn expiry(value: u8) -> Option<u64> {
    value.is_multiple_of(2).then_some(1_000 + u64::from(value))
}

pub fn state(keys: &Keys, document: &Doc) -> State {
    document
        .entries()
        .map(|entry| {
            let name = String::from_utf8(entry.identity.name.to_vec()).unwrap();
            (name, entry.sealed.map(|sealed| keys.open(&entry.identity, entry.expires, sealed).unwrap()[0]))
        })
        .collect()
}

pub fn of(records: &[(&str, Option<u8>)]) -> State {
    records.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// Reconciles two documents of one keyring. Nothing is drawn: what comes of it is determined.
pub fn reconciled(
    keys: &Keys,
    ancestor: &[u8],
    ours: &Doc,
    theirs: &Doc,
    complete: bool,
    prefer: Preference,
) -> Reconciled<XChaCha20Poly1305> {
    let side = |document| Side { document, keyring: keys };
    reconcile(ancestor, &side(ours), &side(theirs), complete, prefer, &mut Dry).unwrap()
}

/// The document as it is read back after it was written.
pub fn written(keys: &Keys, document: &Doc, at_least: u64) -> Doc {
    Doc::parse(&document.write(keys, at_least).unwrap()).unwrap()
}

/// The document with these names given a value, or deleted.
pub fn edited(keys: &Keys, document: &Doc, edits: &[(&str, Option<u8>)], salt: u64) -> Doc {
    let mut document = document.clone();
    document.put(self::document(keys, &of(edits), salt).entries()).unwrap();
    document
}
