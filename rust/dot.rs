//! Exact search by the dot product of int8 rows: queries × rows in tiles, over threads, with a top-k for each query.
//!
//! A score is the dot product, exact in int32, as float32 times the scale of its row: integers until the one rounding, so that
//! every tier, every number of threads and every batch of queries gives the same bits.
//!
//! # Packed tiles
//!
//! Several queries share the rows that were brought into a tile: groups of [`DotLanes::LANES`] rows, and inside a group the
//! first 32-bit word of each row, then the second word of each, and so on. A word holds as many values as one instruction
//! multiplies and adds to a 32-bit lane: four bytes, or two 16-bit integers. A block of groups is multiplied with a block of
//! queries whose sums all stay in registers. Few queries are bound by memory: each row is multiplied where it lies.

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

/// Values of a row at most: any dot product of so many fits int32.
pub const MAX_DIM: usize = 1 << 16;

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

/// What a tier does for the search; the functions may be called only where the tier was detected.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    /// Values in a 32-bit word.
    pub word_values: usize,
    /// Rows that are scanned together: a tile has a multiple of them.
    pub block_rows: usize,
    /// Queries that are scanned together: packed queries are filled up to a multiple of them.
    pub block_queries: usize,
    /// Words of a query, and what its sums start from: `(query, words) → start`.
    pub pack_query: fn(&[i8], &mut [u32]) -> i32,
    /// Words of the rows of a tile: `(values, dim, rows, words)`.
    pub pack_rows: unsafe fn(&[i8], usize, TileRows, &mut [u32]),
    /// Scan a packed tile.
    pub scan: unsafe fn(&Queries, &Tile, &mut [TopScores]),
    /// Dot products of a query with rows where they lie: `(query, values, rows, dots)`.
    pub dots: unsafe fn(&[i8], &[i8], TileRows, &mut [i32]),
}

/// Queries as they came, and packed.
pub(crate) struct Queries<'a> {
    values: &'a [i8],
    dim: usize,
    /// How many there are; as packed, they are filled up with zeros to whole blocks.
    pub count: usize,
    /// Words of one packed query.
    pub words: usize,
    /// The words of each.
    pub packed: Vec<u32>,
    /// What the sums of each start from.
    pub starts: Vec<i32>,
}

impl<'a> Queries<'a> {
    fn new(kernel: Kernel, values: &'a [i8], dim: usize) -> Self {
        let (count, words) = (values.len() / dim, dim.div_ceil(kernel.word_values));
        let padded = count.next_multiple_of(kernel.block_queries);
        let (mut packed, mut starts) = (vec![0; padded * words], vec![0; padded]);
        for ((query, packed), start) in values.chunks(dim).zip(packed.chunks_mut(words)).zip(&mut starts) {
            *start = (kernel.pack_query)(query, packed);
        }
        Self { values, dim, count, words, packed, starts }
    }
}

/// Packed rows, and where they came from.
pub(crate) struct Tile<'a> {
    /// The words of whole blocks of rows.
    pub words: &'a [u32],
    /// A scale a row, of whole blocks of rows.
    pub scales: &'a [f32],
    /// The number of row 0 among the rows of all parts.
    pub first: usize,
    /// The rows, by their numbers in their part.
    pub rows: TileRows<'a>,
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

/// One vector of 32-bit lanes, a row each, and the few operations that the scan needs.
///
/// # Safety
/// Implementations may use instructions that not every processor has; their methods may be called only where the tier was
/// detected, from a function compiled with its target features.
pub(crate) unsafe trait DotLanes: Copy {
    /// Lanes of the vector, at most 16.
    const LANES: usize;
    /// The same number in every lane.
    unsafe fn splat(value: i32) -> Self;
    /// `LANES` words from memory of any alignment.
    unsafe fn load(words: *const u32) -> Self;
    /// The lanes, written to the first `LANES` elements.
    unsafe fn store(self, out: &mut [u32; 16]);
    /// In each lane the sum and the products of the values of a row's word and of a query's.
    unsafe fn add_products(self, rows: Self, query: Self) -> Self;
    /// The lanes as float32 times `scales`, written to the first `LANES` elements, if any is not below or at the bound: one
    /// bit for each lane that is not.
    unsafe fn scores(self, scales: *const f32, bound: f32, out: &mut [f32; 16]) -> u32;
}

