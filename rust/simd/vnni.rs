//! AVX-512 VNNI, the int8 products of the avx512 tier: four bytes a lane, multiplied and added to int32 by one instruction.
//!
//! The instruction multiplies unsigned with signed bytes. Rows are therefore offset by 128, which adds 128 times the sum of the
//! query to each product, and the sums start from that number below zero.

use std::arch::x86_64::*;

use crate::dot::{self, DotLanes, Kernel, Queries, Tile};
use crate::hamming::PREFETCH_BYTES;
use crate::parts::TileRows;
use crate::topk::TopScores;

/// Groups of rows, and queries, whose sums stay in registers.
const GROUPS: usize = 4;
const QUERIES: usize = 6;

/// Rows ahead of the one that is read that are asked for, where a mask scatters them.
const GATHER_AHEAD: usize = 16;

pub(super) const KERNEL: Kernel = Kernel {
    word_values: 4,
    block_rows: GROUPS * <__m512i as DotLanes>::LANES,
    block_queries: QUERIES,
    pack_query,
    pack_rows,
    scan,
    dots,
};

// SAFETY: the methods are called only from `scan` below, which has their target features and runs only where detected.
unsafe impl DotLanes for __m512i {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: see the impl, here and below.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u32) -> Self {
        // SAFETY: see the impl; the caller vouches for 64 readable bytes.
        unsafe { _mm512_loadu_si512(words.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, out: &mut [u32; 16]) {
        // SAFETY: see the impl; out has 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn add_products(self, rows: Self, query: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm512_dpbusd_epi32(self, rows, query) }
    }

    #[inline(always)]
    unsafe fn scores(self, scales: *const f32, bound: f32, out: &mut [f32; 16]) -> u32 {
        // SAFETY: see the impl; the caller vouches for 16 scales.
        unsafe {
            let scores = _mm512_mul_ps(_mm512_cvtepi32_ps(self), _mm512_loadu_ps(scales));
            let good = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(scores, _mm512_set1_ps(bound));
            if good != 0 {
                _mm512_storeu_ps(out.as_mut_ptr(), scores);
            }
            u32::from(good)
        }
    }
}

/// What the offset of the rows adds to a query's products, negated.
fn start(query: &[i8]) -> i32 {
    -128 * query.iter().map(|&value| i32::from(value)).sum::<i32>()
}

fn pack_query(query: &[i8], words: &mut [u32]) -> i32 {
    for (values, word) in query.chunks(4).zip(words) {
        let mut bytes = [0; 4];
        for (value, byte) in values.iter().zip(&mut bytes) {
            *byte = *value as u8;
        }
        *word = u32::from_le_bytes(bytes);
    }
    start(query)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn scan(queries: &Queries, tile: &Tile, top: &mut [TopScores]) {
    // SAFETY: the caller vouches that the features were detected.
    unsafe { dot::scan::<__m512i, GROUPS, QUERIES>(queries, tile, top) }
}

/// Ask for the rows that come after the one at `offset`.
#[inline(always)]
unsafe fn prefetch(values: &[i8], dim: usize, rows: TileRows, offset: usize) {
    let ahead = match rows {
        TileRows::Range { .. } => values.as_ptr().wrapping_add(rows.get(offset) * dim + PREFETCH_BYTES),
        TileRows::List(rows) => values.as_ptr().wrapping_add(rows[(offset + GATHER_AHEAD).min(rows.len() - 1)] * dim),
    };
    for line in (0..dim).step_by(64) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line)) };
    }
}

/// Up to 64 values from `start` on of a row, offset by 128; those past its end are 0 before.
#[inline(always)]
unsafe fn load_offset(row: &[i8], start: usize) -> __m512i {
    let left = row.len() - start;
    let present = if left >= 64 { !0 } else { (1u64 << left) - 1 };
    // SAFETY: the caller is compiled with AVX-512 F and BW; masked bytes are not read.
    unsafe {
        let values = _mm512_maskz_loadu_epi8(present, row.as_ptr().add(start));
        _mm512_xor_si512(values, _mm512_set1_epi8(-128))
    }
}

/// Pack sixteen rows at a time: 16 × 16 transpositions of 32-bit words in registers.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows(values: &[i8], dim: usize, rows: TileRows, out: &mut [u32]) {
    let words = dim.div_ceil(4);
    assert!(out.len() >= rows.len().next_multiple_of(16) * words, "the tile is too small");
    for (group, out) in (0..rows.len()).step_by(16).zip(out.chunks_exact_mut(16 * words)) {
        // Past the last row it is repeated.
        let row: [&[i8]; 16] = std::array::from_fn(|lane| {
            let offset = (group + lane).min(rows.len() - 1);
            // SAFETY: as for this function.
            unsafe { prefetch(values, dim, rows, offset) };
            &values[rows.get(offset) * dim..][..dim]
        });
        for (i, out) in out.chunks_mut(16 * 16).enumerate() {
            // SAFETY: the features are those of this function; each vector has room for 16 words.
            unsafe {
                let columns = transposed(row.map(|row| load_offset(row, i * 64)));
                for (column, out) in columns.iter().zip(out.as_chunks_mut::<16>().0) {
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), *column);
                }
            }
        }
    }
}

/// The transpose of a 16 × 16 matrix of 32-bit words, a row a vector.
#[inline(always)]
unsafe fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller is compiled with AVX-512 F.
    unsafe {
        // Of each quad of rows, in each quarter of 128 bits, the four words of one column: column 4 × quarter + j in quad[j].
        let quads: [[__m512i; 4]; 4] = std::array::from_fn(|i| {
            let r = &rows[4 * i..];
            let (low, high) = (_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1]));
            let (low_next, high_next) = (_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3]));
            [
                _mm512_unpacklo_epi64(low, low_next),
                _mm512_unpackhi_epi64(low, low_next),
                _mm512_unpacklo_epi64(high, high_next),
                _mm512_unpackhi_epi64(high, high_next),
            ]
        });
        let mut columns = [_mm512_setzero_si512(); 16];
        for j in 0..4 {
            // A 4 × 4 transposition of quarters.
            let [a, b, c, d] = [quads[0][j], quads[1][j], quads[2][j], quads[3][j]];
            let (even_ab, odd_ab) =
                (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b));
            let (even_cd, odd_cd) =
                (_mm512_shuffle_i32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d));
            columns[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even_ab, even_cd);
            columns[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd_ab, odd_cd);
            columns[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even_ab, even_cd);
            columns[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd_ab, odd_cd);
        }
        columns
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dots(query: &[i8], values: &[i8], rows: TileRows, out: &mut [i32]) {
    let (dim, start) = (query.len(), start(query));
    for (offset, dot) in out.iter_mut().enumerate() {
        let row = &values[rows.get(offset) * dim..][..dim];
        // SAFETY: the features are those of this function; masked bytes are not read.
        unsafe {
            prefetch(values, dim, rows, offset);
            let mut sums = _mm512_setzero_si512();
            for i in (0..dim).step_by(64) {
                let present = if dim - i >= 64 { !0 } else { (1u64 << (dim - i)) - 1 };
                let query = _mm512_maskz_loadu_epi8(present, query.as_ptr().add(i));
                sums = _mm512_dpbusd_epi32(sums, load_offset(row, i), query);
            }
            *dot = _mm512_reduce_add_epi32(sums).wrapping_add(start);
        }
    }
}
