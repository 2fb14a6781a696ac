//! The matrix product: inputs × packed weights, with all that follows it done while the values are in registers.
//!
//! Each output is one sum, from the first column of the inputs to the last, in one accumulator: the same for one row as
//! for a thousand, whichever rows stand beside it. That is what makes an embedding the same in every batch.
//!
//! Weights are packed once into panels as wide as two vectors, each in the order in which it is read. A panel is brought
//! into the cache and multiplied with every row of a block before the next; the rows of a tile share each load of it.

use super::floats::{Activation, Floats};
use super::packed::Packed;

/// Rows of the residual stream, and whatever else stays in float32: `rows × stride` values.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub values: *mut f32,
    pub stride: usize,
}

impl Rows {
    /// The rows from `row` on.
    #[inline(always)]
    pub unsafe fn from(self, row: usize) -> Self {
        // SAFETY: the caller vouches that there is such a row.
        Self { values: unsafe { self.values.add(row * self.stride) }, stride: self.stride }
    }
}

/// Inputs of a product: a block of rows in the layout and type of a [`Unit`], padded with zeros to `columns`.
#[derive(Clone, Copy)]
pub(crate) struct Inputs {
    pub values: *mut u8,
    pub columns: usize,
}

/// A product over some of the columns; those of one output are summed in order.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    pub inputs: Inputs,
    pub weights: &'a Packed,
}

/// Where the outputs go.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Rows of float32.
    Rows(Rows),
    /// Added to rows of float32.
    Sum(Rows),
    /// The inputs of the next product.
    Inputs(Inputs, Option<Activation>),
    /// The same: the activation of each panel's first half times its second half.
    Gated(Inputs, Activation),
}

/// One product: `rows` rows of inputs, all panels of the weights.
pub(crate) struct Product<'a> {
    pub rows: usize,
    /// One term, or two where an adapter adds its own.
    pub terms: &'a [Term<'a>],
    pub target: Target,
}

/// What multiplies: the type of the inputs and weights, and the tile of outputs that fits the registers.
///
/// # Safety
/// As for [`Floats`].
pub(crate) unsafe trait Unit {
    type Vector: Floats;

    /// Before the first tile of a product.
    #[inline(always)]
    unsafe fn start() {}

    /// After the last.
    #[inline(always)]
    unsafe fn finish() {}

    /// Multiply some of the rows from `row` on with one panel of each term's weights, and put out each row of the result
    /// as two vectors. Returns the number of rows that it took.
    unsafe fn multiply(product: &Product, row: usize, panel: usize, output: Output<Self::Vector>) -> usize;

    /// Write a vector of inputs, the values of one row from `column` (a multiple of the lanes) on.
    unsafe fn write(inputs: Inputs, row: usize, column: usize, values: Self::Vector);

    /// Write one input.
    unsafe fn write_one(inputs: Inputs, row: usize, column: usize, value: f32);
}

/// # Safety
/// The buffers have room for the rows; the weights are packed for the unit; see [`Unit`].
#[inline(always)]
pub(crate) unsafe fn product<U: Unit>(product: &Product) {
    let lanes = U::Vector::LANES;
    let weights = product.terms[0].weights;
    // SAFETY: see above.
    unsafe { U::start() };
    for panel in 0..weights.panels() {
        let column = panel * 2 * lanes;
        // SAFETY: the caller vouches for the buffers; a bias has whole panels.
        unsafe {
            let bias = weights.bias.as_ref().map(|bias| bias.as_ptr().add(column));
            let bias = match bias {
                Some(bias) => [U::Vector::load(bias), U::Vector::load(bias.add(lanes))],
                None => [U::Vector::splat(0.0); 2],
            };
            let output = Output { target: product.target, bias, column };
            let mut row = 0;
            while row < product.rows {
                row += U::multiply(product, row, panel, output);
            }
        }
    }
    // SAFETY: see above.
    unsafe { U::finish() };
}

/// Where the results of a panel go, and what is added to them first.
#[derive(Clone, Copy)]
pub(crate) struct Output<V> {
    target: Target,
    bias: [V; 2],
    column: usize,
}

impl<V: Floats> Output<V> {
    /// Put out a row of sums.
    ///
    /// A function and no closure: a closure is not compiled with its caller's instructions unless it is inlined, which
    /// cannot be asked of one.
    #[inline(always)]
    pub unsafe fn put<U: Unit<Vector = V>>(&self, row: usize, sums: [V; 2]) {
        // SAFETY: see `product`.
        unsafe {
            let mut values = [sums[0].add(self.bias[0]), sums[1].add(self.bias[1])];
            match self.target {
                Target::Rows(rows) => {
                    let out = rows.values.add(row * rows.stride + self.column);
                    values[0].store(out);
                    values[1].store(out.add(V::LANES));
                }
                Target::Sum(rows) => {
                    let out = rows.values.add(row * rows.stride + self.column);
                    values[0].add(V::load(out)).store(out);
                    values[1].add(V::load(out.add(V::LANES))).store(out.add(V::LANES));
                }
                Target::Inputs(inputs, activation) => {
                    if let Some(activation) = activation {
                        values = [activation.of(values[0]), activation.of(values[1])];
                    }
                    U::write(inputs, row, self.column, values[0]);
                    U::write(inputs, row, self.column + V::LANES, values[1]);
                }
                Target::Gated(inputs, activation) => {
                    U::write(inputs, row, self.column / 2, activation.of(values[0]).mul(values[1]));
                }
            }
        }
    }
}

