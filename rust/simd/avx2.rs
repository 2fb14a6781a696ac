//! AVX2: four codes at a time, bits counted by looking up half bytes. Intel since Haswell, AMD since Zen.

use std::arch::x86_64::*;

use super::Tier;
use crate::dot::{self, DotLanes};
use crate::hamming::{self, Lanes, Tile};
use crate::model::simd::avx2 as model;
use crate::parts::TileRows;
use crate::quantize::{self, Ranges};
use crate::rescore;
use crate::topk::{TopK, TopScores};
use crate::truncate;

/// Groups of int8 rows, and queries, whose sums stay in registers.
const DOT_GROUPS: usize = 2;
const DOT_QUERIES: usize = 4;

pub(super) static TIER: Tier = Tier {
    name: "avx2",
    needs: "AVX2, FMA and POPCNT",
    available: || {
        std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("popcnt")
    },
    sign_bits,
    int8_values,
    ranged_values,
    mixed_dot,
    code_dot,
    dot: dot::Kernel {
        word_values: 2,
        block_rows: DOT_GROUPS * <__m256i as DotLanes>::LANES,
        block_queries: DOT_QUERIES,
        pack_query: dot::pack_query_pairs,
        pack_rows: pack_dot_rows,
        scan: scan_dots,
        dots,
    },
    model: &model::KERNELS,
    unit_length,
    lanes: 4,
    pack,
    scan,
    batch: None,
};

// SAFETY: the methods are called only from `scan` below, which has their target features and runs only where detected.
unsafe impl Lanes for __m256i {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see the impl, here and below.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn splat(word: u64) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_set1_epi64x(word as i64) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u64) -> Self {
        // SAFETY: see the impl; the caller vouches for 32 readable bytes.
        unsafe { _mm256_loadu_si256(words.cast()) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_xor_si256(self, other) }
    }

    /// The bits of each half byte from a table, then the sum of the bytes of each lane.
    #[inline(always)]
    unsafe fn count_ones(self) -> Self {
        // SAFETY: see the impl.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
            let half = _mm256_set1_epi8(0x0F);
            let low = _mm256_shuffle_epi8(table, _mm256_and_si256(self, half));
            let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi64::<4>(self), half));
            _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256())
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_add_epi64(self, other) }
    }

    /// Distances and bounds are far below 2³², so that their low halves decide and their high halves are zero.
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_min_epu32(self, other) }
    }

    #[inline(always)]
    unsafe fn below(self, bound: Self) -> u32 {
        // SAFETY: see the impl.
        unsafe { _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(bound, self))) as u32 }
    }

    #[inline(always)]
    unsafe fn store(self, out: &mut [u64; 8]) {
        // SAFETY: see the impl; out has 64 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), self) }
    }

    /// One code after the other by POPCNT, as fast as memory.
    #[inline(always)]
    unsafe fn row_distances<const W: usize>(codes: *const u64, query: &[u64]) -> Self {
        // SAFETY: see the impl; the caller vouches for four codes.
        unsafe {
            let distances: [u64; 4] =
                std::array::from_fn(|lane| <u64 as Lanes>::row_distances::<W>(codes.add(lane * W), query));
            _mm256_loadu_si256(distances.as_ptr().cast())
        }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

#[target_feature(enable = "avx2,popcnt")]
unsafe fn sign_bits(row: &[f32], out: &mut [u8]) {
    quantize::sign_bits(row, out);
}

#[target_feature(enable = "avx2")]
unsafe fn int8_values(row: &[f32], values: &mut [i8]) -> f32 {
    quantize::int8_values(row, values)
}

#[target_feature(enable = "avx2")]
unsafe fn ranged_values(row: &[f32], ranges: Ranges, values: &mut [i8]) {
    quantize::ranged_values(row, ranges, values);
}

#[target_feature(enable = "avx2")]
unsafe fn code_dot(query: &[f32], code: &[u8]) -> f32 {
    rescore::code_dot(query, code)
}

#[target_feature(enable = "avx2")]
unsafe fn mixed_dot(query: &[f32], row: &[i8]) -> f32 {
    rescore::mixed_dot(query, row)
}

#[target_feature(enable = "avx2,popcnt")]
unsafe fn unit_length(row: &[f32], out: &mut [f32]) {
    truncate::unit_length(row, out);
}

/// Pack four codes at a time, if they are whole vectors: 4 × 4 transpositions of 64-bit words in registers.
#[target_feature(enable = "avx2,popcnt")]
unsafe fn pack(codes: &[u8], bytes: usize, rows: TileRows, out: &mut [u64]) {
    if !bytes.is_multiple_of(32) {
        return hamming::pack(codes, bytes, rows, 4, out);
    }
    let words = bytes / 8;
    let groups = rows.len() / 4;
    assert!(out.len() >= rows.len().div_ceil(4) * 4 * words, "the tile is too small");
    for (group, out) in out.chunks_exact_mut(4 * words).take(groups).enumerate() {
        let row: [*const u8; 4] =
            std::array::from_fn(|lane| codes[rows.get(group * 4 + lane) * bytes..][..bytes].as_ptr());
        for (word, out) in (0..words).step_by(4).zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: each pointer has `bytes` readable bytes, `out` room for four vectors.
            unsafe {
                let r = row.map(|row| _mm256_loadu_si256(row.add(word * 8).cast()));
                let even = [_mm256_unpacklo_epi64(r[0], r[1]), _mm256_unpacklo_epi64(r[2], r[3])];
                let odd = [_mm256_unpackhi_epi64(r[0], r[1]), _mm256_unpackhi_epi64(r[2], r[3])];
                let out: *mut __m256i = out.as_mut_ptr().cast();
                _mm256_storeu_si256(out, _mm256_permute2x128_si256::<0x20>(even[0], even[1]));
                _mm256_storeu_si256(out.add(1), _mm256_permute2x128_si256::<0x20>(odd[0], odd[1]));
                _mm256_storeu_si256(out.add(2), _mm256_permute2x128_si256::<0x31>(even[0], even[1]));
                _mm256_storeu_si256(out.add(3), _mm256_permute2x128_si256::<0x31>(odd[0], odd[1]));
            }
        }
    }
    if !rows.len().is_multiple_of(4) {
        let rest: Vec<usize> = (groups * 4..rows.len()).map(|offset| rows.get(offset)).collect();
        hamming::pack(codes, bytes, TileRows::List(&rest), 4, &mut out[groups * 4 * words..]);
    }
}

