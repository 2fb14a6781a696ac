//! Every tier, and plain models of the instructions that this processor may lack, against the naive forward pass.

#![expect(clippy::single_range_in_vec_init, reason = "the texts are often one")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::bfloat16::{Paired, Pairs, Tiled, Tiles};
use super::floats::Floats;
use super::naive::{Naive, Values};
use super::packed::{Factors, bfloat16};
use super::random::{Random, Sizes, float32, random_model, texts};
use super::simd::portable::Lanes;
use super::simd::{DType, Kernels, kernels};
use super::tensor::{Tensor, Tensors, Type};
use super::{EmbedError, Model, Pooling};
use crate::simd::available_tiers;

kernels!(PAIRS, Paired<Lanes<16>, 12>, Factors::Bfloat16,);
kernels!(TILES, Tiled<PlainTiles, Lanes<16>>, Factors::Bfloat16,);

// SAFETY: plain operations, on every processor.
unsafe impl Pairs for Lanes<16> {
    unsafe fn add_products(self, inputs: u32, weights: *const u16) -> Self {
        let widen = |value: u16| f32::from_bits(u32::from(value) << 16);
        let (low, high) = (widen(inputs as u16), widen((inputs >> 16) as u16));
        // SAFETY: the caller vouches for sixteen pairs.
        unsafe {
            let mut lanes = self.lanes();
            for (lane, sum) in lanes.iter_mut().enumerate() {
                *sum += high * widen(*weights.add(2 * lane + 1));
                *sum += low * widen(*weights.add(2 * lane));
            }
            Self::load(lanes.as_ptr())
        }
    }

    unsafe fn store_bfloat16(self, values: *mut u16) {
        // SAFETY: the caller vouches for room for sixteen values.
        unsafe { values.cast::<[u16; 16]>().write_unaligned(self.lanes().map(bfloat16)) }
    }
}

/// The tile registers in memory.
struct PlainTiles;

thread_local! {
    static REGISTERS: RefCell<Option<[[[u8; 64]; 16]; 8]>> = const { RefCell::new(None) };
}

fn registers<T>(use_them: impl FnOnce(&mut [[[u8; 64]; 16]; 8]) -> T) -> T {
    REGISTERS.with_borrow_mut(|registers| use_them(registers.as_mut().expect("between start and finish")))
}

// SAFETY: plain operations, on every processor.
unsafe impl Tiles for PlainTiles {
    unsafe fn start() {
        // What is left of before must not matter.
        REGISTERS.set(Some([[[0xFF; 64]; 16]; 8]));
    }

    unsafe fn finish() {
        REGISTERS.set(None);
    }

    unsafe fn zero<const REGISTER: usize>() {
        registers(|all| all[REGISTER] = [[0; 64]; 16]);
    }

    unsafe fn load<const REGISTER: usize>(rows: *const u8, stride: usize) {
        registers(|all| {
            // SAFETY: the caller vouches for the rows.
            all[REGISTER] = std::array::from_fn(|i| unsafe { rows.add(i * stride).cast::<[u8; 64]>().read() });
        });
    }

    unsafe fn multiply<const C: usize, const A: usize, const B: usize>() {
        let half = |row: &[u8; 64], i: usize| {
            f32::from_bits(u32::from(u16::from_le_bytes([row[2 * i], row[2 * i + 1]])) << 16)
        };
        registers(|all| {
            for m in 0..16 {
                for n in 0..16 {
                    let mut sum = f32::from_le_bytes(all[C][m].as_chunks::<4>().0[n]);
                    for k in 0..16 {
                        sum += half(&all[A][m], 2 * k) * half(&all[B][k], 2 * n);
                        sum += half(&all[A][m], 2 * k + 1) * half(&all[B][k], 2 * n + 1);
                    }
                    all[C][m].as_chunks_mut::<4>().0[n] = sum.to_le_bytes();
                }
            }
        });
    }

    unsafe fn store<const REGISTER: usize>(sums: &mut [[f32; 16]; 16]) {
        registers(|all| {
            *sums = all[REGISTER].map(|row| std::array::from_fn(|n| f32::from_le_bytes(row.as_chunks::<4>().0[n])))
        });
    }
}

