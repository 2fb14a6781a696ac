//! What is done to one row after the other: norms, and rotary positions.

use super::floats::Floats;
use super::product::{Inputs, Rows, Unit};

/// How rows are brought to a common scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// To mean 0 and variance 1, times a weight, plus a bias: Ba et al., arXiv 1607.06450.
    Layer,
    /// To a mean square of 1, times a weight: Zhang and Sennrich, arXiv 1910.07467.
    RootMeanSquare,
}

/// A norm and its parameters.
pub(crate) struct Norm {
    pub kind: NormKind,
    pub epsilon: f32,
    pub weight: Vec<f32>,
    /// Empty for a norm without bias.
    pub bias: Vec<f32>,
}

/// Norm `count` rows in place.
///
/// # Safety
/// As for [`Floats`]; the rows are as long as the norm's weight.
#[inline(always)]
pub(crate) unsafe fn normalize<V: Floats>(rows: Rows, count: usize, norm: &Norm) {
    // SAFETY: the caller vouches for the rows; here and below.
    unsafe {
        for row in 0..count {
            let row = rows.from(row).values;
            normalize_row::<V>(row, row, norm);
        }
    }
}

/// Write `count` rows as inputs of a product, normed if there is a norm.
///
/// # Safety
/// As for [`normalize`]; the inputs have room.
#[inline(always)]
pub(crate) unsafe fn prepare<U: Unit>(rows: Rows, count: usize, norm: Option<&Norm>, inputs: Inputs, row: Rows) {
    // SAFETY: see above; `row` is one row to work in.
    unsafe {
        for i in 0..count {
            let mut source: *const f32 = rows.from(i).values;
            if let Some(norm) = norm {
                normalize_row::<U::Vector>(source, row.values, norm);
                source = row.values;
            }
            // Both strides have whole vectors; what is past the width is zero.
            for column in (0..inputs.columns.min(rows.stride)).step_by(U::Vector::LANES) {
                U::write(inputs, i, column, U::Vector::load(source.add(column)));
            }
        }
    }
}

#[inline(always)]
unsafe fn normalize_row<V: Floats>(row: *const f32, out: *mut f32, norm: &Norm) {
    let width = norm.weight.len();
    let whole = width - width % V::LANES;
    // SAFETY: see `normalize`.
    unsafe {
        let mean = match norm.kind {
            NormKind::Layer => sum::<V>(row, width) / width as f32,
            NormKind::RootMeanSquare => 0.0,
        };
        let mean_vector = V::splat(mean);
        let mut squares = V::splat(0.0);
        for column in (0..whole).step_by(V::LANES) {
            let x = V::load(row.add(column)).sub(mean_vector);
            squares = x.mul_add(x, squares);
        }
        let rest: f32 = (whole..width).map(|column| (*row.add(column) - mean).powi(2)).sum();
        let scale = 1.0 / ((squares.sum() + rest) / width as f32 + norm.epsilon).sqrt();
        let (weight, bias) = (norm.weight.as_ptr(), norm.bias.as_ptr());
        let scale_vector = V::splat(scale);
        for column in (0..whole).step_by(V::LANES) {
            let x = V::load(row.add(column)).sub(mean_vector).mul(scale_vector);
            let weight = V::load(weight.add(column));
            let bias = if norm.bias.is_empty() { V::splat(0.0) } else { V::load(bias.add(column)) };
            x.mul_add(weight, bias).store(out.add(column));
        }
        for column in whole..width {
            let bias = norm.bias.get(column).copied().unwrap_or(0.0);
            *out.add(column) = (*row.add(column) - mean) * scale * norm.weight[column] + bias;
        }
    }
}

/// The sum of `width` values.
#[inline(always)]
unsafe fn sum<V: Floats>(row: *const f32, width: usize) -> f32 {
    let whole = width - width % V::LANES;
    // SAFETY: see `normalize`.
    unsafe {
        let mut total = V::splat(0.0);
        for column in (0..whole).step_by(V::LANES) {
            total = total.add(V::load(row.add(column)));
        }
        if whole < width {
            total = total.add(V::load_part(row.add(whole), width - whole));
        }
        total.sum()
    }
}

/// Angles of rotary positions: for each position `width / 2` cosines, then as many sines (Su et al., arXiv 2104.09864,
/// in the arrangement of transformers, where a value and the one half a head further form a pair).
pub(crate) struct Angles {
    pub width: usize,
    pub values: Vec<f32>,
}

impl Angles {
    /// Angles of the positions below `count` for heads of `width` values.
    ///
    /// Rounded to float32 where transformers rounds: far positions turn by what it turns them.
    pub fn new(count: usize, width: usize, theta: f64) -> Self {
        let half = width / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / width as f32)).collect();
        let mut values = Vec::with_capacity(count * width);
        for position in 0..count {
            let angles = frequencies.iter().map(|frequency| f64::from(frequency * position as f32));
            values.extend(angles.clone().map(|angle| angle.cos() as f32));
            values.extend(angles.map(|angle| angle.sin() as f32));
        }
        Self { width, values }
    }
}

/// Heads of `width` values each, side by side in rows.
#[derive(Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub count: usize,
    pub width: usize,
    pub norm: Option<&'a Norm>,
    pub angles: Option<&'a Angles>,
    /// What each value is multiplied with at the end.
    pub scale: f32,
}

/// Norm, turn and scale the heads of a row, in place; `position` is that of its token in its text.
///
/// # Safety
/// As for [`Floats`]; the row has the heads, and there are angles for the position.
#[inline(always)]
pub(crate) unsafe fn finish_heads<V: Floats>(row: *mut f32, position: usize, heads: Heads) {
    let half = heads.width / 2;
    // SAFETY: see above.
    unsafe {
        for head in 0..heads.count {
            let head = row.add(head * heads.width);
            if let Some(norm) = heads.norm {
                normalize_row::<V>(head, head, norm);
            }
            if let Some(angles) = heads.angles {
                let cosines = angles.values.as_ptr().add(position * angles.width);
                for i in 0..half {
                    let (cosine, sine) = (*cosines.add(i), *cosines.add(half + i));
                    let (x, y) = (*head.add(i), *head.add(half + i));
                    *head.add(i) = x * cosine - y * sine;
                    *head.add(half + i) = y * cosine + x * sine;
                }
            }
            if heads.scale != 1.0 {
                for i in 0..heads.width {
                    *head.add(i) *= heads.scale;
                }
            }
        }
    }
}
