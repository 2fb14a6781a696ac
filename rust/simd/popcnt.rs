//! The POPCNT instruction, on every x86-64 processor since 2008: the scalar algorithms, compiled with it.

use super::Tier;
use crate::hamming::{self, Tile, TileRows};
use crate::quantize;
use crate::rescore;
use crate::topk::TopK;
use crate::truncate;

pub(super) static TIER: Tier = Tier {
    name: "popcnt",
    needs: "POPCNT",
    available: || std::is_x86_feature_detected!("popcnt"),
    sign_bits,
    int8_values,
    mixed_dot,
    unit_length,
    lanes: 1,
    pack,
    scan,
};

unsafe fn sign_bits(row: &[f32], out: &mut [u8]) {
    quantize::sign_bits(row, out);
}

unsafe fn int8_values(row: &[f32], values: &mut [i8]) -> f32 {
    quantize::int8_values(row, values)
}

unsafe fn mixed_dot(query: &[f32], row: &[i8]) -> f32 {
    rescore::mixed_dot(query, row)
}

unsafe fn unit_length(row: &[f32], out: &mut [f32]) {
    truncate::unit_length(row, out);
}

unsafe fn pack(codes: &[u8], bytes: usize, rows: TileRows, out: &mut [u64]) {
    hamming::pack(codes, bytes, rows, 1, out);
}

#[target_feature(enable = "popcnt")]
unsafe fn scan(query: &[u64], tile: &Tile, topk: &mut TopK) {
    // SAFETY: the caller vouches for the tile, and that POPCNT was detected.
    unsafe { hamming::scan::<u64>(query, tile, topk) }
}
