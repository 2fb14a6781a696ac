//! AMX-INT8: a matrix unit for batches of queries, Intel since Sapphire Rapids; all else as AVX-512 has it.
//!
//! The instructions are inline assembly until Rust has stable functions for them. Linux saves the tile registers, 8
//! KiB, only for processes that asked for leave to use them; threads of the process share it. Between
//! [`MatrixUnit::start`] and the end of a scan nothing else touches the registers: compiled code never does, and a
//! switch to another thread saves them.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{BatchScan, Tier, avx512bf16};
use crate::hamming::Tile;
use crate::matrix::{self, Batch, Dots, MatrixUnit, Panel};
use crate::model::simd::amx as model;
use crate::topk::TopK;

pub(super) static TIER: Tier = Tier {
    name: "amx",
    needs: "AMX-INT8 and AMX-BF16, AVX512-BF16, AVX-512 F, BW and VPOPCNTDQ, and Linux 5.16",
    available: || (avx512bf16::TIER.available)() && has_instructions() && may_use_tiles(),
    model: &model::KERNELS,
    batch: Some(BatchScan { queries: QUERIES, scan }),
    ..avx512bf16::TIER
};

/// Queries from which a product is faster than vectors: those of four registers.
const QUERIES: usize = 64;

/// Bits of EDX in leaf 7 of CPUID: AMX-BF16, AMX-TILE and AMX-INT8.
const INSTRUCTIONS: u32 = 1 << 22 | 1 << 24 | 1 << 25;

#[allow(unused_unsafe)] // CPUID is a safe function in later versions of Rust than the oldest that compiles this.
fn has_instructions() -> bool {
    // SAFETY: every 64-bit processor has CPUID.
    unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & INSTRUCTIONS == INSTRUCTIONS }
}

/// Ask Linux for leave to use the tile registers, for the whole process; asking again changes nothing.
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let status: i64;
    // SAFETY: a system call that reads and writes no memory of ours; it overwrites RAX, RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => status,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    status == 0
}

/// The memory operand of LDTILECFG.
#[repr(C, align(64))]
pub(crate) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Eight registers of 16 rows of 64 bytes.
    pub fn whole() -> &'static Self {
        &CONFIG
    }
}

/// Eight registers of 16 rows of 64 bytes, which is all of palette 1.
static CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Bytes from a row of a panel to the next.
const STRIDE: usize = 64;

/// The tile registers, as [`CONFIG`] has them for as long as the value lives.
struct Tiles;

// SAFETY: the methods are called only from `scan` below, which has their target features and runs only where detected.
unsafe impl MatrixUnit for Tiles {
    #[inline(always)]
    unsafe fn start() -> Self {
        // SAFETY: see the impl, here and below; the operand is a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, preserves_flags, readonly)) }
        Self
    }

    #[inline(always)]
    unsafe fn zero<const REGISTER: usize>(&mut self) {
        // SAFETY: see the impl.
        unsafe { asm!("tilezero tmm{}", const REGISTER, options(nostack, preserves_flags, nomem)) }
    }

    #[inline(always)]
    unsafe fn load<const REGISTER: usize>(&mut self, panel: &Panel) {
        // SAFETY: see the impl; a panel has 16 rows of 64 bytes.
        unsafe {
            asm!(
                "tileloadd tmm{register}, [{panel} + {stride}]",
                register = const REGISTER,
                panel = in(reg) panel,
                stride = in(reg) STRIDE,
                options(nostack, preserves_flags, readonly)
            );
        }
    }

    #[inline(always)]
    unsafe fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: see the impl.
        unsafe {
            asm!(
                "tdpbssd tmm{c}, tmm{a}, tmm{b}",
                c = const C,
                a = const A,
                b = const B,
                options(nostack, preserves_flags, nomem)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const REGISTER: usize>(&self, dots: &mut Dots) {
        // SAFETY: see the impl; the results have 16 rows of 64 bytes.
        unsafe {
            asm!(
                "tilestored [{dots} + {stride}], tmm{register}",
                register = const REGISTER,
                dots = in(reg) dots,
                stride = in(reg) STRIDE,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn signs(word: u64, values: &mut [i8; 64]) {
        // SAFETY: see the impl; the values are 64 bytes.
        unsafe {
            let signs = _mm512_mask_blend_epi8(word, _mm512_set1_epi8(-1), _mm512_set1_epi8(1));
            _mm512_storeu_si512(values.as_mut_ptr().cast(), signs);
        }
    }

    #[inline(always)]
    unsafe fn largest(dots: &Dots) -> [i32; 16] {
        // SAFETY: see the impl; each row of the results is a vector.
        unsafe {
            let mut largest = load(&dots.0[0]);
            for row in &dots.0[1..] {
                largest = _mm512_max_epi32(largest, load(row));
            }
            std::mem::transmute(largest)
        }
    }

    #[inline(always)]
    unsafe fn above(dots: &[i32; 16], bounds: &[i32; 16]) -> u32 {
        // SAFETY: see the impl.
        unsafe { u32::from(_mm512_cmpgt_epi32_mask(load(dots), load(bounds))) }
    }
}

#[inline(always)]
unsafe fn load(dots: &[i32; 16]) -> __m512i {
    // SAFETY: the caller is compiled with AVX-512 F; the operand has 64 bytes.
    unsafe { _mm512_loadu_si512(dots.as_ptr().cast()) }
}

impl Drop for Tiles {
    /// Registers that hold nothing need not be saved.
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `start` ran, so that the processor has the instruction.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn scan(batch: &mut Batch, tile: &Tile, topk: &mut [TopK]) {
    // SAFETY: the caller vouches for the tile, and that the instructions were detected.
    unsafe { matrix::scan::<Tiles>(batch, tile, topk) }
}
