//! Exact Hamming search: queries × codes in tiles, over threads, with a top-k for each query.
//!
//! A batch of queries walks the codes once: a tile of codes is packed into the first-level cache and scanned by every query
//! of the batch before the next tile is read. Each thread keeps its own top-k over the chunks that it claims, of whatever part
//! ([`crate::parts`]), and the merge by (distance, row) makes the result independent of who scanned what.

use crate::hamming::{ROW_WORDS, Tile, code_words};
use crate::matrix::Batch;
use crate::parts::{Mask, TileRows, chunks, claim, for_each_tile, merge};
use crate::simd::{BatchScan, Tier};
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

/// Codes to search beside those of other parts.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The codes.
    pub codes: Codes<'a>,
    /// Which of them to search; all of them, if there is none.
    pub mask: Option<Mask<'a>>,
}

/// For each query the `k` nearest codes of all parts by Hamming distance, ties by row number; fewer if fewer rows are kept.
///
/// Rows are numbered through over the parts. `threads` is an upper limit: small work runs on one.
///
/// # Panics
/// If the code lengths differ, `k` or `threads` is 0, or a mask has another length than its codes.
pub fn search(tier: &Tier, queries: Codes, parts: &[Part], k: usize, threads: usize) -> Vec<Vec<Hit>> {
    assert!(parts.iter().all(|part| part.codes.bytes == queries.bytes), "queries and codes have different lengths");
    assert!(k >= 1, "k must be positive");
    assert!(threads >= 1, "threads must be positive");
    let chunks = chunks(parts.iter().map(|part| (part.codes.len(), part.mask)), CHUNK_ROWS);
    let mut hits = Vec::with_capacity(queries.len());
    // Batches of the same size, because a walk for a few queries costs nearly as much as one for many.
    let batches = queries.len().div_ceil(QUERY_TILE).max(1);
    let batch_queries = queries.len().div_ceil(batches).max(1);
    for batch in queries.data.chunks(batch_queries * queries.bytes) {
        let batch = Codes::new(batch, queries.bytes);
        let words = padded_words(batch);
        let found = claim(&chunks, batch.bytes, batch.len(), threads, |chunks| {
            let mut walk = Walk::new(tier, &words, batch.bytes, parts, k);
            for_each_tile(chunks, walk.tile_rows, batch.len(), |part, first, rows| walk.tile(part, first, rows));
            walk.topk.into_iter().map(TopK::into_sorted).collect()
        });
        hits.extend(merge(found, k));
    }
    hits
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

/// What one thread carries along: a packed tile, and a top-k for each query.
struct Walk<'a> {
    tier: &'a Tier,
    queries: &'a [u64],
    bytes: usize,
    parts: &'a [Part<'a>],
    packed: Vec<u64>,
    /// The queries once more, where the tier scans batches and there are enough of them.
    batch: Option<(BatchScan, Batch)>,
    topk: Vec<TopK>,
    tile_rows: usize,
}

