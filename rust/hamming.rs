//! The Hamming distance between binary codes: the naive reference, and the scan of one query over a tile of packed codes.
//!
//! # Packed tiles
//!
//! A tile is a few hundred codes brought into the order that the vector unit wants, once for all queries of a batch: groups
//! of `LANES` codes, and inside a group the first 64-bit word of each code, then the second word of each, and so on. One
//! vector operation then compares one word of `LANES` codes, the sum over the words of a code needs no shuffle, and any code
//! length works: the last word is filled up with zeros, in the query as well.
//!
//! Packing pays when several queries share it. A query alone is bound by memory, and scans codes of the usual lengths where
//! they lie, row after row, at the price of a few shuffles ([`Lanes::row_distances`]). With one lane the packed order is that
//! of the rows themselves.
//!
//! # One algorithm
//!
//! [`scan`] is written once over [`Lanes`]; each tier compiles it for its own instructions. The words of the query stay in
//! registers (the number of words is a constant for the usual code lengths), the codes stream from the first-level cache,
//! and a group of vectors costs one branch: does any lane pass the bound of the top-k?

use crate::parts::TileRows;
use crate::topk::TopK;

/// Bytes ahead of the scan that are asked for, where codes are read from memory.
pub(crate) const PREFETCH_BYTES: usize = 8192;

/// Vectors in flight: enough to hide the latency of a population count.
const UNROLL: usize = 4;

/// Number of bits that differ: the reference for everything else in the crate.
pub fn distance(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// 64-bit words of a code of `bytes` bytes.
pub(crate) fn code_words(bytes: usize) -> usize {
    bytes.div_ceil(8)
}

/// One vector of 64-bit lanes, and the few operations that the scan needs.
///
/// # Safety
/// Implementations may use instructions that not every processor has; their methods may be called only where the tier was
/// detected, from a function compiled with its target features.
pub(crate) unsafe trait Lanes: Copy {
    /// Lanes of the vector, at most 8.
    const LANES: usize;
    /// All lanes zero.
    unsafe fn zero() -> Self;
    /// The same word in every lane.
    unsafe fn splat(word: u64) -> Self;
    /// `LANES` words from memory of any alignment.
    unsafe fn load(words: *const u64) -> Self;
    /// Bits in which the lanes differ.
    unsafe fn xor(self, other: Self) -> Self;
    /// Set bits of each lane.
    unsafe fn count_ones(self) -> Self;
    /// Sum of the lanes.
    unsafe fn add(self, other: Self) -> Self;
    /// The smaller of each pair of lanes.
    unsafe fn min(self, other: Self) -> Self;
    /// One bit for each lane that is below the other's.
    unsafe fn below(self, bound: Self) -> u32;
    /// The lanes, written to the first `LANES` elements.
    unsafe fn store(self, out: &mut [u64; 8]);
    /// Distances of `LANES` codes of `W` words that lie row after row, in their order; `W` is one of [`ROW_WORDS`].
    unsafe fn row_distances<const W: usize>(codes: *const u64, query: &[u64]) -> Self;
    /// Ask for the memory at an address that will be read soon; any address will do.
    unsafe fn prefetch(address: *const u8);
}

/// Words of the codes that can be scanned where they lie.
pub(crate) const ROW_WORDS: [usize; 4] = [2, 4, 8, 16];

/// A tile of codes and the rows that they came from.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    /// The words: packed, `rows.len()` rounded up to whole groups × words a code; or the rows as they lie.
    pub words: *const u64,
    /// Whether the words are packed.
    pub packed: bool,
    /// The number of row 0 among the rows of all parts.
    pub first: usize,
    /// Where the codes came from.
    pub rows: TileRows<'a>,
}

impl Tile<'_> {
    /// Take the tile's code at `offset` if it is kept and among the nearest.
    #[inline(always)]
    pub fn offer(&self, offset: usize, distance: u32, topk: &mut TopK) {
        if self.rows.keeps(offset) {
            topk.offer(distance, (self.first + self.rows.get(offset)) as u64);
        }
    }
}

