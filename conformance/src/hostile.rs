//! Hostile input: one defect each, and what it must be called.

use serde::{Deserialize, Serialize};

use crate::encoding::{bytes, expect, kek, mismatch, read, read_json};
use crate::golden::suite_name;
use crate::{Answer, Identity, Mismatch, Refusal, Subject};

/// `hostile/SUITE/manifest.json`: what the cases have in common, and each one's expected failure.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// A sound keyring, hexadecimal.
    pub keyring: String,
    /// Its KEK, hexadecimal. Also that of the keyrings and files among the cases.
    pub kek: String,
    /// The master secret that the KEK is derived from, hexadecimal.
    pub secret: String,
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

impl Manifest {
    /// The hostile vectors of a suite.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn load(suite: u8) -> Result<Self, Mismatch> {
        read_json(&format!("hostile/{}/manifest.json", suite_name(suite)))
    }
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

/// Master secrets that are none.
///
/// # Errors
/// The first mismatch.
pub fn secrets(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    run(subject, "secret")
}

/// Keyrings, the large one included.
///
/// # Errors
/// The first mismatch.
pub fn keyrings(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    run(subject, "keyring")
}

/// Sealed values.
///
/// # Errors
/// The first mismatch.
pub fn values(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    run(subject, "value")
}

/// Scopes.
///
/// # Errors
/// The first mismatch.
pub fn scopes(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    run(subject, "scope")
}

/// Files.
///
/// # Errors
/// The first mismatch.
pub fn files(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    run(subject, "file")
}

/// Runs what is kept of an area, then what is too large to keep, and sees that the subject is as good as before.
fn run(subject: &mut dyn Subject, area: &str) -> Result<usize, Mismatch> {
    let suite = subject.suite();
    let manifest = Manifest::load(suite)?;
    let (keyring, kek) = (bytes(&manifest.keyring)?, kek(&manifest.kek)?);
    let mut count = 0;
    for case in manifest.cases.iter().filter(|case| case.area() == area) {
        let hostile = read(&format!("hostile/{}/{}", suite_name(suite), case.file()))?;
        let found = attempt(subject, area, hostile, &keyring, &kek, &manifest.identity);
        if subject.is_exact() {
            let expected = Refusal { class: case.class.clone(), line: case.line, found: case.found };
            expect(&case.name, Err(expected), found)?;
        } else {
            expect(&case.name, Err(case.class.clone()), found.map_err(|refusal| refusal.class))?;
        }
        count += 1;
    }
    for (name, hostile, class) in large(area, suite)? {
        let found = attempt(subject, area, &hostile, &keyring, &kek, &manifest.identity);
        expect(name, Err(class.to_owned()), found.map_err(|refusal| refusal.class))?;
        count += 1;
    }
    if area == "value" {
        let sealed = subject.seal(&keyring, &kek, &manifest.identity, b"still here");
        let sealed = sealed.map_err(|refusal| mismatch("afterwards", "sealed", refusal.class))?;
        let opened = subject.open(&keyring, &kek, &manifest.identity, &sealed);
        expect("afterwards", Ok(b"still here".to_vec()), opened)?;
    }
    Ok(count)
}

/// Does with the bytes what their area says.
///
/// # Errors
/// How the subject refuses them.
pub fn attempt(
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

/// An input too large to keep in a folder: what it is, the bytes, and the class of its refusal.
type Large = (&'static str, Vec<u8>, &'static str);

fn large(area: &str, suite: u8) -> Result<Vec<Large>, Mismatch> {
    Ok(match area {
        "keyring" => vec![("1 MiB of zeros", vec![0; 1 << 20], "malformed")],
        "scope" => vec![
            ("1 MiB of brackets", vec![b'['; 1 << 20], "scope-too-large"),
            ("16 KiB of brackets", vec![b'['; 16_384], "invalid-scope"),
        ],
        "value" => {
            let mut sealed = vec![1, suite];
            sealed.resize(2 << 20, 0);
            vec![("2 MiB of zeros", sealed, "malformed")]
        }
        "file" => large_files(suite)?,
        _ => vec![],
    })
}

fn large_files(suite: u8) -> Result<Vec<Large>, Mismatch> {
    let sound = read(&format!("golden/{}.credentials", suite_name(suite)))?;
    let start = String::from_utf8_lossy(sound).split("\n\n").next().unwrap_or_default().to_owned();
    let mut records = start.clone() + "\n";
    for i in 0..100_001 {
        records += &format!(
            "\ndeleted \"r{i:06}\"\n  kind \"k\"\n  principal \"p\"\n  scope {{\"all\":true}}\n  generation 1\n"
        );
    }
    let value = start.clone()
        + "\n\ncredential \"a\"\n  kind \"k\"\n  principal \"p\"\n  scope {}\n  value\n"
        + &format!("    {}\n", "A".repeat(64)).repeat(900_000);
    let line = start + "\n\ncredential \"" + &"x".repeat(60_000_000);
    Ok(vec![
        ("one byte over the limit", vec![b'\n'; 67_108_865], "file-too-large"),
        ("the limit, of nothing", vec![b'\n'; 67_108_864], "not-a-credentials-file"),
        ("one line", line.into_bytes(), "line-too-long"),
        ("too many records", records.into_bytes(), "too-many-records"),
        ("a value of 40 MiB", value.into_bytes(), "truncated"),
    ])
}
