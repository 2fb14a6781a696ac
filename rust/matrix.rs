//! The Hamming distance as a matrix product, for processors with a matrix unit and batches of queries that fill it.
//!
//! With its bits as ±1, the dot product of two codes is the number of bits that agree less the number that differ, so
//! that distance = (bits - dot) / 2. A code is eight times as large this way, but a matrix unit multiplies 16 codes by
//! 16 queries, 64 bits of each, in one instruction. Bits that fill up the last word are equal on both sides, and so
//! count in `bits`.
//!
//! The queries of a batch are expanded once, in the order that the unit wants for the right-hand side of a product: in
//! groups of 16, the values of a group interleaved by fours. They stay in the second-level cache, 32 KiB for 128
//! queries of 256 bits. Of the codes 32 at a time are expanded into the first-level cache, and multiplied with all
//! queries before the next ones come.
//!
//! A product gives 16 × 16 dot products, the queries side by side, so that one vector holds a code against 16 queries,
//! and another their bounds, as the dot products that must be passed. The common case, no code passes any of them,
//! costs the maximum over the 16 codes and one comparison.
//!
//! [`scan`] is written once over [`MatrixUnit`]: a tier implements it by its instructions, the tests by plain loops.

use crate::hamming::Tile;
use crate::topk::TopK;

/// Rows of a tile register: codes or queries side by side in a product.
const SIDE: usize = 16;

/// Bits of a row of a tile register, one byte each: those of a word.
const ROW_BYTES: usize = 64;

/// Codes that are multiplied at a time: two tile registers.
const CODES: usize = 2 * SIDE;

/// Lanes of the packed tiles that are scanned.
pub(crate) const LANES: usize = 8;

/// What a tile register holds of codes or queries: 16 rows of 64 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Panel(pub [[i8; ROW_BYTES]; SIDE]);

/// What a tile register holds of results: a row for each code, a column for each query.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Dots(pub [[i32; SIDE]; SIDE]);

/// A matrix unit with eight tile registers, and the few operations that the scan needs.
///
/// # Safety
/// Implementations may use instructions that not every processor has; their methods may be called only where the tier
/// was detected, from a function compiled with its target features.
pub(crate) unsafe trait MatrixUnit: Sized {
    /// Take the unit into use, every register as 16 rows of 64 bytes; dropping the value gives it back.
    unsafe fn start() -> Self;
    /// Set a register to zero.
    unsafe fn zero<const REGISTER: usize>(&mut self);
    /// Load a register.
    unsafe fn load<const REGISTER: usize>(&mut self, panel: &Panel);
    /// Add to register `C`, for each row r and column c, the sum of A[r][4k + i] · B[k][4c + i] over all k and i < 4.
    unsafe fn multiply<const C: usize, const A: usize, const B: usize>(&mut self);
    /// Store a register of results.
    unsafe fn store<const REGISTER: usize>(&self, dots: &mut Dots);
    /// The bits of a word, the lowest first, as ±1.
    unsafe fn signs(word: u64, values: &mut [i8; ROW_BYTES]);
    /// The largest dot product of each query.
    unsafe fn largest(dots: &Dots) -> [i32; SIDE];
    /// One bit for each query whose dot product is above its bound.
    unsafe fn above(dots: &[i32; SIDE], bounds: &[i32; SIDE]) -> u32;
}

/// The queries of a batch, expanded, and the memory for what they are multiplied with.
pub(crate) struct Batch {
    /// Words of a code.
    words: usize,
    /// For every 16 queries a panel for each word: in row k, for each query, its values 4k to 4k + 3.
    queries: Vec<Panel>,
    /// For each 16 of the codes a panel for each word: in row r the values of code r.
    codes: Vec<Panel>,
    /// For every 16 queries the dot products that must be passed.
    bounds: Vec<[i32; SIDE]>,
}

impl Batch {
    /// Expand queries of `words` words each.
    pub fn new(queries: &[u64], words: usize) -> Self {
        let groups = (queries.len() / words).div_ceil(SIDE);
        let empty = Panel([[0; ROW_BYTES]; SIDE]);
        let mut panels = vec![empty; groups * words];
        for (query, code) in queries.chunks(words).enumerate() {
            let column = query % SIDE * 4;
            for (panel, &word) in panels[query / SIDE * words..].iter_mut().zip(code) {
                for (k, row) in panel.0.iter_mut().enumerate() {
                    row[column..column + 4].copy_from_slice(&[0, 1, 2, 3].map(|i| sign(word >> (4 * k + i))));
                }
            }
        }
        // Columns without a query can pass no bound.
        Self { words, queries: panels, codes: vec![empty; 2 * words], bounds: vec![[i32::MAX; SIDE]; groups] }
    }
}

/// The lowest bit as ±1.
#[inline(always)]
fn sign(word: u64) -> i8 {
    2 * (word & 1) as i8 - 1
}

