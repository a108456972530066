//! Our own vectors: what an earlier version wrote must open for ever.

use serde::{Deserialize, Serialize};

use crate::encoding::{bytes, expect, kek, mismatch, read, read_json};
use crate::{Identity, MergeCase, MergeResult, Mismatch, Prefer, Record, Subject};

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
    /// Merges.
    pub merges: Vec<MergeVector>,
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

/// A merge of two files.
#[derive(Debug, Serialize, Deserialize)]
pub struct MergeVector {
    /// The name of the keyring in both.
    pub keyring: String,
    /// Manifest, hexadecimal.
    pub base: String,
    /// File of ours.
    pub ours: String,
    /// File of theirs.
    pub theirs: String,
    /// Whether what ours lacks was deleted.
    pub ours_complete: bool,
    /// Who wins.
    pub prefer: Prefer,
    /// What comes of it.
    pub result: MergeResult,
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

/// Merges.
///
/// # Errors
/// The first mismatch.
pub fn merges(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let golden = Golden::load(subject.suite())?;
    for vector in &golden.merges {
        let (kek, _) = golden.key(&vector.keyring)?;
        let case = MergeCase {
            base: &bytes(&vector.base)?,
            ours: read(&format!("golden/{}", vector.ours))?,
            theirs: read(&format!("golden/{}", vector.theirs))?,
            ours_complete: vector.ours_complete,
            prefer: vector.prefer,
            kek: &kek,
        };
        let name = format!("merge, complete {}, prefer {:?}", vector.ours_complete, vector.prefer);
        expect(name, Ok(vector.result.clone()), subject.merge(case))?;
    }
    Ok(golden.merges.len())
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
