//! The kernels of jv5kit: pure functions over slices, with no files, no JSON and no Python (all of PyO3 is in `python.rs`).
//!
//! One line of flow runs through the crate:
//!
//! ```text
//! f32 rows ─► truncate ─► quantize ─► codes ─► search ─► (distances, rows)
//! ```
//!
//! * [`mod@truncate`] keeps the first dimensions of a Matryoshka embedding and brings it back to unit length;
//! * [`mod@quantize`] turns each row into sign bits, the same bits as `numpy.packbits(x > 0)`, and into int8 values;
//! * [`hamming`] is the distance: a naive reference, and the scan of one query over a tile of packed codes, written once
//!   over a small vector trait;
//! * `matrix` is the same distance as a matrix product, for batches of queries on processors with a matrix unit;
//! * [`topk`] selects the k smallest distances by counting, ties by row number;
//! * [`parts`] numbers the rows of several pieces of memory, reads their masks, and spreads chunks of them over threads;
//! * [`search`] cuts queries × codes into tiles that stay in cache, scans them and merges;
//! * [`mod@dot`] multiplies int8 vectors, and [`int8_search`] searches int8 rows by it as [`search`] does codes;
//! * [`rescore`] multiplies float queries with the int8 rows of their candidates;
//! * [`mod@model`] is the forward pass of embedding models;
//! * [`checksum`] guards stored blocks by CRC32C;
//! * [`simd`] has a tier for each instruction set, as one table: each tier is one file that compiles the shared algorithms
//!   for its instructions, detected once at run time and forced by `JV5KIT_SIMD`.
//!
//! Results are exact and the same to the last bit on every tier, for every number of threads and every batch of queries.

pub mod checksum;
pub mod dot;
pub mod hamming;
pub mod int8_search;
// Only a tier of x86-64 on Linux has a matrix unit; the tests run everywhere.
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
mod matrix;
pub mod model;
pub mod parts;
pub mod quantize;
pub mod rescore;
pub mod search;
pub mod simd;
pub mod topk;
pub mod truncate;

#[cfg(feature = "python")]
mod python;
