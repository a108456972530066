//! Published vectors.

use super::{refused, require};
use crate::error::{CONTRACT, wrong_contract};
use crate::{Costs, Error, ErrorCode, Module, Primitives};

/// The first suite that is not of FORMAT.md but of a module's own: no one has published vectors of it.
const PRIVATE: u8 = 128;

/// One vector of an AEAD, in hexadecimal.
struct Aead {
    suite: u8,
    key: &'static str,
    nonce: &'static str,
    aad: &'static str,
    plaintext: &'static str,
    sealed: &'static str,
}

const AEAD: [Aead; 2] = [
    // draft-irtf-cfrg-xchacha-03, A.3.1
    Aead {
        suite: 1,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        nonce: "404142434445464748494a4b4c4d4e4f5051525354555657",
        aad: "50515253c0c1c2c3c4c5c6c7",
        plaintext: "4c616469657320616e642047656e746c656d656e206f662074686520636c6173\
                    73206f66202739393a204966204920636f756c64206f6666657220796f75206f\
                    6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73\
                    637265656e20776f756c642062652069742e",
        sealed: "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
                 731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
                 2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
                 21f9664c97637da9768812f615c68b13b52e\
                 c0875924c1c7987947deafd8780acf49",
    },
    // RFC 8452, C.2
    Aead {
        suite: 2,
        key: "0100000000000000000000000000000000000000000000000000000000000000",
        nonce: "030000000000000000000000",
        aad: "01",
        plaintext: "0200000000000000",
        sealed: "1de22967237a813291213f267e3b452f02d01ae33e4ec854",
    },
];

/// A file that was written once, and the generated master key for it.
struct Golden {
    suite: u8,
    secret: &'static str,
    file: &'static [u8],
}

/// How many of their records are live.
const LIVE: usize = 7;

const GOLDEN: [Golden; 2] = [
    Golden {
        suite: 1,
        secret: "omck1_GgCU7pHRkML6QR93gEonxe5nTGLRjmOpBDj7yDChKjxt2QvP",
        file: include_bytes!("../../../conformance/vectors/golden/xchacha20poly1305.credentials"),
    },
    Golden {
        suite: 2,
        secret: "omck1_eHfL6VeQFHEqpjKBXNSsDiWWc6dYxUE9ucEi96plvB-jdugo",
        file: include_bytes!("../../../conformance/vectors/golden/aes256gcmsiv.credentials"),
    },
];

pub(super) fn run(module: &Module) -> Result<(), Error> {
    let description = module.describe()?;
    if description.contract != CONTRACT {
        return Err(wrong_contract("it says it was built for another one".to_owned()));
    }
    let mut primitives = module.primitives()?;
    if description.suite.id < PRIVATE {
        aead(&mut primitives, description.suite.id)?;
        golden(module, description.suite.id)?;
    }
    hkdf(&mut primitives)?;
    argon2id(&mut primitives)
}

/// A suite of FORMAT.md comes with its formats: what another module of the suite wrote opens.
fn golden(module: &Module, suite: u8) -> Result<(), Error> {
    let golden = GOLDEN.iter().find(|golden| golden.suite == suite);
    let golden = golden.ok_or(Error::FailedCheck("a suite with a published file"))?;
    let mut files = module.files()?;
    let document = files.parse(golden.file)?;
    let stored = files.keyring_bytes(document)?;
    let kek = module.derive_kek(golden.secret.as_bytes(), &stored)?;
    let keyring = files.unlock(&stored, &kek)?;
    files.verify(document, keyring)?;
    let mut keyring = module.unlock(&stored, &kek)?;
    let mut opened = 0;
    for entry in files.entries(document)?.iter().filter(|entry| !entry.deleted) {
        keyring.open(&entry.identity(), entry.expires, &entry.sealed)?;
        opened += 1;
    }
    require(opened == LIVE, "all records of a published file open")
}

fn aead(primitives: &mut Primitives, suite: u8) -> Result<(), Error> {
    let vector = AEAD.iter().find(|vector| vector.suite == suite);
    let vector = vector.ok_or(Error::FailedCheck("a suite with a published vector"))?;
    let (key, nonce, aad) = (bytes(vector.key), bytes(vector.nonce), bytes(vector.aad));
    let mut sealed = bytes(vector.sealed);
    let opened = primitives.aead_open(&key, &nonce, &aad, &sealed)?;
    require(opened == bytes(vector.plaintext), "the suite's published AEAD vector")?;
    for at in [0, sealed.len().saturating_sub(1)] {
        if let Some(byte) = sealed.get_mut(at) {
            *byte ^= 0x80;
        }
        refused(
            primitives.aead_open(&key, &nonce, &aad, &sealed),
            ErrorCode::NotAuthentic,
            "the suite's AEAD refuses an altered vector",
        )?;
        if let Some(byte) = sealed.get_mut(at) {
            *byte ^= 0x80;
        }
    }
    refused(
        primitives.aead_open(&key, &nonce, b"", &sealed),
        ErrorCode::NotAuthentic,
        "the suite's AEAD covers the associated data",
    )
}

/// RFC 5869, A.1 and A.3.
fn hkdf(primitives: &mut Primitives) -> Result<(), Error> {
    let ikm = [0x0b; 22];
    let full = primitives.hkdf_sha256(
        &ikm,
        &bytes("000102030405060708090a0b0c"),
        &bytes("f0f1f2f3f4f5f6f7f8f9"),
        42,
    )?;
    let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
    require(full == bytes(expected), "HKDF-SHA-256, RFC 5869 A.1")?;
    let bare = primitives.hkdf_sha256(&ikm, b"", b"", 42)?;
    let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
    require(bare == bytes(expected), "HKDF-SHA-256, RFC 5869 A.3")
}

/// RFC 9106's own vector has a secret and associated data, which the contract leaves out. These are
/// of the reference implementation's test suite (version 0x13, `password`, `somesalt`).
fn argon2id(primitives: &mut Primitives) -> Result<(), Error> {
    let vectors = [
        (1, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
        (2, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"),
    ];
    for (lanes, expected) in vectors {
        let costs = Costs { memory_kib: 256, passes: 2, lanes };
        let tag = primitives.argon2id(b"password", b"somesalt", costs, 32)?;
        require(tag == bytes(expected), "Argon2id, the reference implementation's vectors")?;
    }
    Ok(())
}

/// The bytes of hexadecimal digits; all those here are.
fn bytes(digits: &str) -> Vec<u8> {
    let nibbles: Vec<u8> = digits
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .filter_map(|it| u8::try_from(it).ok())
        .collect();
    nibbles.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, nibble| byte << 4 | nibble)).collect()
}
