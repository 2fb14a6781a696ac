//! Dot products of int8 vectors: of one query with rows where they lie, and of many with a tile of packed rows.
//!
//! # Packed tiles
//!
//! Several queries share the rows that were brought into a tile: groups of [`DotLanes::LANES`] rows, and inside a group the
//! first 32-bit word of each row, then the second word of each, and so on. A word holds as many values as one instruction
//! multiplies and adds to a 32-bit lane: four bytes, or two 16-bit integers. A block of groups is multiplied with a block of
//! queries whose sums all stay in registers. Few queries are bound by memory: each row is multiplied where it lies.

use crate::parts::TileRows;
use crate::topk::TopScores;

/// Values of a row at most: any dot product of so many fits int32.
pub const MAX_DIM: usize = 1 << 16;

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
    /// As they came, one after the other.
    pub values: &'a [i8],
    /// Values of one.
    pub dim: usize,
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
    pub fn new(kernel: Kernel, values: &'a [i8], dim: usize) -> Self {
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
