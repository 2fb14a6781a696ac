//! Exact search by the dot product of int8 rows: queries × rows in tiles, over threads, with a top-k for each query.
//!
//! A score is the dot product, exact in int32, as float32 times the scale of its row: integers until the one rounding, so that
//! every tier, every number of threads and every batch of queries gives the same bits.

use crate::dot::{Kernel, MAX_DIM, Queries, Tile};
use crate::parts::{Mask, TileRows, chunks, claim, for_each_tile, merge};
use crate::simd::Tier;
use crate::topk::{Scored, TopScores};

/// Queries that share one walk over the rows, at most: bounds the memory for their top-k.
const QUERY_TILE: usize = 128;

/// Bytes of a tile: it stays in a first-level cache of 32 KiB.
const TILE_BYTES: usize = 16 << 10;

/// Bytes of a cache line, which are those of the widest vector.
const CACHE_LINE: usize = 64;

/// Queries from which packing a tile costs less than it saves.
const QUERIES_WORTH_PACKING: usize = 3;

/// Rows that a thread claims at a time.
const CHUNK_ROWS: usize = 4096;

/// int8 rows to search beside those of other parts.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The rows, one after the other.
    pub values: &'a [i8],
    /// What a row's dot product is multiplied with.
    pub scales: &'a [f32],
    /// Which of them to search; all of them, if there is none.
    pub mask: Option<Mask<'a>>,
}

/// For each query of `dim` values the `k` rows of all parts that score highest, ties by row number; fewer if fewer are kept.
///
/// The score is the dot product times the row's scale; one that is not a number is minus infinity. Rows are numbered through
/// over the parts. `threads` is an upper limit: small work runs on one.
///
/// # Panics
/// If `dim` is not in 1..=[`MAX_DIM`], queries, rows, scales or a mask do not fit each other, or `k` or `threads` is 0.
pub fn search(tier: &Tier, queries: &[i8], dim: usize, parts: &[Part], k: usize, threads: usize) -> Vec<Vec<Scored>> {
    assert!((1..=MAX_DIM).contains(&dim), "dim {dim} outside 1..={MAX_DIM}");
    assert!(queries.len().is_multiple_of(dim), "the queries are not whole");
    assert!(parts.iter().all(|part| part.values.len() == part.scales.len() * dim), "not one scale a row");
    assert!(k >= 1, "k must be positive");
    assert!(threads >= 1, "threads must be positive");
    let chunks = chunks(parts.iter().map(|part| (part.scales.len(), part.mask)), CHUNK_ROWS);
    let count = queries.len() / dim;
    let mut hits = Vec::with_capacity(count);
    let batches = count.div_ceil(QUERY_TILE).max(1);
    for batch in queries.chunks(count.div_ceil(batches).max(1) * dim) {
        let queries = Queries::new(tier.dot, batch, dim);
        let found = claim(&chunks, dim, queries.count, threads, |chunks| {
            let mut walk = Walk::new(tier.dot, &queries, parts, k);
            for_each_tile(chunks, walk.scales.len(), queries.count, |part, first, rows| walk.tile(part, first, rows));
            walk.top.into_iter().map(TopScores::into_sorted).collect()
        });
        hits.extend(merge(found, k));
    }
    hits
}

/// What one thread carries along: a tile, and a top-k for each query.
struct Walk<'a> {
    kernel: Kernel,
    queries: &'a Queries<'a>,
    parts: &'a [Part<'a>],
    packed: Vec<u32>,
    scales: Vec<f32>,
    dots: Vec<i32>,
    top: Vec<TopScores>,
}

impl<'a> Walk<'a> {
    fn new(kernel: Kernel, queries: &'a Queries, parts: &'a [Part<'a>], k: usize) -> Self {
        let rows = (TILE_BYTES / 4 / queries.words).next_multiple_of(kernel.block_rows).max(kernel.block_rows);
        Self {
            kernel,
            queries,
            parts,
            packed: vec![0; rows * queries.words + CACHE_LINE / 4],
            scales: vec![0.0; rows],
            dots: vec![0; rows],
            top: (0..queries.count).map(|_| TopScores::new(k)).collect(),
        }
    }

    /// Score the rows of a tile with every query.
    fn tile(&mut self, part: usize, first: usize, rows: TileRows) {
        let (part, dim) = (&self.parts[part], self.queries.dim);
        for (offset, scale) in self.scales.iter_mut().enumerate().take(rows.len()) {
            *scale = part.scales[rows.get(offset)];
        }
        if self.queries.count < QUERIES_WORTH_PACKING {
            for (query, top) in self.queries.values.chunks(dim).zip(&mut self.top) {
                // SAFETY: a `Tier` is handed out only where its instructions were detected.
                unsafe { (self.kernel.dots)(query, part.values, rows, &mut self.dots[..rows.len()]) };
                for (offset, (&dot, scale)) in self.dots.iter().zip(&self.scales).enumerate().take(rows.len()) {
                    let score = dot as f32 * scale;
                    if top.admits(score) && rows.keeps(offset) {
                        top.offer(score, (first + rows.get(offset)) as u64);
                    }
                }
            }
            return;
        }
        // A vector that straddles two cache lines takes two loads.
        let aligned = self.packed.as_ptr().align_offset(CACHE_LINE);
        let words = &mut self.packed[aligned..];
        // SAFETY: as above.
        unsafe {
            (self.kernel.pack_rows)(part.values, dim, rows, words);
            let tile = Tile { words, scales: &self.scales, first, rows };
            (self.kernel.scan)(self.queries, &tile, &mut self.top);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_ROWS, MAX_DIM, Part, search};
    use crate::parts::Mask;
    use crate::simd::available_tiers;
    use crate::topk::Scored;
    use proptest::prelude::*;

    fn naive(
        queries: &[i8],
        dim: usize,
        values: &[i8],
        scales: &[f32],
        k: usize,
        keeps: impl Fn(usize) -> bool,
    ) -> Vec<Vec<Scored>> {
        let best = |query: &[i8]| {
            let score = |row: usize| {
                let row = query.iter().zip(&values[row * dim..]);
                row.map(|(&a, &b)| i64::from(a) * i64::from(b)).sum::<i64>() as f32
            };
            let rows = (0..scales.len()).filter(|&row| keeps(row));
            let mut hits: Vec<Scored> = rows
                .map(|row| score(row) * scales[row])
                .zip((0..scales.len()).filter(|&row| keeps(row)))
                .map(|(score, row)| Scored {
                    score: if score.is_nan() { f32::NEG_INFINITY } else { score },
                    row: row as u64,
                })
                .collect();
            hits.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.row.cmp(&b.row)));
            hits.truncate(k);
            hits
        };
        queries.chunks(dim).map(best).collect()
    }

