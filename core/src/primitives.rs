//! The published constructions this crate is made of, for known-answer tests.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::suite::{Cipher, KEY, Suite, TAG};
use crate::{Error, limits};

/// The suite's AEAD, opened. `sealed` is ciphertext and tag.
///
/// # Errors
/// [`Error::InvalidArgument`] for a key that is not 32 bytes or a nonce that is not of the suite's length,
/// [`Error::Malformed`] where there is no tag, [`Error::NotAuthentic`] where it does not authenticate.
pub fn aead_open<S: Suite>(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let key: &[u8; KEY] = key.try_into().map_err(|_| Error::InvalidArgument)?;
    if nonce.len() != Cipher::<S>::NONCE {
        return Err(Error::InvalidArgument);
    }
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or(Error::Malformed)?;
    let mut out = ciphertext.to_vec();
    Cipher::<S>::new(key).open(nonce, aad, &mut out, tag)?;
    Ok(out)
}

/// HKDF-SHA-256 (RFC 5869), extract and expand, of `length` bytes: 0 to 8,160.
///
/// # Errors
/// [`Error::InvalidArgument`] for a longer output.
pub fn hkdf_sha256(ikm: &[u8], salt: &[u8], info: &[u8], length: usize) -> Result<Vec<u8>, Error> {
    if length > limits::HKDF_BYTES {
        return Err(Error::InvalidArgument);
    }
    let mut out = vec![0; length];
    Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut out).map_err(|_| Error::InvalidArgument)?;
    Ok(out)
}

/// Argon2id version 0x13 (RFC 9106) without secret and associated data, of `length` bytes: 4 to 1,024.
/// The salt is 8 bytes or longer.
///
/// # Errors
/// [`Error::KdfOutOfBounds`] for costs beyond §3.2, [`Error::InvalidArgument`] for another length of output
/// or a short salt, [`Error::Other`] where the memory is not to be had.
pub fn argon2id(
    password: &[u8],
    salt: &[u8],
    costs: crate::costs::Costs,
    length: usize,
) -> Result<Vec<u8>, Error> {
    if !(4..=limits::ARGON2_TAG_BYTES).contains(&length) {
        return Err(Error::InvalidArgument);
    }
    let mut out = vec![0; length];
    argon2id_into(password, salt, costs, &mut out)?;
    Ok(out)
}

/// Argon2id into `out`. Checks the costs first, and wipes its memory: it is the tag's preimage.
pub(crate) fn argon2id_into(
    password: &[u8],
    salt: &[u8],
    costs: crate::costs::Costs,
    out: &mut [u8],
) -> Result<(), Error> {
    let costs = costs.checked()?;
    let params = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(out.len()))
        .map_err(|_| Error::InvalidArgument)?;
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(blocks).map_err(|_| Error::Other)?;
    memory.resize(blocks, Block::default());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let done = argon2.hash_password_into_with_memory(password, salt, out, &mut memory);
    wipe(&mut memory);
    done.map_err(|_| Error::InvalidArgument)
}

/// Fills, which takes a tenth of the time of one volatile write a word, and keeps the compiler from leaving it out.
fn wipe(memory: &mut [Block]) {
    for block in memory.iter_mut() {
        block.as_mut().fill(0);
    }
    zeroize::optimization_barrier(memory);
}
