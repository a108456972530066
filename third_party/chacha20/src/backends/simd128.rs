//! WebAssembly SIMD backend.
//!
//! The same as the SSE2 backend: four blocks, each in four vectors of a row of its state.

#![allow(clippy::cast_possible_truncation, reason = "the number of a block is less than 4")]

use crate::{Rounds, STATE_WORDS, Variant};

#[cfg(feature = "rng")]
use crate::{ChaChaCore, variants::Legacy};

#[cfg(feature = "cipher")]
use crate::chacha::Block;
#[cfg(feature = "cipher")]
use cipher::{
    BlockSizeUser, ParBlocksSizeUser, StreamCipherBackend, StreamCipherClosure,
    consts::{U4, U64},
};
use core::arch::wasm32::*;
use core::marker::PhantomData;

const PAR_BLOCKS: usize = 4;

#[inline]
#[cfg(feature = "cipher")]
pub(crate) fn inner<R, F, V>(state: &mut [u32; STATE_WORDS], f: F)
where
    R: Rounds,
    F: StreamCipherClosure<BlockSize = U64>,
    V: Variant,
{
    let mut backend = Backend::<R, V>::new(state);
    f.call(&mut backend);
    backend.save_ctr(state);
}

#[inline]
#[cfg(feature = "rng")]
pub(crate) fn rng_inner<R, V>(core: &mut ChaChaCore<R, V>, buffer: &mut [u32; 64])
where
    R: Rounds,
    V: Variant,
{
    // As in the other backends, the generator's counter has 64 bits in every variant.
    let mut backend = Backend::<R, Legacy>::new(&core.state);
    backend.gen_ks_blocks(buffer);
    backend.save_ctr(&mut core.state);
}

struct Backend<R: Rounds, V: Variant> {
    v: [v128; 4],
    _pd: PhantomData<(R, V)>,
}

impl<R: Rounds, V: Variant> Backend<R, V> {
    #[inline(always)]
    fn new(state: &[u32; STATE_WORDS]) -> Self {
        let row = |i: usize| u32x4(state[i], state[i + 1], state[i + 2], state[i + 3]);
        Self { v: [row(0), row(4), row(8), row(12)], _pd: PhantomData }
    }

    #[inline(always)]
    fn save_ctr(self, state: &mut [u32; STATE_WORDS]) {
        state[12..].copy_from_slice(&words(self.v[3]));
    }
}

#[cfg(feature = "cipher")]
impl<R: Rounds, V: Variant> BlockSizeUser for Backend<R, V> {
    type BlockSize = U64;
}

#[cfg(feature = "cipher")]
impl<R: Rounds, V: Variant> ParBlocksSizeUser for Backend<R, V> {
    type ParBlocksSize = U4;
}

#[cfg(feature = "cipher")]
impl<R: Rounds, V: Variant> StreamCipherBackend for Backend<R, V> {
    #[inline(always)]
    fn gen_ks_block(&mut self, block: &mut Block) {
        let res = rounds::<R, V, 1>(&self.v);
        self.v[3] = add_counter::<V>(self.v[3], 1);
        write_block(block, &res[0]);
    }

    /// Two blocks together take little longer than one.
    #[inline(always)]
    fn gen_tail_blocks(&mut self, blocks: &mut [Block]) {
        for pair in blocks.chunks_mut(2) {
            if let [first, second] = pair {
                let res = rounds::<R, V, 2>(&self.v);
                self.v[3] = add_counter::<V>(self.v[3], 2);
                write_block(first, &res[0]);
                write_block(second, &res[1]);
            } else if let [block] = pair {
                self.gen_ks_block(block);
            }
        }
    }

    #[inline(always)]
    fn gen_par_ks_blocks(&mut self, blocks: &mut cipher::ParBlocks<Self>) {
        let res = rounds::<R, V, PAR_BLOCKS>(&self.v);
        self.v[3] = add_counter::<V>(self.v[3], PAR_BLOCKS as u32);
        for (block, res) in blocks.iter_mut().zip(&res) {
            write_block(block, res);
        }
    }
}

#[cfg(feature = "rng")]
impl<R: Rounds, V: Variant> Backend<R, V> {
    #[inline(always)]
    fn gen_ks_blocks(&mut self, buffer: &mut [u32; 64]) {
        let res = rounds::<R, V, PAR_BLOCKS>(&self.v);
        self.v[3] = add_counter::<V>(self.v[3], PAR_BLOCKS as u32);
        for (row, res) in buffer.chunks_exact_mut(4).zip(res.iter().flatten()) {
            row.copy_from_slice(&words(*res));
        }
    }
}

