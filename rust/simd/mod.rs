//! The tiers: one table row and one file for each instruction set.
//!
//! A tier is a handful of functions, compiled for its instructions from the shared algorithms. The fastest one that the
//! processor has is detected once; `JV5KIT_SIMD` forces a tier by name, and a tier that is not there is an error, never a
//! silent fall-back. To add a tier: a file that ends in a `pub(super) static TIER: Tier`, and its row in [`TIERS`].

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod popcnt;
mod portable;

#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use amx::TileConfig;

use std::sync::OnceLock;

use crate::dot;
use crate::hamming::Tile;
use crate::matrix::Batch;
use crate::model::simd::KernelsByType;
use crate::parts::TileRows;
use crate::quantize::Ranges;
use crate::topk::TopK;

/// The environment variable that forces a tier.
pub const VARIABLE: &str = "JV5KIT_SIMD";

/// Every tier of this architecture, the fastest last.
static TIERS: &[&Tier] = &[
    &portable::TIER,
    #[cfg(target_arch = "x86_64")]
    &popcnt::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx2::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx512vnni::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx512::TIER,
    #[cfg(target_arch = "x86_64")]
    &avx512bf16::TIER,
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    &amx::TIER,
    #[cfg(target_arch = "aarch64")]
    &neon::TIER,
];

/// One instruction set and the kernels compiled for it.
///
/// The functions may be called only where `available` says so; the crate hands out a tier only then.
pub struct Tier {
    /// The name, as `JV5KIT_SIMD` has it.
    pub name: &'static str,
    /// The instructions that it needs, in words.
    pub needs: &'static str,
    /// Whether this processor has them.
    pub(crate) available: fn() -> bool,
    /// Sign bits of one row of floats: `(row, code)`, see [`mod@crate::quantize`].
    pub(crate) sign_bits: unsafe fn(&[f32], &mut [u8]),
    /// Symmetric int8 values of one row, and its scale: `(row, values) → scale`, see [`mod@crate::quantize`].
    pub(crate) int8_values: unsafe fn(&[f32], &mut [i8]) -> f32,
    /// int8 values of one row by ranges: `(row, ranges, values)`, of the same length, see [`mod@crate::quantize`].
    pub(crate) ranged_values: unsafe fn(&[f32], Ranges, &mut [i8]),
    /// Dot product of a float32 and an int8 vector of the same length, see [`crate::rescore`].
    pub(crate) mixed_dot: unsafe fn(&[f32], &[i8]) -> f32,
    /// Dot product of a float32 vector and a code of as many bits, see [`crate::rescore`].
    pub(crate) code_dot: unsafe fn(&[f32], &[u8]) -> f32,
    /// Exact search by the dot product of int8 rows, see [`mod@crate::dot`].
    pub(crate) dot: dot::Kernel,
    /// The forward pass, see [`crate::model`].
    pub(crate) model: &'static KernelsByType,
    /// One row at unit length: `(row, out)`, of the same length, see [`mod@crate::truncate`].
    pub(crate) unit_length: unsafe fn(&[f32], &mut [f32]),
    /// Codes in a group of a packed tile.
    pub(crate) lanes: usize,
    /// Pack codes into a tile: `(codes, code bytes, rows, words)`, see [`crate::hamming`].
    pub(crate) pack: unsafe fn(&[u8], usize, TileRows, &mut [u64]),
    /// Scan a tile with one query: `(query words, tile, top-k)`, see [`crate::hamming::scan`].
    pub(crate) scan: unsafe fn(&[u64], &Tile, &mut TopK),
    /// The scan of a tile with many queries at once, where the tier has one.
    pub(crate) batch: Option<BatchScan>,
}

/// A scan that needs many queries to be the faster one.
#[derive(Clone, Copy)]
pub(crate) struct BatchScan {
    /// Queries from which it is.
    pub queries: usize,
    /// Scan a packed tile of eight lanes: `(queries, tile, a top-k for each query)`, see [`crate::matrix::scan`].
    pub scan: unsafe fn(&mut Batch, &Tile, &mut [TopK]),
}

/// The tier in use, and why.
#[derive(Clone, Copy)]
pub struct Choice {
    /// The tier.
    pub tier: &'static Tier,
    /// Whether `JV5KIT_SIMD` asked for it.
    pub forced: bool,
}

/// The tiers that this processor has, the fastest last; never empty.
pub fn available_tiers() -> impl Iterator<Item = &'static Tier> {
    TIERS.iter().copied().filter(|tier| (tier.available)())
}

/// The tier in use: the one that `JV5KIT_SIMD` names, else the fastest; decided at the first call and kept.
///
/// # Errors
/// If the variable names a tier that does not exist or that this processor lacks: a sentence with the names to choose from.
pub fn active() -> Result<Choice, &'static str> {
    static ACTIVE: OnceLock<Result<Choice, String>> = OnceLock::new();
    let choice =
        ACTIVE.get_or_init(|| choose(std::env::var_os(VARIABLE).map(|name| name.to_string_lossy().into_owned())));
    choice.as_ref().map(|choice| *choice).map_err(String::as_str)
}

/// Ask for `len` values from `start` on that will be read soon; any place will do.
pub(crate) fn prefetch<T>(values: &[T], start: usize, len: usize) {
    let bytes = values.as_ptr().wrapping_add(start).cast::<i8>();
    #[cfg(target_arch = "x86_64")]
    for line in (0..len * size_of::<T>()).step_by(64) {
        // SAFETY: a prefetch never faults, and SSE is part of x86-64.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(bytes.wrapping_add(line));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, len);
}

fn choose(forced: Option<String>) -> Result<Choice, String> {
    let here = || available_tiers().map(|tier| tier.name).collect::<Vec<_>>().join(", ");
    let Some(name) = forced.filter(|name| !name.is_empty()) else {
        let tier = available_tiers().last().expect("the portable tier is always there");
        return Ok(Choice { tier, forced: false });
    };
    let Some(tier) = TIERS.iter().copied().find(|tier| tier.name == name) else {
        return Err(format!("{VARIABLE}={name} names no tier; this machine has: {}", here()));
    };
    if !(tier.available)() {
        return Err(format!("{VARIABLE}={name} needs {}, which this processor lacks; it has: {}", tier.needs, here()));
    }
    Ok(Choice { tier, forced: true })
}

#[cfg(test)]
mod tests {
    use super::{TIERS, available_tiers, choose};

    #[test]
    fn the_fastest_is_chosen_and_any_available_one_can_be_forced() {
        let fastest = available_tiers().last().unwrap();
        assert_eq!(choose(None).ok().unwrap().tier.name, fastest.name);
        assert_eq!(choose(Some(String::new())).ok().unwrap().tier.name, fastest.name);
        for tier in available_tiers() {
            let choice = choose(Some(tier.name.into())).ok().unwrap();
            assert!(choice.forced && choice.tier.name == tier.name);
        }
    }

    #[test]
    fn a_tier_that_is_not_there_is_an_error() {
        let message = choose(Some("mmx".into())).err().unwrap();
        assert!(message.contains("JV5KIT_SIMD=mmx") && message.contains("portable"), "{message}");
        for tier in TIERS.iter().filter(|tier| !(tier.available)()) {
            assert!(choose(Some(tier.name.into())).err().unwrap().contains(tier.needs));
        }
    }
}
