//! NEON, on every 64-bit Arm processor: two codes at a time. All but the scan is plain loops, which the baseline makes
//! NEON of.

use std::arch::aarch64::*;

use super::{Tier, portable};
use crate::hamming::{self, Lanes, Tile};
use crate::model::simd::neon as model;
use crate::parts::TileRows;
use crate::topk::TopK;

pub(super) static TIER: Tier = Tier {
    name: "neon",
    needs: "NEON",
    available: || std::arch::is_aarch64_feature_detected!("neon"),
    model: &model::KERNELS,
    lanes: 2,
    pack,
    scan,
    ..portable::TIER
};

// SAFETY: the methods are called only from `scan` below, which has their target features and runs only where detected.
unsafe impl Lanes for uint64x2_t {
    const LANES: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see the impl, here and below.
        unsafe { vdupq_n_u64(0) }
    }

    #[inline(always)]
    unsafe fn splat(word: u64) -> Self {
        // SAFETY: see the impl.
        unsafe { vdupq_n_u64(word) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u64) -> Self {
        // SAFETY: see the impl; the caller vouches for 16 readable bytes. As bytes, because the address may be odd.
        unsafe { vreinterpretq_u64_u8(vld1q_u8(words.cast())) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { veorq_u64(self, other) }
    }

    #[inline(always)]
    unsafe fn count_ones(self) -> Self {
        // SAFETY: see the impl.
        unsafe { add_bytes(vcntq_u8(vreinterpretq_u8_u64(self))) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vaddq_u64(self, other) }
    }

    /// Distances and bounds are far below 2³², so that their low halves decide and their high halves are zero.
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vreinterpretq_u64_u32(vminq_u32(vreinterpretq_u32_u64(self), vreinterpretq_u32_u64(other))) }
    }

    #[inline(always)]
    unsafe fn below(self, bound: Self) -> u32 {
        // SAFETY: see the impl.
        let below = unsafe { vget_lane_u64::<0>(vreinterpret_u64_u32(vmovn_u64(vcltq_u64(self, bound)))) };
        (below & 1 | below >> 32 & 2) as u32
    }

    #[inline(always)]
    unsafe fn store(self, out: &mut [u64; 8]) {
        // SAFETY: see the impl; out has more than 16 bytes.
        unsafe { vst1q_u64(out.as_mut_ptr(), self) }
    }

    /// The words of a code lie side by side: its counts are added as bytes, of which none passes 8 × 8.
    #[inline(always)]
    unsafe fn row_distances<const W: usize>(codes: *const u64, query: &[u64]) -> Self {
        let query: &[u64; W] = query.try_into().expect("a query of W words");
        // SAFETY: see the impl; the caller vouches for two codes.
        unsafe {
            let mut sums = [vdupq_n_u8(0); 2];
            for (code, sum) in sums.iter_mut().enumerate() {
                for word in (0..W).step_by(2) {
                    let differ = Self::load(codes.add(code * W + word)).xor(Self::load(query[word..].as_ptr()));
                    *sum = vaddq_u8(*sum, vcntq_u8(vreinterpretq_u8_u64(differ)));
                }
            }
            vpaddq_u64(add_bytes(sums[0]), add_bytes(sums[1]))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

/// Sums of the bytes of each lane.
#[inline(always)]
unsafe fn add_bytes(bytes: uint8x16_t) -> uint64x2_t {
    // SAFETY: the caller is compiled with NEON.
    unsafe { vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes))) }
}

/// Pack two codes at a time, if they are whole vectors: 2 × 2 transpositions of 64-bit words.
#[target_feature(enable = "neon")]
unsafe fn pack(codes: &[u8], bytes: usize, rows: TileRows, out: &mut [u64]) {
    if !bytes.is_multiple_of(16) {
        return hamming::pack(codes, bytes, rows, 2, out);
    }
    let words = bytes / 8;
    let pairs = rows.len() / 2;
    assert!(out.len() >= rows.len().div_ceil(2) * 2 * words, "the tile is too small");
    for (pair, out) in out.chunks_exact_mut(2 * words).take(pairs).enumerate() {
        let row: [&[u8]; 2] = std::array::from_fn(|lane| &codes[rows.get(pair * 2 + lane) * bytes..][..bytes]);
        let vectors = row[0].as_chunks::<16>().0.iter().zip(row[1].as_chunks::<16>().0);
        for ((first, second), out) in vectors.zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: 16 readable bytes each, and room for four words.
            unsafe {
                let first = vreinterpretq_u64_u8(vld1q_u8(first.as_ptr()));
                let second = vreinterpretq_u64_u8(vld1q_u8(second.as_ptr()));
                vst1q_u64(out.as_mut_ptr(), vtrn1q_u64(first, second));
                vst1q_u64(out[2..].as_mut_ptr(), vtrn2q_u64(first, second));
            }
        }
    }
    if !rows.len().is_multiple_of(2) {
        let last = [rows.get(pairs * 2)];
        hamming::pack(codes, bytes, TileRows::List(&last), 2, &mut out[pairs * 2 * words..]);
    }
}

#[target_feature(enable = "neon")]
unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile, and that the feature was detected.
    unsafe { hamming::scan::<uint64x2_t>(query, tile, topk) }
}
