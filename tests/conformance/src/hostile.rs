//! Hostile input: one defect each, and what it must be called.

use serde::{Deserialize, Serialize};

use crate::encoding::{expect, mismatch, read, read_json};
use crate::golden::suite_name;
use crate::{Answer, Identity, Mismatch, Refusal, Subject};

/// `hostile/SUITE/manifest.json`: what the cases have in common, and each one's expected failure.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// A sound keyring, hexadecimal.
    pub keyring: String,
    /// Its KEK, hexadecimal. Also that of the keyrings and files among the cases.
    pub kek: String,
    /// The identity for which the sealed values claim to be.
    pub identity: Identity,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A case. Its file is `NAME.bin`, or `NAME.credentials` for the area `file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// `area_defect`.
    pub name: String,
    /// The failure it must be.
    pub class: String,
    /// The line it must name; 0 for none.
    pub line: u32,
    /// What it must say it found.
    pub found: u64,
}

impl Case {
    /// What the bytes claim to be: `keyring`, `value`, `secret`, `scope` or `file`.
    #[must_use]
    pub fn area(&self) -> &str {
        self.name.split('_').next().unwrap_or_default()
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}.{}", self.name, if self.area() == "file" { "credentials" } else { "bin" })
    }
}

/// Runs all hostile vectors of the subject's suite.
///
/// # Errors
/// The first mismatch.
pub fn run(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let folder = format!("hostile/{}", suite_name(subject.suite()));
    let manifest: Manifest = read_json(&format!("{folder}/manifest.json"))?;
    let bad_hex = |cause| mismatch("manifest", "hexadecimal", cause);
    let keyring = hex::decode(&manifest.keyring).map_err(bad_hex)?;
    let mut kek = [0; 32];
    hex::decode_to_slice(&manifest.kek, &mut kek).map_err(bad_hex)?;
    for case in &manifest.cases {
        let bytes = read(format!("{folder}/{}", case.file()))?;
        let found = attempt(subject, case.area(), &bytes, &keyring, &kek, &manifest.identity);
        let expected = Refusal { class: case.class.clone(), line: case.line, found: case.found };
        expect(&case.name, Err(expected), found)?;
    }
    // The subject is as good as before: it still opens what is sound.
    let sealed = subject.seal(&keyring, &kek, &manifest.identity, b"still here");
    let sealed = sealed.map_err(|refusal| mismatch("afterwards", "sealed", refusal.class))?;
    expect(
        "afterwards",
        Ok(b"still here".to_vec()),
        subject.open(&keyring, &kek, &manifest.identity, &sealed),
    )?;
    Ok(manifest.cases.len())
}

/// Does with the bytes what their area says.
pub(crate) fn attempt(
    subject: &mut dyn Subject,
    area: &str,
    bytes: &[u8],
    keyring: &[u8],
    kek: &[u8; 32],
    identity: &Identity,
) -> Answer<()> {
    match area {
        "keyring" => subject.unlock(bytes, kek).map(drop),
        "value" => subject.open(keyring, kek, identity, bytes).map(drop),
        "secret" => subject.derive_kek(bytes, keyring).map(drop),
        "scope" => subject.canonical_scope(keyring, bytes).map(drop),
        _ => subject.read_file(bytes, kek).map(drop),
    }
}

/// Inputs too large to keep in a folder; each must be refused, by this name, without a trap.
///
/// # Errors
/// The first mismatch.
pub fn run_large(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let manifest: Manifest = read_json(&format!("hostile/{}/manifest.json", suite_name(subject.suite())))?;
    let keyring = hex::decode(&manifest.keyring).unwrap_or_default();
    let mut kek = [0; 32];
    hex::decode_to_slice(&manifest.kek, &mut kek).map_err(|cause| mismatch("kek", "hexadecimal", cause))?;
    let start =
        String::from_utf8_lossy(&read(format!("golden/{}.credentials", suite_name(subject.suite())))?)
            .split("\n\n")
            .next()
            .unwrap_or_default()
            .to_owned();
    let mut records = start.clone() + "\n";
    for i in 0..100_001 {
        records +=
            &format!("\ndeleted \"r{i:06}\"\n  kind \"k\"\n  principal \"p\"\n  scope {{\"all\":true}}\n");
    }
    let value = start.clone()
        + "\n\ncredential \"a\"\n  kind \"k\"\n  principal \"p\"\n  scope {}\n  value\n"
        + &format!("    {}\n", "A".repeat(64)).repeat(900_000);
    let mut sealed = vec![1, subject.suite()];
    sealed.resize(2 << 20, 0);
    let cases: [(&str, &str, Vec<u8>, &str); 9] = [
        ("file", "one byte over the limit", vec![b'\n'; 67_108_865], "file-too-large"),
        ("file", "the limit, of nothing", vec![b'\n'; 67_108_864], "not-a-credentials-file"),
        (
            "file",
            "one line",
            (start + "\n\ncredential \"" + &"x".repeat(60_000_000)).into_bytes(),
            "line-too-long",
        ),
        ("file", "too many records", records.into_bytes(), "too-many-records"),
        ("file", "a value of 40 MiB", value.into_bytes(), "truncated"),
        ("value", "2 MiB of zeros", sealed, "malformed"),
        ("keyring", "1 MiB of zeros", vec![0; 1 << 20], "malformed"),
        ("scope", "1 MiB of brackets", vec![b'['; 1 << 20], "scope-too-large"),
        ("scope", "16 KiB of brackets", vec![b'['; 16_384], "invalid-scope"),
    ];
    let count = cases.len();
    for (area, name, bytes, class) in cases {
        let found = attempt(subject, area, &bytes, &keyring, &kek, &manifest.identity);
        expect(name, Some(class.to_owned()), found.err().map(|refusal| refusal.class))?;
    }
    Ok(count)
}
