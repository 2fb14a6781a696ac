//! The kernels of the forward pass by themselves, over slices: what the benchmarks time, and the product that rotates
//! embeddings.

use super::attention::{KeysValues, Queries, attend_room};
use super::packed::{Memory, Packed};
use super::product::{Inputs, Product, Rows, Target, Term};
use super::simd::{DType, Kernels};
use crate::simd::Tier;

/// Rows of a block of inputs; units may touch whole tiles of them.
const TILE_ROWS: usize = 16;

/// Rows that [`PackedMatrix::apply`] has in hand at a time: their inputs and outputs stay in the cache.
const BLOCK_ROWS: usize = 64;

/// A matrix, packed to be multiplied with rows.
pub struct PackedMatrix {
    kernels: &'static Kernels,
    packed: Packed,
    inputs: usize,
}

/// Rows in the layout of a tier's inputs.
pub struct PreparedRows {
    memory: Memory,
    rows: usize,
    columns: usize,
}

impl PackedMatrix {
    /// Pack `weights`, `outputs × inputs`, row-major.
    ///
    /// # Panics
    /// If there are not as many weights.
    pub fn new(tier: &Tier, dtype: DType, weights: &[f32], inputs: usize) -> Self {
        assert!(inputs > 0 && weights.len().is_multiple_of(inputs), "the weights are whole rows");
        let kernels = tier.model.of(dtype);
        let read = |output: usize, row: &mut [f32]| row.copy_from_slice(&weights[output * inputs..][..inputs]);
        let packed = Packed::new(kernels.layout, weights.len() / inputs, inputs, read);
        Self { kernels, packed, inputs }
    }

    /// Bring rows of `inputs` values into the layout of the inputs.
    ///
    /// # Panics
    /// If they are not whole rows.
    pub fn prepare(&self, rows: &[f32]) -> PreparedRows {
        assert!(rows.len().is_multiple_of(self.inputs), "whole rows");
        let count = rows.len() / self.inputs;
        let columns = self.inputs.next_multiple_of(32);
        let mut padded = Memory::zeroed(count * columns * 4);
        let start: *mut f32 = padded.as_mut_ptr().cast();
        let bytes = count.next_multiple_of(TILE_ROWS) * columns * self.kernels.layout.factors.input_bytes();
        let mut memory = Memory::zeroed(bytes);
        let inputs = Inputs { values: memory.as_mut_ptr(), columns };
        // SAFETY: the buffers were made with room; the tier was handed out because this processor has it.
        unsafe {
            for (i, row) in rows.chunks_exact(self.inputs).enumerate() {
                start.add(i * columns).copy_from_nonoverlapping(row.as_ptr(), row.len());
            }
            let rows = Rows { values: start, stride: columns };
            (self.kernels.prepare)(rows, count, None, inputs, rows);
        }
        PreparedRows { memory, rows: count, columns }
    }

    /// Each row of `inputs` values times each row of weights: `rows × outputs` values, a row the same whatever rows are
    /// beside it.
    ///
    /// # Panics
    /// If they are not whole rows, or `out` has another length.
    pub fn apply(&self, rows: &[f32], out: &mut [f32]) {
        assert!(rows.len().is_multiple_of(self.inputs), "whole rows");
        let outputs = self.packed.outputs;
        assert_eq!(out.len(), rows.len() / self.inputs * outputs, "one value a row and output");
        let mut padded = vec![0.0; BLOCK_ROWS * self.stride()];
        for (rows, out) in rows.chunks(BLOCK_ROWS * self.inputs).zip(out.chunks_mut(BLOCK_ROWS * outputs)) {
            let padded = &mut padded[..rows.len() / self.inputs * self.stride()];
            self.multiply(&mut self.prepare(rows), padded);
            for (row, out) in padded.chunks_exact(self.stride()).zip(out.chunks_exact_mut(outputs)) {
                out.copy_from_slice(&row[..outputs]);
            }
        }
    }

    /// Inputs and outputs of a row.
    pub fn shape(&self) -> (usize, usize) {
        (self.inputs, self.packed.outputs)
    }

    /// Values of a row of the result, its padding included.
    pub fn stride(&self) -> usize {
        self.packed.panels() * self.kernels.layout.width
    }

    /// Each row of inputs times each row of weights: `rows × stride` values.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn multiply(&self, rows: &mut PreparedRows, out: &mut [f32]) {
        assert_eq!(out.len(), rows.rows * self.stride(), "one value a row and output");
        let inputs = Inputs { values: rows.memory.as_mut_ptr(), columns: rows.columns };
        let target = Target::Rows(Rows { values: out.as_mut_ptr(), stride: self.stride() });
        let term = Term { inputs, weights: &self.packed };
        // SAFETY: as above.
        unsafe { (self.kernels.product)(&Product { rows: rows.rows, terms: &[term], target }) }
    }
}

