//! The kernels against `tests/vectors`, which `tests/test_vectors.py` reads as well.

use jv5kit::checksum::block_checksums;
use jv5kit::hamming::distance;
use jv5kit::quantize::{code_bytes, quantize};
use jv5kit::search::{Codes, Part, search};
use jv5kit::simd::available_tiers;
use jv5kit::topk::Hit;

/// The rows of a table below its header, which must be `columns`.
fn rows<'a, const N: usize>(table: &'a str, columns: [&str; N]) -> impl Iterator<Item = [&'a str; N]> {
    let mut rows = table.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        <[&str; N]>::try_from(fields).unwrap_or_else(|fields| panic!("{} fields in {line:?}", fields.len()))
    });
    assert_eq!(rows.next(), Some(columns));
    rows
}

fn from_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "odd number of digits in {hex:?}");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn sign_bits() {
    for [values, code] in rows(include_str!("vectors/quantize.tsv"), ["values", "code"]) {
        let row: Vec<f32> = values.split(' ').map(|value| value.parse().unwrap()).collect();
        for tier in available_tiers() {
            let mut out = vec![0xAA; code_bytes(row.len())];
            quantize(tier, &row, row.len(), &mut out);
            assert_eq!(out, from_hex(code), "{values} on {}", tier.name);
        }
    }
}

#[test]
fn distances() {
    for [a, b, expected] in rows(include_str!("vectors/hamming.tsv"), ["a", "b", "distance"]) {
        let (a, b, expected) = (from_hex(a), from_hex(b), expected.parse().unwrap());
        assert_eq!(distance(&a, &b), expected, "{a:02x?} and {b:02x?}");
        for tier in available_tiers() {
            let part = Part { codes: Codes::new(&b, a.len()), mask: None };
            let hits = search(tier, Codes::new(&a, a.len()), &[part], 1, 1);
            assert_eq!(hits, [[Hit { distance: expected, row: 0 }]], "{a:02x?} and {b:02x?} on {}", tier.name);
        }
    }
}

#[test]
fn checksums() {
    for [bytes, block, expected] in rows(include_str!("vectors/checksum.tsv"), ["bytes", "block_bytes", "checksums"]) {
        let checksums = block_checksums(&from_hex(bytes), block.parse().unwrap());
        let checksums: Vec<String> = checksums.iter().map(|checksum| format!("{checksum:08X}")).collect();
        assert_eq!(checksums.join(" "), expected, "{bytes} in blocks of {block}");
    }
}
