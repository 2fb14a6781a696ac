//! Binary quantization: one sign bit a dimension.
//!
//! The bits are those of `numpy.packbits(x > 0, axis=-1)`: the first dimension is the highest bit of the first byte, and
//! 0, -0.0 and NaN give 0. sentence-transformers has the same layout, and binary indexes, FAISS's among them,
//! take such codes as they are. (`faiss.real_to_binary` has the bits of a byte in the other order.)

use crate::simd::Tier;

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

/// Sign bits of one row: the algorithm of every tier without an instruction for it.
#[inline(always)]
pub(crate) fn sign_bits(row: &[f32], out: &mut [u8]) {
    for (values, byte) in row.chunks(8).zip(out) {
        *byte = values.iter().enumerate().fold(0, |byte, (i, &value)| byte | (u8::from(value > 0.0) << (7 - i)));
    }
}

#[cfg(test)]
mod tests {
    use super::{code_bytes, quantize};
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

    proptest! {
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