/// Multiply a tile of rows by `tile::<M>` of a unit: as many as it has registers for, and of the last rows two tiles of like
/// height, because a low one waits for its own sums.
macro_rules! tiles {
    ($unit:ty, $most:expr, $product:expr, $row:expr, $panel:expr, $output:expr) => {{
        let left = $product.rows - $row;
        let rows = if left >= 2 * $most { $most } else { left.div_ceil(left.div_ceil($most)) };
        $crate::model::product::tiles!(@match $unit, $most, rows, ($product, $row, $panel, $output),
            1 2 3 4 5 6 7 8 9 10 11 12)
    }};
    (@match $unit:ty, $most:expr, $rows:expr, $arguments:tt, $($m:literal)*) => {
        match $rows {
            $($m if $m <= $most => $crate::model::product::tiles!(@call $unit, $m, $arguments),)*
            _ => unreachable!("no tile is that high"),
        }
    };
    (@call $unit:ty, $m:literal, ($($argument:expr),*)) => { <$unit>::tile::<$m>($($argument),*) };
}
pub(crate) use tiles;

/// Inputs in float32, each multiplied with vectors of weights, in tiles of at most `ROWS` rows.
pub(crate) struct Vectors<V, W, const ROWS: usize>(std::marker::PhantomData<(V, W)>);

/// Weights in float32.
pub(crate) type Float32<V, const ROWS: usize> = Vectors<V, f32, ROWS>;

/// Weights in bfloat16, widened when they are read.
pub(crate) type Widened<V, const ROWS: usize> = Vectors<V, u16, ROWS>;

/// A weight as it is stored.
pub(crate) trait Weight: Copy {
    /// A vector of them.
    ///
    /// # Safety
    /// As for [`Floats::load`].
    unsafe fn load<V: Floats>(weights: *const Self) -> V;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<V: Floats>(weights: *const Self) -> V {
        // SAFETY: see the trait.
        unsafe { V::load(weights) }
    }
}

impl Weight for u16 {
    #[inline(always)]
    unsafe fn load<V: Floats>(weights: *const Self) -> V {
        // SAFETY: see the trait.
        unsafe { V::load_bfloat16(weights) }
    }
}

// SAFETY: all instructions are those of the vector.
unsafe impl<V: Floats, W: Weight, const ROWS: usize> Unit for Vectors<V, W, ROWS> {
    type Vector = V;

    #[inline(always)]
    unsafe fn multiply(product: &Product, row: usize, panel: usize, output: Output<V>) -> usize {
        // SAFETY: see `product`.
        unsafe { tiles!(Self, ROWS, product, row, panel, output) }
    }

    #[inline(always)]
    unsafe fn write(inputs: Inputs, row: usize, column: usize, values: V) {
        // SAFETY: see `product`.
        unsafe { values.store(inputs.values.cast::<f32>().add(row * inputs.columns + column)) }
    }

    #[inline(always)]
    unsafe fn write_one(inputs: Inputs, row: usize, column: usize, value: f32) {
        // SAFETY: see `product`.
        unsafe { *inputs.values.cast::<f32>().add(row * inputs.columns + column) = value }
    }
}

impl<V: Floats, W: Weight, const ROWS: usize> Vectors<V, W, ROWS> {
    #[inline(always)]
    unsafe fn tile<const M: usize>(product: &Product, row: usize, panel: usize, output: Output<V>) -> usize {
        // SAFETY: see `product`.
        unsafe {
            let mut sums = [[V::splat(0.0); 2]; M];
            for term in product.terms {
                let inputs = term.inputs.values.cast::<f32>().add(row * term.inputs.columns);
                let weights: *const W = term.weights.panel(panel).cast();
                sums = accumulate(sums, inputs, term.inputs.columns, weights, 2 * V::LANES, term.weights.depth);
            }
            for (i, sums) in sums.into_iter().enumerate() {
                output.put::<Self>(row + i, sums);
            }
            M
        }
    }
}

/// Add to the sums of a tile, in order, the products of `depth` columns of `M` rows of inputs with as many rows of two
/// vectors of weights.
#[inline(always)]
pub(crate) unsafe fn accumulate<V: Floats, W: Weight, const M: usize>(
    mut sums: [[V; 2]; M],
    inputs: *const f32,
    stride: usize,
    weights: *const W,
    step: usize,
    depth: usize,
) -> [[V; 2]; M] {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        for k in 0..depth {
            let weights = weights.add(k * step);
            #[cfg(target_arch = "x86_64")]
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                weights.cast::<i8>().wrapping_add(4096),
            );
            let weights: [V; 2] = [W::load(weights), W::load(weights.add(V::LANES))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let input = V::splat(*inputs.add(i * stride + k));
                *sums = [input.mul_add(weights[0], sums[0]), input.mul_add(weights[1], sums[1])];
            }
        }
    }
    sums
}
