//! Software implementation of the Poly1305 state machine.

// Licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license
// <LICENSE-MIT or http://opensource.org/licenses/MIT>, at your
// option. This file may not be copied, modified, or distributed
// except according to those terms.
//
// This code originates from the rust-crypto project:
// <https://github.com/DaGenix/rust-crypto>
//
// ...and was originally a port of Andrew Moons poly1305-donna
// https://github.com/floodyberry/poly1305-donna

use universal_hash::{
    ParBlocks, UhfBackend, UhfClosure,
    common::{BlockSizeUser, ParBlocksSizeUser},
    consts::{U8, U16},
};

use crate::{Block, Key, Tag};

#[derive(Clone, Default)]
pub(crate) struct State {
    r: [u32; 5],
    /// r², by which two blocks are multiplied at once
    r2: [u32; 5],
    h: [u32; 5],
    pad: [u32; 4],
}

impl State {
    /// Initialize Poly1305 [`State`] with the given key
    pub(crate) fn new(key: &Key) -> State {
        let mut poly = State::default();

        // r &= 0x0ffffffc_0ffffffc_0ffffffc_0fffffff
        poly.r[0] = (u32::from_le_bytes(key[0..4].try_into().unwrap())) & 0x3ff_ffff;
        poly.r[1] = (u32::from_le_bytes(key[3..7].try_into().unwrap()) >> 2) & 0x3ff_ff03;
        poly.r[2] = (u32::from_le_bytes(key[6..10].try_into().unwrap()) >> 4) & 0x3ff_c0ff;
        poly.r[3] = (u32::from_le_bytes(key[9..13].try_into().unwrap()) >> 6) & 0x3f0_3fff;
        poly.r[4] = (u32::from_le_bytes(key[12..16].try_into().unwrap()) >> 8) & 0x00f_ffff;

        poly.pad[0] = u32::from_le_bytes(key[16..20].try_into().unwrap());
        poly.pad[1] = u32::from_le_bytes(key[20..24].try_into().unwrap());
        poly.pad[2] = u32::from_le_bytes(key[24..28].try_into().unwrap());
        poly.pad[3] = u32::from_le_bytes(key[28..32].try_into().unwrap());

        poly.r2 = reduce(multiply(poly.r, poly.r));

        poly
    }

    /// Compute a Poly1305 block
    #[inline(always)]
    pub(crate) fn compute_block(&mut self, block: &Block, partial: bool) {
        let hibit = if partial { 0 } else { 1 << 24 };
        self.h = reduce(multiply(add(self.h, limbs(block, hibit)), self.r));
    }

    /// Compute an even number of Poly1305 blocks, two at once: h = (h + m₁) * r² + m₂ * r
    #[inline(always)]
    fn compute_pairs(&mut self, blocks: &[Block]) {
        let (r, r2, mut h) = (self.r, self.r2, self.h);
        for pair in blocks.chunks_exact(2) {
            let mut d = multiply(add(h, limbs(&pair[0], 1 << 24)), r2);
            for (d, e) in d.iter_mut().zip(multiply(limbs(&pair[1], 1 << 24), r)) {
                *d += e;
            }
            h = reduce(d);
        }
        self.h = h;
    }

    #[allow(unused, reason = "this method is used by some targets")]
    pub(crate) fn update_with_backend(&mut self, f: impl UhfClosure<BlockSize = U16>) {
        f.call(self);
    }

