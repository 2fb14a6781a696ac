//! Quantization of float rows: one sign bit a dimension, or int8 values with one scale a row.
//!
//! The bits are those of `numpy.packbits(x > 0, axis=-1)`: the first dimension is the highest bit of the first byte, and
//! 0, -0.0 and NaN give 0. sentence-transformers has the same layout, and binary indexes, FAISS's among them,
//! take such codes as they are. (`faiss.real_to_binary` has the bits of a byte in the other order.)
//!
//! int8 values are symmetric: `row ≈ scale × values`, where the scale is the largest absolute value of the row / 127. Nothing
//! is clipped and nothing calibrated, and a row is read from memory once for its bits and its values together. Or they are
//! those of sentence-transformers: 256 steps between the low and the high end of each dimension.

use crate::hamming::PREFETCH_BYTES;
use crate::simd::{Tier, prefetch};

/// Bytes of the code of one row of `columns` values; the last byte of an uneven row is filled up with zeros.
pub fn code_bytes(columns: usize) -> usize {
    columns.div_ceil(8)
}

/// Write the sign bits of each row of `rows` (`columns` values each) to `out` (`code_bytes(columns)` bytes each).
///
/// # Panics
/// If `columns` is 0, or a slice has another length than the shapes say.
pub fn quantize(tier: &Tier, rows: &[f32], columns: usize, out: &mut [u8]) {
    assert!(columns > 0, "columns must be positive");
    assert_eq!(rows.len() % columns, 0, "rows are not whole");
    assert_eq!(out.len(), rows.len() / columns * code_bytes(columns), "out has another number of rows");
    for (row, out) in rows.chunks_exact(columns).zip(out.chunks_exact_mut(code_bytes(columns))) {
        // SAFETY: a `Tier` is handed out only where its instructions were detected; out has code_bytes(row.len()) bytes.
        unsafe { (tier.sign_bits)(row, out) };
    }
}

/// Write the symmetric int8 values of each row of `rows` (`columns` finite values each) to `values`, its scale to `scales`,
/// and its sign bits to `codes` if there are any wanted (as [`quantize`] does).
///
/// # Panics
/// If `columns` is 0, or a slice has another length than the shapes say.
pub fn quantize_rows(
    tier: &Tier,
    rows: &[f32],
    columns: usize,
    values: &mut [i8],
    scales: &mut [f32],
    mut codes: Option<&mut [u8]>,
) {
    assert!(columns > 0, "columns must be positive");
    assert_eq!(rows.len() % columns, 0, "rows are not whole");
    assert_eq!(values.len(), rows.len(), "values has another number of rows");
    assert_eq!(scales.len(), rows.len() / columns, "scales has another number of rows");
    let bytes = code_bytes(columns);
    assert!(codes.as_ref().is_none_or(|codes| codes.len() == scales.len() * bytes), "codes has another number of rows");
    for (i, row) in rows.chunks_exact(columns).enumerate() {
        prefetch(rows, i * columns + PREFETCH_BYTES / 4, columns);
        // SAFETY: a `Tier` is handed out only where its instructions were detected; the slices have the row's lengths.
        unsafe {
            scales[i] = (tier.int8_values)(row, &mut values[i * columns..][..columns]);
            if let Some(codes) = codes.as_deref_mut() {
                (tier.sign_bits)(row, &mut codes[i * bytes..][..bytes]);
            }
        }
    }
}

/// What is quantized by the range of each dimension.
#[derive(Clone, Copy)]
pub struct Ranges<'a> {
    /// The low end of each dimension.
    pub lows: &'a [f32],
    /// The length of the steps of each dimension, positive.
    pub steps: &'a [f32],
}

/// Write int8 values of each row of `rows` to `values`: the number of whole steps from the low end of its dimension on, in
/// 0..=255, less 128. What lies outside is clipped, and a NaN gives -128.
///
/// # Panics
/// If there is no dimension, or a slice has another length than the shapes say.
pub fn quantize_ranges(tier: &Tier, rows: &[f32], ranges: Ranges, values: &mut [i8]) {
    let Ranges { lows, steps } = ranges;
    assert!(!lows.is_empty(), "columns must be positive");
    assert_eq!(lows.len(), steps.len(), "there must be a step for each dimension");
    assert_eq!(rows.len() % lows.len(), 0, "rows are not whole");
    assert_eq!(values.len(), rows.len(), "values has another number of rows");
    for (i, (row, values)) in rows.chunks_exact(lows.len()).zip(values.chunks_exact_mut(lows.len())).enumerate() {
        prefetch(rows, i * lows.len() + PREFETCH_BYTES / 4, lows.len());
        // SAFETY: a `Tier` is handed out only where its instructions were detected.
        unsafe { (tier.ranged_values)(row, ranges, values) };
    }
}

/// int8 values of one row by ranges: the algorithm of every tier, compiled for its instructions.
#[inline(always)]
pub(crate) fn ranged_values(row: &[f32], ranges: Ranges, values: &mut [i8]) {
    for (((value, low), step), out) in row.iter().zip(ranges.lows).zip(ranges.steps).zip(values) {
        #[expect(clippy::manual_clamp, reason = "a NaN is to become 0")]
        let steps = ((value - low) / step).max(0.0).min(255.0);
        // SAFETY: the number is in 0..=255.
        let whole: i32 = unsafe { steps.to_int_unchecked() };
        *out = (whole - 128) as i8;
    }
}