/// Every way to compute that this processor has.
fn ways_of_this_processor() -> Vec<(String, DType, &'static Kernels)> {
    let mut ways: Vec<(String, DType, &'static Kernels)> = Vec::new();
    for tier in available_tiers() {
        for (dtype, kernels) in [(DType::Float32, tier.model.float32), (DType::Bfloat16, tier.model.bfloat16)] {
            if !ways.iter().any(|&(_, _, other)| std::ptr::eq(other, kernels)) {
                ways.push((format!("{} {dtype:?}", tier.name), dtype, kernels));
            }
        }
    }
    ways
}

/// Those, and the models.
fn ways() -> Vec<(String, DType, &'static Kernels)> {
    let mut ways = ways_of_this_processor();
    ways.push(("model of pairs".into(), DType::Bfloat16, &PAIRS));
    ways.push(("model of tiles".into(), DType::Bfloat16, &TILES));
    ways
}

fn pooled(states: &[Vec<f64>], pooling: Pooling) -> Vec<f64> {
    match pooling {
        Pooling::First => states[0].clone(),
        Pooling::Last => states[states.len() - 1].clone(),
        Pooling::Mean => (0..states[0].len())
            .map(|i| states.iter().map(|state| state[i]).sum::<f64>() / states.len() as f64)
            .collect(),
    }
}

fn cosine(found: &[f32], expected: &[f64]) -> f64 {
    let dot: f64 = found.iter().zip(expected).map(|(&a, b)| f64::from(a) * b).sum();
    let length = |squares: f64| squares.sqrt();
    dot / length(found.iter().map(|&a| f64::from(a).powi(2)).sum()) / length(expected.iter().map(|b| b * b).sum())
}

fn check(kind: &str, sizes: Sizes, extra: &[(&str, &str)], lengths: &[usize]) {
    let (settings, values, shapes) = random_model(kind, sizes, extra);
    let (tokens, texts) = texts(lengths);
    let none = HashMap::new();
    let naive = Naive::new(&settings, &values, &none);
    let states: Vec<_> = texts.iter().map(|text| naive.states(&tokens[text.clone()])).collect();
    for (way, dtype, kernels) in ways() {
        let model = Model::with_kernels(&settings, float32(&values, &shapes), dtype, kernels).unwrap();
        for pooling in [Pooling::Mean, Pooling::First, Pooling::Last] {
            for threads in [1, 3] {
                let found = model.embed(&tokens, &texts, None, pooling, threads, &|| false);
                let found = found.unwrap_or_else(|error| panic!("{kind}, {way}: {error:?}"));
                for (found, states) in found.chunks_exact(model.dim()).zip(&states) {
                    let expected = pooled(states, pooling);
                    let cosine = cosine(found, &expected);
                    let least = if dtype == DType::Float32 { 0.999_999_9 } else { 0.999 };
                    let tokens = states.len();
                    assert!(cosine >= least, "{kind}, {way}, {pooling:?}, {tokens} tokens: cosine {cosine}");
                    if dtype == DType::Float32 {
                        let largest = expected.iter().fold(0.0f64, |a, b| a.max(b.abs()));
                        let error =
                            found.iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
                        assert!(error <= 2e-5 * largest, "{kind}, {way}, {pooling:?}, {tokens} tokens: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn bert_equals_the_naive_pass() {
    check("bert", Sizes(96, 3, 3, 32, 200, 2), &[], &[1, 2, 7, 130, 33]);
    check("bert", Sizes(40, 2, 2, 20, 70, 2), &[("hidden_act", "gelu_new")], &[5, 1, 97, 16]);
    check("roberta", Sizes(64, 1, 1, 64, 64, 1), &[("hidden_act", "relu"), ("pad_token_id", "3")], &[1, 31]);
}

#[test]
fn eurobert_equals_the_naive_pass() {
    check("eurobert", Sizes(64, 2, 1, 64, 100, 2), &[], &[1, 129, 17]);
    check("eurobert", Sizes(50, 3, 3, 14, 36, 2), &[("rope_theta", "10000.0")], &[3, 40]);
}

#[test]
fn qwen3_equals_the_naive_pass() {
    check("qwen3", Sizes(72, 4, 2, 32, 100, 2), &[("rope_parameters.rope_theta", "10000")], &[1, 2, 6, 7, 141]);
    check("qwen3", Sizes(64, 2, 1, 128, 48, 1), &[("head_dim", "null")], &[20, 3]);
}

#[test]
fn lengths_about_the_blocks_equal_the_naive_pass() {
    check("bert", Sizes(32, 1, 1, 32, 32, 1), &[], &[511, 512, 513]);
    check("qwen3", Sizes(32, 1, 1, 32, 32, 1), &[], &[511, 1, 512, 513]);
}

#[test]
fn an_adapter_adds_to_the_weights() {
    let (settings, values, shapes) = random_model("qwen3", Sizes(48, 3, 3, 16, 72, 2), &[]);
    let (tokens, texts) = texts(&[5, 70]);
    let mut random = Random(11);
    let (mut own, mut own_shapes, mut added) = (Values::new(), HashMap::new(), HashMap::new());
    let adapted = [
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.v_proj",
        "layers.1.mlp.gate_proj",
        "layers.1.mlp.up_proj",
        "layers.1.mlp.down_proj",
    ];
    for (number, name) in adapted.into_iter().enumerate() {
        let shape = &shapes[&format!("{name}.weight")];
        let (outputs, inputs, rank) = (shape[0], shape[1], 3 + number);
        let (down, up) = (random.values(rank * inputs, 0.3), random.values(outputs * rank, 0.3));
        let sum = |i: usize, k: usize| {
            (0..rank).map(|r| f64::from(up[i * rank + r]) * f64::from(down[r * inputs + k])).sum::<f64>()
        };
        added.insert(
            name.to_string(),
            (0..outputs * inputs).map(|at| 0.5 * sum(at / inputs, at % inputs)).collect::<Vec<_>>(),
        );
        for (half, values, shape) in [("A", down, vec![rank, inputs]), ("B", up, vec![outputs, rank])] {
            own_shapes.insert(format!("{name}.lora_{half}.weight"), shape);
            own.insert(format!("{name}.lora_{half}.weight"), values);
        }
    }
    let none = HashMap::new();
    for (way, dtype, kernels) in ways() {
        let mut model = Model::with_kernels(&settings, float32(&values, &shapes), dtype, kernels).unwrap();
        model.add_adapter("retrieval", float32(&own, &own_shapes), 0.5).unwrap();
        for (adapter, added) in [(Some(0), &added), (None, &none)] {
            let naive = Naive::new(&settings, &values, added);
            let found = model.embed(&tokens, &texts, adapter, Pooling::Last, 1, &|| false).unwrap();
            for (found, text) in found.chunks_exact(model.dim()).zip(&texts) {
                let expected = pooled(&naive.states(&tokens[text.clone()]), Pooling::Last);
                let least = if dtype == DType::Float32 { 0.999_999_9 } else { 0.999 };
                let cosine = cosine(found, &expected);
                assert!(cosine >= least, "{way}, {adapter:?}: cosine {cosine}");
            }
        }
        own.insert("layers.9.lora_A.weight".into(), vec![0.0]);
        own_shapes.insert("layers.9.lora_A.weight".into(), vec![1, 1]);
        let error = model.add_adapter("text-matching", float32(&own, &own_shapes), 0.5).unwrap_err();
        assert!(error.contains("layers.9.lora_A.weight"), "{error}");
        own.remove("layers.9.lora_A.weight");
    }
}

#[test]
fn an_embedding_is_the_same_in_any_batch_and_by_any_number_of_threads() {
    for kind in ["bert", "qwen3"] {
        let (settings, values, shapes) = random_model(kind, Sizes(64, 2, 2, 32, 96, 2), &[]);
        let lengths: Vec<usize> = (0..16).map(|i| 1 + i * 37 % 131).collect();
        let (tokens, texts) = texts(&lengths);
        for (way, dtype, kernels) in ways() {
            let model = Model::with_kernels(&settings, float32(&values, &shapes), dtype, kernels).unwrap();
            let embed = |tokens: &[u32], texts: &[Range<usize>], threads| {
                model.embed(tokens, texts, None, Pooling::Mean, threads, &|| false).unwrap()
            };
            let alone: Vec<f32> =
                texts.iter().flat_map(|text| embed(&tokens[text.clone()], &[0..text.len()], 1)).collect();
            for threads in [1, 2, 5] {
                assert!(embed(&tokens, &texts, threads) == alone, "{kind}, {way}, {threads} threads");
            }
            let reversed: Vec<u32> = texts.iter().rev().flat_map(|text| tokens[text.clone()].to_vec()).collect();
            let mut end = 0;
            let ranges: Vec<_> = texts
                .iter()
                .rev()
                .map(|text| {
                    end += text.len();
                    end - text.len()..end
                })
                .collect();
            let found = embed(&reversed, &ranges, 2);
            assert!(found.chunks_exact(64).rev().eq(alone.chunks_exact(64)), "{kind}, {way}, reversed");
        }
    }
}

#[test]
fn all_threads_share_a_long_text() {
    let (settings, values, shapes) = random_model("qwen3", Sizes(32, 2, 1, 16, 32, 2), &[]);
    let (tokens, texts) = texts(&[3, 5000, 2, 2500, 400, 400, 400, 400, 400, 400, 400, 400]);
    for (way, dtype, kernels) in ways_of_this_processor() {
        let model = Model::with_kernels(&settings, float32(&values, &shapes), dtype, kernels).unwrap();
        let one = model.embed(&tokens, &texts, None, Pooling::Last, 1, &|| false).unwrap();
        assert!(model.embed(&tokens, &texts, None, Pooling::Last, 3, &|| false).unwrap() == one, "{way}");
    }
}

#[test]
fn weights_of_every_type_are_read() {
    let (settings, values, shapes) = random_model("bert", Sizes(32, 2, 2, 16, 48, 1), &[]);
    let (tokens, texts) = texts(&[9, 30]);
    let half = |value: f32| {
        // Only numbers that are normal in half precision: those drawn here are, or are made zero.
        let bits = value.to_bits();
        let exponent = (bits >> 23 & 0xFF) as i32 - 112;
        if exponent <= 0 {
            0
        } else {
            (bits >> 16 & 0x8000) as u16 | (exponent as u16) << 10 | (bits >> 13 & 0x3FF) as u16
        }
    };
    for kind in [Type::Float16, Type::Bfloat16, Type::Int8] {
        let mut rounded = Values::new();
        let mut tensors = Vec::new();
        for (name, values) in &values {
            let shape = shapes[name].clone();
            let matrix = shape.len() == 2;
            let (bytes, read): (Vec<u8>, Vec<f32>) = match kind {
                Type::Float16 => {
                    let halves: Vec<u16> = values.iter().map(|&value| half(value)).collect();
                    let widened = |&half: &u16| {
                        let magnitude =
                            2f32.powi(i32::from(half >> 10 & 0x1F) - 15) * (1.0 + f32::from(half & 0x3FF) / 1024.0);
                        if half & 0x7FFF == 0 {
                            0.0
                        } else {
                            magnitude.copysign(if half >> 15 == 1 { -1.0 } else { 1.0 })
                        }
                    };
                    (halves.iter().flat_map(|half| half.to_le_bytes()).collect(), halves.iter().map(widened).collect())
                }
                Type::Int8 if matrix => {
                    let scales: Vec<f32> = values
                        .chunks_exact(shape[1])
                        .map(|row| row.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 127.0)
                        .collect();
                    let whole: Vec<i8> = values
                        .iter()
                        .enumerate()
                        .map(|(at, value)| (value / scales[at / shape[1]]).round() as i8)
                        .collect();
                    let read =
                        whole.iter().enumerate().map(|(at, &whole)| f32::from(whole) * scales[at / shape[1]]).collect();
                    let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect::<Vec<u8>>();
                    tensors
                        .push((format!("{name}_scale"), Tensor::new(Type::Float32, vec![shape[0]], Arc::new(bytes))));
                    (whole.iter().map(|&whole| whole as u8).collect(), read)
                }
                _ => {
                    let narrow: Vec<u16> = values.iter().map(|&value| bfloat16(value)).collect();
                    let read = narrow.iter().map(|&value| f32::from_bits(u32::from(value) << 16)).collect();
                    (narrow.iter().flat_map(|value| value.to_le_bytes()).collect(), read)
                }
            };
            let kind = if kind == Type::Int8 && !matrix { Type::Bfloat16 } else { kind };
            tensors.push((name.clone(), Tensor::new(kind, shape, Arc::new(bytes))));
            rounded.insert(name.clone(), read);
        }
        let tier = available_tiers().last().unwrap();
        let model = Model::new(&settings, Tensors::new(tensors), tier, Some(DType::Float32)).unwrap();
        let expected = Model::new(&settings, float32(&rounded, &shapes), tier, Some(DType::Float32)).unwrap();
        let embed = |model: &Model| model.embed(&tokens, &texts, None, Pooling::Mean, 1, &|| false).unwrap();
        assert!(embed(&model) == embed(&expected), "{kind:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let (settings, values, shapes) = random_model("bert", Sizes(32, 2, 2, 16, 48, 1), &[]);
    let tier = available_tiers().last().unwrap();
    let model = Model::new(&settings, float32(&values, &shapes), tier, None).unwrap();
    let embed = |tokens: &[u32]| model.embed(tokens, &[0..tokens.len()], None, Pooling::Mean, 1, &|| false);
    assert_eq!(embed(&[1, 50]), Err(EmbedError::Token(50)));
    assert_eq!(embed(&[1; 601]), Err(EmbedError::TooLong(601)));
    assert_eq!(model.embed(&[1], &[0..1], None, Pooling::Mean, 1, &|| true), Err(EmbedError::Interrupted));
    let mut broken = values.clone();
    broken.get_mut("embeddings.word_embeddings.weight").unwrap()[7 * 32 + 3] = f32::NAN;
    let model = Model::new(&settings, float32(&broken, &shapes), tier, None).unwrap();
    let embed = |tokens: &[u32]| model.embed(tokens, &[0..tokens.len()], None, Pooling::Mean, 1, &|| false);
    assert!(embed(&[6, 8]).is_ok());
    assert_eq!(embed(&[6, 7]), Err(EmbedError::NotFinite(0)));
    for (name, value) in
        [("encoder.layer.0.output.dense.weight", f32::INFINITY), ("encoder.layer.0.output.dense.bias", f32::NAN)]
    {
        let mut broken = values.clone();
        broken.get_mut(name).unwrap()[5] = value;
        let error = Model::new(&settings, float32(&broken, &shapes), tier, None).err().unwrap();
        assert!(error.contains(name), "{error}");
    }
}
