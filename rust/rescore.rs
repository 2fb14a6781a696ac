//! Products of float queries with the int8 rows of their candidates, or with their codes.
//!
//! Codes find candidates, int8 rows order them: a score is the product times the scale of the row. Without such rows a code
//! orders them itself, each bit as +1 or -1. Only the candidates are read, from wherever they lie, so the memory of the next
//! ones is asked for while one is summed.

use crate::quantize::code_bytes;
use crate::simd::{Tier, prefetch};

/// Partial sums kept side by side. Their number and order are fixed, and products and sums are rounded apart, so that every
/// tier gives the same bits.
const LANES: usize = 32;

/// Candidates ahead of the one that is scored whose rows are asked for.
const AHEAD: usize = 4;

/// A query and a row to multiply, by their numbers.
pub type Pair = (usize, usize);

/// The dot product of each pair of a query (`dim` float32 values) and a row (`dim` int8 values).
///
/// # Panics
/// If a pair names a query or a row that is not there, or `products` has another length than `pairs`.
pub fn products(tier: &Tier, queries: &[f32], rows: &[i8], dim: usize, pairs: &[Pair], products: &mut [f32]) {
    // SAFETY: a `Tier` is handed out only where its instructions were detected.
    let dot = |query: &[f32], row: &[i8]| unsafe { (tier.mixed_dot)(query, row) };
    each_pair(queries, dim, rows, dim, pairs, products, dot);
}

/// The dot product of each pair of a query (`dim` float32 values) and a code, whose bits are +1 where set and -1 where not.
///
/// # Panics
/// If a pair names a query or a code that is not there, or `products` has another length than `pairs`.
pub fn code_products(tier: &Tier, queries: &[f32], codes: &[u8], dim: usize, pairs: &[Pair], products: &mut [f32]) {
    // SAFETY: a `Tier` is handed out only where its instructions were detected; a code has a bit for each value.
    let dot = |query: &[f32], code: &[u8]| unsafe { (tier.code_dot)(query, code) };
    each_pair(queries, dim, codes, code_bytes(dim), pairs, products, dot);
}

/// The product of each pair of a query of `dim` values and a row of `width`.
fn each_pair<T>(
    queries: &[f32],
    dim: usize,
    rows: &[T],
    width: usize,
    pairs: &[Pair],
    products: &mut [f32],
    dot: impl Fn(&[f32], &[T]) -> f32,
) {
    assert_eq!(pairs.len(), products.len(), "there must be a product for each pair");
    for (i, (&(query, row), product)) in pairs.iter().zip(products).enumerate() {
        if let Some(&(_, next)) = pairs.get(i + AHEAD) {
            prefetch(rows, next.saturating_mul(width), width);
        }
        *product = dot(&queries[query * dim..][..dim], &rows[row * width..][..width]);
    }
}

/// Dot product of a float32 and an int8 vector: the algorithm of every tier, compiled for its instructions.
#[inline(always)]
pub(crate) fn mixed_dot(query: &[f32], row: &[i8]) -> f32 {
    let mut sums = [0f32; LANES];
    let (query_blocks, query_rest) = query.as_chunks::<LANES>();
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    for (query, row) in query_blocks.iter().zip(row_blocks) {
        for lane in 0..LANES {
            sums[lane] += query[lane] * f32::from(row[lane]);
        }
    }
    for (lane, (query, value)) in query_rest.iter().zip(row_rest).enumerate() {
        sums[lane] += query * f32::from(*value);
    }
    sum(sums)
}

/// Dot product of a float32 vector and a code: the algorithm of every tier, compiled for its instructions.
#[inline(always)]
pub(crate) fn code_dot(query: &[f32], code: &[u8]) -> f32 {
    let mut sums = [0f32; LANES];
    let mut add = |query: &[f32], word: u32| {
        for (lane, (sum, value)) in sums.iter_mut().zip(query).enumerate() {
            // The first value's bit is the highest. Where it is not set, the sign is turned.
            let turned = if word & (1 << (LANES - 1 - lane)) == 0 { 1 << 31 } else { 0 };
            *sum += f32::from_bits(value.to_bits() ^ turned);
        }
    };
    let (blocks, rest) = query.as_chunks::<LANES>();
    let (words, rest_code) = code.split_at(blocks.len() * LANES / 8);
    for (block, word) in blocks.iter().zip(words.as_chunks::<{ LANES / 8 }>().0) {
        add(block, u32::from_be_bytes(*word));
    }
    let mut word = [0; LANES / 8];
    word[..rest_code.len()].copy_from_slice(rest_code);
    add(rest, u32::from_be_bytes(word));
    sum(sums)
}

/// The sum of the lanes, always in the same order.
#[inline(always)]
fn sum(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::{code_bytes, code_products, products};
    use crate::simd::available_tiers;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_tier_gives_the_same_and_the_right_product(
            dim in 1usize..300, queries in prop::collection::vec(-1f32..1.0, 900), rows in prop::collection::vec(any::<i8>(), 3000),
            pairs in prop::collection::vec((0usize..3, 0usize..10), 0..20),
        ) {
            let mut first: Option<Vec<u32>> = None;
            for tier in available_tiers() {
                let mut out = vec![9f32; pairs.len()];
                products(tier, &queries, &rows, dim, &pairs, &mut out);
                for (&(query, row), &product) in pairs.iter().zip(&out) {
                    let values = queries[query * dim..][..dim].iter().zip(&rows[row * dim..]);
                    let exact: f64 = values.map(|(q, &v)| f64::from(*q) * f64::from(v)).sum();
                    prop_assert!((exact - f64::from(product)).abs() < 1e-2, "{}: {} for {}", tier.name, product, exact);
                }
                let bits: Vec<u32> = out.iter().map(|product| product.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", tier.name);
            }
        }
    }

    proptest! {
        #[test]
        fn every_tier_gives_the_same_and_the_right_product_with_codes(
            dim in 1usize..300, queries in prop::collection::vec(-1f32..1.0, 900), codes in prop::collection::vec(any::<u8>(), 400),
            pairs in prop::collection::vec((0usize..3, 0usize..10), 0..20),
        ) {
            let mut first: Option<Vec<u32>> = None;
            for tier in available_tiers() {
                let mut out = vec![9f32; pairs.len()];
                code_products(tier, &queries, &codes, dim, &pairs, &mut out);
                for (&(query, row), &product) in pairs.iter().zip(&out) {
                    let code = &codes[row * code_bytes(dim)..];
                    let sign = |i: usize| if code[i / 8] >> (7 - i % 8) & 1 == 1 { 1.0 } else { -1.0 };
                    let values = queries[query * dim..][..dim].iter().enumerate();
                    let exact: f64 = values.map(|(i, &value)| f64::from(value) * sign(i)).sum();
                    prop_assert!((exact - f64::from(product)).abs() < 1e-4, "{}: {} for {}", tier.name, product, exact);
                }
                let bits: Vec<u32> = out.iter().map(|product| product.to_bits()).collect();
                prop_assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{}", tier.name);
            }
        }
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_row_that_is_not_there_is_a_panic_and_no_read() {
        products(available_tiers().next().unwrap(), &[1.0], &[1], 1, &[(0, 1 << 40)], &mut [0.0]);
    }
}