/// Offer to the top-k of each query of the batch every row of the tile that is nearer than its bound.
///
/// # Safety
/// The processor must have the instructions of `U`. The tile must be packed for eight lanes and readable for its rows,
/// rounded up to whole groups.
#[inline(always)]
pub(crate) unsafe fn scan<U: MatrixUnit>(batch: &mut Batch, tile: &Tile, topk: &mut [TopK]) {
    debug_assert!(tile.packed, "the tile is not packed");
    let words = batch.words;
    for (bound, topk) in batch.bounds.as_flattened_mut().iter_mut().zip(&*topk) {
        *bound = bound_of(topk, words);
    }
    let mut dots = [[Dots([[0; SIDE]; SIDE]); 2]; 2];
    // SAFETY: as for this function.
    unsafe {
        let mut unit = U::start();
        for start in (0..tile.rows.len()).step_by(CODES) {
            expand::<U>(&mut batch.codes, words, tile, start);
            let codes = batch.codes.split_at(words);
            let queries =
                batch.queries.chunks(2 * words).zip(batch.bounds.chunks_mut(2)).zip(topk.chunks_mut(2 * SIDE));
            for ((queries, bounds), topk) in queries {
                if bounds.len() == 2 {
                    multiply_two(&mut unit, codes, queries.split_at(words), &mut dots);
                } else {
                    multiply_one(&mut unit, codes, queries, &mut dots[0]);
                }
                for ((dots, bounds), topk) in dots.iter().zip(bounds).zip(topk.chunks_mut(SIDE)) {
                    offer::<U>(&dots[0], bounds, words, tile, start, topk);
                    offer::<U>(&dots[1], bounds, words, tile, start + SIDE, topk);
                }
            }
        }
    }
}

/// The dot product that a code of a smaller distance than the bound passes.
#[inline(always)]
fn bound_of(topk: &TopK, words: usize) -> i32 {
    (64 * words) as i32 - 2 * topk.bound() as i32
}

/// Expand the codes of the tile from `start` on; past the last ones, what was there before is left.
#[inline(always)]
unsafe fn expand<U: MatrixUnit>(panels: &mut [Panel], words: usize, tile: &Tile, start: usize) {
    let rows = CODES.min(tile.rows.len() - start);
    for row in 0..rows {
        let offset = start + row;
        for word in 0..words {
            // SAFETY: as for `scan`; word `word` of the code in lane `offset % LANES` of its group.
            unsafe {
                let value = *tile.words.add((offset / LANES * words + word) * LANES + offset % LANES);
                U::signs(value, &mut panels[row / SIDE * words + word].0[row % SIDE]);
            }
        }
    }
}

/// Multiply 32 codes with 32 queries: each panel is loaded once for two products.
#[inline(always)]
unsafe fn multiply_two<U: MatrixUnit>(
    unit: &mut U,
    codes: (&[Panel], &[Panel]),
    queries: (&[Panel], &[Panel]),
    dots: &mut [[Dots; 2]; 2],
) {
    // SAFETY: as for `scan`.
    unsafe {
        unit.zero::<0>();
        unit.zero::<1>();
        unit.zero::<2>();
        unit.zero::<3>();
        for (codes, queries) in codes.0.iter().zip(codes.1).zip(queries.0.iter().zip(queries.1)) {
            unit.load::<4>(codes.0);
            unit.load::<6>(queries.0);
            unit.multiply::<0, 4, 6>();
            unit.load::<5>(codes.1);
            unit.multiply::<1, 5, 6>();
            unit.load::<7>(queries.1);
            unit.multiply::<2, 4, 7>();
            unit.multiply::<3, 5, 7>();
        }
        unit.store::<0>(&mut dots[0][0]);
        unit.store::<1>(&mut dots[0][1]);
        unit.store::<2>(&mut dots[1][0]);
        unit.store::<3>(&mut dots[1][1]);
    }
}

/// Multiply 32 codes with the last 16 queries of an odd number of groups.
#[inline(always)]
unsafe fn multiply_one<U: MatrixUnit>(
    unit: &mut U,
    codes: (&[Panel], &[Panel]),
    queries: &[Panel],
    dots: &mut [Dots; 2],
) {
    // SAFETY: as for `scan`.
    unsafe {
        unit.zero::<0>();
        unit.zero::<1>();
        for (codes, queries) in codes.0.iter().zip(codes.1).zip(queries) {
            unit.load::<4>(codes.0);
            unit.load::<6>(queries);
            unit.multiply::<0, 4, 6>();
            unit.load::<5>(codes.1);
            unit.multiply::<1, 5, 6>();
        }
        unit.store::<0>(&mut dots[0]);
        unit.store::<1>(&mut dots[1]);
    }
}

