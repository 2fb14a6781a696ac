//! Benches of the kernels: one group for each kernel, one bench for each tier of this machine where the tier matters.
//!
//! Each kernel must give the naive answer before it is timed. `plain_read`, a sum over the bytes that the kernel reads,
//! is timed beside every kernel that can be bound by memory: a kernel as fast as that is at the memory bus.
//!
//! Everything runs on one thread. `cargo bench -- --quick` takes about a minute after it is compiled.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use jv5kit::checksum::block_checksums;
use jv5kit::hamming;
use jv5kit::int8_search;
use jv5kit::parts::Mask;
use jv5kit::quantize::{Ranges, code_bytes, quantize, quantize_ranges, quantize_rows};
use jv5kit::rescore::{code_products, products};
use jv5kit::search::{Codes, Part, search};
use jv5kit::simd::available_tiers;
use jv5kit::topk::Hit;
use jv5kit::truncate::truncate;

/// Bytes of the codes to search: 1M codes of 256 bits, or 250k of 1024 bits.
const CODES_BYTES: usize = 32_000_000;

/// Bytes of the floats to quantize and to truncate: more than most caches hold.
const FLOATS_BYTES: usize = 128 << 20;

const TOP_K: usize = 10;

/// Pseudo-random words, the same in every run.
fn words(count: usize, seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
    .take(count)
}

fn random_bytes(count: usize, seed: u64) -> Vec<u8> {
    words(count / 8, seed).flat_map(u64::to_le_bytes).collect()
}

/// Floats in -1..1.
fn random_floats(count: usize, seed: u64) -> Vec<f32> {
    words(count, seed).map(|word| (word as i64 >> 32) as f32 / (1u64 << 31) as f32).collect()
}

/// Ask for memory that will be read soon; any address will do.
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The sum of the bytes as 64-bit words: as little work as reading them can be. It asks ahead, because hardware
/// prefetching alone can leave a third of the bandwidth unused, and a kernel that asks ahead would beat the bus.
fn plain_read(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 8];
    for line in bytes.chunks_exact(64) {
        prefetch(line.as_ptr().wrapping_add(8192));
        for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
            *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().expect("8 bytes")));
        }
    }
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

/// The floats as the bytes that they are.
fn as_bytes(floats: &[f32]) -> &[u8] {
    // SAFETY: any float is four bytes, and bytes have no alignment.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

/// A group whose benches read so many bytes and give so many results an iteration.
fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: usize, results: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::ElementsAndBytes { elements: results as u64, bytes: bytes as u64 });
    group
}

/// Float rows to sign bits; an element is a row.
fn bench_quantize(criterion: &mut Criterion) {
    let floats = random_floats(FLOATS_BYTES / 4, 1);
    for columns in [256, 1024] {
        let rows = floats.len() / columns;
        let mut codes = vec![0u8; rows * code_bytes(columns)];
        let mut naive = vec![0u8; codes.len()];
        for (i, _) in floats.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            naive[i / 8] |= 0x80 >> (i % 8);
        }
        let mut group = group(criterion, &format!("quantize/{columns}_dims"), FLOATS_BYTES, rows);
        group.bench_function("plain_read", |bencher| bencher.iter(|| plain_read(black_box(as_bytes(&floats)))));
        for tier in available_tiers() {
            codes.fill(0xAA);
            quantize(tier, &floats, columns, &mut codes);
            assert!(codes == naive, "{} differs from the naive bits", tier.name);
            group.bench_function(tier.name, |bencher| {
                bencher.iter(|| quantize(tier, black_box(&floats), columns, black_box(&mut codes)));
            });
        }
    }
}

/// Float rows to int8 values, a scale and sign bits, in one pass; an element is a row.
fn bench_quantize_rows(criterion: &mut Criterion) {
    let columns = 256;
    let floats = random_floats(FLOATS_BYTES / 4, 9);
    let rows = floats.len() / columns;
    let (mut values, mut scales) = (vec![0i8; floats.len()], vec![0f32; rows]);
    let mut codes = vec![0u8; rows * code_bytes(columns)];
    let near_naive = |values: &[i8], scales: &[f32]| {
        floats.chunks_exact(columns).zip(values.chunks_exact(columns)).zip(scales).all(|((row, values), scale)| {
            let close = |(value, out): (&f32, &i8)| (value - f32::from(*out) * scale).abs() <= scale * 0.501;
            row.iter().zip(values).all(close)
        })
    };
    let mut group = group(criterion, &format!("quantize_rows/{columns}_dims"), FLOATS_BYTES, rows);
    group.bench_function("plain_read", |bencher| bencher.iter(|| plain_read(black_box(as_bytes(&floats)))));
    for tier in available_tiers() {
        values.fill(99);
        quantize_rows(tier, &floats, columns, &mut values, &mut scales, Some(&mut codes));
        assert!(near_naive(&values, &scales), "{} differs from the naive rows", tier.name);
        group.bench_function(tier.name, |bencher| {
            bencher.iter(|| {
                let (values, scales) = (black_box(&mut values), black_box(&mut scales));
                quantize_rows(tier, black_box(&floats), columns, values, scales, Some(&mut codes));
            });
        });
    }
}

