//! The portable tier: 64-bit words and whatever the target's baseline makes of them. Also the one lane that `popcnt` shares.

use super::Tier;
use crate::hamming::{self, Lanes, Tile};
use crate::parts::TileRows;
use crate::quantize;
use crate::rescore;
use crate::topk::TopK;
use crate::truncate;

pub(super) static TIER: Tier = Tier {
    name: "scalar",
    needs: "nothing",
    available: || true,
    sign_bits,
    int8_values,
    mixed_dot,
    unit_length,
    lanes: 1,
    pack,
    scan,
};

// SAFETY: plain integer operations, on every processor.
unsafe impl Lanes for u64 {
    const LANES: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        0
    }

    #[inline(always)]
    unsafe fn splat(word: u64) -> Self {
        word
    }

    #[inline(always)]
    unsafe fn load(words: *const u64) -> Self {
        // SAFETY: the caller vouches for the memory; a tile of one lane may be the caller's bytes, at any address.
        u64::from_le(unsafe { words.read_unaligned() })
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        self ^ other
    }

    #[inline(always)]
    unsafe fn count_ones(self) -> Self {
        u64::from(u64::count_ones(self))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Ord::min(self, other)
    }

    #[inline(always)]
    unsafe fn below(self, bound: Self) -> u32 {
        u32::from(self < bound)
    }

    #[inline(always)]
    unsafe fn row_distances<const W: usize>(codes: *const u64, query: &[u64]) -> Self {
        let query: &[u64; W] = query.try_into().expect("a query of W words");
        // SAFETY: the caller vouches for W words.
        query.iter().enumerate().map(|(i, &word)| unsafe { Lanes::count_ones(Self::load(codes.add(i)) ^ word) }).sum()
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}

    #[inline(always)]
    unsafe fn store(self, out: &mut [u64; 8]) {
        out[0] = self;
    }
}

pub(super) unsafe fn sign_bits(row: &[f32], out: &mut [u8]) {
    quantize::sign_bits(row, out);
}

pub(super) unsafe fn int8_values(row: &[f32], values: &mut [i8]) -> f32 {
    quantize::int8_values(row, values)
}

pub(super) unsafe fn mixed_dot(query: &[f32], row: &[i8]) -> f32 {
    rescore::mixed_dot(query, row)
}

pub(super) unsafe fn unit_length(row: &[f32], out: &mut [f32]) {
    truncate::unit_length(row, out);
}

pub(super) unsafe fn pack(codes: &[u8], bytes: usize, rows: TileRows, out: &mut [u64]) {
    hamming::pack(codes, bytes, rows, 1, out);
}

unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile.
    unsafe { hamming::scan::<u64>(query, tile, topk) }
}