/// Scan a packed tile: blocks of `G` groups of rows with blocks of `Q` queries.
///
/// # Safety
/// The processor must have the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn scan<V: DotLanes, const G: usize, const Q: usize>(
    queries: &Queries,
    tile: &Tile,
    top: &mut [TopScores],
) {
    let words = queries.words;
    let blocks = tile.rows.len().div_ceil(G * V::LANES);
    assert!(tile.words.len() >= blocks * G * V::LANES * words && tile.scales.len() >= blocks * G * V::LANES);
    assert!(queries.packed.len() >= top.len().next_multiple_of(Q) * words);
    for block in 0..blocks {
        let rows = tile.words[block * G * V::LANES * words..].as_ptr();
        for (i, top) in top.chunks_mut(Q).enumerate() {
            let query = queries.packed[i * Q * words..].as_ptr();
            // SAFETY: a block of rows and a block of queries are there, as asserted above.
            unsafe {
                let mut sums: [[V; G]; Q] = std::array::from_fn(|q| [V::splat(queries.starts[i * Q + q]); G]);
                for word in 0..words {
                    let mut group = [V::splat(0); G];
                    for (g, group) in group.iter_mut().enumerate() {
                        *group = V::load(rows.add((g * words + word) * V::LANES));
                    }
                    for (q, sums) in sums.iter_mut().enumerate() {
                        let query = V::splat(*query.add(q * words + word) as i32);
                        for (sum, &group) in sums.iter_mut().zip(&group) {
                            *sum = sum.add_products(group, query);
                        }
                    }
                }
                // Through memory of its own: sums that are looked up by a variable would be written in each round above.
                let mut done = [[[0; 16]; G]; Q];
                for (sums, done) in sums.iter().zip(&mut done) {
                    for (sum, done) in sums.iter().zip(done) {
                        sum.store(done);
                    }
                }
                for (done, top) in done.iter().zip(top) {
                    for (g, sums) in done.iter().enumerate() {
                        offer_group(V::load(sums.as_ptr()), (block * G + g) * V::LANES, tile, top);
                    }
                }
            }
        }
    }
}

/// Offer the rows of a group that are good enough.
#[inline(always)]
unsafe fn offer_group<V: DotLanes>(sums: V, offset: usize, tile: &Tile, top: &mut TopScores) {
    let lanes = V::LANES.min(tile.rows.len().saturating_sub(offset));
    let mut scores = [0.0; 16];
    // SAFETY: as for `scan`; the scales are those of whole blocks.
    let mut good =
        unsafe { sums.scores(tile.scales.as_ptr().add(offset), top.bound(), &mut scores) } & ((1 << lanes) - 1);
    while good != 0 {
        let lane = good.trailing_zeros() as usize;
        if tile.rows.keeps(offset + lane) {
            top.offer(scores[lane], (tile.first + tile.rows.get(offset + lane)) as u64);
        }
        good &= good - 1;
    }
}

/// Words of two 16-bit integers: what the instructions that every x86-64 processor has multiply and add.
pub(crate) fn pair_word(values: &[i8]) -> u32 {
    let (low, high) = (i16::from(values[0]), i16::from(values.get(1).copied().unwrap_or(0)));
    u32::from(low as u16) | u32::from(high as u16) << 16
}

/// [`Kernel::pack_query`] for words of pairs.
pub(crate) fn pack_query_pairs(query: &[i8], words: &mut [u32]) -> i32 {
    for (values, word) in query.chunks(2).zip(words) {
        *word = pair_word(values);
    }
    0
}

/// [`Kernel::pack_rows`] for words of pairs: the algorithm of every tier without its own.
#[inline(always)]
pub(crate) fn pack_row_pairs(values: &[i8], dim: usize, rows: TileRows, lanes: usize, out: &mut [u32]) {
    let words = dim.div_ceil(2);
    for offset in 0..rows.len() {
        let row = &values[rows.get(offset) * dim..][..dim];
        let group = &mut out[offset / lanes * lanes * words..][..lanes * words];
        let (pairs, rest) = row.as_chunks::<2>();
        for (pair, word) in pairs.iter().zip(group[offset % lanes..].iter_mut().step_by(lanes)) {
            *word = pair_word(pair);
        }
        if !rest.is_empty() {
            group[(words - 1) * lanes + offset % lanes] = pair_word(rest);
        }
    }
}

/// [`Kernel::dots`]: the algorithm of every tier without its own.
#[inline(always)]
pub(crate) fn dots(query: &[i8], values: &[i8], rows: TileRows, out: &mut [i32]) {
    let dim = query.len();
    for (offset, dot) in out.iter_mut().enumerate() {
        let row = &values[rows.get(offset) * dim..][..dim];
        *dot = query.iter().zip(row).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_ROWS, Part, search};
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
        let dim = super::MAX_DIM;
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
