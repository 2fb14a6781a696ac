//! The k smallest of a stream of small integers, ties by row number.
//!
//! Hamming distances are small: at most 8 × code bytes. Selection therefore counts instead of keeping a heap. `counts[d]` is
//! the number of rows found at distance d, and `bound` the distance of the k-th smallest so far; a row enters only below the
//! bound, because rows arrive in ascending order and so an equal distance loses its tie. An insertion costs a push and an
//! increment, whatever k is, and the scan needs one comparison to skip a row.

/// The k smallest distances of the rows offered, which must come in ascending order.
pub struct TopK {
    k: usize,
    /// A distance must be below it to enter: the smallest d with k or more rows at a distance ≤ d.
    bound: u32,
    /// Rows found at a distance below the bound; fewer than k.
    below: usize,
    counts: Vec<u32>,
    found: Vec<Hit>,
}

/// A row and its distance; ordered by distance, then row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Hamming distance in bits.
    pub distance: u32,
    /// Row number.
    pub row: u64,
}

impl TopK {
    /// A selection of `k ≥ 1` rows whose distances are at most `max_distance`.
    pub fn new(k: usize, max_distance: u32) -> Self {
        assert!(k >= 1, "k must be positive");
        Self { k, bound: max_distance + 1, below: 0, counts: vec![0; max_distance as usize + 1], found: Vec::new() }
    }

    /// The distance below which a row enters.
    #[inline(always)]
    pub fn bound(&self) -> u32 {
        self.bound
    }

    /// Take the row if it is among the k nearest so far.
    #[inline]
    pub fn offer(&mut self, distance: u32, row: u64) {
        if distance >= self.bound {
            return;
        }
        self.found.push(Hit { distance, row });
        self.counts[distance as usize] += 1;
        self.below += 1;
        while self.below >= self.k {
            self.bound -= 1;
            self.below -= self.counts[self.bound as usize] as usize;
        }
        // Entries that dropped out are removed now and then, so that memory stays in proportion to k.
        if self.found.len() >= 1024 && self.found.len() / 2 >= self.k {
            self.compact();
        }
    }

    /// Remove what can no longer be among the k smallest: all beyond the bound, and ties at the bound past the k-th.
    fn compact(&mut self) {
        let (bound, mut at_bound) = (self.bound, self.k - self.below);
        self.found.retain(|hit| {
            hit.distance < bound
                || (hit.distance == bound && at_bound > 0 && {
                    at_bound -= 1;
                    true
                })
        });
    }

    /// The k nearest rows (all of them, if fewer were offered), by distance, then row.
    pub fn into_sorted(mut self) -> Vec<Hit> {
        self.compact();
        self.found.sort_unstable();
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::{Hit, TopK};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_sorting(distances in prop::collection::vec(0u32..40, 0..3000), k in 1usize..1500) {
            let mut topk = TopK::new(k, 40);
            let mut expected: Vec<Hit> = Vec::new();
            for (row, &distance) in distances.iter().enumerate() {
                topk.offer(distance, row as u64);
                expected.push(Hit { distance, row: row as u64 });
            }
            expected.sort();
            expected.truncate(k);
            prop_assert_eq!(topk.into_sorted(), expected);
        }
    }

    #[test]
    fn memory_stays_in_proportion_to_k() {
        let mut topk = TopK::new(10, 1024);
        for round in 0..1_000_000u64 {
            topk.offer(1024 - (round / 1000) as u32, round);
        }
        assert!(topk.found.len() <= 1024);
        assert_eq!(topk.into_sorted()[0], Hit { distance: 25, row: 999_000 });
    }
}
