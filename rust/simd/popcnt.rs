//! The POPCNT instruction, on every x86-64 processor since 2008: the portable tier, but for the scan that counts bits.

use super::{Tier, portable};
use crate::hamming::{self, Tile};
use crate::topk::TopK;

pub(super) static TIER: Tier = Tier {
    name: "popcnt",
    needs: "POPCNT",
    available: || std::is_x86_feature_detected!("popcnt"),
    scan,
    ..portable::TIER
};

#[target_feature(enable = "popcnt")]
unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile, and that POPCNT was detected.
    unsafe { hamming::scan::<u64>(query, tile, topk) }
}
