//! Rows in several pieces of memory, searched as one: their numbers, their masks, and the chunks that threads claim.
//!
//! An index has a part for each of its segments. Rows are numbered through over the parts, and chunks of all parts are
//! claimed from one counter in ascending order, so a slow or busy core takes fewer chunks and delays nobody, and whatever a
//! thread has found bounds the rest of its search, in the next part as well.
//!
//! Chunks are searched in tiles that fit a cache. Where a mask keeps few rows, only these are gathered into a tile: they cost
//! what they would without the others. Where it keeps most, all rows are compared, and those that are good enough are looked
//! up in the mask.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes compared below which a second thread would cost more than it brings: a few milliseconds of one thread, which is
/// as long as a system lets another program have a core, and so as long as a second thread may be waited for.
const BYTES_WORTH_A_THREAD: usize = 128 << 20;

/// Cost of bringing a row into a tile, in comparisons of it with a query, where rows are read in order.
const READING: usize = 4;

/// The same where a mask picks them.
const GATHERING: usize = 28;

/// Which rows of a part to search: one bit a row, the first row in the lowest bit of the first byte, as
/// `numpy.packbits(mask, bitorder="little")` has them.
#[derive(Clone, Copy)]
pub struct Mask<'a> {
    bits: &'a [u8],
    rows: usize,
}

impl<'a> Mask<'a> {
    /// The bits of so many rows.
    ///
    /// # Panics
    /// If there are not `rows.div_ceil(8)` bytes.
    pub fn new(bits: &'a [u8], rows: usize) -> Self {
        assert_eq!(bits.len(), rows.div_ceil(8), "the mask has another length than the rows");
        Self { bits, rows }
    }

    /// Number of rows, kept or not.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether a row is kept.
    #[inline(always)]
    pub fn keeps(&self, row: usize) -> bool {
        self.bits[row / 8] >> (row % 8) & 1 == 1
    }

    /// The bits of 64 rows at a time, from the row `rows.start` on, which must be a multiple of 8; those past the end are 0.
    fn words(&self, rows: Range<usize>) -> impl Iterator<Item = u64> + use<'a> {
        debug_assert!(rows.start.is_multiple_of(8) && rows.end <= self.rows);
        let bytes = &self.bits[rows.start / 8..rows.end.div_ceil(8)];
        bytes.chunks(8).enumerate().map(move |(i, chunk)| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let left = rows.len() - i * 64;
            u64::from_le_bytes(word) & if left < 64 { (1 << left) - 1 } else { !0 }
        })
    }

    /// How many of a range of rows are kept.
    fn count(&self, rows: Range<usize>) -> usize {
        self.words(rows).map(|word| word.count_ones() as usize).sum()
    }

    /// The rows of a range that are kept, ascending; 64 rows of which none is cost one comparison.
    pub fn kept(&self, rows: Range<usize>) -> impl Iterator<Item = usize> + use<'a> {
        let start = rows.start;
        self.words(rows).enumerate().flat_map(move |(i, mut word)| {
            std::iter::from_fn(move || {
                let row = start + i * 64 + word.trailing_zeros() as usize;
                (word != 0).then(|| {
                    word &= word - 1;
                    row
                })
            })
        })
    }
}

/// Rows of a part that a thread claims at a time.
#[derive(Clone)]
pub(crate) struct Chunk<'a> {
    /// The part.
    pub part: usize,
    /// The number of the part's first row among the rows of all parts.
    pub first: usize,
    /// Rows of the part.
    pub rows: Range<usize>,
    /// How many of them the mask keeps; at least 1.
    pub kept: usize,
    /// The mask, unless it keeps them all.
    pub mask: Option<Mask<'a>>,
}

/// The rows of a tile, by their numbers in their part.
#[derive(Clone, Copy)]
pub(crate) enum TileRows<'a> {
    /// `len` rows from `start` on.
    Range {
        /// The first row.
        start: usize,
        /// How many.
        len: usize,
        /// Which of them to take, if not all.
        mask: Option<Mask<'a>>,
    },
    /// The rows that a mask keeps, ascending.
    List(&'a [usize]),
}

impl TileRows<'_> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Range { len, .. } => *len,
            Self::List(rows) => rows.len(),
        }
    }

    /// Row number of the tile's row at `offset`.
    #[inline(always)]
    pub fn get(&self, offset: usize) -> usize {
        match self {
            Self::Range { start, .. } => start + offset,
            Self::List(rows) => rows[offset],
        }
    }

    /// Whether the tile's row at `offset`, which was compared, is to be taken.
    #[inline(always)]
    pub fn keeps(&self, offset: usize) -> bool {
        !matches!(self, Self::Range { start, mask: Some(mask), .. } if !mask.keeps(start + offset))
    }
}

/// All rows of parts of so many rows, in chunks of at most `chunk_rows` (a multiple of 64), without those that keep none.
pub(crate) fn chunks<'a>(
    parts: impl IntoIterator<Item = (usize, Option<Mask<'a>>)>,
    chunk_rows: usize,
) -> Vec<Chunk<'a>> {
    let mut chunks = Vec::new();
    let mut first = 0;
    for (part, (rows, mask)) in parts.into_iter().enumerate() {
        assert!(mask.is_none_or(|mask| mask.rows == rows), "the mask has another length than the rows");
        for start in (0..rows).step_by(chunk_rows) {
            let range = start..(start + chunk_rows).min(rows);
            let kept = mask.map_or(range.len(), |mask| mask.count(range.clone()));
            if kept > 0 {
                let mask = mask.filter(|_| kept < range.len());
                chunks.push(Chunk { part, first, rows: range, kept, mask });
            }
        }
        first += rows;
    }
    chunks
}

