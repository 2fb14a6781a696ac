//! The k best of a stream of rows, ties by row number: by small integers, or by float scores.
//!
//! Hamming distances are small: at most 8 × code bytes. Selection therefore counts instead of keeping a heap. `counts[d]` is
//! the number of rows found at distance d, and `bound` the distance of the k-th smallest so far; a row enters only below the
//! bound, because rows arrive in ascending order and so an equal distance loses its tie. An insertion costs a push and an
//! increment, whatever k is, and the scan needs one comparison to skip a row.
//!
//! Scores are floats: candidates are gathered until there are twice as many as wanted, then the better half is kept, and the
//! k-th best of them is the bound.

use std::cmp::Ordering;

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

/// A row and its score; the better one comes first: by score, highest first, then by row.
#[derive(Clone, Copy, Debug)]
pub struct Scored {
    /// The score, never a NaN.
    pub score: f32,
    /// Row number.
    pub row: u64,
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        // -0.0 is as good as 0.0.
        other.score.partial_cmp(&self.score).unwrap_or(Ordering::Equal).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scored {}

/// The k highest scores of the rows offered, which must come in ascending order.
pub struct TopScores {
    k: usize,
    /// The k-th best score of those that were compared; NaN while there are fewer.
    bound: f32,
    found: Vec<Scored>,
}

impl TopScores {
    /// Rows beyond k that are gathered at least before the best are chosen.
    const SPARE: usize = 32;

    /// A selection of `k ≥ 1` rows.
    pub fn new(k: usize) -> Self {
        assert!(k >= 1, "k must be positive");
        Self { k, bound: f32::NAN, found: Vec::new() }
    }

    /// What a score must exceed to enter, because an equal one of a later row loses its tie; NaN if any score enters.
    #[inline(always)]
    pub fn bound(&self) -> f32 {
        self.bound
    }

    /// Whether a score may enter; one that is no number may.
    #[inline(always)]
    pub fn admits(&self, score: f32) -> bool {
        !matches!(score.partial_cmp(&self.bound), Some(Ordering::Less | Ordering::Equal))
    }

    /// Take the row if it may be among the k best; a score that is no number counts as minus infinity.
    #[inline]
    pub fn offer(&mut self, score: f32, row: u64) {
        let score = if score.is_nan() { f32::NEG_INFINITY } else { score };
        if !self.admits(score) {
            return;
        }
        self.found.push(Scored { score, row });
        if self.found.len() >= self.k.saturating_add(self.k.max(Self::SPARE)) {
            let (_, last, _) = self.found.select_nth_unstable(self.k - 1);
            self.bound = last.score;
            self.found.truncate(self.k);
        }
    }

    /// The k best rows (all of them, if fewer were offered), best first, then by row.
    pub fn into_sorted(mut self) -> Vec<Scored> {
        self.found.sort_unstable();
        self.found.truncate(self.k);
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::{Hit, Scored, TopK, TopScores};
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

        #[test]
        fn scores_equal_sorting(scores in prop::collection::vec(prop_oneof![-3i8..3, any::<i8>()], 0..3000), k in 1usize..1500) {
            let score = |value: i8| if value == 3 { f32::NAN } else { f32::from(value) / 2.0 };
            let mut top = TopScores::new(k);
            let mut expected: Vec<(f32, u64)> = Vec::new();
            for (row, &value) in scores.iter().enumerate() {
                top.offer(score(value), row as u64);
                assert!(top.found.len() < k + k.max(TopScores::SPARE));
                expected.push((if value == 3 { f32::NEG_INFINITY } else { score(value) }, row as u64));
            }
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            expected.truncate(k);
            let found: Vec<_> = top.into_sorted().into_iter().map(|Scored { score, row }| (score, row)).collect();
            prop_assert_eq!(found, expected);
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
