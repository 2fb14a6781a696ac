//! Products of bfloat16: by instructions that multiply pairs, and by a matrix unit. Sums are float32.

use super::floats::Floats;
use super::product::{Inputs, Output, Product, Unit};

/// Vectors whose instructions multiply pairs of bfloat16.
///
/// # Safety
/// As for [`Floats`].
pub(crate) unsafe trait Pairs: Floats {
    /// Add to each lane the products of a pair of inputs, the first in the low half, with the lane's pair of weights.
    unsafe fn add_products(self, inputs: u32, weights: *const u16) -> Self;
    /// The nearest bfloat16 of each lane.
    unsafe fn store_bfloat16(self, values: *mut u16);
}

/// Inputs in rows of bfloat16, a pair multiplied at a time, in tiles of at most `ROWS` rows.
pub(crate) struct Paired<V, const ROWS: usize>(std::marker::PhantomData<V>);

// SAFETY: all instructions are those of the vector.
unsafe impl<V: Pairs, const ROWS: usize> Unit for Paired<V, ROWS> {
    type Vector = V;

    #[inline(always)]
    unsafe fn multiply(product: &Product, row: usize, panel: usize, output: Output<V>) -> usize {
        // SAFETY: see `product`; here and below.
        unsafe { super::product::tiles!(Self, ROWS, product, row, panel, output) }
    }

    #[inline(always)]
    unsafe fn write(inputs: Inputs, row: usize, column: usize, values: V) {
        // SAFETY: see `product`.
        unsafe { values.store_bfloat16(inputs.values.cast::<u16>().add(row * inputs.columns + column)) }
    }

    #[inline(always)]
    unsafe fn write_one(inputs: Inputs, row: usize, column: usize, value: f32) {
        // SAFETY: see `product`.
        unsafe { *inputs.values.cast::<u16>().add(row * inputs.columns + column) = super::packed::bfloat16(value) }
    }
}

impl<V: Pairs, const ROWS: usize> Paired<V, ROWS> {
    #[inline(always)]
    unsafe fn tile<const M: usize>(product: &Product, row: usize, panel: usize, output: Output<V>) -> usize {
        // SAFETY: see `product`.
        unsafe {
            let mut sums = [[V::splat(0.0); 2]; M];
            for term in product.terms {
                let inputs = term.inputs.values.cast::<u16>().add(row * term.inputs.columns);
                let weights = term.weights.panel(panel).cast::<u16>();
                for k in (0..term.weights.depth).step_by(2) {
                    let weights = weights.add(k * 2 * V::LANES);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let pair = inputs.add(i * term.inputs.columns + k).cast::<u32>().read_unaligned();
                        sums[0] = sums[0].add_products(pair, weights);
                        sums[1] = sums[1].add_products(pair, weights.add(2 * V::LANES));
                    }
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                output.put::<Self>(row + i, sums);
            }
            M
        }
    }
}

/// A matrix unit with eight registers of 16 rows of 64 bytes, numbered from 0.
///
/// # Safety
/// The methods may run only where the processor has the instructions of the implementing type, and all but `start` only
/// between `start` and `finish`, on the same thread.
pub(crate) unsafe trait Tiles {
    unsafe fn start();
    unsafe fn finish();
    unsafe fn zero<const REGISTER: usize>();
    /// 16 rows of 64 bytes, `stride` bytes apart.
    unsafe fn load<const REGISTER: usize>(rows: *const u8, stride: usize);
    /// Add to register C, 16 × 16 float32, the product of A (16 rows of 16 pairs of bfloat16) with B (16 rows of pairs,
    /// one for each column).
    unsafe fn multiply<const C: usize, const A: usize, const B: usize>();
    unsafe fn store<const REGISTER: usize>(sums: &mut [[f32; 16]; 16]);
}

/// Rows of a register, and of inputs that lie together.
const ROWS: usize = 16;