/// Attention over one text: `queries`, `keys` and `values` have a row a token, head by head.
///
/// # Panics
/// If they differ in length, or rows are not whole heads.
pub fn attention(tier: &Tier, queries: &[f32], keys: &[f32], values: &[f32], heads: usize, width: usize) -> Vec<f32> {
    let columns = heads * width;
    assert!(columns.is_multiple_of(32) && queries.len().is_multiple_of(columns), "whole rows of whole cache lines");
    assert!(queries.len() == keys.len() && keys.len() == values.len(), "a query, a key and a value a token");
    let kernels = tier.model.float32;
    let tokens = queries.len() / columns;
    let sizes = KeysValues::sizes(tokens, heads, width, kernels.layout.width);
    let mut memory = [sizes.0 * 4, sizes.1 * 4, attend_room(width, kernels.layout.width) * 4].map(Memory::zeroed);
    let [keys_memory, values_memory, scratch] = &mut memory;
    let all = KeysValues {
        keys: keys_memory.as_mut_ptr().cast(),
        values: values_memory.as_mut_ptr().cast(),
        tokens,
        heads,
        width,
        panel: kernels.layout.width,
    };
    let scale = 1.0 / (width as f32).sqrt();
    let mut scaled: Vec<f32> = queries.iter().map(|query| query * scale).collect();
    let mut out = vec![0.0f32; queries.len()];
    let rows = Rows { values: scaled.as_mut_ptr(), stride: columns };
    let queries = Queries { rows, count: tokens, position: 0, heads, causal: false };
    let inputs = Inputs { values: out.as_mut_ptr().cast(), columns };
    // SAFETY: the buffers were made with room; the tier was handed out because this processor has it.
    unsafe {
        for token in 0..tokens {
            all.write(token, keys[token * columns..].as_ptr(), values[token * columns..].as_ptr());
        }
        (kernels.attend)(queries, all, inputs, 0, scratch.as_mut_ptr().cast());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{DType, PackedMatrix};
    use crate::simd::available_tiers;

    /// Numbers that look random, from -1 to 1, which bfloat16 has exactly.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let next = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 24) as f32 / 128.0 - 1.0;
        (0..count as u32).map(next).collect()
    }

    #[test]
    fn blocks_of_rows_are_applied_as_each_row_alone() {
        let (inputs, outputs) = (33, 40);
        let (values, weights) = (numbers(150 * inputs, 3), numbers(outputs * inputs, 4));
        for tier in available_tiers() {
            let matrix = PackedMatrix::new(tier, DType::Float32, &weights, inputs);
            let mut found = vec![f32::NAN; 150 * outputs];
            matrix.apply(&values, &mut found);
            for (row, found) in values.chunks_exact(inputs).zip(found.chunks_exact(outputs)) {
                let mut alone = vec![f32::NAN; outputs];
                matrix.apply(row, &mut alone);
                assert!(alone == found, "{}", tier.name);
                let dot = row.iter().zip(&weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                assert!((f64::from(found[0]) - dot).abs() < 1e-4, "{}", tier.name);
            }
            matrix.apply(&[], &mut []);
        }
    }

    #[test]
    fn products_equal_naive_ones_and_do_not_depend_on_the_rows_beside() {
        for (rows, inputs, outputs) in [(1, 1, 1), (2, 31, 5), (13, 32, 32), (33, 65, 70), (17, 200, 96)] {
            let (values, weights) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
            for tier in available_tiers() {
                for dtype in [DType::Float32, DType::Bfloat16] {
                    let matrix = PackedMatrix::new(tier, dtype, &weights, inputs);
                    let multiply = |values: &[f32]| {
                        let mut prepared = matrix.prepare(values);
                        let mut out = vec![f32::NAN; values.len() / inputs * matrix.stride()];
                        matrix.multiply(&mut prepared, &mut out);
                        out
                    };
                    let found = multiply(&values);
                    for (row, values) in values.chunks_exact(inputs).enumerate() {
                        let found = &found[row * matrix.stride()..][..outputs];
                        for (output, weights) in weights.chunks_exact(inputs).enumerate() {
                            let dot = values.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b));
                            let (found, expected) = (f64::from(found[output]), dot.sum::<f64>());
                            let case = format!("{} {dtype:?}, {rows} x {inputs} x {outputs}", tier.name);
                            assert!((found - expected).abs() < 1e-4, "{case}: {found} instead of {expected}");
                        }
                        assert!(multiply(values)[..outputs] == *found, "{} {dtype:?}: row {row} alone", tier.name);
                    }
                }
            }
        }
    }
}
