//! AMX-BF16: the matrix unit of Intel since Sapphire Rapids, for products; AVX-512 for everything else.
//!
//! The instructions are inline assembly until Rust has stable functions for them; `simd::amx` asks Linux for leave.

use std::arch::asm;
use std::arch::x86_64::__m512;

use super::{DType, KernelsByType, avx512, kernels};
use crate::model::bfloat16::{Tiled, Tiles};
use crate::model::packed::Factors;
use crate::simd::TileConfig;

pub(crate) static KERNELS: KernelsByType =
    KernelsByType { float32: avx512::KERNELS.float32, bfloat16: &BFLOAT16, fastest: DType::Bfloat16 };

kernels!(BFLOAT16, Tiled<Registers, __m512>, Factors::Bfloat16, #[target_feature(enable = "avx512f,avx512bf16")]);

/// The tile registers of this thread.
pub(crate) struct Registers;

// SAFETY: the methods are called only from the kernels above, which run only where AMX was detected.
unsafe impl Tiles for Registers {
    #[inline(always)]
    unsafe fn start() {
        // SAFETY: see the impl, here and below; the operand is a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) TileConfig::whole(), options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    unsafe fn finish() {
        // SAFETY: see the impl.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
    }

    #[inline(always)]
    unsafe fn zero<const REGISTER: usize>() {
        // SAFETY: see the impl.
        unsafe { asm!("tilezero tmm{}", const REGISTER, options(nostack, preserves_flags, nomem)) }
    }

    #[inline(always)]
    unsafe fn load<const REGISTER: usize>(rows: *const u8, stride: usize) {
        // SAFETY: see the impl; the caller vouches for the rows.
        unsafe {
            asm!(
                "tileloadd tmm{register}, [{rows} + {stride}]",
                register = const REGISTER,
                rows = in(reg) rows,
                stride = in(reg) stride,
                options(nostack, preserves_flags, readonly)
            );
        }
    }

    #[inline(always)]
    unsafe fn multiply<const C: usize, const A: usize, const B: usize>() {
        // SAFETY: see the impl.
        unsafe {
            asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
                c = const C,
                a = const A,
                b = const B,
                options(nostack, preserves_flags, nomem)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const REGISTER: usize>(sums: &mut [[f32; 16]; 16]) {
        // SAFETY: see the impl; the sums have 16 rows of 64 bytes.
        unsafe {
            asm!(
                "tilestored [{sums} + {stride}], tmm{register}",
                register = const REGISTER,
                sums = in(reg) sums,
                stride = in(reg) 64usize,
                options(nostack, preserves_flags)
            );
        }
    }
}
