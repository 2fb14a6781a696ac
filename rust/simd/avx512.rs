//! AVX-512 with VPOPCNTDQ: eight codes at a time. Intel since Ice Lake, AMD since Zen 4; its int8 products are in `vnni`.

use std::arch::x86_64::*;

use super::{Tier, avx512vnni, vnni};
use crate::hamming::{self, Lanes, PREFETCH_BYTES, Tile, code_words};
use crate::model::simd::avx512 as model;
use crate::parts::TileRows;
use crate::quantize::{self, Ranges};
use crate::rescore;
use crate::topk::TopK;
use crate::truncate;

/// Rows ahead of those that are packed that are asked for, where a mask scatters them.
const GATHER_AHEAD: usize = 64;

pub(super) static TIER: Tier = Tier {
    name: "avx512",
    needs: "AVX-512 F, BW, VNNI and VPOPCNTDQ",
    available: || (avx512vnni::TIER.available)() && std::is_x86_feature_detected!("avx512vpopcntdq"),
    sign_bits,
    int8_values,
    ranged_values,
    mixed_dot,
    code_dot,
    dot: vnni::KERNEL,
    model: &model::KERNELS,
    unit_length,
    lanes: 8,
    pack,
    scan,
    batch: None,
};

/// Eight words; `COUNTS` is whether the processor counts the bits of a word by one instruction (VPOPCNTDQ).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Words<const COUNTS: bool>(__m512i);

// SAFETY: the methods are called only from the scans of this tier and of `avx512vnni`, which have their target features
// and run only where detected.
unsafe impl<const COUNTS: bool> Lanes for Words<COUNTS> {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see the impl, here and below.
        unsafe { Self(_mm512_setzero_si512()) }
    }

    #[inline(always)]
    unsafe fn splat(word: u64) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_set1_epi64(word as i64)) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u64) -> Self {
        // SAFETY: see the impl; the caller vouches for 64 readable bytes.
        unsafe { Self(_mm512_loadu_si512(words.cast())) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_xor_si512(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn count_ones(self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(count_ones::<COUNTS>(self.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_add_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { Self(_mm512_min_epu64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn below(self, bound: Self) -> u32 {
        // SAFETY: see the impl.
        unsafe { u32::from(_mm512_cmplt_epu64_mask(self.0, bound.0)) }
    }

    #[inline(always)]
    unsafe fn store(self, out: &mut [u64; 8]) {
        // SAFETY: see the impl; out has 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), self.0) }
    }

    /// The words of a code lie side by side: a tree of shuffles and additions sums them, 1 to 8 codes a vector.
    #[inline(always)]
    unsafe fn row_distances<const W: usize>(codes: *const u64, query: &[u64]) -> Self {
        let query: &[u64; W] = query.try_into().expect("a query of W words");
        // SAFETY: see the impl; the caller vouches for W vectors of codes.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); W];
            for (vector, sum) in sums.iter_mut().enumerate() {
                let mut words = [0u64; 8];
                for (lane, word) in words.iter_mut().enumerate() {
                    *word = query[(vector * 8 + lane) % W];
                }
                let words = _mm512_loadu_si512(words.as_ptr().cast());
                let differing = _mm512_xor_si512(_mm512_loadu_si512(codes.add(vector * 8).cast()), words);
                *sum = count_ones::<COUNTS>(differing);
            }
            // Codes of more than a vector first: one vector a code.
            for code in 0..(W / 2).min(8) {
                for part in 1..W / 8 {
                    sums[code * (W / 8)] = _mm512_add_epi64(sums[code * (W / 8)], sums[code * (W / 8) + part]);
                }
            }
            let step = (W / 8).max(1);
            // Then neighboring words, neighboring pairs and neighboring halves, two vectors into one.
            for pair in 0..W.min(8) / 2 {
                sums[pair] = add_words(sums[2 * pair * step], sums[(2 * pair + 1) * step]);
            }
            for pair in 0..W.min(8) / 4 {
                sums[pair] = add_pairs(sums[2 * pair], sums[2 * pair + 1]);
            }
            Self(match W {
                2 => _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), sums[0]),
                4 => _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 6, 4, 3, 1, 2, 0), sums[0]),
                _ => {
                    let low = _mm512_permutex2var_epi64(sums[0], _mm512_set_epi64(13, 12, 9, 8, 5, 4, 1, 0), sums[1]);
                    let high =
                        _mm512_permutex2var_epi64(sums[0], _mm512_set_epi64(15, 14, 11, 10, 7, 6, 3, 2), sums[1]);
                    _mm512_add_epi64(low, high)
                }
            })
        }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

/// Set bits of each word; without an instruction for it those of each half byte from a table, then the sum of the bytes.
#[inline(always)]
unsafe fn count_ones<const COUNTS: bool>(words: __m512i) -> __m512i {
    // SAFETY: the caller is compiled with AVX-512 F and BW, and with VPOPCNTDQ where `COUNTS`.
    unsafe {
        if COUNTS {
            return _mm512_popcnt_epi64(words);
        }
        let table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
        let half = _mm512_set1_epi8(0x0F);
        let low = _mm512_shuffle_epi8(table, _mm512_and_si512(words, half));
        let high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi64::<4>(words), half));
        _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512())
    }
}

/// Sums of neighboring lanes: in each quarter of 128 bits the sum of `a`'s two words, then of `b`'s.
#[inline(always)]
unsafe fn add_words(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller is compiled with AVX-512 F.
    unsafe { _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)) }
}

