//! Attention over one text, in blocks of keys: memory grows with the length of the text, not with its square.
//!
//! The sums of a row of scores are kept as they go, relative to the largest score so far, and rescaled when a larger
//! one comes (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135). Blocks begin at the text's first
//! key, so that a row's result does not depend on what is computed beside it.

use super::floats::{Floats, exp};
use super::product::{Inputs, Rows, Unit, accumulate};

/// Keys whose scores are computed before they are used.
const BLOCK: usize = 128;

/// Rows of queries that are computed together: twelve sums of two rows each, and the weights, fit sixteen registers.
const ROWS: usize = 6;

/// Keys and values of a text, by head: `width` is a head's, `panel` the lanes of two vectors.
///
/// Keys lie in panels: for each of a head's values those of `panel` keys. Values lie in rows, padded to whole panels.
#[derive(Clone, Copy)]
pub(crate) struct KeysValues {
    pub keys: *mut f32,
    pub values: *mut f32,
    pub tokens: usize,
    pub heads: usize,
    pub width: usize,
    pub panel: usize,
}

impl KeysValues {
    /// Values of all keys of a head.
    fn keys_of_head(&self) -> usize {
        self.tokens.next_multiple_of(self.panel) * self.width
    }

    fn padded_width(&self) -> usize {
        self.width.next_multiple_of(self.panel)
    }

    /// The floats that keys and values of a text of so many tokens take.
    pub fn sizes(tokens: usize, heads: usize, width: usize, panel: usize) -> (usize, usize) {
        let all = Self { keys: std::ptr::null_mut(), values: std::ptr::null_mut(), tokens, heads, width, panel };
        (heads * all.keys_of_head(), heads * tokens * all.padded_width())
    }

    /// Take in the key and the value of a token: one row each, head by head.
    ///
    /// # Safety
    /// There is room, the rows have the heads, and no other thread writes the token.
    pub unsafe fn write(&self, token: usize, key: *const f32, value: *const f32) {
        let (panel, lane) = (token / self.panel, token % self.panel);
        // SAFETY: see above.
        unsafe {
            for head in 0..self.heads {
                let keys = self.keys.add(head * self.keys_of_head() + panel * self.width * self.panel + lane);
                for i in 0..self.width {
                    *keys.add(i * self.panel) = *key.add(head * self.width + i);
                }
                let values = self.values.add((head * self.tokens + token) * self.padded_width());
                values.copy_from_nonoverlapping(value.add(head * self.width), self.width);
            }
        }
    }
}

/// The queries of some tokens of a text that follow each other.
#[derive(Clone, Copy)]
pub(crate) struct Queries {
    /// One row a token, head by head, scaled.
    pub rows: Rows,
    pub count: usize,
    /// The position of the first in the text.
    pub position: usize,
    pub heads: usize,
    /// Whether a token sees only those up to itself.
    pub causal: bool,
}

/// Room for the sums of a tile of rows: [`attend_room`] of it.
pub(crate) type Scratch = *mut f32;

/// Floats that [`attend`] works in.
pub(crate) fn attend_room(width: usize, panel: usize) -> usize {
    ROWS * (BLOCK + width.next_multiple_of(panel))
}

/// Write what each query sees as inputs of the next product, one row a query from `first` on.
///
/// # Safety
/// As for [`Unit`]; all keys and values that the queries see are there.
#[inline(always)]
pub(crate) unsafe fn attend<U: Unit>(
    queries: Queries,
    keys_values: KeysValues,
    inputs: Inputs,
    first: usize,
    scratch: Scratch,
) {
    let group = queries.heads / keys_values.heads;
    // SAFETY: the caller vouches for the memory; here and below.
    unsafe {
        for head in 0..queries.heads {
            let mut row = 0;
            while row < queries.count {
                let left = queries.count - row;
                let tile = Tile { head, kv_head: head / group, row, first, scratch };
                row += match left {
                    ROWS.. => tile.attend::<U, ROWS>(queries, keys_values, inputs),
                    4.. => tile.attend::<U, 4>(queries, keys_values, inputs),
                    2.. => tile.attend::<U, 2>(queries, keys_values, inputs),
                    _ => tile.attend::<U, 1>(queries, keys_values, inputs),
                };
            }
        }
    }
}

