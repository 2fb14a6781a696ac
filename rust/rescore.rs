//! Products of float queries with the int8 rows of their candidates.
//!
//! Codes find candidates, int8 rows order them: a score is the product times the scale of the row. Only the candidates' rows
//! are read, from wherever they lie, so the memory of the next ones is asked for while one is summed.

use crate::simd::Tier;

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
    assert_eq!(pairs.len(), products.len(), "there must be a product for each pair");
    for (i, (&(query, row), product)) in pairs.iter().zip(products).enumerate() {
        if let Some(&(_, next)) = pairs.get(i + AHEAD) {
            prefetch(rows, next.saturating_mul(dim), dim);
        }
        let (query, row) = (&queries[query * dim..][..dim], &rows[row * dim..][..dim]);
        // SAFETY: a `Tier` is handed out only where its instructions were detected.
        *product = unsafe { (tier.mixed_dot)(query, row) };
    }
}

/// Ask for memory that will be read soon; any place will do.
fn prefetch(values: &[i8], start: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..len).step_by(64) {
        // SAFETY: a prefetch never faults, and SSE is part of x86-64.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                values.as_ptr().wrapping_add(start + line).cast(),
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, start, len);
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
    use super::products;
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

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_row_that_is_not_there_is_a_panic_and_no_read() {
        products(available_tiers().next().unwrap(), &[1.0], &[1], 1, &[(0, 1 << 40)], &mut [0.0]);
    }
}
