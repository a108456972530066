//! The ciphers in `third_party/` against the portable ones that were published, in WebAssembly, where the published crates have
//! no other. Their branches do not depend on what they work on; so inputs are drawn at random, and not searched for.

use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek, StreamCipherSeekCore};
use chacha20::rand_core::block::Generator;
use chacha20::rand_core::{Rng, SeedableRng};
use chacha20poly1305::aead;
use chacha20poly1305::aead::inout::InOutBuf;
use poly1305::universal_hash::{KeyInit, UniversalHash};

/// Longer than eight blocks of each cipher, so that all ways through them are taken.
const LONGEST: usize = 1200;

/// Tries this many cases. Returns 0 if all were the same, otherwise the number of the first that was not, counted from 1.
#[unsafe(no_mangle)]
pub extern "C" fn run(seed: u64, cases: u32) -> u32 {
    let mut random = Random(seed);
    (1..=cases).find(|_| !same(&mut random)).unwrap_or(0)
}

/// Seals a message and opens it, or is refused where the tag is altered. What this leaves in memory is looked at from outside.
#[unsafe(no_mangle)]
pub extern "C" fn use_once(seed: u64, length: usize, altered: u32) -> u32 {
    let mut random = Random(seed);
    // A message of zeros would be sealed as the keystream.
    let (key, nonce, mut message) = (random.noise(32), random.noise(24), random.noise(length));
    u32::from(sealed_and_opened(&key, &nonce, &mut message, altered != 0).is_some())
}

fn sealed_and_opened(key: &[u8], nonce: &[u8], message: &mut [u8], altered: bool) -> Option<()> {
    use aead::{AeadInOut, KeyInit};
    let (cipher, nonce) =
        (chacha20poly1305::XChaCha20Poly1305::new_from_slice(key).ok()?, nonce.try_into().ok()?);
    let mut tag = cipher.encrypt_inout_detached(nonce, b"", (&mut *message).into()).ok()?;
    tag[0] ^= u8::from(altered);
    cipher.decrypt_inout_detached(nonce, b"", message.into(), &tag).ok()
}

/// The keystream that this used: the block of Poly1305's key, and those of the message.
#[unsafe(no_mangle)]
pub extern "C" fn key_stream(seed: u64, length: usize) -> *const u8 {
    let mut random = Random(seed);
    let (key, nonce) = (random.noise(32), random.noise(24));
    let mut blocks = vec![0; length];
    if let Ok(mut cipher) = published_chacha20::XChaCha20::new_from_slices(&key, &nonce) {
        cipher.apply_keystream(&mut blocks);
    }
    blocks.leak().as_ptr()
}

fn same(random: &mut Random) -> bool {
    let (key, data) = (random.bytes(32), random.some(LONGEST));
    let at = random.position();
    stream::<chacha20::ChaCha20, published_chacha20::ChaCha20>(random, &key, 12, at, &data)
        && stream::<chacha20::XChaCha20, published_chacha20::XChaCha20>(random, &key, 24, at, &data)
        && stream::<chacha20::ChaCha20Legacy, published_chacha20::ChaCha20Legacy>(random, &key, 8, at, &data)
        && hash(random, &key, &data)
        && aead::<chacha20poly1305::ChaCha20Poly1305, published_chacha20poly1305::ChaCha20Poly1305>(
            random, &key, 12, &data,
        )
        && aead::<chacha20poly1305::XChaCha20Poly1305, published_chacha20poly1305::XChaCha20Poly1305>(
            random, &key, 24, &data,
        )
        && generator(random, &key, data.len())
        && blocks_of_generator(random, &key)
}

/// One keystream for both, in the same pieces.
fn stream<A, B>(random: &mut Random, key: &[u8], nonce: usize, at: u128, data: &[u8]) -> bool
where
    A: KeyIvInit + StreamCipher + StreamCipherSeek,
    B: KeyIvInit + StreamCipher + StreamCipherSeek,
{
    let nonce = random.bytes(nonce);
    let (mut ours, mut theirs) = (data.to_vec(), data.to_vec());
    let (Ok(mut a), Ok(mut b)) = (A::new_from_slices(key, &nonce), B::new_from_slices(key, &nonce)) else {
        return false;
    };
    if a.try_seek(at).is_ok() != b.try_seek(at).is_ok() {
        return false;
    }
    let mut from = 0;
    while from < data.len() {
        let to = from + 1 + random.below(data.len() - from);
        let (x, y) = (&mut ours[from..to], &mut theirs[from..to]);
        // Both refuse to go on past the last block, and then start again if they are not asked.
        let refused = match random.below(8) {
            0 => a.try_write_keystream(x).is_ok() != b.try_write_keystream(y).is_ok(),
            1 => {
                a.unchecked_apply_keystream(x);
                b.unchecked_apply_keystream(y);
                false
            }
            _ => a.try_apply_keystream(x).is_ok() != b.try_apply_keystream(y).is_ok(),
        };
        if refused || a.try_current_pos::<u128>().ok() != b.try_current_pos::<u128>().ok() {
            return false;
        }
        from = to;
    }
    ours == theirs
}

