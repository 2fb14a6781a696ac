//! AVX2 and FMA: eight values, sixteen registers; Intel since Haswell, AMD since Zen.

use std::arch::x86_64::*;

use super::{DType, KernelsByType, kernels};
use crate::model::floats::Floats;
use crate::model::packed::Factors;
use crate::model::product::{Float32, Widened};

pub(crate) static KERNELS: KernelsByType =
    KernelsByType { float32: &FLOAT32, bfloat16: &BFLOAT16, fastest: DType::Bfloat16 };

kernels!(FLOAT32, Float32<__m256, 6>, Factors::Float32, #[target_feature(enable = "avx2,fma")]);
kernels!(BFLOAT16, Widened<__m256, 6>, Factors::WidenedBfloat16, #[target_feature(enable = "avx2,fma")]);

// SAFETY: the methods are called only from the kernels above, which have their target features.
unsafe impl Floats for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see the impl, here and below.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: see the impl; the caller vouches for eight values.
        unsafe { _mm256_loadu_ps(values) }
    }

    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: see the impl; the caller vouches for room for eight values.
        unsafe { _mm256_storeu_ps(values, self) }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(values: *const u16) -> Self {
        // SAFETY: see the impl; the caller vouches for eight values.
        unsafe {
            let values = _mm256_cvtepu16_epi32(_mm_loadu_si128(values.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(values))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_div_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_fmadd_ps(self, factor, summand) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_max_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_min_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see the impl.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }

    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        // SAFETY: see the impl.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }
}