/// Sums of neighboring quarters of 128 bits: those of `a` in the low half, those of `b` in the high half.
#[inline(always)]
unsafe fn add_pairs(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller is compiled with AVX-512 F.
    unsafe {
        _mm512_add_epi64(_mm512_shuffle_i64x2::<0b10_00_10_00>(a, b), _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile, and that the features were detected.
    unsafe { hamming::scan::<Words<true>>(query, tile, topk) }
}

/// Sign bits, 64 values at a time: four comparisons give 64 mask bits, first value lowest; the bits of each byte are then
/// reversed, because `packbits` has the first value highest.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn sign_bits(row: &[f32], out: &mut [u8]) {
    let zero = _mm512_setzero_ps();
    let (blocks, rest) = row.as_chunks::<64>();
    let (codes, rest_out) = out.split_at_mut(blocks.len() * 8);
    // Whole blocks without masks and without a copy of unknown length, which would be a call.
    for (values, code) in blocks.iter().zip(codes.as_chunks_mut::<8>().0) {
        let mut bits = 0u64;
        for (i, part) in values.as_chunks::<16>().0.iter().enumerate() {
            _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().cast::<i8>().wrapping_add(PREFETCH_BYTES));
            // SAFETY: 16 values.
            let part = unsafe { _mm512_loadu_ps(part.as_ptr()) };
            bits |= u64::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(part, zero)) << (16 * i);
        }
        *code = reverse_bits_of_bytes(bits).to_le_bytes();
    }
    if rest.is_empty() {
        return;
    }
    let mut bits = 0u64;
    for (i, part) in rest.chunks(16).enumerate() {
        let present = (1u32 << part.len()).wrapping_sub(1) as u16;
        // SAFETY: masked lanes are not read.
        let part = unsafe { _mm512_maskz_loadu_ps(present, part.as_ptr()) };
        bits |= u64::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(part, zero)) << (16 * i);
    }
    rest_out.copy_from_slice(&reverse_bits_of_bytes(bits).to_le_bytes()[..rest_out.len()]);
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn int8_values(row: &[f32], values: &mut [i8]) -> f32 {
    quantize::int8_values(row, values)
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn ranged_values(row: &[f32], ranges: Ranges, values: &mut [i8]) {
    quantize::ranged_values(row, ranges, values);
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn code_dot(query: &[f32], code: &[u8]) -> f32 {
    rescore::code_dot(query, code)
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn mixed_dot(query: &[f32], row: &[i8]) -> f32 {
    rescore::mixed_dot(query, row)
}

#[target_feature(enable = "avx512f")]
unsafe fn unit_length(row: &[f32], out: &mut [f32]) {
    truncate::unit_length(row, out);
}

#[inline(always)]
fn reverse_bits_of_bytes(bits: u64) -> u64 {
    bits.swap_bytes().reverse_bits()
}

/// Pack eight codes at a time: an 8 × 8 transposition of 64-bit words in registers.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack(codes: &[u8], bytes: usize, rows: TileRows, out: &mut [u64]) {
    let words = code_words(bytes);
    let groups = rows.len() / 8;
    assert!(out.len() >= rows.len().div_ceil(8) * 8 * words, "the tile is too small");
    for (group, out) in out.chunks_exact_mut(8 * words).take(groups).enumerate() {
        match rows {
            TileRows::Range { start, .. } => {
                let ahead = codes.as_ptr().wrapping_add((start + group * 8) * bytes + PREFETCH_BYTES);
                for line in (0..8 * bytes).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast());
                }
            }
            // Rows that lie apart: no hardware sees them coming.
            TileRows::List(rows) => {
                for &row in rows.iter().skip(group * 8 + GATHER_AHEAD).take(8) {
                    for line in (0..bytes).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(codes.as_ptr().wrapping_add(row * bytes + line).cast());
                    }
                }
            }
        }
        let row: [*const u8; 8] =
            std::array::from_fn(|lane| codes[rows.get(group * 8 + lane) * bytes..][..bytes].as_ptr());
        // SAFETY: each pointer has `bytes` readable bytes, `out` room for 8 × words words.
        unsafe {
            if bytes == 32 {
                pack_group_of_four_words(row, out.as_mut_ptr());
            } else {
                for word in (0..words).step_by(8) {
                    let row = row.map(|row| row.add(word * 8));
                    pack_group(row, bytes - word * 8, (words - word).min(8), out.as_mut_ptr().add(word * 8));
                }
            }
        }
    }
    if !rows.len().is_multiple_of(8) {
        let rest: Vec<usize> = (groups * 8..rows.len()).map(|offset| rows.get(offset)).collect();
        hamming::pack(codes, bytes, TileRows::List(&rest), 8, &mut out[groups * 8 * words..]);
    }
}

