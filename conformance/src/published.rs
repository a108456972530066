//! Vectors that others published.

use serde::Deserialize;

use crate::encoding::{Hex, expect, mismatch, read_json};
use crate::{Answer, Costs, Mismatch, Subject};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wycheproof<T> {
    number_of_tests: usize,
    test_groups: Vec<Group<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group<T> {
    key_size: u32,
    tests: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AeadTest {
    tc_id: u32,
    key: Hex,
    iv: Hex,
    aad: Hex,
    msg: Hex,
    ct: Hex,
    tag: Hex,
    result: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HkdfTest {
    tc_id: u32,
    ikm: Hex,
    salt: Hex,
    info: Hex,
    size: u32,
    okm: Hex,
    result: String,
}

/// Wycheproof for the subject's AEAD. Groups of another key length (AES-128) are not the suite's; they
/// must be refused as well.
///
/// # Errors
/// The first mismatch.
pub fn wycheproof_aead(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let file = if subject.suite() == 1 { "xchacha20_poly1305" } else { "aes_gcm_siv" };
    let vectors: Wycheproof<AeadTest> = read_json(&format!("wycheproof/{file}_test.json"))?;
    let mut count = 0;
    for group in vectors.test_groups {
        for test in group.tests {
            let case = format!("{file} tcId {}", test.tc_id);
            let sealed = [&*test.ct.0, &*test.tag.0].concat();
            let found = subject.aead_open(&test.key.0, &test.iv.0, &test.aad.0, &sealed);
            let nonce = if subject.suite() == 1 { 24 } else { 12 };
            match (test.result.as_str(), found) {
                ("valid", Ok(value)) if group.key_size == 256 => expect(case, test.msg.0, value)?,
                ("valid", Err(refusal)) if group.key_size != 256 => {
                    expect(case, "invalid-argument", &refusal.class)?;
                }
                ("invalid", Err(refusal)) => {
                    let good = group.key_size == 256 && test.iv.0.len() == nonce;
                    expect(case, if good { "not-authentic" } else { "invalid-argument" }, &refusal.class)?;
                }
                (result, found) => return Err(mismatch(case, result, format!("{found:?}"))),
            }
            count += 1;
        }
    }
    expect("number of tests", vectors.number_of_tests, count)?;
    Ok(count)
}

/// Wycheproof for HKDF-SHA-256.
///
/// # Errors
/// The first mismatch.
pub fn wycheproof_hkdf(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let vectors: Wycheproof<HkdfTest> = read_json("wycheproof/hkdf_sha256_test.json")?;
    let mut count = 0;
    for test in vectors.test_groups.into_iter().flat_map(|group| group.tests) {
        let case = format!("hkdf_sha256 tcId {}", test.tc_id);
        match (test.result.as_str(), subject.hkdf_sha256(&test.ikm.0, &test.salt.0, &test.info.0, test.size))
        {
            ("valid", Ok(okm)) => expect(case, test.okm.0, okm)?,
            ("invalid", Err(refusal)) => expect(case, "invalid-argument", &refusal.class)?,
            (result, found) => return Err(mismatch(case, result, format!("{found:?}"))),
        }
        count += 1;
    }
    expect("number of tests", vectors.number_of_tests, count)?;
    Ok(count)
}

#[derive(Deserialize)]
struct Vectors<T> {
    vectors: Vec<T>,
}

#[derive(Deserialize)]
struct Aead {
    key: Hex,
    nonce: Hex,
    aad: Hex,
    plaintext: Hex,
    ciphertext: Hex,
}

#[derive(Deserialize)]
struct Hkdf {
    ikm: Hex,
    salt: Hex,
    info: Hex,
    okm: Hex,
}

#[derive(Deserialize)]
struct Argon2 {
    password: Hex,
    salt: Hex,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    tag: Hex,
}

/// The vectors of the AEAD's own standard: RFC 8452 or the XChaCha draft.
///
/// # Errors
/// The first mismatch.
pub fn standard_aead(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let file = if subject.suite() == 1 { "rfc/xchacha-a31.json" } else { "rfc/rfc8452-aes256gcmsiv.json" };
    let mut count = 0;
    for test in read_json::<Vectors<Aead>>(file)?.vectors {
        let found = subject.aead_open(&test.key.0, &test.nonce.0, &test.aad.0, &test.ciphertext.0);
        answered(&format!("{file} {count}"), &test.plaintext, found)?;
        count += 1;
    }
    Ok(count)
}

/// RFC 5869's vectors, and those of Argon2id's reference implementation.
///
/// # Errors
/// The first mismatch.
pub fn standard_kdf(subject: &mut dyn Subject) -> Result<usize, Mismatch> {
    let mut count = 0;
    for test in read_json::<Vectors<Hkdf>>("rfc/rfc5869-sha256.json")?.vectors {
        let length = u32::try_from(test.okm.0.len()).unwrap_or(u32::MAX);
        let found = subject.hkdf_sha256(&test.ikm.0, &test.salt.0, &test.info.0, length);
        answered("RFC 5869", &test.okm, found)?;
        count += 1;
    }
    for test in read_json::<Vectors<Argon2>>("rfc/argon2id-reference.json")?.vectors {
        let costs = Costs { memory_kib: test.memory_kib, passes: test.passes, lanes: test.lanes };
        let found = subject.argon2id(&test.password.0, &test.salt.0, costs, 32);
        answered(&format!("Argon2id {costs:?}"), &test.tag, found)?;
        count += 1;
    }
    Ok(count)
}

fn answered(case: &str, expected: &Hex, found: Answer<Vec<u8>>) -> Result<(), Mismatch> {
    expect(case, Ok(expected.0.clone()), found)
}