    /// Values of which many are at the ends of their range.
    fn value() -> impl Strategy<Value = i8> {
        prop_oneof![any::<i8>(), prop::sample::select(vec![-128, -127, 127, 0, 1])]
    }

    fn scale() -> impl Strategy<Value = f32> {
        prop_oneof![8 => 0f32..2.0, 4 => Just(1.0), 1 => prop::sample::select(vec![0.0, -1.0, f32::NAN, f32::INFINITY])]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn every_tier_and_partition_equals_the_naive_search(
            dim in 1usize..200, queries in 0usize..12, k in 1usize..30, offset in 0usize..5, cut in 0usize..300,
            values in prop::collection::vec(value(), 10_000), scales in prop::collection::vec(scale(), 300),
            bits in prop::collection::vec(any::<u8>(), 80), dense in any::<bool>(), masked in any::<bool>(),
        ) {
            let rows = (7000 / dim).min(scales.len());
            let asked = &values[7000 + offset..][..(queries * dim).min(2990 / dim * dim)];
            let (values, scales) = (&values[offset..][..rows * dim], &scales[..rows]);
            let cut = cut.min(rows);
            let bits: Vec<u8> = bits.chunks(2).map(|b| if dense { b[0] | b[1] | 0x7F } else { b[0] & b[1] }).collect();
            let mask = Mask::new(&bits[..(rows - cut).div_ceil(8)], rows - cut);
            let keeps = |row: usize| row < cut || !masked || mask.keeps(row - cut);
            let parts = [
                Part { values: &values[..cut * dim], scales: &scales[..cut], mask: None },
                Part { values: &values[cut * dim..], scales: &scales[cut..], mask: masked.then_some(mask) },
            ];
            let expected = naive(asked, dim, values, scales, k, keeps);
            for tier in available_tiers() {
                prop_assert_eq!(&search(tier, asked, dim, &parts, k, 1), &expected, "tier {}", tier.name);
            }
        }
    }

    #[test]
    fn the_largest_products_fit() {
        let dim = MAX_DIM;
        let (low, high) = (vec![-128i8; 4 * dim], vec![127i8; dim]);
        let rows = [&low[..dim], &high].concat();
        for tier in available_tiers() {
            for count in [1, 4] {
                let parts = [Part { values: &rows, scales: &[1.0, 1.0], mask: None }];
                let hits = search(tier, &low[..count * dim], dim, &parts, 2, 1);
                let scores: Vec<f32> = hits[count - 1].iter().map(|hit| hit.score).collect();
                assert_eq!(scores, [128.0 * 128.0 * dim as f32, -128.0 * 127.0 * dim as f32], "{}", tier.name);
            }
        }
    }

    #[test]
    fn threads_and_batches_change_nothing() {
        let (dim, rows) = (32, 5 * CHUNK_ROWS + 77);
        let value = |i: usize| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57) as i8 - 64;
        let values: Vec<i8> = (0..rows * dim).map(value).collect();
        let queries: Vec<i8> = (0..300 * dim).map(|i| value(i + 12345)).collect();
        // Few scales make many ties.
        let scales: Vec<f32> = (0..rows).map(|row| (row % 3) as f32).collect();
        let whole = [Part { values: &values, scales: &scales, mask: None }];
        let cut: Vec<Part> = values
            .chunks(999 * dim)
            .zip(scales.chunks(999))
            .map(|(values, scales)| Part { values, scales, mask: None })
            .collect();
        let tier = available_tiers().last().unwrap();
        let expected = search(tier, &queries, dim, &whole, 20, 1);
        assert_eq!(naive(&queries[299 * dim..], dim, &values, &scales, 20, |_| true)[0], expected[299]);
        for threads in [1, 2, 7] {
            assert_eq!(search(tier, &queries, dim, &whole, 20, threads), expected, "{threads} threads");
            assert_eq!(search(tier, &queries, dim, &cut, 20, threads), expected, "{threads} threads, many parts");
        }
        assert_eq!(search(tier, &queries[299 * dim..], dim, &cut, 20, 3)[0], expected[299]);
    }
}
