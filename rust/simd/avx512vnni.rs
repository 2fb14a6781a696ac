//! AVX-512 without VPOPCNTDQ: Intel's Cascade Lake and Cooper Lake, which count bits by looking up half bytes.

use super::{Tier, avx512};
use crate::hamming::{self, Tile};
use crate::topk::TopK;

pub(super) static TIER: Tier = Tier {
    name: "avx512vnni",
    needs: "AVX-512 F, BW and VNNI",
    available: || {
        std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vnni")
    },
    scan,
    ..avx512::TIER
};

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile, and that the features were detected.
    unsafe { hamming::scan::<avx512::Words<false>>(query, tile, topk) }
}