/// Up to eight words of eight rows, the bytes past `bytes` read as zero: row-major to word-major.
#[inline(always)]
unsafe fn pack_group(row: [*const u8; 8], bytes: usize, words: usize, out: *mut u64) {
    // SAFETY: the caller is compiled with AVX-512 F and BW; masked bytes are not read, and `words` vectors are written.
    unsafe {
        let present = if bytes >= 64 { !0 } else { (1u64 << bytes) - 1 };
        let r = row.map(|row| _mm512_maskz_loadu_epi8(present, row.cast()));
        // Pairs of rows, interleaved by word: [word 0 of two rows, word 2, word 4, word 6] and the odd words.
        let even = [0, 2, 4, 6].map(|i| _mm512_unpacklo_epi64(r[i], r[i + 1]));
        let odd = [0, 2, 4, 6].map(|i| _mm512_unpackhi_epi64(r[i], r[i + 1]));
        for (first, pairs) in [(0, even), (1, odd)] {
            // Quarters of 128 bits: words {0, 4} and {2, 6} of rows 0-3 and of rows 4-7.
            let low = [
                _mm512_shuffle_i64x2::<0b10_00_10_00>(pairs[0], pairs[1]),
                _mm512_shuffle_i64x2::<0b10_00_10_00>(pairs[2], pairs[3]),
            ];
            let high = [
                _mm512_shuffle_i64x2::<0b11_01_11_01>(pairs[0], pairs[1]),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(pairs[2], pairs[3]),
            ];
            let columns = [
                (first, _mm512_shuffle_i64x2::<0b10_00_10_00>(low[0], low[1])),
                (first + 2, _mm512_shuffle_i64x2::<0b10_00_10_00>(high[0], high[1])),
                (first + 4, _mm512_shuffle_i64x2::<0b11_01_11_01>(low[0], low[1])),
                (first + 6, _mm512_shuffle_i64x2::<0b11_01_11_01>(high[0], high[1])),
            ];
            for (word, column) in columns {
                if word < words {
                    _mm512_storeu_si512(out.add(word * 8).cast(), column);
                }
            }
        }
    }
}

/// Four words of eight rows of 32 bytes: two rows share a register, which halves the shuffles.
#[inline(always)]
unsafe fn pack_group_of_four_words(row: [*const u8; 8], out: *mut u64) {
    // SAFETY: the caller is compiled with AVX-512 F; 32 bytes are read of each row and four vectors written.
    unsafe {
        // Row i in the low half, row i + 4 in the high half.
        let r: [__m512i; 4] = std::array::from_fn(|i| {
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(row[i].cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(row[i + 4].cast()))
        });
        let first = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
        let second = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
        let even = [_mm512_unpacklo_epi64(r[0], r[1]), _mm512_unpacklo_epi64(r[2], r[3])];
        let odd = [_mm512_unpackhi_epi64(r[0], r[1]), _mm512_unpackhi_epi64(r[2], r[3])];
        for (word, index, pairs) in [(0, first, even), (1, first, odd), (2, second, even), (3, second, odd)] {
            _mm512_storeu_si512(out.add(word * 8).cast(), _mm512_permutex2var_epi64(pairs[0], index, pairs[1]));
        }
    }
}
