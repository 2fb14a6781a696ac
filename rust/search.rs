//! Exact Hamming search: queries × codes in tiles, over threads, with a top-k for each query.
//!
//! A batch of queries walks the codes once: a tile of codes is packed into the first-level cache and scanned by every query
//! of the batch before the next tile is read. Threads claim chunks of rows from a shared counter, in ascending order, so a
//! slow or busy core takes fewer chunks and delays nobody; each thread keeps its own top-k, and the merge by (distance, row)
//! makes the result independent of who scanned what. Rows that a mask excludes are never packed: a sparse mask costs what
//! its survivors cost.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hamming::{ROW_WORDS, Tile, TileRows, code_words};
use crate::simd::Tier;
use crate::topk::{Hit, TopK};

/// Queries that share one walk over the codes, at most: bounds the memory for their top-k.
const QUERY_TILE: usize = 128;

/// Bytes of a tile: it stays in a first-level cache of 32 KiB, beside the queries.
const TILE_BYTES: usize = 24 << 10;

/// Bytes of a cache line, which are those of the widest vector.
const CACHE_LINE: usize = 64;

/// Queries from which packing a tile costs less than it saves.
const QUERIES_WORTH_PACKING: usize = 4;

/// Rows that a thread claims at a time: half a millisecond of work or so for a batch, so that threads end together.
const CHUNK_ROWS: usize = 16384;

/// Bytes compared below which a second thread would cost more than it brings.
const BYTES_WORTH_A_THREAD: usize = 64 << 20;

/// Binary codes: whole rows of `bytes` bytes.
#[derive(Clone, Copy)]
pub struct Codes<'a> {
    data: &'a [u8],
    bytes: usize,
}

impl<'a> Codes<'a> {
    /// Codes of `bytes` bytes each.
    ///
    /// # Panics
    /// If `bytes` is 0 or does not divide the length of `data`.
    pub fn new(data: &'a [u8], bytes: usize) -> Self {
        assert!(bytes > 0, "a code must have at least one byte");
        assert_eq!(data.len() % bytes, 0, "the codes are not whole");
        Self { data, bytes }
    }

    /// Number of codes.
    pub fn len(&self) -> usize {
        self.data.len() / self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Bytes of one code.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The code of a row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.data[row * self.bytes..][..self.bytes]
    }
}

/// For each query the `k` nearest codes by Hamming distance, ties by row number; fewer if fewer rows pass the mask.
///
/// `mask`, one flag a row, keeps the rows that are true. `threads` is an upper limit: small work runs on one.
///
/// # Panics
/// If the code lengths differ, `k` or `threads` is 0, or the mask has another length than the codes.
pub fn search(
    tier: &Tier,
    queries: Codes,
    codes: Codes,
    k: usize,
    mask: Option<&[bool]>,
    threads: usize,
) -> Vec<Vec<Hit>> {
    assert_eq!(queries.bytes, codes.bytes, "queries and codes have different lengths");
    assert!(k >= 1, "k must be positive");
    assert!(threads >= 1, "threads must be positive");
    assert!(mask.is_none_or(|mask| mask.len() == codes.len()), "the mask has another length than the codes");
    let mut hits = Vec::with_capacity(queries.len());
    // Batches of the same size, because a walk for a few queries costs nearly as much as one for many.
    let batches = queries.len().div_ceil(QUERY_TILE).max(1);
    let batch_queries = queries.len().div_ceil(batches).max(1);
    for batch in queries.data.chunks(batch_queries * queries.bytes) {
        hits.extend(search_batch(tier, Codes::new(batch, queries.bytes), codes, k, mask, threads));
    }
    hits
}

/// [`search`] for a batch of queries that walk the codes together.
fn search_batch(
    tier: &Tier,
    queries: Codes,
    codes: Codes,
    k: usize,
    mask: Option<&[bool]>,
    threads: usize,
) -> Vec<Vec<Hit>> {
    let padded = padded_words(queries);
    let chunks = codes.len().div_ceil(CHUNK_ROWS);
    let worth = (codes.data.len().saturating_mul(queries.len()) / BYTES_WORTH_A_THREAD).max(1);
    let threads = threads.min(worth).min(chunks.max(1));
    let next_chunk = AtomicUsize::new(0);
    let work = || {
        let mut walk = Walk::new(tier, &padded, codes, k, mask);
        loop {
            let start = next_chunk.fetch_add(1, Ordering::Relaxed) * CHUNK_ROWS;
            if start >= codes.len() {
                return walk.finish();
            }
            walk.chunk(start, (start + CHUNK_ROWS).min(codes.len()));
        }
    };
    let parts: Vec<Vec<Vec<Hit>>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined = others.into_iter().map(|other| other.join().expect("a search thread panicked"));
        std::iter::once(own).chain(joined).collect()
    });
    merge(parts, k)
}