/// Columns of inputs in a register.
const COLUMNS: usize = 32;

/// Inputs in registers' worth of 16 rows × 32 columns, each in one piece, multiplied 32 rows at a time.
pub(crate) struct Tiled<T, V>(std::marker::PhantomData<(T, V)>);

impl<T, V> Tiled<T, V> {
    #[inline(always)]
    fn place(inputs: Inputs, row: usize, column: usize) -> usize {
        let tile = row / ROWS * (inputs.columns / COLUMNS) + column / COLUMNS;
        tile * (ROWS * COLUMNS) + row % ROWS * COLUMNS + column % COLUMNS
    }
}

// SAFETY: all instructions are those of the vector and the registers.
unsafe impl<T: Tiles, V: Pairs> Unit for Tiled<T, V> {
    type Vector = V;

    #[inline(always)]
    unsafe fn start() {
        // SAFETY: see `product`; here and below.
        unsafe { T::start() }
    }

    #[inline(always)]
    unsafe fn finish() {
        // SAFETY: see above.
        unsafe { T::finish() }
    }

    #[inline(always)]
    unsafe fn multiply(product: &Product, row: usize, panel: usize, output: Output<V>) -> usize {
        let count = (product.rows - row).min(2 * ROWS);
        let two = count > ROWS;
        // SAFETY: see above; blocks of inputs have whole tiles of rows, those past the last hold anything.
        unsafe {
            T::zero::<0>();
            T::zero::<1>();
            T::zero::<2>();
            T::zero::<3>();
            for term in product.terms {
                let row_of_tiles = ROWS * term.inputs.columns * 2;
                let inputs = term.inputs.values.add(row / ROWS * row_of_tiles);
                let weights = term.weights.panel(panel);
                // A row of a panel has a pair for each of its 32 outputs.
                let step = 2 * COLUMNS * 2;
                for k in 0..term.weights.depth / COLUMNS {
                    let inputs = inputs.add(k * ROWS * COLUMNS * 2);
                    let weights = weights.add(k * ROWS * step);
                    T::load::<6>(weights, step);
                    T::load::<7>(weights.add(step / 2), step);
                    T::load::<4>(inputs, COLUMNS * 2);
                    T::multiply::<0, 4, 6>();
                    T::multiply::<1, 4, 7>();
                    if two {
                        T::load::<5>(inputs.add(row_of_tiles), COLUMNS * 2);
                        T::multiply::<2, 5, 6>();
                        T::multiply::<3, 5, 7>();
                    }
                }
            }
            let mut sums = [[[0.0f32; 16]; 16]; 2];
            T::store::<0>(&mut sums[0]);
            T::store::<1>(&mut sums[1]);
            for (i, (left, right)) in sums[0].iter().zip(&sums[1]).enumerate().take(count) {
                output.put::<Self>(row + i, [V::load(left.as_ptr()), V::load(right.as_ptr())]);
            }
            if two {
                T::store::<2>(&mut sums[0]);
                T::store::<3>(&mut sums[1]);
                for (i, (left, right)) in sums[0].iter().zip(&sums[1]).enumerate().take(count - ROWS) {
                    output.put::<Self>(row + ROWS + i, [V::load(left.as_ptr()), V::load(right.as_ptr())]);
                }
            }
        }
        count
    }

    #[inline(always)]
    unsafe fn write(inputs: Inputs, row: usize, column: usize, values: V) {
        // SAFETY: see above; the lanes divide the columns of a tile.
        unsafe { values.store_bfloat16(inputs.values.cast::<u16>().add(Self::place(inputs, row, column))) }
    }

    #[inline(always)]
    unsafe fn write_one(inputs: Inputs, row: usize, column: usize, value: f32) {
        // SAFETY: see above.
        unsafe {
            *inputs.values.cast::<u16>().add(Self::place(inputs, row, column)) = super::packed::bfloat16(value);
        }
    }
}