/// Symmetric int8 values of one finite row, and its scale: the algorithm of every tier, compiled for its instructions.
#[inline(always)]
pub(crate) fn int8_values(row: &[f32], values: &mut [i8]) -> f32 {
    /// Added to a small number, it leaves the number, rounded half to even, in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // The order of positive floats is that of their bits.
    let largest = f32::from_bits(row.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7FFF_FFFF)));
    let inverse = 127.0 / largest;
    if inverse.is_finite() {
        for (value, out) in row.iter().zip(values) {
            *out = (value * inverse + ROUND).to_bits() as i8;
        }
    } else {
        // A row of zeros, or one so small that 127 / largest overflows.
        let inverse = if largest > 0.0 { 127.0 / f64::from(largest) } else { 0.0 };
        for (value, out) in row.iter().zip(values) {
            *out = (f64::from(*value) * inverse).round_ties_even() as i8;
        }
    }
    largest / 127.0
}

/// Sign bits of one row: the algorithm of every tier without an instruction for it.
#[inline(always)]
pub(crate) fn sign_bits(row: &[f32], out: &mut [u8]) {
    for (values, byte) in row.chunks(8).zip(out) {
        *byte = values.iter().enumerate().fold(0, |byte, (i, &value)| byte | (u8::from(value > 0.0) << (7 - i)));
    }
}

#[cfg(test)]
mod tests {
    use super::{Ranges, code_bytes, quantize, quantize_ranges, quantize_rows};
    use crate::simd::available_tiers;
    use proptest::prelude::*;

    fn naive(row: &[f32]) -> Vec<u8> {
        let mut code = vec![0u8; row.len().div_ceil(8)];
        for (i, &value) in row.iter().enumerate() {
            if value > 0.0 {
                code[i / 8] |= 0x80 >> (i % 8);
            }
        }
        code
    }

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => any::<f32>(),
            1 => prop::sample::select(vec![0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-45, -1e-45]),
        ]
    }

    /// Round half to even of row × 127 / largest, in float64.
    fn naive_int8(row: &[f32]) -> (Vec<f64>, f32) {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scaled =
            row.iter().map(|&value| if largest > 0.0 { f64::from(value) * 127.0 / f64::from(largest) } else { 0.0 });
        (scaled.collect(), largest / 127.0)
    }

    proptest! {
        #[test]
        fn every_tier_gives_int8_values_to_half_a_step(
            columns in 1usize..300, count in 0usize..4, exponent in -44i32..38, values in prop::collection::vec(-1f32..1.0, 1200),
            offset in 0usize..3,
        ) {
            let scaled: Vec<f32> = values.iter().map(|value| value * 10f32.powi(exponent)).collect();
            let rows = &scaled[offset..][..count * columns];
            let mut first: Option<(Vec<i8>, Vec<u32>)> = None;
            for tier in available_tiers() {
                let mut out = vec![99i8; rows.len()];
                let (mut scales, mut codes) = (vec![9f32; count], vec![0xAA; count * code_bytes(columns)]);
                quantize_rows(tier, rows, columns, &mut out, &mut scales, Some(&mut codes));
                for (i, row) in rows.chunks(columns).enumerate() {
                    let (expected, scale) = naive_int8(row);
                    prop_assert_eq!(scales[i], scale);
                    prop_assert_eq!(&codes[i * code_bytes(columns)..][..code_bytes(columns)], &naive(row)[..]);
                    for (expected, &value) in expected.iter().zip(&out[i * columns..]) {
                        prop_assert!((expected - f64::from(value)).abs() <= 0.5001, "{} {} for {}", tier.name, value, expected);
                    }
                }
                let answer = (out, scales.iter().map(|scale| scale.to_bits()).collect());
                prop_assert_eq!(first.get_or_insert_with(|| answer.clone()), &answer, "{}", tier.name);
            }
        }

        #[test]
        fn every_tier_gives_the_naive_steps(
            columns in 1usize..100, count in 0usize..4, values in prop::collection::vec(value(), 300),
            lows in prop::collection::vec(-2f32..2.0, 100), steps in prop::collection::vec(1e-3f32..1.0, 100),
        ) {
            let count = count.min(values.len() / columns);
            let rows = &values[..count * columns];
            let naive = |(i, &value): (usize, &f32)| {
                let steps = ((value - lows[i % columns]) / steps[i % columns]).floor();
                if steps.is_nan() { -128 } else { (steps.clamp(0.0, 255.0) - 128.0) as i8 }
            };
            let expected: Vec<i8> = rows.iter().enumerate().map(naive).collect();
            for tier in available_tiers() {
                let mut out = vec![99i8; rows.len()];
                quantize_ranges(tier, rows, Ranges { lows: &lows[..columns], steps: &steps[..columns] }, &mut out);
                prop_assert_eq!(&out, &expected, "{}", tier.name);
            }
        }

        #[test]
        fn every_tier_gives_the_naive_bits(
            columns in 1usize..300, rows in 0usize..4, values in prop::collection::vec(value(), 1200), offset in 0usize..3,
        ) {
            let rows = &values[offset..][..rows * columns.min(299)];
            let columns = columns.min(299);
            let expected: Vec<u8> = rows.chunks(columns).flat_map(naive).collect();
            for tier in available_tiers() {
                let mut out = vec![0xAAu8; rows.len() / columns * code_bytes(columns)];
                quantize(tier, rows, columns, &mut out);
                prop_assert_eq!(&out, &expected, "tier {}", tier.name);
            }
        }
    }
}
