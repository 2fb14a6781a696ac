//! The portable tier: 64-bit words and whatever the target's baseline makes of them. Also the one lane that `popcnt` shares.

use std::cmp::Ordering;

use super::Tier;
use crate::dot::{self, DotLanes};
use crate::hamming::{self, Lanes, Tile};
use crate::model::simd::portable as model;
use crate::parts::TileRows;
use crate::quantize::{self, Ranges};
use crate::rescore;
use crate::topk::{TopK, TopScores};
use crate::truncate;

/// Queries whose sums with four int8 rows stay in registers.
const DOT_QUERIES: usize = 4;

pub(super) static TIER: Tier = Tier {
    name: "portable",
    needs: "nothing",
    available: || true,
    sign_bits,
    int8_values,
    ranged_values,
    mixed_dot,
    code_dot,
    dot: dot::Kernel {
        word_values: 2,
        block_rows: <Four as DotLanes>::LANES,
        block_queries: DOT_QUERIES,
        pack_query: dot::pack_query_pairs,
        pack_rows: pack_dot_rows,
        scan: scan_dots,
        dots,
    },
    model: &model::KERNELS,
    unit_length,
    lanes: 1,
    pack,
    scan,
    batch: None,
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

unsafe fn sign_bits(row: &[f32], out: &mut [u8]) {
    quantize::sign_bits(row, out);
}

unsafe fn int8_values(row: &[f32], values: &mut [i8]) -> f32 {
    quantize::int8_values(row, values)
}

unsafe fn ranged_values(row: &[f32], ranges: Ranges, values: &mut [i8]) {
    quantize::ranged_values(row, ranges, values);
}

unsafe fn code_dot(query: &[f32], code: &[u8]) -> f32 {
    rescore::code_dot(query, code)
}

unsafe fn mixed_dot(query: &[f32], row: &[i8]) -> f32 {
    rescore::mixed_dot(query, row)
}

unsafe fn unit_length(row: &[f32], out: &mut [f32]) {
    truncate::unit_length(row, out);
}

unsafe fn pack(codes: &[u8], bytes: usize, rows: TileRows, out: &mut [u64]) {
    hamming::pack(codes, bytes, rows, 1, out);
}

unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile.
    unsafe { hamming::scan::<u64>(query, tile, topk) }
}

/// Four 32-bit lanes: every 64-bit processor has vectors of such.
#[derive(Clone, Copy)]
struct Four([i32; 4]);

// SAFETY: plain integer operations, on every processor.
unsafe impl DotLanes for Four {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(words: *const u32) -> Self {
        // SAFETY: the caller vouches for four words.
        Self(unsafe { words.cast::<[i32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, out: &mut [u32; 16]) {
        for (out, lane) in out.iter_mut().zip(self.0) {
            *out = lane as u32;
        }
    }

    #[inline(always)]
    unsafe fn add_products(self, rows: Self, query: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            let (row, query) = (rows.0[lane], query.0[lane]);
            let low = i32::from(row as i16) * i32::from(query as i16);
            self.0[lane] + low + (row >> 16) * (query >> 16)
        }))
    }

    #[inline(always)]
    unsafe fn scores(self, scales: *const f32, bound: f32, out: &mut [f32; 16]) -> u32 {
        // SAFETY: the caller vouches for four scales.
        let scales = unsafe { scales.cast::<[f32; 4]>().read_unaligned() };
        (0..4).fold(0, |good, lane| {
            out[lane] = self.0[lane] as f32 * scales[lane];
            // Neither below nor equal, which a NaN is not.
            good | u32::from(!matches!(out[lane].partial_cmp(&bound), Some(Ordering::Less | Ordering::Equal))) << lane
        })
    }
}

unsafe fn pack_dot_rows(values: &[i8], dim: usize, rows: TileRows, out: &mut [u32]) {
    dot::pack_row_pairs(values, dim, rows, <Four as DotLanes>::LANES, out);
}

unsafe fn scan_dots(queries: &dot::Queries, tile: &dot::Tile, top: &mut [TopScores]) {
    // SAFETY: plain operations, on every processor.
    unsafe { dot::scan::<Four, 1, DOT_QUERIES>(queries, tile, top) }
}

unsafe fn dots(query: &[i8], values: &[i8], rows: TileRows, out: &mut [i32]) {
    dot::dots(query, values, rows, out);
}