/// Float rows to int8 values by the range of each dimension; an element is a row.
fn bench_quantize_ranges(criterion: &mut Criterion) {
    let columns = 256;
    let floats = random_floats(FLOATS_BYTES / 4, 11);
    let (lows, steps) = (vec![-0.75f32; columns], vec![1.5f32 / 255.0; columns]);
    let ranges = Ranges { lows: &lows, steps: &steps };
    let mut values = vec![0i8; floats.len()];
    let naive = |value: &f32| (((value - lows[0]) / steps[0]).floor().clamp(0.0, 255.0) - 128.0) as i8;
    let mut group = group(criterion, &format!("quantize_ranges/{columns}_dims"), FLOATS_BYTES, floats.len() / columns);
    group.bench_function("plain_read", |bencher| bencher.iter(|| plain_read(black_box(as_bytes(&floats)))));
    for tier in available_tiers() {
        values.fill(99);
        quantize_ranges(tier, &floats, ranges, &mut values);
        assert!(values.iter().eq(floats.iter().map(naive).collect::<Vec<_>>().iter()), "{} is not naive", tier.name);
        group.bench_function(tier.name, |bencher| {
            bencher.iter(|| quantize_ranges(tier, black_box(&floats), ranges, black_box(&mut values)));
        });
    }
}

/// Products of 100 float queries with 40 int8 rows each, out of many; an element is a product.
fn bench_rescore(criterion: &mut Criterion) {
    let dim = 256;
    let queries = random_floats(100 * dim, 10);
    let rows: Vec<i8> = random_bytes(CODES_BYTES, 11).into_iter().map(|byte| byte as i8).collect();
    let pairs: Vec<_> =
        words(4000, 12).enumerate().map(|(i, word)| (i / 40, word as usize % (rows.len() / dim))).collect();
    let naive = |(query, row): (usize, usize)| {
        let values = queries[query * dim..][..dim].iter().zip(&rows[row * dim..]);
        values.map(|(q, &v)| f64::from(*q) * f64::from(v)).sum::<f64>()
    };
    let naive: Vec<f64> = pairs.iter().map(|&pair| naive(pair)).collect();
    let mut out = vec![0f32; pairs.len()];
    let mut group = group(criterion, &format!("rescore/100_x_40_x_{dim}_dims"), pairs.len() * dim, pairs.len());
    for tier in available_tiers() {
        products(tier, &queries, &rows, dim, &pairs, &mut out);
        let close = |(exact, product): (&f64, &f32)| (exact - f64::from(*product)).abs() < 1e-2;
        assert!(naive.iter().zip(&out).all(close), "{} differs from the naive products", tier.name);
        group.bench_function(tier.name, |bencher| {
            bencher.iter(|| products(tier, black_box(&queries), &rows, dim, black_box(&pairs), &mut out));
        });
    }
}

/// Products of 100 float queries with 40 codes each, out of many; an element is a product.
fn bench_rescore_codes(criterion: &mut Criterion) {
    let dim = 256;
    let queries = random_floats(100 * dim, 12);
    let codes = random_bytes(CODES_BYTES, 13);
    let rows = CODES_BYTES / code_bytes(dim);
    let pairs: Vec<_> = words(4000, 14).enumerate().map(|(i, word)| (i / 40, word as usize % rows)).collect();
    let naive = |&(query, row): &(usize, usize)| {
        let sign = |i: usize| if codes[row * 32 + i / 8] >> (7 - i % 8) & 1 == 1 { 1.0 } else { -1.0 };
        queries[query * dim..][..dim].iter().enumerate().map(|(i, value)| f64::from(*value) * sign(i)).sum::<f64>()
    };
    let naive: Vec<f64> = pairs.iter().map(naive).collect();
    let mut out = vec![0f32; pairs.len()];
    let mut group =
        group(criterion, &format!("rescore_codes/100_x_40_x_{dim}_dims"), pairs.len() * code_bytes(dim), pairs.len());
    for tier in available_tiers() {
        code_products(tier, &queries, &codes, dim, &pairs, &mut out);
        let close = |(exact, product): (&f64, &f32)| (exact - f64::from(*product)).abs() < 1e-4;
        assert!(naive.iter().zip(&out).all(close), "{} differs from the naive products", tier.name);
        group.bench_function(tier.name, |bencher| {
            bencher.iter(|| code_products(tier, black_box(&queries), &codes, dim, black_box(&pairs), &mut out));
        });
    }
}

