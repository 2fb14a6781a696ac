//! Benches of the forward pass: the matrix product, attention, and a whole model, each on every tier of this machine.
//!
//! Each must give the naive answer before it is timed (the whole model: that of the tier `portable`, which the tests
//! compare with a naive pass). A product's line has its share of `peak`, what the processor multiplies and adds when it
//! reads nothing. The peer is the `gemm` crate, which chooses its own instructions and packs the weights at each call.
//!
//! Everything runs on one thread. `cargo bench --bench model -- --quick` takes about a minute after it is compiled.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jv5kit::model::kernels::{PackedMatrix, attention};
use jv5kit::model::tensor::{Tensor, Tensors, Type};
use jv5kit::model::{DType, Model, Pooling, Settings};
use jv5kit::simd::{Tier, available_tiers};

/// `(name, inputs, outputs)` of the linear layers of MiniLM and of Qwen3-0.6B.
const SHAPES: [(&str, usize, usize); 4] =
    [("minilm_up", 384, 1536), ("minilm_down", 1536, 384), ("qwen3_gate_up", 1024, 6144), ("qwen3_down", 3072, 1024)];

/// Floats in -1..1, the same in every run.
fn random_floats(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Tiers that compute the forward pass differently, with their types.
fn ways() -> Vec<(String, &'static Tier, DType)> {
    let mut ways = Vec::new();
    for tier in available_tiers().filter(|tier| tier.name != "popcnt") {
        for dtype in [DType::Float32, DType::Bfloat16] {
            ways.push((format!("{}_{dtype:?}", tier.name).to_lowercase(), tier, dtype));
        }
    }
    ways
}

/// The most multiplications and additions a second, twice the vectors' lanes an instruction: sums in registers, nothing read.
fn peak(tier: &Tier) -> Option<f64> {
    const TURNS: usize = 4_000_000;
    let best = |run: &dyn Fn() -> f64| (0..5).map(|_| run()).fold(0.0, f64::max);
    match tier.name {
        #[cfg(target_arch = "x86_64")]
        "avx2" => Some(best(&|| {
            use std::arch::x86_64::*;
            #[target_feature(enable = "avx2,fma")]
            fn sums(turns: usize) -> [__m256; 12] {
                let x = _mm256_set1_ps(black_box(0.5));
                let mut sums = [_mm256_setzero_ps(); 12];
                for _ in 0..turns {
                    sums = sums.map(|sum| _mm256_fmadd_ps(sum, x, x));
                }
                sums
            }
            let start = Instant::now();
            // SAFETY: the tier is there.
            black_box(unsafe { sums(TURNS) });
            (TURNS * 12 * 16) as f64 / start.elapsed().as_secs_f64()
        })),
        #[cfg(target_arch = "x86_64")]
        "avx512vnni" | "avx512" => Some(best(&|| {
            use std::arch::x86_64::*;
            #[target_feature(enable = "avx512f")]
            fn sums(turns: usize) -> [__m512; 12] {
                let x = _mm512_set1_ps(black_box(0.5));
                let mut sums = [_mm512_setzero_ps(); 12];
                for _ in 0..turns {
                    sums = sums.map(|sum| _mm512_fmadd_ps(sum, x, x));
                }
                sums
            }
            let start = Instant::now();
            // SAFETY: the tier is there.
            black_box(unsafe { sums(TURNS) });
            (TURNS * 12 * 32) as f64 / start.elapsed().as_secs_f64()
        })),
        _ => None,
    }
}

/// Rows times a matrix; an element is a multiplication with its addition.
fn bench_product(criterion: &mut Criterion) {
    for (name, inputs, outputs) in SHAPES {
        let weights = random_floats(inputs * outputs, 1);
        for rows in [1, 8, 96, 512] {
            let values = random_floats(rows * inputs, 2);
            let naive = |row: usize, output: usize| -> f64 {
                let row = &values[row * inputs..][..inputs];
                row.iter().zip(&weights[output * inputs..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let flops = 2 * rows * inputs * outputs;
            let mut group = criterion.benchmark_group(format!("product/{name}/{rows}_rows"));
            group.throughput(Throughput::Elements(flops as u64 / 2));
            for (way, tier, dtype) in ways() {
                let matrix = PackedMatrix::new(tier, dtype, &weights, inputs);
                let mut prepared = matrix.prepare(&values);
                let mut out = vec![0.0f32; rows * matrix.stride()];
                matrix.multiply(&mut prepared, &mut out);
                let bound = (inputs as f64).sqrt() * if dtype == DType::Float32 { 1e-5 } else { 1e-2 };
                for (row, output) in [(0, 0), (rows - 1, outputs - 1), (rows / 2, outputs / 3)] {
                    let (found, expected) = (f64::from(out[row * matrix.stride() + output]), naive(row, output));
                    assert!((found - expected).abs() < bound, "{name}, {way}: {found} instead of {expected}");
                }
                if let (Some(peak), DType::Float32) = (peak(tier), dtype) {
                    let start = Instant::now();
                    let turns = 1 + 200_000_000 / flops;
                    (0..turns).for_each(|_| matrix.multiply(&mut prepared, &mut out));
                    let rate = (turns * flops) as f64 / start.elapsed().as_secs_f64();
                    println!(
                        "{name}, {rows} rows, {way}: {:.0} % of peak ({:.0} GFLOP/s)",
                        100.0 * rate / peak,
                        peak / 1e9
                    );
                }
                group.bench_function(&way, |bencher| {
                    bencher.iter(|| matrix.multiply(black_box(&mut prepared), black_box(&mut out)));
                });
            }
            let mut out = vec![0.0f32; rows * outputs];
            let mut peer = || {
                // SAFETY: row-major rows × inputs times the transpose of outputs × inputs.
                unsafe {
                    gemm::gemm(
                        rows,
                        outputs,
                        inputs,
                        out.as_mut_ptr(),
                        1,
                        outputs as isize,
                        false,
                        values.as_ptr(),
                        1,
                        inputs as isize,
                        weights.as_ptr(),
                        inputs as isize,
                        1,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
                out[rows * outputs - 1]
            };
            assert!((f64::from(peer()) - naive(rows - 1, outputs - 1)).abs() < (inputs as f64).sqrt() * 1e-5);
            group.bench_function("gemm_crate", |bencher| bencher.iter(&mut peer));
        }
    }
}

/// Attention of 12 heads of 32 values; an element is a score.
fn bench_attention(criterion: &mut Criterion) {
    let (heads, width) = (12, 32);
    for tokens in [16, 128, 512] {
        let [queries, keys, values] = [1, 2, 3].map(|seed| random_floats(tokens * heads * width, seed));
        let part = |rows: &[f32], token: usize, head: usize| -> Vec<f64> {
            rows[token * heads * width + head * width..][..width].iter().map(|&value| f64::from(value)).collect()
        };
        let mut group = criterion.benchmark_group(format!("attention/{tokens}_tokens"));
        group.throughput(Throughput::Elements((tokens * tokens * heads) as u64));
        for tier in available_tiers().filter(|tier| tier.name != "popcnt") {
            let run = || attention(tier, black_box(&queries), &keys, &values, heads, width);
            let found = run();
            for (token, head) in [(0, 0), (tokens - 1, heads - 1), (tokens / 2, 5)] {
                let query = part(&queries, token, head);
                let score = |key| part(&keys, key, head).iter().zip(&query).map(|(a, b)| a * b).sum::<f64>();
                let weights: Vec<f64> = (0..tokens).map(|key| (score(key) / (width as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                let sum: f64 = (0..tokens).map(|key| weights[key] * part(&values, key, head)[3]).sum();
                let (found, expected) = (f64::from(found[token * heads * width + head * width + 3]), sum / total);
                assert!((found - expected).abs() < 1e-5, "{}: {found} instead of {expected}", tier.name);
            }
            group.bench_function(tier.name, |bencher| bencher.iter(run));
        }
    }
}

/// Shapes and bytes of tensors, by name.
type RandomTensors = HashMap<String, (Vec<usize>, Arc<Vec<u8>>)>;

/// Settings and random tensors of the shape of MiniLM: 6 layers of 384, 12 heads, 1536 between.
fn minilm() -> (Settings, RandomTensors) {
    let numbers = [
        ("hidden_size", 384),
        ("num_hidden_layers", 6),
        ("num_attention_heads", 12),
        ("intermediate_size", 1536),
        ("vocab_size", 1000),
        ("max_position_embeddings", 512),
    ];
    let mut settings: Settings = numbers.map(|(name, value)| (name.into(), value.to_string())).into();
    settings.insert("model_type".into(), "bert".into());
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![1000, 384]),
        ("embeddings.position_embeddings.weight".into(), vec![512, 384]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, 384]),
    ];
    let mut norms = vec!["embeddings.LayerNorm".to_string()];
    for layer in 0..6 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, outputs, inputs) in [
            ("attention.self.query", 384, 384),
            ("attention.self.key", 384, 384),
            ("attention.self.value", 384, 384),
            ("attention.output.dense", 384, 384),
            ("intermediate.dense", 1536, 384),
            ("output.dense", 384, 1536),
        ] {
            shapes.push((format!("{}.weight", name(part)), vec![outputs, inputs]));
            shapes.push((format!("{}.bias", name(part)), vec![outputs]));
        }
        norms.extend([name("attention.output.LayerNorm"), name("output.LayerNorm")]);
    }
    for norm in norms {
        shapes.extend([(format!("{norm}.weight"), vec![384]), (format!("{norm}.bias"), vec![384])]);
    }
    let tensors = shapes.into_iter().enumerate().map(|(seed, (name, shape))| {
        let scale = if shape.len() == 2 { 2.0 / (shape[1] as f32).sqrt() } else { 1.0 };
        let values = random_floats(shape.iter().product(), seed as u64);
        let bytes = values.iter().flat_map(|value| (value * scale).to_le_bytes()).collect();
        (name, (shape, Arc::new(bytes)))
    });
    (settings, tensors.collect())
}

/// A whole model; an element is a token.
fn bench_forward(criterion: &mut Criterion) {
    let (settings, tensors) = minilm();
    let models: Vec<_> = ways()
        .into_iter()
        .map(|(way, tier, dtype)| {
            let tensors = tensors
                .iter()
                .map(|(name, (shape, bytes))| (name.clone(), Tensor::new(Type::Float32, shape.clone(), bytes.clone())));
            (way, Model::new(&settings, Tensors::new(tensors), tier, Some(dtype)).expect("all tensors are there"))
        })
        .collect();
    for (texts, length) in [(1, 8), (8, 48), (4, 512)] {
        let tokens: Vec<u32> = (0..texts * length).map(|token| (token * 7 % 1000) as u32).collect();
        let ranges: Vec<_> = (0..texts).map(|text| text * length..(text + 1) * length).collect();
        let embed = |model: &Model| model.embed(&tokens, &ranges, None, Pooling::Mean, 1, &|| false).expect("no error");
        let expected = embed(&models[0].1);
        let mut group = criterion.benchmark_group(format!("forward/minilm/{texts}x{length}_tokens"));
        group.throughput(Throughput::Elements(tokens.len() as u64));
        for (way, model) in &models {
            let least = if model.dtype() == DType::Float32 { 0.999_999 } else { 0.999 };
            for (found, expected) in embed(model).chunks_exact(384).zip(expected.chunks_exact(384)) {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                let cosine = dot(found, expected) / (dot(found, found) * dot(expected, expected)).sqrt();
                assert!(cosine >= least, "{way}: cosine {cosine}");
            }
            group.bench_function(BenchmarkId::from_parameter(way), |bencher| bencher.iter(|| embed(black_box(model))));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(10);
    targets = bench_product, bench_attention, bench_forward
}
criterion_main!(benches);
