//! Every vector, against the core natively.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may panic")]

use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};
use omni_credentials_conformance::of_suite;
use omni_credentials_core::{Aes256GcmSiv, Suite, XChaCha20Poly1305};
use omni_credentials_core_conformance::{Native, vectors};

fn passes<S: Suite>() {
    for set in of_suite(S::ID) {
        set.run(&mut Native::<S>::default()).unwrap();
    }
}

#[test]
fn xchacha20poly1305() {
    passes::<XChaCha20Poly1305>();
}

#[test]
fn aes256gcmsiv() {
    passes::<Aes256GcmSiv>();
}

/// RFC 9106's own vector has a secret and associated data, which the contract does not offer: it runs
/// against the implementation the core calls.
#[test]
fn rfc9106() {
    let vector: serde_json::Value =
        serde_json::from_slice(&std::fs::read(vectors().join("rfc/rfc9106-argon2id.json")).unwrap()).unwrap();
    let bytes = |name: &str| hex::decode(vector.get(name).unwrap().as_str().unwrap()).unwrap();
    let number = |name: &str| u32::try_from(vector.get(name).unwrap().as_u64().unwrap()).unwrap();
    let params = ParamsBuilder::new()
        .m_cost(number("memory_kib"))
        .t_cost(number("passes"))
        .p_cost(number("lanes"))
        .data(AssociatedData::new(&bytes("associated_data")).unwrap())
        .output_len(32)
        .build()
        .unwrap();
    let secret = bytes("secret");
    let argon2 = Argon2::new_with_secret(&secret, Algorithm::Argon2id, Version::V0x13, params).unwrap();
    let mut tag = [0; 32];
    argon2.hash_password_into(&bytes("password"), &bytes("salt"), &mut tag).unwrap();
    assert_eq!(tag.to_vec(), bytes("tag"));
}
