//! Our own vectors: what an earlier version wrote must open for ever.

use serde::{Deserialize, Serialize};

use crate::encoding::{expect, mismatch, read, read_json};
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
        let kek = bytes(&vector.kek)?.try_into().map_err(|_| mismatch(name, "32 bytes", "another length"))?;
        Ok((kek, bytes(&vector.keyring)?))
    }
}

/// Runs all golden vectors of the subject's suite.
///
/// # Errors
/// The first mismatch.
pub fn run(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let golden = Golden::load(subject.suite())?;
    let mut count = 0;
    for vector in &golden.keyrings {
        let (kek, keyring) = golden.key(&vector.name)?;
        expect(&vector.name, Ok(kek), subject.derive_kek(&bytes(&vector.secret)?, &keyring))?;
        expect(&vector.name, Ok(keyring.clone()), subject.unlock(&keyring, &kek))?;
        count += 1;
    }
    for vector in &golden.values {
        let (kek, keyring) = golden.key(&vector.keyring)?;
        let case = format!("value {:?}", vector.identity);
        let value = bytes(&vector.value)?;
        expect(
            &case,
            Ok(value.clone()),
            subject.open(&keyring, &kek, &vector.identity, &bytes(&vector.sealed)?),
        )?;
        // And what this subject seals opens again.
        let sealed = subject.seal(&keyring, &kek, &vector.identity, &value);
        let sealed = sealed.map_err(|refusal| mismatch(&case, "sealed", refusal.class))?;
        expect(&case, Ok(value), subject.open(&keyring, &kek, &vector.identity, &sealed))?;
        count += 1;
    }
    for vector in &golden.files {
        let (kek, _) = golden.key(&vector.keyring)?;
        let file = read(format!("golden/{}", vector.file))?;
        expect(
            &vector.file,
            Ok((vector.records.clone(), vector.generation)),
            subject.read_file(&file, &kek),
        )?;
        count += 1;
    }
    for vector in &golden.merges {
        let (kek, _) = golden.key(&vector.keyring)?;
        let (base, ours, theirs) = (
            bytes(&vector.base)?,
            read(format!("golden/{}", vector.ours))?,
            read(format!("golden/{}", vector.theirs))?,
        );
        let case = MergeCase {
            base: &base,
            ours: &ours,
            theirs: &theirs,
            ours_complete: vector.ours_complete,
            prefer: vector.prefer,
            kek: &kek,
        };
        let name = format!("merge, complete {}, prefer {:?}", vector.ours_complete, vector.prefer);
        expect(name, Ok(vector.result.clone()), subject.merge(case))?;
        count += 1;
    }
    let (_, keyring) = golden.key("generated")?;
    for vector in read_json::<Vec<ScopeVector>>("golden/scopes.json")? {
        let found = subject.canonical_scope(&keyring, vector.given.as_bytes());
        expect(&vector.given, Ok(vector.canonical.clone().into_bytes()), found)?;
        count += 1;
    }
    Ok(count)
}

/// The name in FORMAT.md of a suite's number.
pub(crate) fn suite_name(suite: u8) -> &'static str {
    if suite == 1 { "xchacha20poly1305" } else { "aes256gcmsiv" }
}

fn bytes(text: &str) -> Result<Vec<u8>, Mismatch> {
    hex::decode(text).map_err(|cause| mismatch(text, "hexadecimal", cause))
}