/// The generator of the crate, which has a way of its own through the blocks.
fn generator(random: &mut Random, seed: &[u8], length: usize) -> bool {
    let Ok(seed) = <[u8; 32]>::try_from(seed) else { return false };
    let mut a = chacha20::ChaCha20Rng::from_seed(seed);
    let mut b = published_chacha20::ChaCha20Rng::from_seed(seed);
    let at = random.position() / 4;
    a.set_word_pos(at);
    b.set_word_pos(at);
    let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
    a.fill_bytes(&mut ours);
    b.fill_bytes(&mut theirs);
    ours == theirs && a.get_word_pos() == b.get_word_pos()
}

/// The same of a core whose counter has 32 bits otherwise.
fn blocks_of_generator(random: &mut Random, key: &[u8]) -> bool {
    use {chacha20 as ours, published_chacha20 as theirs};
    let nonce = random.bytes(12);
    let (Ok(mut a), Ok(mut b)) = (
        ours::ChaChaCore::<ours::R20, ours::variants::Ietf>::new_from_slices(key, &nonce),
        theirs::ChaChaCore::<theirs::R20, theirs::variants::Ietf>::new_from_slices(key, &nonce),
    ) else {
        return false;
    };
    let at = u32::MAX - random.below(9) as u32;
    StreamCipherSeekCore::set_block_pos(&mut a, at);
    StreamCipherSeekCore::set_block_pos(&mut b, at);
    (0..2).all(|_| {
        let (mut ours, mut theirs) = ([0; 64], [0; 64]);
        a.generate(&mut ours);
        b.generate(&mut theirs);
        ours == theirs
    })
}

fn hash(random: &mut Random, key: &[u8], data: &[u8]) -> bool {
    let (Ok(ours), Ok(theirs)) =
        (poly1305::Poly1305::new_from_slice(key), published_poly1305::Poly1305::new_from_slice(key))
    else {
        return false;
    };
    let (first, second) = data.split_at(random.below(data.len() + 1));
    let padded = {
        let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
        ours.update_padded(first);
        ours.update_padded(second);
        theirs.update_padded(first);
        theirs.update_padded(second);
        ours.finalize() == theirs.finalize()
    };
    padded && ours.compute_unpadded(data) == theirs.compute_unpadded(data)
}

/// The same sealed by both, opened by ours, and refused once a bit of the tag differs: in place, with the buffer as it was,
/// and into another buffer, where nothing is written.
fn aead<A, B>(random: &mut Random, key: &[u8], nonce: usize, data: &[u8]) -> bool
where
    A: aead::KeyInit + aead::AeadInOut,
    B: aead::KeyInit + aead::AeadInOut,
{
    let (nonce, ad) = (random.bytes(nonce), random.some(200));
    let (Ok(a), Ok(b)) = (A::new_from_slice(key), B::new_from_slice(key)) else { return false };
    let (Ok(a_nonce), Ok(b_nonce)) = (nonce.as_slice().try_into(), nonce.as_slice().try_into()) else {
        return false;
    };
    let (mut ours, mut theirs) = (data.to_vec(), data.to_vec());
    let (Ok(tag), Ok(other)) = (
        a.encrypt_inout_detached(a_nonce, &ad, ours.as_mut_slice().into()),
        b.encrypt_inout_detached(b_nonce, &ad, theirs.as_mut_slice().into()),
    ) else {
        return false;
    };
    let sealed = theirs;
    if ours != sealed || tag.as_slice() != other.as_slice() {
        return false;
    }
    let mut altered = tag.clone();
    altered[random.below(16)] ^= 1 << random.below(8);
    let refused = a.decrypt_inout_detached(a_nonce, &ad, ours.as_mut_slice().into(), &altered).is_err();
    if !refused || ours != sealed {
        return false;
    }
    let opened = a.decrypt_inout_detached(a_nonce, &ad, ours.as_mut_slice().into(), &tag).is_ok();
    opened && ours == data && {
        let mut out = vec![0; data.len()];
        let mut between = |from: &[u8], tag| {
            let Ok(buffer) = InOutBuf::new(from, &mut out) else { return None };
            let opened = a.decrypt_inout_detached(a_nonce, &ad, buffer, tag).is_ok();
            Some((opened, out.clone()))
        };
        between(&sealed, &altered) == Some((false, vec![0; data.len()]))
            && between(&sealed, &tag) == Some((true, data.to_vec()))
            && InOutBuf::new(data, &mut out).is_ok_and(|buffer| {
                a.encrypt_inout_detached(a_nonce, &ad, buffer).is_ok_and(|again| again == tag)
            })
            && out == sealed
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn some(&mut self, longest: usize) -> Vec<u8> {
        let length = self.below(longest + 1);
        self.bytes(length)
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Random bytes; or all ones or zeros, here and there, which make the longest carries.
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let kind = self.below(4);
        let mut byte = || match kind {
            0 => 0xff,
            1 if self.below(8) > 0 => 0xff,
            2 if self.below(8) > 0 => 0,
            _ => self.next() as u8,
        };
        (0..length).map(|_| byte()).collect()
    }

    /// Where in a keystream: near its start, near where a counter of 32 or 64 bits is full, or anywhere.
    fn position(&mut self) -> u128 {
        match self.below(5) {
            0 | 1 => self.below(1000) as u128,
            2 => (1 << 38) - self.below(2000) as u128,
            3 => (1 << 70) - self.below(2000) as u128,
            _ => u128::from(self.next() >> 20),
        }
    }
}
