//! AVX-512 with AVX512-BF16, which only the forward pass uses.

use super::{Tier, avx512};
use crate::model::simd::avx512bf16 as model;

pub(super) static TIER: Tier = Tier {
    name: "avx512bf16",
    needs: "AVX512-BF16, and AVX-512 F, BW and VPOPCNTDQ",
    available: || (avx512::TIER.available)() && std::is_x86_feature_detected!("avx512bf16"),
    model: &model::KERNELS,
    ..avx512::TIER
};