/// The k nearest of the threads' answers, for each query.
fn merge(parts: Vec<Vec<Vec<Hit>>>, k: usize) -> Vec<Vec<Hit>> {
    let mut parts = parts.into_iter();
    let mut merged = parts.next().unwrap_or_default();
    for part in parts {
        for (hits, more) in merged.iter_mut().zip(part) {
            hits.extend(more);
        }
    }
    for hits in &mut merged {
        hits.sort_unstable();
        hits.truncate(k);
    }
    merged
}

/// Query codes as 64-bit words, `code_words` each, the last one of a code filled up with zeros.
fn padded_words(queries: Codes) -> Vec<u64> {
    let mut words = Vec::with_capacity(queries.len() * code_words(queries.bytes));
    for row in 0..queries.len() {
        for chunk in queries.row(row).chunks(8) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            words.push(u64::from_le_bytes(padded));
        }
    }
    words
}

/// Up to 64 flags as the bits of a word, the first flag lowest.
#[inline]
fn flag_bits(flags: &[bool]) -> u64 {
    let (eights, rest) = flags.as_chunks::<8>();
    let bits = eights.iter().enumerate().fold(0, |bits, (i, eight)| {
        // The product moves the lowest bit of byte j to bit 56 + j, and nothing else comes there.
        let bytes = u64::from_le_bytes(eight.map(u8::from));
        bits | bytes.wrapping_mul(0x0102_0408_1020_4080) >> 56 << (8 * i)
    });
    let rest_bits = rest.iter().rev().fold(0, |bits, flag| bits << 1 | u64::from(*flag));
    if rest.is_empty() { bits } else { bits | rest_bits << (8 * eights.len()) }
}

/// What one thread carries along: its tile and a top-k for each query.
struct Walk<'a> {
    tier: &'a Tier,
    queries: &'a [u64],
    codes: Codes<'a>,
    mask: Option<&'a [bool]>,
    packed: Vec<u64>,
    kept: Vec<usize>,
    topk: Vec<TopK>,
    tile_rows: usize,
}

impl<'a> Walk<'a> {
    fn new(tier: &'a Tier, queries: &'a [u64], codes: Codes<'a>, k: usize, mask: Option<&'a [bool]>) -> Self {
        let max_distance = 8 * codes.bytes as u32;
        let topk = queries.chunks(code_words(codes.bytes)).map(|_| TopK::new(k, max_distance)).collect();
        let tile_rows = (TILE_BYTES / codes.bytes).max(tier.lanes).next_multiple_of(tier.lanes);
        let packed = vec![0; tile_rows * code_words(codes.bytes) + CACHE_LINE / 8];
        Self { tier, queries, codes, mask, packed, kept: Vec::new(), topk, tile_rows }
    }

    /// Scan the rows from `start` to `end`.
    fn chunk(&mut self, start: usize, end: usize) {
        match self.mask {
            None => {
                for start in (start..end).step_by(self.tile_rows) {
                    self.tile(TileRows::Range { start, len: self.tile_rows.min(end - start) });
                }
            }
            Some(mask) => self.masked_chunk(mask, start, end),
        }
    }