/// Give chunks of rows of `row_bytes` bytes, each compared with `queries` queries, to at most `threads` threads: `work` runs on
/// each of them with the chunks that it claims, in ascending order. Little work runs on one thread.
pub(crate) fn claim<T: Send>(
    chunks: &[Chunk],
    row_bytes: usize,
    queries: usize,
    threads: usize,
    work: impl Fn(&mut dyn Iterator<Item = &Chunk<'_>>) -> T + Sync,
) -> Vec<T> {
    let kept: usize = chunks.iter().map(|chunk| chunk.kept).sum();
    let worth = kept.saturating_mul(row_bytes).saturating_mul(queries) / BYTES_WORTH_A_THREAD;
    let threads = threads.min(worth).min(chunks.len()).max(1);
    let next = AtomicUsize::new(0);
    let work = || work(&mut std::iter::from_fn(|| chunks.get(next.fetch_add(1, Ordering::Relaxed))));
    std::thread::scope(|scope| {
        // Where the system has no thread to give, those that there are do the work.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        let own = work();
        let joined = others.into_iter().map(|other| other.join().expect("a search thread panicked"));
        std::iter::once(own).chain(joined).collect()
    })
}

/// Cut chunks into tiles of at most `tile_rows` rows, to be compared with `queries` queries: `scan` gets each with its part and
/// the number of the part's first row, rows ascending.
pub(crate) fn for_each_tile<'a>(
    chunks: &mut dyn Iterator<Item = &Chunk<'a>>,
    tile_rows: usize,
    queries: usize,
    mut scan: impl FnMut(usize, usize, TileRows),
) {
    // Rows that a mask kept and that fill no tile wait for the next chunk of their part, which has later rows.
    let mut kept: Vec<usize> = Vec::new();
    let (mut part, mut first) = (0, 0);
    let scan_kept = |kept: &mut Vec<usize>, part, first, scan: &mut dyn FnMut(usize, usize, TileRows)| {
        if !kept.is_empty() {
            scan(part, first, TileRows::List(kept));
            kept.clear();
        }
    };
    for chunk in chunks {
        let mask = chunk.mask.filter(|_| chunk.kept * (GATHERING + queries) < chunk.rows.len() * (READING + queries));
        if part != chunk.part || mask.is_none() {
            scan_kept(&mut kept, part, first, &mut scan);
            (part, first) = (chunk.part, chunk.first);
        }
        if let Some(mask) = mask {
            for row in mask.kept(chunk.rows.clone()) {
                kept.push(row);
                if kept.len() == tile_rows {
                    scan_kept(&mut kept, part, first, &mut scan);
                }
            }
        } else {
            for start in chunk.rows.clone().step_by(tile_rows) {
                let len = tile_rows.min(chunk.rows.end - start);
                scan(part, first, TileRows::Range { start, len, mask: chunk.mask });
            }
        }
    }
    scan_kept(&mut kept, part, first, &mut scan);
}

/// The k first of the threads' hits, for each query.
pub(crate) fn merge<H: Ord>(found: Vec<Vec<Vec<H>>>, k: usize) -> Vec<Vec<H>> {
    let mut found = found.into_iter();
    let mut merged = found.next().unwrap_or_default();
    for part in found {
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

#[cfg(test)]
mod tests {
    use super::{Mask, chunks, claim};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mask_keeps_the_rows_whose_bit_is_set(bits in prop::collection::vec(any::<u8>(), 1..60), short in 0usize..8, chunk in 1usize..4) {
            let rows = bits.len() * 8 - short;
            let mask = Mask::new(&bits, rows);
            let expected: Vec<usize> = (0..rows).filter(|row| bits[row / 8] >> (row % 8) & 1 == 1).collect();
            prop_assert_eq!(mask.kept(0..rows).collect::<Vec<_>>(), &expected[..]);
            prop_assert!(expected.iter().all(|&row| mask.keeps(row)));
            let chunks = chunks([(7, None), (rows, Some(mask))], chunk * 64);
            let in_chunks = chunks[1..].iter().flat_map(|chunk| mask.kept(chunk.rows.clone()));
            prop_assert_eq!(in_chunks.collect::<Vec<_>>(), &expected[..]);
            prop_assert_eq!(chunks.iter().map(|chunk| chunk.kept).sum::<usize>(), 7 + expected.len());
        }
    }

    #[test]
    fn rows_are_numbered_through_and_empty_chunks_left_out() {
        let mask = [0, 0, 0, 0, 0, 0, 0, 0, 0b100];
        let found = chunks([(70, None), (0, None), (70, Some(Mask::new(&mask, 70)))], 64);
        let found: Vec<_> =
            found.iter().map(|chunk| (chunk.part, chunk.first, chunk.rows.clone(), chunk.kept)).collect();
        assert_eq!(found, [(0, 0, 0..64, 64), (0, 0, 64..70, 6), (2, 70, 64..70, 1)]);
    }

    #[test]
    fn threads_claim_every_chunk_once_and_only_where_it_pays() {
        let many = chunks([(64 * 100, None)], 64);
        for (row_bytes, most) in [(1, 1), (1 << 20, 3)] {
            let claimed = claim(&many, row_bytes, 1, 3, |chunks| chunks.map(|chunk| chunk.rows.start).collect());
            assert_eq!(claimed.len(), most);
            assert!(claimed.iter().all(|starts: &Vec<usize>| starts.is_sorted()));
            let mut all = claimed.concat();
            all.sort_unstable();
            assert!(all.iter().eq(many.iter().map(|chunk| &chunk.rows.start)));
        }
    }

    #[test]
    #[should_panic(expected = "another length")]
    fn a_mask_of_another_length_is_refused() {
        Mask::new(&[0], 9);
    }
}