/// A tile of rows of one head.
#[derive(Clone, Copy)]
struct Tile {
    head: usize,
    kv_head: usize,
    row: usize,
    first: usize,
    scratch: Scratch,
}

impl Tile {
    #[inline(always)]
    unsafe fn attend<U: Unit, const M: usize>(
        self,
        queries: Queries,
        keys_values: KeysValues,
        inputs: Inputs,
    ) -> usize {
        let lanes = U::Vector::LANES;
        let KeysValues { width, panel, tokens, .. } = keys_values;
        let padded_width = keys_values.padded_width();
        let position = queries.position + self.row;
        let seen = if queries.causal { position + M } else { tokens };
        let (scores, sums) = (self.scratch, self.scratch.wrapping_add(ROWS * BLOCK));
        // SAFETY: see `attend`; here and below.
        unsafe {
            let query = queries.rows.from(self.row).values.add(self.head * width);
            let keys = keys_values.keys.add(self.kv_head * keys_values.keys_of_head());
            let values = keys_values.values.add(self.kv_head * tokens * padded_width);
            sums.write_bytes(0, M * padded_width);
            let mut largest = [f32::NEG_INFINITY; M];
            let mut totals = [U::Vector::splat(0.0); M];
            for start in (0..seen).step_by(BLOCK) {
                let count = BLOCK.min(seen - start);
                let padded = count.next_multiple_of(panel);
                for key in (0..padded).step_by(panel) {
                    let zero = [[U::Vector::splat(0.0); 2]; M];
                    let keys = keys.add((start + key) * width);
                    let products = accumulate(zero, query, queries.rows.stride, keys, panel, width);
                    for (i, products) in products.into_iter().enumerate() {
                        products[0].store(scores.add(i * BLOCK + key));
                        products[1].store(scores.add(i * BLOCK + key + lanes));
                    }
                }
                for i in 0..M {
                    let scores = scores.add(i * BLOCK);
                    let visible = if queries.causal { position + i + 1 } else { tokens };
                    for key in visible.saturating_sub(start).min(padded)..padded {
                        *scores.add(key) = f32::NEG_INFINITY;
                    }
                    let mut block_largest = U::Vector::splat(largest[i]);
                    for key in (0..padded).step_by(lanes) {
                        block_largest = block_largest.max(U::Vector::load(scores.add(key)));
                    }
                    let new = block_largest.largest();
                    let scale = exp(U::Vector::splat(largest[i] - new));
                    let shift = U::Vector::splat(new);
                    let mut total = totals[i].mul(scale);
                    for key in (0..padded).step_by(lanes) {
                        let weight = exp(U::Vector::load(scores.add(key)).sub(shift));
                        weight.store(scores.add(key));
                        total = total.add(weight);
                    }
                    totals[i] = total;
                    if largest[i] != new && start > 0 {
                        for column in (0..padded_width).step_by(lanes) {
                            let sum = sums.add(i * padded_width + column);
                            U::Vector::load(sum).mul(scale).store(sum);
                        }
                    }
                    largest[i] = new;
                }
                for column in (0..padded_width).step_by(panel) {
                    let mut tile = [[U::Vector::splat(0.0); 2]; M];
                    for (i, tile) in tile.iter_mut().enumerate() {
                        let sum = sums.add(i * padded_width + column);
                        *tile = [U::Vector::load(sum), U::Vector::load(sum.add(lanes))];
                    }
                    let values = values.add(start * padded_width + column);
                    let tile = accumulate(tile, scores, BLOCK, values, padded_width, count);
                    for (i, tile) in tile.into_iter().enumerate() {
                        let sum = sums.add(i * padded_width + column);
                        tile[0].store(sum);
                        tile[1].store(sum.add(lanes));
                    }
                }
            }
            for (i, total) in totals.into_iter().enumerate() {
                let scale = U::Vector::splat(1.0 / total.sum());
                let row = self.first + self.row + i;
                let column = self.head * width;
                let sums = sums.add(i * padded_width);
                if width.is_multiple_of(lanes) {
                    for i in (0..width).step_by(lanes) {
                        U::write(inputs, row, column + i, U::Vector::load(sums.add(i)).mul(scale));
                    }
                } else {
                    for i in 0..width {
                        U::write_one(inputs, row, column + i, *sums.add(i) * scale.lanes()[0]);
                    }
                }
            }
        }
        M
    }
}