/// Exact top-10 by int8 dot product; an element is a comparison of a query with a row, and the bytes are those of the rows.
fn bench_dot(criterion: &mut Criterion) {
    let dim = 256;
    let values: Vec<i8> = random_bytes(CODES_BYTES, 15).into_iter().map(|byte| byte as i8).collect();
    let scales: Vec<f32> = random_floats(values.len() / dim, 16).into_iter().map(f32::abs).collect();
    let asked: Vec<i8> = random_bytes(100 * dim, 17).into_iter().map(|byte| byte as i8).collect();
    let parts = [int8_search::Part { values: &values, scales: &scales, mask: None }];
    let naive = |query: &[i8]| {
        let product = |row: &[i8]| query.iter().zip(row).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>();
        let mut scores: Vec<(f32, u64)> = values
            .chunks_exact(dim)
            .zip(&scales)
            .zip(0..)
            .map(|((row, scale), number)| (product(row) as f32 * scale, number))
            .collect();
        scores.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scores.truncate(TOP_K);
        scores
    };
    let naive: Vec<_> = asked.chunks_exact(dim).map(naive).collect();
    for queries in [1, 16, 100] {
        let asked = &asked[..queries * dim];
        let name = format!("dot/{queries}_x_{}k_x_{dim}_dims", scales.len() / 1000);
        let mut group = group(criterion, &name, values.len(), queries * scales.len());
        if queries == 1 {
            let bytes = random_bytes(CODES_BYTES, 15);
            group.bench_function("plain_read", |bencher| bencher.iter(|| plain_read(black_box(&bytes))));
        }
        for tier in available_tiers() {
            let hits = int8_search::search(tier, asked, dim, &parts, TOP_K, 1);
            let found = hits.iter().map(|hits| hits.iter().map(|hit| (hit.score, hit.row)).collect::<Vec<_>>());
            assert!(found.eq(naive[..queries].iter().cloned()), "{} is not naive", tier.name);
            group.bench_function(tier.name, |bencher| {
                bencher.iter(|| int8_search::search(tier, black_box(asked), dim, black_box(&parts), TOP_K, 1));
            });
        }
    }
}

/// The first dimensions of float rows, at unit length; an element is a row, the bytes are those of the dimensions kept.
fn bench_truncate(criterion: &mut Criterion) {
    let (columns, dim) = (1024, 256);
    let floats = random_floats(FLOATS_BYTES / 4, 2);
    let rows = floats.len() / columns;
    let mut truncated = vec![0f32; rows * dim];
    let near_naive = |truncated: &[f32]| {
        floats.chunks_exact(columns).zip(truncated.chunks_exact(dim)).all(|(row, truncated)| {
            let norm = row[..dim].iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            row.iter().zip(truncated).all(|(value, out)| (f64::from(*value) / norm - f64::from(*out)).abs() < 1e-7)
        })
    };
    let mut group = group(criterion, &format!("truncate/{columns}_to_{dim}_dims"), rows * dim * 4, rows);
    group.bench_function("plain_read", |bencher| {
        bencher.iter(|| {
            let rows = black_box(&floats).chunks_exact(columns);
            rows.fold(0u64, |sum, row| sum.wrapping_add(plain_read(as_bytes(&row[..dim]))))
        });
    });
    for tier in available_tiers() {
        truncate(tier, &floats, columns, dim, &mut truncated);
        assert!(near_naive(&truncated), "{} differs from the naive rows", tier.name);
        group.bench_function(tier.name, |bencher| {
            bencher.iter(|| truncate(tier, black_box(&floats), columns, dim, black_box(&mut truncated)));
        });
    }
}

