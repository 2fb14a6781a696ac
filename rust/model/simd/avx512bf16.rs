//! AVX512-BF16: products of pairs of bfloat16; Intel since Cooper Lake and Sapphire Rapids, AMD since Zen 4.

use std::arch::x86_64::*;

use super::{DType, KernelsByType, avx512, kernels};
use crate::model::bfloat16::{Paired, Pairs};
use crate::model::packed::Factors;

pub(crate) static KERNELS: KernelsByType =
    KernelsByType { float32: avx512::KERNELS.float32, bfloat16: &BFLOAT16, fastest: DType::Bfloat16 };

kernels!(BFLOAT16, Paired<__m512, 12>, Factors::Bfloat16, #[target_feature(enable = "avx512f,avx512bf16")]);

// SAFETY: the methods are called only from kernels that are compiled with AVX512-BF16, as those above are.
unsafe impl Pairs for __m512 {
    #[inline(always)]
    unsafe fn add_products(self, inputs: u32, weights: *const u16) -> Self {
        // SAFETY: see the impl; the caller vouches for sixteen pairs; the two types are the same 64 bytes.
        unsafe {
            let inputs: __m512bh = std::mem::transmute(_mm512_set1_epi32(inputs as i32));
            let weights: __m512bh = std::mem::transmute(_mm512_loadu_si512(weights.cast()));
            _mm512_dpbf16_ps(self, inputs, weights)
        }
    }

    #[inline(always)]
    unsafe fn store_bfloat16(self, values: *mut u16) {
        // SAFETY: see the impl; the caller vouches for room for sixteen values.
        unsafe {
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(self));
            _mm256_storeu_si256(values.cast(), rounded);
        }
    }
}
