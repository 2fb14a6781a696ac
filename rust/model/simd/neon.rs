//! NEON: four values, thirty-two registers; every 64-bit Arm processor.

use std::arch::aarch64::*;

use super::{DType, KernelsByType, kernels};
use crate::model::floats::Floats;
use crate::model::packed::Factors;
use crate::model::product::{Float32, Widened};

pub(crate) static KERNELS: KernelsByType =
    KernelsByType { float32: &FLOAT32, bfloat16: &BFLOAT16, fastest: DType::Float32 };

kernels!(FLOAT32, Float32<float32x4_t, 12>, Factors::Float32, #[target_feature(enable = "neon")]);
kernels!(BFLOAT16, Widened<float32x4_t, 12>, Factors::WidenedBfloat16, #[target_feature(enable = "neon")]);

// SAFETY: the methods are called only from the kernels above, which have their target features.
unsafe impl Floats for float32x4_t {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see the impl, here and below.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: see the impl; the caller vouches for four values.
        unsafe { vld1q_f32(values) }
    }

    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: see the impl; the caller vouches for room for four values.
        unsafe { vst1q_f32(values, self) }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(values: *const u16) -> Self {
        // SAFETY: see the impl; the caller vouches for four values.
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(values)))) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vaddq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vsubq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vmulq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vdivq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vfmaq_f32(summand, self, factor) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vmaxq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { vminq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see the impl.
        unsafe { vrndnq_f32(self) }
    }

    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        // SAFETY: see the impl.
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(self), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }
    }
}