    /// Scan the rows that the mask keeps, gathered into full tiles; 64 masked rows in a row cost one comparison. What
    /// fills no tile is left for the next chunk, which has later rows.
    fn masked_chunk(&mut self, mask: &[bool], start: usize, end: usize) {
        let mut kept = std::mem::take(&mut self.kept);
        for (word, flags) in mask[start..end].chunks(64).enumerate() {
            let mut bits = flag_bits(flags);
            while bits != 0 {
                kept.push(start + word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
            while kept.len() >= self.tile_rows {
                self.tile(TileRows::List(&kept[..self.tile_rows]));
                kept.drain(..self.tile_rows);
            }
        }
        self.kept = kept;
    }

    /// Scan a tile with every query, packed first where that pays.
    fn tile(&mut self, rows: TileRows) {
        let bytes = self.codes.bytes;
        let whole_words = bytes.is_multiple_of(8);
        let few = self.topk.len() < QUERIES_WORTH_PACKING && whole_words && ROW_WORDS.contains(&(bytes / 8));
        let (words, packed) = match rows {
            // With one lane the packed order is that of the rows.
            TileRows::Range { start, .. } if few || (whole_words && self.tier.lanes == 1) => {
                (self.codes.row(start).as_ptr().cast(), !few)
            }
            _ => {
                // A vector that straddles two cache lines takes two loads.
                let aligned = self.packed.as_ptr().align_offset(CACHE_LINE);
                let words = &mut self.packed[aligned..];
                // SAFETY: a `Tier` is handed out only where its instructions were detected.
                unsafe { (self.tier.pack)(self.codes.data, bytes, rows, words) };
                (words.as_ptr(), true)
            }
        };
        let tile = Tile { words, packed, rows };
        for (query, topk) in self.queries.chunks(code_words(bytes)).zip(&mut self.topk) {
            // SAFETY: as above; the words are those of the rows, in whole groups if packed.
            unsafe { (self.tier.scan)(query, &tile, topk) };
        }
    }

    fn finish(mut self) -> Vec<Vec<Hit>> {
        let kept = std::mem::take(&mut self.kept);
        if !kept.is_empty() {
            self.tile(TileRows::List(&kept));
        }
        self.topk.into_iter().map(TopK::into_sorted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_ROWS, Codes, Hit, search};
    use crate::hamming::distance;
    use crate::simd::available_tiers;
    use proptest::prelude::*;

    fn naive(queries: Codes, codes: Codes, k: usize, mask: Option<&[bool]>) -> Vec<Vec<Hit>> {
        let nearest = |query: &[u8]| {
            let rows = (0..codes.len()).filter(|&row| mask.is_none_or(|mask| mask[row]));
            let mut hits: Vec<Hit> =
                rows.map(|row| Hit { distance: distance(query, codes.row(row)), row: row as u64 }).collect();
            hits.sort();
            hits.truncate(k);
            hits
        };
        (0..queries.len()).map(|row| nearest(queries.row(row))).collect()
    }

    /// Bytes that repeat often enough to make ties.
    fn bytes(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 60) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn every_tier_equals_the_naive_search(
            code_bytes in 1usize..=200, rows in 0usize..1300, queries in 0usize..5, k in 1usize..40,
            seed: u64, offset in 0usize..9, masked in 0u8..4,
        ) {
            let data = bytes(offset + rows * code_bytes, seed);
            let asked = bytes(offset + queries * code_bytes, !seed);
            let (codes, queries) = (Codes::new(&data[offset..], code_bytes), Codes::new(&asked[offset..], code_bytes));
            let mask: Vec<bool> = bytes(rows, seed ^ 7).iter().map(|byte| byte % 16 < 5 * masked).collect();
            let mask = (masked < 3).then_some(&mask[..]);
            let expected = naive(queries, codes, k, mask);
            for tier in available_tiers() {
                prop_assert_eq!(&search(tier, queries, codes, k, mask, 1), &expected, "tier {}", tier.name);
            }
        }
    }

    #[test]
    fn every_code_length_on_every_tier() {
        for code_bytes in 1..=200 {
            let (data, asked) = (bytes(1 + 700 * code_bytes, 3), bytes(3 * code_bytes, 4));
            let (codes, queries) = (Codes::new(&data[1..], code_bytes), Codes::new(&asked, code_bytes));
            let expected = naive(queries, codes, 9, None);
            for tier in available_tiers() {
                assert_eq!(search(tier, queries, codes, 9, None, 1), expected, "{} at {code_bytes} bytes", tier.name);
            }
        }
    }

    #[test]
    fn threads_and_batches_change_nothing() {
        // Enough work for several threads, and more queries than a batch holds.
        let (data, asked) = (bytes((5 * CHUNK_ROWS + 77) * 16, 5), bytes(300 * 16, 6));
        let (codes, queries) = (Codes::new(&data, 16), Codes::new(&asked, 16));
        let tier = available_tiers().last().unwrap();
        let expected = search(tier, queries, codes, 20, None, 1);
        for threads in [2, 3, 8] {
            assert_eq!(search(tier, queries, codes, 20, None, threads), expected, "{threads} threads");
        }
        for percent in [1, 50] {
            let mask: Vec<bool> = bytes(2 * codes.len(), 7).chunks(2).map(|b| b[0] * 16 + b[1] < percent * 2).collect();
            let expected = search(tier, queries, codes, 20, Some(&mask), 1);
            assert_eq!(naive(Codes::new(queries.row(299), 16), codes, 20, Some(&mask))[0], expected[299]);
            assert_eq!(search(tier, queries, codes, 20, Some(&mask), 3), expected, "{percent} % of the rows");
        }
        for row in [0, 123, 299] {
            let query = Codes::new(queries.row(row), 16);
            assert_eq!(search(tier, query, codes, 20, None, 4)[0], expected[row], "query {row} alone");
        }
        assert_eq!(naive(Codes::new(queries.row(299), 16), codes, 20, None)[0], expected[299]);
    }

    #[test]
    fn k_beyond_the_rows_gives_all_of_them() {
        let (data, asked) = (bytes(40, 1), bytes(8, 2));
        for tier in available_tiers() {
            let hits = search(tier, Codes::new(&asked, 8), Codes::new(&data, 8), usize::MAX, None, 1);
            assert_eq!(hits[0].len(), 5);
            assert!(search(tier, Codes::new(&asked, 8), Codes::new(&[], 8), 3, None, 1)[0].is_empty());
        }
    }
}