impl<'a> Walk<'a> {
    fn new(tier: &'a Tier, queries: &'a [u64], bytes: usize, parts: &'a [Part<'a>], k: usize) -> Self {
        let max_distance = 8 * bytes as u32;
        let words = code_words(bytes);
        let topk: Vec<_> = queries.chunks(words).map(|_| TopK::new(k, max_distance)).collect();
        let batch = tier.batch.filter(|batch| topk.len() >= batch.queries);
        let batch = batch.map(|batch| (batch, Batch::new(queries, words)));
        let tile_rows = (TILE_BYTES / bytes).max(tier.lanes).next_multiple_of(tier.lanes);
        let packed = vec![0; tile_rows * words + CACHE_LINE / 8];
        Self { tier, queries, bytes, parts, packed, batch, topk, tile_rows }
    }

    /// Scan a tile of a part with every query, packed first where that pays.
    fn tile(&mut self, part: usize, first: usize, rows: TileRows) {
        let (bytes, codes) = (self.bytes, self.parts[part].codes);
        let whole_words = bytes.is_multiple_of(8);
        let few = self.topk.len() < QUERIES_WORTH_PACKING && whole_words && ROW_WORDS.contains(&(bytes / 8));
        let (words, packed) = match rows {
            // With one lane the packed order is that of the rows.
            TileRows::Range { start, .. } if few || (whole_words && self.tier.lanes == 1) => {
                (codes.row(start).as_ptr().cast(), !few)
            }
            _ => {
                // A vector that straddles two cache lines takes two loads.
                let aligned = self.packed.as_ptr().align_offset(CACHE_LINE);
                let words = &mut self.packed[aligned..];
                // SAFETY: a `Tier` is handed out only where its instructions were detected.
                unsafe { (self.tier.pack)(codes.data, bytes, rows, words) };
                (words.as_ptr(), true)
            }
        };
        let tile = Tile { words, packed, first, rows };
        if let Some((batch, queries)) = &mut self.batch {
            // SAFETY: as above; the words are those of the rows, in whole groups.
            unsafe { (batch.scan)(queries, &tile, &mut self.topk) };
            return;
        }
        for (query, topk) in self.queries.chunks(code_words(bytes)).zip(&mut self.topk) {
            // SAFETY: as above; the words are those of the rows, in whole groups if packed.
            unsafe { (self.tier.scan)(query, &tile, topk) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchScan, CHUNK_ROWS, Codes, Hit, Part, QUERIES_WORTH_PACKING, Tier, TileRows, search};
    use crate::hamming::{self, distance};
    use crate::matrix::{LANES, tests::scan_by_model};
    use crate::parts::Mask;
    use crate::simd::available_tiers;
    use proptest::prelude::*;

    fn naive(queries: Codes, codes: Codes, k: usize, keeps: impl Fn(usize) -> bool) -> Vec<Vec<Hit>> {
        let nearest = |query: &[u8]| {
            let rows = (0..codes.len()).filter(|&row| keeps(row));
            let mut hits: Vec<Hit> =
                rows.map(|row| Hit { distance: distance(query, codes.row(row)), row: row as u64 }).collect();
            hits.sort();
            hits.truncate(k);
            hits
        };
        (0..queries.len()).map(|row| nearest(queries.row(row))).collect()
    }

    fn whole(codes: Codes) -> [Part; 1] {
        [Part { codes, mask: None }]
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

    /// A mask that keeps about so many sixteenths of the rows, and sets what it likes past them.
    fn mask_bits(rows: usize, sixteenths: u8, seed: u64) -> Vec<u8> {
        let bit = |byte: &[u8]| byte.iter().rev().fold(0, |bits, &value| bits << 1 | u8::from(value < sixteenths));
        bytes(rows.next_multiple_of(8), seed).chunks(8).map(bit).collect()
    }

    /// A tier of packed tiles of eight lanes, scanned by the model of a matrix unit.
    fn matrix_model() -> Tier {
        unsafe fn pack(codes: &[u8], bytes: usize, rows: TileRows, out: &mut [u64]) {
            hamming::pack(codes, bytes, rows, LANES, out);
        }
        let batch = Some(BatchScan { queries: QUERIES_WORTH_PACKING, scan: scan_by_model });
        Tier { name: "matrix model", lanes: LANES, pack, batch, ..*available_tiers().next().unwrap() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn every_tier_and_partition_equals_the_naive_search(
            code_bytes in 1usize..=200, cuts in prop::collection::vec(0usize..1300, 1..5), queries in 0usize..6, k in 1usize..40,
            seed: u64, offset in 0usize..9, kept in prop::collection::vec(0u8..=20, 5),
        ) {
            let mut cuts = [&cuts[..], &[0]].concat();
            cuts.sort_unstable();
            let rows = *cuts.last().unwrap();
            let data = bytes(offset + rows * code_bytes, seed);
            let asked = bytes(offset + queries * code_bytes, !seed);
            let (codes, queries) = (Codes::new(&data[offset..], code_bytes), Codes::new(&asked[offset..], code_bytes));
            let (mut masks, mut keeps) = (Vec::new(), Vec::new());
            for (cut, &sixteenths) in cuts.windows(2).zip(&kept) {
                let len = cut[1] - cut[0];
                let bits = mask_bits(len, sixteenths, seed ^ 7);
                // Beyond sixteen there is no mask.
                keeps.extend((0..len).map(|row| sixteenths > 16 || Mask::new(&bits, len).keeps(row)));
                masks.push((sixteenths <= 16).then_some(bits));
            }
            let parts: Vec<Part> = cuts.windows(2).zip(&masks).map(|(cut, bits)| Part {
                codes: Codes::new(&codes.data[cut[0] * code_bytes..cut[1] * code_bytes], code_bytes),
                mask: bits.as_ref().map(|bits| Mask::new(bits, cut[1] - cut[0])),
            }).collect();
            let expected = naive(queries, codes, k, |row| keeps[row]);
            for tier in available_tiers() {
                prop_assert_eq!(&search(tier, queries, &parts, k, 1), &expected, "tier {}", tier.name);
            }
            if queries.len() >= QUERIES_WORTH_PACKING {
                prop_assert_eq!(search(&matrix_model(), queries, &parts, k, 1), expected, "matrix model");
            }
        }
    }

    #[test]
    fn every_code_length_on_every_tier() {
        for code_bytes in 1..=200 {
            let (data, asked) = (bytes(1 + 700 * code_bytes, 3), bytes(70 * code_bytes, 4));
            let codes = Codes::new(&data[1..], code_bytes);
            for count in [1, 5, 70] {
                let queries = Codes::new(&asked[..count * code_bytes], code_bytes);
                let expected = naive(queries, codes, 9, |_| true);
                for tier in available_tiers() {
                    let hits = search(tier, queries, &whole(codes), 9, 1);
                    assert_eq!(hits, expected, "{} at {code_bytes} bytes, {count} queries", tier.name);
                }
            }
        }
    }

    #[test]
    fn threads_batches_and_parts_change_nothing() {
        // Enough work for several threads, and more queries than a batch holds.
        let rows = 5 * CHUNK_ROWS + 77;
        let (data, asked) = (bytes(rows * 16, 5), bytes(300 * 16, 6));
        let (codes, queries) = (Codes::new(&data, 16), Codes::new(&asked, 16));
        let tier = available_tiers().last().unwrap();
        let expected = search(tier, queries, &whole(codes), 20, 1);
        assert_eq!(naive(Codes::new(queries.row(299), 16), codes, 20, |_| true)[0], expected[299]);
        let cut: Vec<Part> =
            data.chunks(9999 * 16).map(|data| Part { codes: Codes::new(data, 16), mask: None }).collect();
        for threads in [1, 2, 3, 8] {
            assert_eq!(search(tier, queries, &whole(codes), 20, threads), expected, "{threads} threads");
            assert_eq!(search(tier, queries, &cut, 20, threads), expected, "{threads} threads, {} parts", cut.len());
        }
        for row in [0, 123, 299] {
            let query = Codes::new(queries.row(row), 16);
            assert_eq!(search(tier, query, &whole(codes), 20, 4)[0], expected[row], "query {row} alone");
        }
        for sixteenths in [1, 8, 15] {
            let bits = mask_bits(rows, sixteenths, 7);
            let mask = Mask::new(&bits, rows);
            let parts = [Part { codes, mask: Some(mask) }];
            let expected = search(tier, queries, &parts, 20, 1);
            assert_eq!(naive(Codes::new(queries.row(299), 16), codes, 20, |row| mask.keeps(row))[0], expected[299]);
            assert_eq!(search(tier, queries, &parts, 20, 3), expected, "{sixteenths}/16 of the rows");
            let query = Codes::new(queries.row(299), 16);
            assert_eq!(search(tier, query, &parts, 20, 3)[0], expected[299], "{sixteenths}/16 of the rows");
        }
    }

    #[test]
    fn k_beyond_the_rows_gives_all_of_them() {
        let (data, asked) = (bytes(40, 1), bytes(8, 2));
        let query = Codes::new(&asked, 8);
        for tier in available_tiers() {
            assert_eq!(search(tier, query, &whole(Codes::new(&data, 8)), usize::MAX, 1)[0].len(), 5);
            assert!(search(tier, query, &whole(Codes::new(&[], 8)), 3, 1)[0].is_empty());
            assert!(search(tier, query, &[], 3, 1)[0].is_empty());
        }
    }
}