/// Writes the four rows of a block.
#[inline(always)]
#[cfg(feature = "cipher")]
fn write_block(block: &mut Block, rows: &[v128; 4]) {
    for (out, row) in block.chunks_exact_mut(16).zip(rows) {
        let (low, high) = out.split_at_mut(8);
        low.copy_from_slice(&u64x2_extract_lane::<0>(*row).to_le_bytes());
        high.copy_from_slice(&u64x2_extract_lane::<1>(*row).to_le_bytes());
    }
}

#[inline(always)]
fn words(v: v128) -> [u32; 4] {
    [
        u32x4_extract_lane::<0>(v),
        u32x4_extract_lane::<1>(v),
        u32x4_extract_lane::<2>(v),
        u32x4_extract_lane::<3>(v),
    ]
}

/// The row of the counter, `n` blocks later.
#[inline(always)]
fn add_counter<V: Variant>(row: v128, n: u32) -> v128 {
    match size_of::<V::Counter>() {
        4 => u32x4_add(row, u32x4(n, 0, 0, 0)),
        8 => u64x2_add(row, u64x2(u64::from(n), 0)),
        _ => unreachable!(),
    }
}

#[inline(always)]
fn rounds<R: Rounds, V: Variant, const N: usize>(v: &[v128; 4]) -> [[v128; 4]; N] {
    let mut res = [*v; N];
    for block in 1..N {
        res[block][3] = add_counter::<V>(v[3], block as u32);
    }

    for _ in 0..R::COUNT {
        double_quarter_round(&mut res);
    }

    for block in 0..N {
        for i in 0..3 {
            res[block][i] = u32x4_add(res[block][i], v[i]);
        }
        res[block][3] = u32x4_add(res[block][3], add_counter::<V>(v[3], block as u32));
    }

    res
}

#[inline(always)]
fn double_quarter_round<const N: usize>(v: &mut [[v128; 4]; N]) {
    add_xor_rot(v);
    rows_to_cols(v);
    add_xor_rot(v);
    cols_to_rows(v);
}

/// As in the SSE2 backend, which explains why it is not `b` that is shuffled.
#[inline(always)]
fn rows_to_cols<const N: usize>(blocks: &mut [[v128; 4]; N]) {
    for [a, _, c, d] in blocks.iter_mut() {
        // c >>>= 32; d >>>= 64; a >>>= 96;
        *c = u32x4_shuffle::<1, 2, 3, 0>(*c, *c);
        *d = u32x4_shuffle::<2, 3, 0, 1>(*d, *d);
        *a = u32x4_shuffle::<3, 0, 1, 2>(*a, *a);
    }
}

/// Reverses [`rows_to_cols`].
#[inline(always)]
fn cols_to_rows<const N: usize>(blocks: &mut [[v128; 4]; N]) {
    for [a, _, c, d] in blocks.iter_mut() {
        // c <<<= 32; d <<<= 64; a <<<= 96;
        *c = u32x4_shuffle::<3, 0, 1, 2>(*c, *c);
        *d = u32x4_shuffle::<2, 3, 0, 1>(*d, *d);
        *a = u32x4_shuffle::<1, 2, 3, 0>(*a, *a);
    }
}

#[inline(always)]
fn rotate_left<const N: u32>(v: v128) -> v128 {
    v128_or(u32x4_shl(v, N), u32x4_shr(v, 32 - N))
}

#[inline(always)]
fn add_xor_rot<const N: usize>(blocks: &mut [[v128; 4]; N]) {
    for [a, b, c, d] in blocks.iter_mut() {
        // a += b; d ^= a; d <<<= (16, 16, 16, 16);
        *a = u32x4_add(*a, *b);
        *d = rotate_left::<16>(v128_xor(*d, *a));

        // c += d; b ^= c; b <<<= (12, 12, 12, 12);
        *c = u32x4_add(*c, *d);
        *b = rotate_left::<12>(v128_xor(*b, *c));

        // a += b; d ^= a; d <<<= (8, 8, 8, 8);
        *a = u32x4_add(*a, *b);
        *d = rotate_left::<8>(v128_xor(*d, *a));

        // c += d; b ^= c; b <<<= (7, 7, 7, 7);
        *c = u32x4_add(*c, *d);
        *b = rotate_left::<7>(v128_xor(*b, *c));
    }
}
