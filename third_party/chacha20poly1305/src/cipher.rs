//! Core AEAD cipher implementation for (X)ChaCha20Poly1305.

use ::cipher::{StreamCipher, StreamCipherSeek};
use aead::Error;
use aead::{
    array::{Array, ArraySize},
    consts::{U32, U64, U128, U256},
    inout::InOutBuf,
};
use poly1305::{
    Poly1305,
    universal_hash::{KeyInit, UniversalHash},
};

use super::Tag;

/// Size of a ChaCha20 block in bytes
const BLOCK_SIZE: usize = 64;

/// Maximum number of blocks that can be encrypted with ChaCha20 before the
/// counter overflows.
const MAX_BLOCKS: usize = u32::MAX as usize;

/// ChaCha20Poly1305 instantiated with a particular nonce
pub(crate) struct Cipher<C>
where
    C: StreamCipher + StreamCipherSeek,
{
    cipher: C,
}

impl<C> Cipher<C>
where
    C: StreamCipher + StreamCipherSeek,
{
    /// Instantiate the underlying cipher with a particular nonce
    pub(crate) fn new(cipher: C) -> Self {
        Self { cipher }
    }

    /// Encrypt the given message in-place, returning the authentication tag
    pub(crate) fn encrypt_inout_detached(
        mut self,
        associated_data: &[u8],
        mut buffer: InOutBuf<'_, '_, u8>,
    ) -> Result<Tag, Error> {
        if buffer.len() / BLOCK_SIZE >= MAX_BLOCKS {
            return Err(Error);
        }

        let mut blocks = Keystream::default();
        let mut mac = self.start(&mut blocks);
        mac.update_padded(associated_data);

        // TODO(tarcieri): interleave encryption with Poly1305
        // See: <https://github.com/RustCrypto/AEADs/issues/74>
        self.apply_keystream(&blocks, buffer.reborrow());
        mac.update_padded(buffer.get_out());

        authenticate_lengths(&mut mac, associated_data, buffer.get_out())?;
        // Of a clone, so that `mac` is wiped where it is: what is moved from is not
        Ok(mac.clone().finalize())
    }

    /// Decrypt the given message, first authenticating ciphertext integrity
    /// and returning an error if it's been tampered with.
    pub(crate) fn decrypt_inout_detached(
        mut self,
        associated_data: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
        tag: &Tag,
    ) -> Result<(), Error> {
        if buffer.len() / BLOCK_SIZE >= MAX_BLOCKS {
            return Err(Error);
        }

        let mut blocks = Keystream::default();
        let mut mac = self.start(&mut blocks);
        mac.update_padded(associated_data);
        mac.update_padded(buffer.get_in());
        authenticate_lengths(&mut mac, associated_data, buffer.get_in())?;

        // This performs a constant-time comparison using the `subtle` crate
        if mac.clone().verify(tag).is_ok() {
            // TODO(tarcieri): interleave decryption with Poly1305
            // See: <https://github.com/RustCrypto/AEADs/issues/74>
            self.apply_keystream(&blocks, buffer);
            Ok(())
        } else {
            Err(Error)
        }
    }

    /// Derive the Poly1305 key from the first 32 bytes of the ChaCha20 keystream
    ///
    /// The first block of the message comes with it: backends compute two
    /// blocks together in less time than one after the other. The cipher is then
    /// at the second block of the message.
    fn start(&mut self, blocks: &mut Keystream<U128>) -> Poly1305 {
        self.cipher.write_keystream(&mut blocks.0);
        let (mac_key, _) = blocks.0.split_ref::<U32>();
        Poly1305::new(mac_key)
    }

    /// Encrypt or decrypt the given message in-place
    #[inline]
    fn apply_keystream(&mut self, blocks: &Keystream<U128>, mut buffer: InOutBuf<'_, '_, u8>) {
        let (_, first) = blocks.0.split_ref::<U64>();
        if buffer.len() < BLOCK_SIZE {
            let len = buffer.len();
            buffer.xor_in2out(&first[..len]);
            return;
        }
        let (block, rest) = buffer.split_at(BLOCK_SIZE);
        let (mut block, _) = block.into_chunks::<U64>();
        block.get(0).xor_in2out(first);
        if !rest.is_empty() {
            self.apply_rest(rest);
        }
    }

    /// Encrypt or decrypt the message from its second block on
    ///
    /// `apply_keystream` of the cipher would do, but it does not wipe its temporaries.
    fn apply_rest(&mut self, rest: InOutBuf<'_, '_, u8>) {
        let mut keystream = Keystream::<U256>::default();
        let (chunks, rest) = rest.into_chunks::<U256>();
        for mut chunk in chunks {
            self.cipher.write_keystream(&mut keystream.0);
            chunk.xor_in2out(&keystream.0);
        }
        if !rest.is_empty() {
            // Whole blocks, so that the cipher does not keep the end of one
            let keystream = &mut keystream.0[..rest.len().next_multiple_of(BLOCK_SIZE)];
            self.cipher.write_keystream(keystream);
            let (blocks, mut tail) = rest.into_chunks::<U64>();
            let (keystream, tail_keystream) = keystream.split_at(blocks.len() * BLOCK_SIZE);
            let (keystream, _) = Array::slice_as_chunks(keystream);
            for (mut block, keystream) in blocks.into_iter().zip(keystream) {
                block.xor_in2out(keystream);
            }
            let len = tail.len();
            tail.xor_in2out(&tail_keystream[..len]);
        }
    }
}

/// Authenticate the lengths of the associated data and message
fn authenticate_lengths(
    mac: &mut Poly1305,
    associated_data: &[u8],
    buffer: &[u8],
) -> Result<(), Error> {
    let associated_data_len: u64 = associated_data.len().try_into().map_err(|_| Error)?;
    let buffer_len: u64 = buffer.len().try_into().map_err(|_| Error)?;

    let mut block = Array::default();
    block[..8].copy_from_slice(&associated_data_len.to_le_bytes());
    block[8..].copy_from_slice(&buffer_len.to_le_bytes());
    mac.update(&[block]);

    Ok(())
}

/// Keystream, which is wiped after use
///
/// It is written where it stays, and never moved: that would leave a copy that is not wiped.
struct Keystream<N: ArraySize>(Array<u8, N>);

impl<N: ArraySize> Default for Keystream<N> {
    fn default() -> Self {
        Self(Array::default())
    }
}

#[cfg(feature = "zeroize")]
impl<N: ArraySize> Drop for Keystream<N> {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.0.as_mut_slice().zeroize();
    }
}