/// CRC32C of blocks; an element is a block. The crate that computes it chooses the instructions itself.
fn bench_checksum(criterion: &mut Criterion) {
    let data = random_bytes(CODES_BYTES, 3);
    for block_bytes in [4 << 10, 1 << 20] {
        let checksums = block_checksums(&data, block_bytes);
        let naive = |block: &[u8]| {
            // One bit at a time, from the definition: the reflected polynomial.
            !block.iter().fold(!0u32, |crc, &byte| {
                (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
            })
        };
        for (block, checksum) in data.chunks(block_bytes).zip(&checksums).take(3) {
            assert_eq!(naive(block), *checksum, "differs from the naive CRC");
        }
        let name = format!("checksum/blocks_of_{}_KiB", block_bytes >> 10);
        let mut group = group(criterion, &name, CODES_BYTES, checksums.len());
        group.bench_function("plain_read", |bencher| bencher.iter(|| plain_read(black_box(&data))));
        group.bench_function("crc32c", |bencher| bencher.iter(|| block_checksums(black_box(&data), block_bytes)));
    }
}

fn naive_search(query: &[u8], codes: Codes) -> Vec<Hit> {
    let hit = |row| Hit { distance: hamming::distance(query, codes.row(row)), row: row as u64 };
    let mut hits: Vec<Hit> = (0..codes.len()).map(hit).collect();
    hits.select_nth_unstable(TOP_K);
    hits.truncate(TOP_K);
    hits.sort_unstable();
    hits
}

/// Exact top-10 by Hamming distance; queries × codes × bits; an element is a comparison of a query
/// with a code, and the bytes are those of the codes.
fn bench_hamming(criterion: &mut Criterion) {
    let data = random_bytes(CODES_BYTES, 4);
    for (bits, batches) in [(256, &[1, 16, 100][..]), (1024, &[1, 100])] {
        let bytes = bits / 8;
        let codes = Codes::new(&data, bytes);
        let asked = random_bytes(100 * bytes, 5);
        let naive: Vec<Vec<Hit>> = asked.chunks(bytes).map(|query| naive_search(query, codes)).collect();
        for &queries in batches {
            let asked = Codes::new(&asked[..queries * bytes], bytes);
            let thousands = codes.len() / 1000;
            let name = format!("hamming/{queries}_x_{thousands}k_x_{bits}_bits");
            let mut group = group(criterion, &name, CODES_BYTES, queries * codes.len());
            if queries == 1 {
                group.bench_function("plain_read", |bencher| bencher.iter(|| plain_read(black_box(&data))));
            }
            for tier in available_tiers() {
                let parts = [Part { codes, mask: None }];
                assert!(search(tier, asked, &parts, TOP_K, 1) == naive[..queries], "{} is not naive", tier.name);
                group.bench_function(tier.name, |bencher| {
                    bencher.iter(|| search(tier, black_box(asked), black_box(&parts), TOP_K, 1));
                });
            }
        }
    }
}

/// The same where a mask keeps one row in a hundred; an element is a comparison with a row kept.
fn bench_masked_hamming(criterion: &mut Criterion) {
    let (data, asked) = (random_bytes(CODES_BYTES, 6), random_bytes(100 * 32, 7));
    let (codes, asked) = (Codes::new(&data, 32), Codes::new(&asked, 32));
    let kept: Vec<usize> =
        (0..codes.len()).zip(words(codes.len(), 8)).filter(|(_, word)| word % 100 == 0).map(|(row, _)| row).collect();
    let mut bits = vec![0u8; codes.len().div_ceil(8)];
    kept.iter().for_each(|row| bits[row / 8] |= 1 << (row % 8));
    let parts = [Part { codes, mask: Some(Mask::new(&bits, codes.len())) }];
    let kept_data: Vec<u8> = kept.iter().flat_map(|&row| codes.row(row)).copied().collect();
    let in_all = |hit: Hit| Hit { row: kept[hit.row as usize] as u64, ..hit };
    let naive = |query| naive_search(query, Codes::new(&kept_data, 32)).into_iter().map(in_all).collect::<Vec<_>>();
    let naive: Vec<Vec<Hit>> = (0..asked.len()).map(|row| naive(asked.row(row))).collect();
    let name = "hamming/100_x_1_percent_of_1000k_x_256_bits";
    let mut group = group(criterion, name, kept_data.len(), asked.len() * kept.len());
    for tier in available_tiers() {
        assert!(search(tier, asked, &parts, TOP_K, 1) == naive, "{} is not naive", tier.name);
        group.bench_function(tier.name, |bencher| {
            bencher.iter(|| search(tier, black_box(asked), black_box(&parts), TOP_K, 1));
        });
    }
}

criterion_group! {
    name = kernels;
    // A scan of 100M pairs takes a quarter of a second on the slowest tier.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = bench_quantize, bench_quantize_rows, bench_quantize_ranges, bench_truncate, bench_checksum, bench_hamming, bench_masked_hamming, bench_rescore, bench_rescore_codes, bench_dot
}
criterion_main!(kernels);
