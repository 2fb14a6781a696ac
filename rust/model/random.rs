//! Models of random weights, and texts of random tokens, for the tests.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::architecture::Settings;
use super::naive::Values;
use super::tensor::{Tensor, Tensors, Type};

/// Numbers that look random, from -1 to 1.
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.next() * scale).collect()
    }
}

const VOCABULARY: usize = 50;

/// The sizes of a model: hidden, heads, heads of keys, width of a head, intermediate, layers.
#[derive(Clone, Copy)]
pub(super) struct Sizes(pub usize, pub usize, pub usize, pub usize, pub usize, pub usize);

/// A model of random weights: its settings, its tensors, their shapes.
pub(super) fn random_model(
    kind: &str,
    sizes: Sizes,
    extra: &[(&str, &str)],
) -> (Settings, Values, HashMap<String, Vec<usize>>) {
    let Sizes(hidden, heads, kv_heads, width, intermediate, layers) = sizes;
    let mut settings: Settings =
        [("model_type", kind)].map(|(name, value)| (name.to_string(), value.to_string())).into();
    let numbers = [
        ("hidden_size", hidden),
        ("num_attention_heads", heads),
        ("num_key_value_heads", kv_heads),
        ("head_dim", width),
        ("intermediate_size", intermediate),
        ("num_hidden_layers", layers),
        ("vocab_size", VOCABULARY),
        ("max_position_embeddings", 600),
        ("type_vocab_size", 2),
    ];
    settings.extend(numbers.map(|(name, value)| (name.to_string(), value.to_string())));
    settings.extend(extra.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    let rotary = kind == "qwen3" || kind == "eurobert";
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut matrix = |name: String, outputs, inputs| {
        if !rotary {
            shapes.push((format!("{name}.bias"), vec![outputs]));
        }
        shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
    };
    for layer in 0..layers {
        let parts = if rotary {
            let prefix = format!("layers.{layer}.");
            [
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            ]
            .map(|part| prefix.clone() + part)
        } else {
            let prefix = format!("encoder.layer.{layer}.");
            [
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "",
                "intermediate.dense",
                "output.dense",
            ]
            .map(|part| prefix.clone() + part)
        };
        let [query, key, value, output, gate, up, down] = parts;
        matrix(query, heads * width, hidden);
        matrix(key, kv_heads * width, hidden);
        matrix(value, kv_heads * width, hidden);
        matrix(output, hidden, heads * width);
        if rotary {
            matrix(gate, intermediate, hidden);
        }
        matrix(up, intermediate, hidden);
        matrix(down, hidden, intermediate);
    }
    let mut norm = |name: String, width| {
        shapes.push((format!("{name}.weight"), vec![width]));
        if !rotary {
            shapes.push((format!("{name}.bias"), vec![width]));
        }
    };
    for layer in 0..layers {
        let names: &[&str] = if rotary {
            &["input_layernorm", "post_attention_layernorm"]
        } else {
            &["attention.output.LayerNorm", "output.LayerNorm"]
        };
        for name in names {
            norm(format!("{}{layer}.{name}", if rotary { "layers." } else { "encoder.layer." }), hidden);
        }
        if kind == "qwen3" {
            norm(format!("layers.{layer}.self_attn.q_norm"), width);
            norm(format!("layers.{layer}.self_attn.k_norm"), width);
        }
    }
    if rotary {
        norm("norm".into(), hidden);
        shapes.push(("embed_tokens.weight".into(), vec![VOCABULARY, hidden]));
    } else {
        norm("embeddings.LayerNorm".into(), hidden);
        shapes.push(("embeddings.word_embeddings.weight".into(), vec![VOCABULARY, hidden]));
        shapes.push(("embeddings.position_embeddings.weight".into(), vec![600, hidden]));
        shapes.push(("embeddings.token_type_embeddings.weight".into(), vec![2, hidden]));
    }
    let mut random = Random(7);
    let mut values = Values::new();
    for (name, shape) in &shapes {
        let count = shape.iter().product();
        let scale = if shape.len() == 2 { 2.0 / (shape[1] as f32).sqrt() } else { 0.3 };
        let mut drawn = random.values(count, scale);
        if shape.len() == 1 && name.ends_with("weight") {
            drawn.iter_mut().for_each(|value| *value += 1.0);
        }
        values.insert(name.clone(), drawn);
    }
    (settings, values, shapes.into_iter().collect())
}

/// The tensors of a weights file in float32.
pub(super) fn float32(values: &Values, shapes: &HashMap<String, Vec<usize>>) -> Tensors {
    Tensors::new(values.iter().map(|(name, values)| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (name.clone(), Tensor::new(Type::Float32, shapes[name].clone(), Arc::new(bytes)))
    }))
}

/// Random tokens of texts of such lengths, and where each text is among them.
pub(super) fn texts(lengths: &[usize]) -> (Vec<u32>, Vec<Range<usize>>) {
    let mut random = Random(3);
    let total = lengths.iter().sum();
    let tokens = (0..total).map(|_| ((random.next() + 1.0) * 24.99) as u32).collect();
    let mut end = 0;
    let texts = lengths.iter().map(|&length| {
        end += length;
        end - length..end
    });
    (tokens, texts.collect())
}