    /// Finalize output producing a [`Tag`]
    pub(crate) fn finalize(&mut self) -> Tag {
        // fully carry h
        let mut h0 = self.h[0];
        let mut h1 = self.h[1];
        let mut h2 = self.h[2];
        let mut h3 = self.h[3];
        let mut h4 = self.h[4];

        let mut c: u32;
        c = h1 >> 26;
        h1 &= 0x3ff_ffff;
        h2 += c;

        c = h2 >> 26;
        h2 &= 0x3ff_ffff;
        h3 += c;

        c = h3 >> 26;
        h3 &= 0x3ff_ffff;
        h4 += c;

        c = h4 >> 26;
        h4 &= 0x3ff_ffff;
        h0 += c * 5;

        c = h0 >> 26;
        h0 &= 0x3ff_ffff;
        h1 += c;

        // compute h + -p
        let mut g0 = h0.wrapping_add(5);
        c = g0 >> 26;
        g0 &= 0x3ff_ffff;

        let mut g1 = h1.wrapping_add(c);
        c = g1 >> 26;
        g1 &= 0x3ff_ffff;

        let mut g2 = h2.wrapping_add(c);
        c = g2 >> 26;
        g2 &= 0x3ff_ffff;

        let mut g3 = h3.wrapping_add(c);
        c = g3 >> 26;
        g3 &= 0x3ff_ffff;

        let mut g4 = h4.wrapping_add(c).wrapping_sub(1 << 26);

        // select h if h < p, or h + -p if h >= p
        let mut mask = (g4 >> (32 - 1)).wrapping_sub(1);
        g0 &= mask;
        g1 &= mask;
        g2 &= mask;
        g3 &= mask;
        g4 &= mask;
        mask = !mask;
        h0 = (h0 & mask) | g0;
        h1 = (h1 & mask) | g1;
        h2 = (h2 & mask) | g2;
        h3 = (h3 & mask) | g3;
        h4 = (h4 & mask) | g4;

        // h = h % (2^128)
        h0 |= h1 << 26;
        h1 = (h1 >> 6) | (h2 << 20);
        h2 = (h2 >> 12) | (h3 << 14);
        h3 = (h3 >> 18) | (h4 << 8);

        // h = mac = (h + pad) % (2^128)
        let mut f: u64;
        f = u64::from(h0) + u64::from(self.pad[0]);
        h0 = f as u32;

        f = u64::from(h1) + u64::from(self.pad[1]) + (f >> 32);
        h1 = f as u32;

        f = u64::from(h2) + u64::from(self.pad[2]) + (f >> 32);
        h2 = f as u32;

        f = u64::from(h3) + u64::from(self.pad[3]) + (f >> 32);
        h3 = f as u32;

        let mut tag = Block::default();
        tag[0..4].copy_from_slice(&h0.to_le_bytes());
        tag[4..8].copy_from_slice(&h1.to_le_bytes());
        tag[8..12].copy_from_slice(&h2.to_le_bytes());
        tag[12..16].copy_from_slice(&h3.to_le_bytes());

        tag
    }
}

impl BlockSizeUser for State {
    type BlockSize = U16;
}

impl ParBlocksSizeUser for State {
    type ParBlocksSize = U8;
}

impl UhfBackend for State {
    #[inline(always)]
    fn proc_block(&mut self, block: &Block) {
        self.compute_block(block, false);
    }

    #[inline(always)]
    fn proc_par_blocks(&mut self, blocks: &ParBlocks<Self>) {
        self.compute_pairs(blocks);
    }
}

const LIMB: u64 = 0x3ff_ffff;

/// A block as limbs of 26 bits
#[inline(always)]
fn limbs(block: &Block, hibit: u32) -> [u32; 5] {
    let low = u64::from_le_bytes(block[0..8].try_into().unwrap());
    let high = u64::from_le_bytes(block[8..16].try_into().unwrap());
    [
        (low & LIMB) as u32,
        ((low >> 26) & LIMB) as u32,
        (((low >> 52) | (high << 12)) & LIMB) as u32,
        ((high >> 14) & LIMB) as u32,
        (high >> 40) as u32 | hibit,
    ]
}

/// h + m, limb by limb
#[inline(always)]
fn add(h: [u32; 5], m: [u32; 5]) -> [u32; 5] {
    [
        h[0] + m[0],
        h[1] + m[1],
        h[2] + m[2],
        h[3] + m[3],
        h[4] + m[4],
    ]
}

/// h * r, not carried. The limbs of h have less than 28 bits and those of r less than 27, so that two of
/// the sums, added, are less than 2^62
#[inline(always)]
fn multiply(h: [u32; 5], r: [u32; 5]) -> [u64; 5] {
    let h = h.map(u64::from);
    let r = r.map(u64::from);
    let [s1, s2, s3, s4] = [r[1] * 5, r[2] * 5, r[3] * 5, r[4] * 5];
    [
        h[0] * r[0] + h[1] * s4 + h[2] * s3 + h[3] * s2 + h[4] * s1,
        h[0] * r[1] + h[1] * r[0] + h[2] * s4 + h[3] * s3 + h[4] * s2,
        h[0] * r[2] + h[1] * r[1] + h[2] * r[0] + h[3] * s4 + h[4] * s3,
        h[0] * r[3] + h[1] * r[2] + h[2] * r[1] + h[3] * r[0] + h[4] * s4,
        h[0] * r[4] + h[1] * r[3] + h[2] * r[2] + h[3] * r[1] + h[4] * r[0],
    ]
}

/// (partial) d %= p: limbs of 26 bits, the second of which may be a little more
#[inline(always)]
fn reduce(mut d: [u64; 5]) -> [u32; 5] {
    d[1] += d[0] >> 26;
    d[2] += d[1] >> 26;
    d[3] += d[2] >> 26;
    d[4] += d[3] >> 26;
    let h0 = (d[0] & LIMB) + (d[4] >> 26) * 5;
    let h1 = (d[1] & LIMB) + (h0 >> 26);
    [
        (h0 & LIMB) as u32,
        h1 as u32,
        (d[2] & LIMB) as u32,
        (d[3] & LIMB) as u32,
        (d[4] & LIMB) as u32,
    ]
}
