//! Core AEAD cipher implementation for (X)ChaCha20Poly1305.

use ::cipher::{StreamCipher, StreamCipherSeek};
use aead::Error;
use aead::{
    array::Array,
    consts::{U2, U32, U64},
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
    keystream: Keystream<C>,
    mac: Poly1305,
}

impl<C> Cipher<C>
where
    C: StreamCipher + StreamCipherSeek,
{
    /// Instantiate the underlying cipher with a particular nonce
    pub(crate) fn new(mut cipher: C) -> Self {
        // Derive Poly1305 key from the first 32-bytes of the ChaCha20 keystream.
        // The first block of the message comes with it: backends compute two
        // blocks together in less time than one after the other.
        let mut blocks = Blocks(Array::default());
        cipher.apply_keystream(blocks.0.as_flattened_mut());

        let (mac_key, _) = blocks.0[0].split_ref::<U32>();
        let mac = Poly1305::new(mac_key);

        Self { keystream: Keystream { blocks, cipher }, mac }
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

        self.mac.update_padded(associated_data);

        // TODO(tarcieri): interleave encryption with Poly1305
        // See: <https://github.com/RustCrypto/AEADs/issues/74>
        self.keystream.apply(buffer.reborrow());
        self.mac.update_padded(buffer.get_out());

        self.authenticate_lengths(associated_data, buffer.get_out())?;
        Ok(self.mac.finalize())
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

        self.mac.update_padded(associated_data);
        self.mac.update_padded(buffer.get_in());
        self.authenticate_lengths(associated_data, buffer.get_in())?;

        // This performs a constant-time comparison using the `subtle` crate
        if self.mac.verify(tag).is_ok() {
            // TODO(tarcieri): interleave decryption with Poly1305
            // See: <https://github.com/RustCrypto/AEADs/issues/74>
            self.keystream.apply(buffer);
            Ok(())
        } else {
            Err(Error)
        }
    }

    /// Authenticate the lengths of the associated data and message
    fn authenticate_lengths(&mut self, associated_data: &[u8], buffer: &[u8]) -> Result<(), Error> {
        let associated_data_len: u64 = associated_data.len().try_into().map_err(|_| Error)?;
        let buffer_len: u64 = buffer.len().try_into().map_err(|_| Error)?;

        let mut block = Array::default();
        block[..8].copy_from_slice(&associated_data_len.to_le_bytes());
        block[8..].copy_from_slice(&buffer_len.to_le_bytes());
        self.mac.update(&[block]);

        Ok(())
    }
}

/// Keystream for the message
struct Keystream<C> {
    /// The block of the Poly1305 key, and the first one of the message
    blocks: Blocks,
    /// At the second block of the message
    cipher: C,
}

impl<C> Keystream<C>
where
    C: StreamCipher,
{
    /// Encrypt or decrypt the given message in-place
    #[inline]
    fn apply(&mut self, mut buffer: InOutBuf<'_, '_, u8>) {
        let [_, first] = &self.blocks.0.0;
        if buffer.len() < BLOCK_SIZE {
            let len = buffer.len();
            buffer.xor_in2out(&first[..len]);
            return;
        }
        let (block, rest) = buffer.split_at(BLOCK_SIZE);
        let (mut block, _) = block.into_chunks::<U64>();
        block.get(0).xor_in2out(first);
        if !rest.is_empty() {
            self.cipher.apply_keystream_inout(rest);
        }
    }
}

/// Blocks of keystream
struct Blocks(Array<Array<u8, U64>, U2>);

#[cfg(feature = "zeroize")]
impl Drop for Blocks {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.0.as_flattened_mut().zeroize();
    }
}