#[target_feature(enable = "avx2,popcnt")]
unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile, and that the features were detected.
    unsafe { hamming::scan::<__m256i>(query, tile, topk) }
}

// SAFETY: the methods are called only from `scan_dots` below, which has their target features and runs only where detected.
unsafe impl DotLanes for __m256i {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: see the impl, here and below.
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u32) -> Self {
        // SAFETY: see the impl; the caller vouches for 32 readable bytes.
        unsafe { _mm256_loadu_si256(words.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, out: &mut [u32; 16]) {
        // SAFETY: see the impl; out has 64 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), self) }
    }

    /// 16-bit integers, because the instruction for bytes saturates.
    #[inline(always)]
    unsafe fn add_products(self, rows: Self, query: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_add_epi32(self, _mm256_madd_epi16(rows, query)) }
    }

    #[inline(always)]
    unsafe fn scores(self, scales: *const f32, bound: f32, out: &mut [f32; 16]) -> u32 {
        // SAFETY: see the impl; the caller vouches for eight scales.
        unsafe {
            let scores = _mm256_mul_ps(_mm256_cvtepi32_ps(self), _mm256_loadu_ps(scales));
            let good = _mm256_cmp_ps::<_CMP_NLE_UQ>(scores, _mm256_set1_ps(bound));
            _mm256_storeu_ps(out.as_mut_ptr(), scores);
            _mm256_movemask_ps(good) as u32
        }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn pack_dot_rows(values: &[i8], dim: usize, rows: TileRows, out: &mut [u32]) {
    dot::pack_row_pairs(values, dim, rows, <__m256i as DotLanes>::LANES, out);
}

#[target_feature(enable = "avx2")]
unsafe fn scan_dots(queries: &dot::Queries, tile: &dot::Tile, top: &mut [TopScores]) {
    // SAFETY: the caller vouches that the features were detected.
    unsafe { dot::scan::<__m256i, DOT_GROUPS, DOT_QUERIES>(queries, tile, top) }
}

#[target_feature(enable = "avx2")]
unsafe fn dots(query: &[i8], values: &[i8], rows: TileRows, out: &mut [i32]) {
    dot::dots(query, values, rows, out);
}
