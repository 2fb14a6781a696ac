//! Matryoshka truncation: the first `dim` values of each row, brought back to unit length.

use crate::simd::Tier;

/// Partial sums kept side by side, so that one fixed order of addition vectorizes on every target.
const LANES: usize = 16;

/// Write the first `dim` values of each row of `rows` (`columns` values each) to `out`, scaled to unit length.
///
/// A row whose first `dim` values are all zero stays zero; a NaN or an infinity makes its row NaN. The order of summation is
/// fixed, so a row's result depends neither on the rows around it nor on the tier.
///
/// # Panics
/// If `dim` is 0 or greater than `columns`, or a slice has another length than the shapes say.
pub fn truncate(tier: &Tier, rows: &[f32], columns: usize, dim: usize, out: &mut [f32]) {
    assert!(dim >= 1 && dim <= columns, "dim {dim} outside 1..={columns}");
    assert_eq!(rows.len() % columns, 0, "rows are not whole");
    assert_eq!(out.len(), rows.len() / columns * dim, "out has another number of rows");
    for (row, out) in rows.chunks_exact(columns).zip(out.chunks_exact_mut(dim)) {
        // SAFETY: a `Tier` is handed out only where its instructions were detected.
        unsafe { (tier.unit_length)(&row[..dim], out) };
    }
}

/// One row at unit length: the algorithm of every tier, compiled for its instructions.
#[inline(always)]
pub(crate) fn unit_length(row: &[f32], out: &mut [f32]) {
    let norm = norm(row);
    let scale = if norm == 0.0 { 0.0 } else { 1.0 / norm };
    for (value, out) in row.iter().zip(out) {
        *out = (f64::from(*value) * scale) as f32;
    }
}

/// Euclidean norm, summed in float64: squares of any float32 neither overflow nor vanish there.
#[inline(always)]
fn norm(row: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(tail) {
        *sum += f64::from(*value) * f64::from(*value);
    }
    sums.iter().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use crate::simd::{Tier, available_tiers};
    use proptest::prelude::*;

    /// On the first tier, and to the last bit the same on every other.
    fn truncate_on_every_tier(rows: &[f32], columns: usize, dim: usize, out: &mut [f32]) {
        let mut bits = |tier: &Tier| {
            super::truncate(tier, rows, columns, dim, out);
            out.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        let tiers: Vec<_> = available_tiers().collect();
        let expected = bits(tiers[0]);
        for tier in tiers.iter().rev() {
            assert_eq!(bits(tier), expected, "{}", tier.name);
        }
    }

    proptest! {
        #[test]
        fn rows_have_unit_length_and_the_same_direction(
            rows in prop::collection::vec(prop::collection::vec(-1e3f32..1e3, 70), 1..6),
            dim in 1usize..=70,
        ) {
            let flat: Vec<f32> = rows.concat();
            let mut out = vec![0f32; rows.len() * dim];
            truncate_on_every_tier(&flat, 70, dim, &mut out);
            for (row, out) in rows.iter().zip(out.chunks(dim)) {
                let norm = row[..dim].iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                for (value, out) in row.iter().zip(out) {
                    prop_assert!((f64::from(*value) / norm - f64::from(*out)).abs() < 1e-7);
                }
            }
        }
    }

    #[test]
    fn extreme_rows() {
        let mut out = [9f32; 2];
        truncate_on_every_tier(&[0.0, 0.0, 1.0], 3, 2, &mut out);
        assert_eq!(out, [0.0, 0.0]);
        truncate_on_every_tier(&[3e38, 3e38], 2, 2, &mut out);
        assert!((out[0] - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-7);
        truncate_on_every_tier(&[1e-40, 0.0], 2, 2, &mut out);
        assert_eq!(out, [1.0, 0.0]);
        truncate_on_every_tier(&[f32::NAN, 1.0], 2, 2, &mut out);
        assert!(out[0].is_nan() && out[1].is_nan());
        truncate_on_every_tier(&[f32::INFINITY, 1.0], 2, 2, &mut out);
        assert!(out[0].is_nan());
    }
}