/// Offer the codes from `start` on to up to 16 queries, and raise the bounds of those that took one.
#[inline(always)]
unsafe fn offer<U: MatrixUnit>(
    dots: &Dots,
    bounds: &mut [i32; SIDE],
    words: usize,
    tile: &Tile,
    start: usize,
    topk: &mut [TopK],
) {
    // SAFETY: as for `scan`.
    unsafe {
        if U::above(&U::largest(dots), bounds) == 0 {
            return;
        }
        let rows = tile.rows.len().saturating_sub(start);
        for (row, dots) in dots.0.iter().enumerate().take(rows) {
            let mut queries = U::above(dots, bounds);
            while queries != 0 {
                let query = queries.trailing_zeros() as usize;
                let distance = (64 * words) as i32 - dots[query];
                tile.offer(start + row, distance as u32 / 2, &mut topk[query]);
                bounds[query] = bound_of(&topk[query], words);
                queries &= queries - 1;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Batch, Dots, LANES, MatrixUnit, Panel, scan, sign};
    use crate::hamming::{self, Tile, code_words, distance};
    use crate::parts::TileRows;
    use crate::topk::{Hit, TopK};
    use proptest::prelude::*;

    /// The tile registers of a matrix unit as bytes, and what its instructions do with them.
    pub struct Model([[[u8; 64]; 16]; 8]);

    // SAFETY: plain operations on arrays.
    unsafe impl MatrixUnit for Model {
        unsafe fn start() -> Self {
            // Anything but zero: what is not loaded or zeroed must not matter.
            Self([[[0x5A; 64]; 16]; 8])
        }

        unsafe fn zero<const REGISTER: usize>(&mut self) {
            self.0[REGISTER] = [[0; 64]; 16];
        }

        unsafe fn load<const REGISTER: usize>(&mut self, panel: &Panel) {
            self.0[REGISTER] = panel.0.map(|row| row.map(|value| value as u8));
        }

        unsafe fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
            let (a, b) = (self.0[A], self.0[B]);
            for (row, a) in self.0[C].iter_mut().zip(&a) {
                for (column, sum) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let mut dot = i32::from_le_bytes(*sum);
                    for (k, a) in a.as_chunks::<4>().0.iter().enumerate() {
                        for i in 0..4 {
                            dot += i32::from(a[i] as i8) * i32::from(b[k][4 * column + i] as i8);
                        }
                    }
                    *sum = dot.to_le_bytes();
                }
            }
        }

        unsafe fn store<const REGISTER: usize>(&self, dots: &mut Dots) {
            for (row, dots) in self.0[REGISTER].iter().zip(&mut dots.0) {
                for (bytes, dot) in row.as_chunks::<4>().0.iter().zip(dots) {
                    *dot = i32::from_le_bytes(*bytes);
                }
            }
        }

        unsafe fn signs(word: u64, values: &mut [i8; 64]) {
            for (i, value) in values.iter_mut().enumerate() {
                *value = sign(word >> i);
            }
        }

        unsafe fn largest(dots: &Dots) -> [i32; 16] {
            std::array::from_fn(|query| dots.0.iter().map(|row| row[query]).max().unwrap())
        }

        unsafe fn above(dots: &[i32; 16], bounds: &[i32; 16]) -> u32 {
            (0..16).filter(|&query| dots[query] > bounds[query]).map(|query| 1 << query).sum()
        }
    }

    /// The scan of a batch by the model.
    ///
    /// # Safety
    /// As for [`scan`].
    pub unsafe fn scan_by_model(batch: &mut Batch, tile: &Tile, topk: &mut [TopK]) {
        // SAFETY: as for this function; plain operations need no instructions.
        unsafe { scan::<Model>(batch, tile, topk) }
    }

    proptest! {
        #[test]
        fn equals_the_naive_distances(
            bytes in 1usize..=70, queries in 1usize..=40, tiles in prop::collection::vec(0usize..150, 1..3),
            k in 1usize..20, seed: u64,
        ) {
            let rows: usize = tiles.iter().sum();
            let mut state = seed;
            let mut random = |len: usize| -> Vec<u8> {
                let mut next = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                };
                (0..len).map(|_| next()).collect()
            };
            let (codes, asked) = (random(rows * bytes), random(queries * bytes));
            let words = code_words(bytes);
            let all = TileRows::Range { start: 0, len: queries, mask: None };
            let mut query_words = vec![0; queries * words];
            hamming::pack(&asked, bytes, all, 1, &mut query_words);
            let mut batch = Batch::new(&query_words, words);
            let mut topk: Vec<_> = (0..queries).map(|_| TopK::new(k, 8 * bytes as u32)).collect();
            let mut start = 0;
            for len in tiles {
                let rows = TileRows::Range { start, len, mask: None };
                let mut packed = vec![0; len.next_multiple_of(LANES) * words];
                hamming::pack(&codes, bytes, rows, LANES, &mut packed);
                let tile = Tile { words: packed.as_ptr(), packed: true, first: 7, rows };
                // SAFETY: the tile is packed, whole groups of eight lanes.
                unsafe { scan_by_model(&mut batch, &tile, &mut topk) };
                start += len;
            }
            for (query, topk) in asked.chunks(bytes).zip(topk) {
                let hit = |(code, row)| Hit { distance: distance(query, code), row };
                let mut expected: Vec<_> = codes.chunks(bytes).zip(7..).map(hit).collect();
                expected.sort();
                expected.truncate(k);
                prop_assert_eq!(topk.into_sorted(), expected);
            }
        }
    }
}