/// Bring codes of `bytes` bytes into the packed order of `lanes` lanes: the algorithm of every tier without its own.
#[inline(always)]
pub(crate) fn pack(codes: &[u8], bytes: usize, rows: TileRows, lanes: usize, out: &mut [u64]) {
    let words = code_words(bytes);
    for offset in 0..rows.len() {
        let code = &codes[rows.get(offset) * bytes..][..bytes];
        let group = &mut out[offset / lanes * lanes * words..][..lanes * words];
        let lane = offset % lanes;
        for (word, chunk) in code.chunks(8).enumerate() {
            let mut padded = [0u8; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            group[word * lanes + lane] = u64::from_le_bytes(padded);
        }
    }
}

/// Offer to `topk` every row of the tile that is nearer to the query than its bound.
///
/// # Safety
/// The processor must have the instructions of `V`. A packed tile must be readable for its rows, rounded up to whole groups;
/// rows that are not packed must have a number of words of [`ROW_WORDS`].
#[inline(always)]
pub(crate) unsafe fn scan<V: Lanes>(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: as for this function.
    unsafe {
        match (tile.packed, query.len()) {
            (true, 2) => scan_groups(&PackedWords::<V, 2>::new(query), tile, topk),
            (true, 4) => scan_groups(&PackedWords::<V, 4>::new(query), tile, topk),
            (true, 8) => scan_groups(&PackedWords::<V, 8>::new(query), tile, topk),
            (true, 12) => scan_groups(&PackedWords::<V, 12>::new(query), tile, topk),
            (true, 16) => scan_groups(&PackedWords::<V, 16>::new(query), tile, topk),
            (true, _) => scan_groups::<V>(&PackedAny(query), tile, topk),
            (false, 2) => scan_rows::<V, 2>(query, tile, topk),
            (false, 4) => scan_rows::<V, 4>(query, tile, topk),
            (false, 8) => scan_rows::<V, 8>(query, tile, topk),
            (false, 16) => scan_rows::<V, 16>(query, tile, topk),
            (false, words) => unreachable!("rows of {words} words are packed before they are scanned"),
        }
    }
}

/// [`scan`] for codes of `W` words where they lie in memory.
#[inline(always)]
unsafe fn scan_rows<V: Lanes, const W: usize>(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // The last rows, less than a group, are no whole vector.
    let whole = tile.rows.len() / V::LANES * V::LANES;
    let TileRows::Range { start, mask, .. } = tile.rows else { unreachable!("rows of a list are packed") };
    let rows = TileRows::Range { start, len: whole, mask };
    // SAFETY: as for `scan`.
    unsafe {
        scan_groups::<V>(&Rows::<W>(query), &Tile { rows, ..*tile }, topk);
        for offset in whole..tile.rows.len() {
            let distance = <u64 as Lanes>::row_distances::<W>(tile.words.add(offset * W), query);
            tile.offer(offset, distance as u32, topk);
        }
    }
}

/// How the distances of a query to a group of codes come about. A trait rather than closures: a closure is compiled without
/// the target features of the function around it, and its vector operations would become calls.
trait Distances<V: Lanes> {
    /// Words of a code.
    fn words(&self) -> usize;
    /// Distances to the group of codes at `group`.
    unsafe fn of_group(&self, group: *const u64) -> V;
}

/// A query of `W` words, held in registers, against packed groups.
struct PackedWords<V, const W: usize>([V; W]);

impl<V: Lanes, const W: usize> PackedWords<V, W> {
    #[inline(always)]
    unsafe fn new(query: &[u64]) -> Self {
        // SAFETY: as for `scan`.
        unsafe {
            let mut words = [V::zero(); W];
            for (word, &value) in words.iter_mut().zip(query) {
                *word = V::splat(value);
            }
            Self(words)
        }
    }
}

impl<V: Lanes, const W: usize> Distances<V> for PackedWords<V, W> {
    #[inline(always)]
    fn words(&self) -> usize {
        W
    }

    #[inline(always)]
    unsafe fn of_group(&self, group: *const u64) -> V {
        // SAFETY: as for `scan`.
        unsafe {
            let mut sum = V::load(group).xor(self.0[0]).count_ones();
            for (i, &word) in self.0.iter().enumerate().skip(1) {
                sum = sum.add(V::load(group.add(i * V::LANES)).xor(word).count_ones());
            }
            sum
        }
    }
}

/// A query of any length against packed groups.
struct PackedAny<'a>(&'a [u64]);

