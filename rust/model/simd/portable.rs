//! Arrays of `N` values, of which every compiler makes vectors.

use super::{DType, KernelsByType, kernels};
use crate::model::floats::Floats;
use crate::model::packed::Factors;
use crate::model::product::{Float32, Widened};

pub(crate) static KERNELS: KernelsByType =
    KernelsByType { float32: &FLOAT32, bfloat16: &BFLOAT16, fastest: DType::Float32 };

kernels!(FLOAT32, Float32<Lanes<4>, 4>, Factors::Float32,);
kernels!(BFLOAT16, Widened<Lanes<4>, 4>, Factors::WidenedBfloat16,);

/// `N` values, a power of two of at most 16.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<const N: usize>([f32; N]);

impl<const N: usize> Lanes<N> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

// SAFETY: plain operations, on every processor.
unsafe impl<const N: usize> Floats for Lanes<N> {
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; N])
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: the caller vouches for `N` values; here and below.
        Self(unsafe { values.cast::<[f32; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: see above.
        unsafe { values.cast::<[f32; N]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_bfloat16(values: *const u16) -> Self {
        // SAFETY: see above.
        Self(unsafe { values.cast::<[u16; N]>().read_unaligned() }.map(|value| f32::from_bits(u32::from(value) << 16)))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    /// Rounded twice: without the instruction, rounding once is a call of a function for each value.
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane] + summand.0[lane]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    /// For the small numbers that occur: adding 1.5 × 2^23 leaves no room for a fraction.
    #[inline(always)]
    unsafe fn round(self) -> Self {
        const SHIFT: f32 = 12_582_912.0;
        Self(self.0.map(|value| (value + SHIFT) - SHIFT))
    }

    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        Self(self.0.map(|value| f32::from_bits(((value as i32 + 127) << 23) as u32)))
    }
}
