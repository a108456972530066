//! Our own vectors: what an earlier version wrote must open for ever.

use serde::{Deserialize, Serialize};

use crate::encoding::{bytes, expect, kek, mismatch, read, read_json};
use crate::{Identity, Mismatch, Prefer, ReconcileCase, ReconcileResult, Record, Subject};

/// `golden/SUITE.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Golden {
    /// The suite's number.
    pub suite: u8,
    /// Keyrings and their secrets.
    pub keyrings: Vec<KeyringVector>,
    /// Sealed values.
    pub values: Vec<ValueVector>,
    /// Files.
    pub files: Vec<FileVector>,
    /// Reconciliations.
    pub reconciliations: Vec<ReconcileVector>,
}

/// A keyring; bytes in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyringVector {
    /// What it shows.
    pub name: String,
    /// The master secret.
    pub secret: String,
    /// Its KEK.
    pub kek: String,
    /// The stored keyring.
    pub keyring: String,
}

/// A sealed value; bytes in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ValueVector {
    /// The name of the keyring.
    pub keyring: String,
    /// Whose.
    #[serde(flatten)]
    pub identity: Identity,
    /// The value.
    pub value: String,
    /// The sealed value.
    pub sealed: String,
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileVector {
    /// The file, in the same folder.
    pub file: String,
    /// The name of the keyring in it.
    pub keyring: String,
    /// Its generation.
    pub generation: u64,
    /// Its records.
    pub records: Vec<Record>,
}

/// Two files that are reconciled.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReconcileVector {
    /// What it shows.
    pub name: String,
    /// Manifest, hexadecimal; empty where the ancestor is not known.
    pub ancestor: String,
    /// File of ours.
    pub ours: String,
    /// File of theirs.
    pub theirs: String,
    /// The name of the keyring whose KEK opens ours; none where it is not at hand.
    pub our_keyring: Option<String>,
    /// The same for theirs.
    pub their_keyring: Option<String>,
    /// Whether what ours lacks was deleted.
    pub ours_complete: bool,
    /// Who wins.
    pub prefer: Prefer,
    /// What comes of it, or the refusal.
    pub result: Result<ReconcileResult, String>,
}

/// A scope of `golden/scopes.json` and its canonical form.
#[derive(Debug, Serialize, Deserialize)]
pub struct ScopeVector {
    /// As given.
    pub given: String,
    /// In canonical form.
    pub canonical: String,
}

impl Golden {
    /// The golden vectors of a suite.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn load(suite: u8) -> Result<Self, Mismatch> {
        read_json(&format!("golden/{}.json", suite_name(suite)))
    }

    fn key(&self, name: &str) -> Result<([u8; 32], Vec<u8>), Mismatch> {
        let vector = self.keyrings.iter().find(|keyring| keyring.name == name);
        let vector = vector.ok_or_else(|| mismatch(name, "a keyring", "none"))?;
        Ok((kek(&vector.kek)?, bytes(&vector.keyring)?))
    }
}

/// Keyrings: the KEK of their secret, and that it unlocks them.
///
/// # Errors
/// The first mismatch.
pub fn keyrings(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let golden = Golden::load(subject.suite())?;
    for vector in &golden.keyrings {
        let (kek, keyring) = golden.key(&vector.name)?;
        expect(&vector.name, Ok(kek), subject.derive_kek(&bytes(&vector.secret)?, &keyring))?;
        expect(&vector.name, Ok(keyring.clone()), subject.unlock(&keyring, &kek))?;
    }
    Ok(golden.keyrings.len())
}

/// Sealed values open, and what the subject seals opens again.
///
/// # Errors
/// The first mismatch.
pub fn values(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let golden = Golden::load(subject.suite())?;
    for vector in &golden.values {
        let (kek, keyring) = golden.key(&vector.keyring)?;
        let case = format!("value {:?}", vector.identity);
        let value = bytes(&vector.value)?;
        let sealed = bytes(&vector.sealed)?;
        let opened = subject.open(&keyring, &kek, &vector.identity, &sealed);
        expect(&case, Ok(value.clone()), opened)?;
        let sealed = subject.seal(&keyring, &kek, &vector.identity, &value);
        let sealed = sealed.map_err(|refusal| mismatch(&case, "sealed", refusal.class))?;
        expect(&case, Ok(value), subject.open(&keyring, &kek, &vector.identity, &sealed))?;
    }
    Ok(golden.values.len())
}

/// Files: their records, opened, and their generation.
///
/// # Errors
/// The first mismatch.
pub fn files(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let golden = Golden::load(subject.suite())?;
    for vector in &golden.files {
        let (kek, _) = golden.key(&vector.keyring)?;
        let file = read(&format!("golden/{}", vector.file))?;
        let expected = (vector.records.clone(), vector.generation);
        expect(&vector.file, Ok(expected), subject.read_file(file, &kek))?;
    }
    Ok(golden.files.len())
}

/// Reconciliations.
///
/// # Errors
/// The first mismatch.
pub fn reconciliations(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let golden = Golden::load(subject.suite())?;
    for vector in &golden.reconciliations {
        let kek = |name: &Option<String>| {
            name.as_ref().map(|name| golden.key(name).map(|(kek, _)| kek)).transpose()
        };
        let (our_kek, their_kek) = (kek(&vector.our_keyring)?, kek(&vector.their_keyring)?);
        let case = ReconcileCase {
            ancestor: &bytes(&vector.ancestor)?,
            ours: read(&format!("golden/{}", vector.ours))?,
            theirs: read(&format!("golden/{}", vector.theirs))?,
            ours_complete: vector.ours_complete,
            prefer: vector.prefer,
            our_kek: our_kek.as_ref(),
            their_kek: their_kek.as_ref(),
        };
        let name = format!("{}, complete {}, prefer {:?}", vector.name, vector.ours_complete, vector.prefer);
        let found = subject.reconcile(case);
        match &vector.result {
            Ok(result) => expect(name, Ok(result.clone()), found)?,
            Err(class) => {
                let found = found.err().map(|refusal| refusal.class);
                // A driver may have no way to reconcile.
                if found.as_ref() != Some(class) && found.as_deref() != Some("unsupported") {
                    return Err(mismatch(name, class, format!("{found:?}")));
                }
            }
        }
    }
    Ok(golden.reconciliations.len())
}

/// Scopes and their canonical forms.
///
/// # Errors
/// The first mismatch.
pub fn scopes(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let (_, keyring) = Golden::load(subject.suite())?.key("generated")?;
    let vectors = read_json::<Vec<ScopeVector>>("golden/scopes.json")?;
    for vector in &vectors {
        let found = subject.canonical_scope(&keyring, vector.given.as_bytes());
        expect(&vector.given, Ok(vector.canonical.clone().into_bytes()), found)?;
    }
    Ok(vectors.len())
}

/// The name in FORMAT.md of a suite's number.
#[must_use]
pub fn suite_name(suite: u8) -> &'static str {
    if suite == 1 { "xchacha20poly1305" } else { "aes256gcmsiv" }
}