impl<V: Lanes> Distances<V> for PackedAny<'_> {
    #[inline(always)]
    fn words(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    unsafe fn of_group(&self, group: *const u64) -> V {
        // SAFETY: as for `scan`.
        unsafe {
            let mut sum = V::zero();
            for (i, &word) in self.0.iter().enumerate() {
                sum = sum.add(V::load(group.add(i * V::LANES)).xor(V::splat(word)).count_ones());
            }
            sum
        }
    }
}

/// A query of `W` words against rows where they lie, which come from memory: the scan asks for them ahead.
struct Rows<'a, const W: usize>(&'a [u64]);

impl<V: Lanes, const W: usize> Distances<V> for Rows<'_, W> {
    #[inline(always)]
    fn words(&self) -> usize {
        W
    }

    #[inline(always)]
    unsafe fn of_group(&self, group: *const u64) -> V {
        // SAFETY: as for `scan`.
        unsafe {
            for line in (0..W * V::LANES * 8).step_by(64) {
                V::prefetch(group.cast::<u8>().wrapping_add(PREFETCH_BYTES + line));
            }
            V::row_distances::<W>(group, self.0)
        }
    }
}

/// Walk the groups of a tile, and offer the rows below the bound to `topk`.
///
/// The common case, no lane below the bound, keeps everything in registers; groups that have one are visited again.
#[inline(always)]
unsafe fn scan_groups<V: Lanes>(query: &impl Distances<V>, tile: &Tile, topk: &mut TopK) {
    let groups = tile.rows.len().div_ceil(V::LANES);
    let stride = query.words() * V::LANES;
    let mut group = 0;
    // SAFETY: as for `scan`; no group past the last is touched.
    unsafe {
        while group + UNROLL <= groups {
            let bound = V::splat(u64::from(topk.bound()));
            // A loop of its own, which leaves the registers to the words of the query.
            while group + UNROLL <= groups {
                let words = tile.words.add(group * stride);
                let mut nearest = query.of_group(words);
                for i in 1..UNROLL {
                    nearest = nearest.min(query.of_group(words.add(i * stride)));
                }
                if nearest.below(bound) != 0 {
                    break;
                }
                group += UNROLL;
            }
            let end = (group + UNROLL).min(groups);
            while group < end {
                offer_group(query.of_group(tile.words.add(group * stride)), group, tile, topk);
                group += 1;
            }
        }
        for group in group..groups {
            offer_group(query.of_group(tile.words.add(group * stride)), group, tile, topk);
        }
    }
}

/// Offer the rows of a group that are below the bound to `topk`.
#[inline(always)]
unsafe fn offer_group<V: Lanes>(sums: V, group: usize, tile: &Tile, topk: &mut TopK) {
    let offset = group * V::LANES;
    let lanes = V::LANES.min(tile.rows.len() - offset);
    let mut distances = [0; 8];
    // SAFETY: as for `scan`.
    let mut below = unsafe {
        sums.store(&mut distances);
        sums.below(V::splat(u64::from(topk.bound()))) & ((1 << lanes) - 1)
    };
    while below != 0 {
        let lane = below.trailing_zeros() as usize;
        tile.offer(offset + lane, distances[lane] as u32, topk);
        below &= below - 1;
    }
}
