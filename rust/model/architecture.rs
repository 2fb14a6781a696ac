//! The architectures that the forward pass knows, as rows of one table: to add one whose blocks are known is to add a row.

use std::collections::HashMap;

use super::floats::Activation;
use super::rows::NormKind;

/// Every architecture.
pub static ARCHITECTURES: &[&Architecture] = &[&BERT, &ROBERTA, &XLM_ROBERTA, &EUROBERT, &QWEN3];

/// Normed after each block; a table of positions; biases everywhere. MiniLM, bge, e5 and gte are made so.
static BERT: Architecture = Architecture {
    name: "bert",
    prefixes: &["", "bert."],
    ignored: &["pooler.", "cls.", "embeddings.position_ids"],
    norm: NormKind::Layer,
    epsilon: ("layer_norm_eps", 1e-12),
    post_norm: true,
    causal: false,
    theta: None,
    head_width: None,
    positions_after_padding: false,
    bias: true,
    requires: &[
        ("position_embedding_type", "absolute"),
        ("is_decoder", "false"),
        ("add_cross_attention", "false"),
        ("embedding_size", "hidden_size"),
    ],
    names: Names {
        tokens: "embeddings.word_embeddings",
        positions: Some("embeddings.position_embeddings"),
        types: Some("embeddings.token_type_embeddings"),
        embedding_norm: Some("embeddings.LayerNorm"),
        layer: "encoder.layer.",
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        attention_output: "attention.output.dense",
        head_norms: None,
        attention_norm: "attention.output.LayerNorm",
        gate: None,
        up: "intermediate.dense",
        down: "output.dense",
        feed_forward_norm: "output.LayerNorm",
        final_norm: None,
    },
};

/// BERT whose positions begin after the padding token's id.
static ROBERTA: Architecture = Architecture {
    name: "roberta",
    prefixes: &["", "roberta."],
    ignored: &["pooler.", "lm_head.", "embeddings.position_ids"],
    positions_after_padding: true,
    ..BERT
};

/// The same, of many languages: multilingual e5, bge-m3.
static XLM_ROBERTA: Architecture = Architecture { name: "xlm-roberta", ..ROBERTA };

/// Normed before each block by the root of the mean square; rotary positions; a gated feed-forward block.
static EUROBERT: Architecture = Architecture {
    name: "eurobert",
    prefixes: &["", "model."],
    ignored: &["lm_head."],
    norm: NormKind::RootMeanSquare,
    epsilon: ("rms_norm_eps", 1e-5),
    post_norm: false,
    causal: false,
    theta: Some(10_000.0),
    head_width: None,
    positions_after_padding: false,
    bias: false,
    requires: &[
        ("rope_scaling", "none"),
        ("rope_scaling.rope_type", "default"),
        ("rope_parameters.rope_type", "default"),
        ("rope_parameters.partial_rotary_factor", "1"),
    ],
    names: Names {
        tokens: "embed_tokens",
        positions: None,
        types: None,
        embedding_norm: None,
        layer: "layers.",
        query: "self_attn.q_proj",
        key: "self_attn.k_proj",
        value: "self_attn.v_proj",
        attention_output: "self_attn.o_proj",
        head_norms: None,
        attention_norm: "input_layernorm",
        gate: Some("mlp.gate_proj"),
        up: "mlp.up_proj",
        down: "mlp.down_proj",
        feed_forward_norm: "post_attention_layernorm",
        final_norm: Some("norm"),
    },
};

/// The same, but causal, and with norms on queries and keys.
static QWEN3: Architecture = Architecture {
    name: "qwen3",
    epsilon: ("rms_norm_eps", 1e-6),
    causal: true,
    head_width: Some(128),
    requires: &[
        ("rope_scaling", "none"),
        ("rope_scaling.rope_type", "default"),
        ("rope_parameters.rope_type", "default"),
        ("rope_parameters.partial_rotary_factor", "1"),
        ("use_sliding_window", "false"),
        ("is_causal", "true"),
    ],
    names: Names { head_norms: Some(("self_attn.q_norm", "self_attn.k_norm")), ..EUROBERT.names },
    ..EUROBERT
};

/// How a model reads its texts, where its tensors are and what its `config.json` calls things.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub name: &'static str,
    /// What may stand before the names of the tensors.
    pub(crate) prefixes: &'static [&'static str],
    /// Beginnings of the names of tensors that an embedding does not need.
    pub(crate) ignored: &'static [&'static str],
    pub(crate) norm: NormKind,
    /// The setting with the norms' epsilon, and what it is where `config.json` names none.
    epsilon: (&'static str, f64),
    /// Norms after each block, on its sum with the residual; else before it.
    pub(crate) post_norm: bool,
    /// A token sees only those up to itself.
    pub(crate) causal: bool,
    /// Rotary positions, and their base where `config.json` names none; else a table.
    theta: Option<f64>,
    /// Dimensions of a head where `config.json` names none; else the heads share the hidden ones.
    head_width: Option<usize>,
    /// The first position is the padding token's id + 1.
    positions_after_padding: bool,
    /// Every linear layer has a bias; else `attention_bias` and `mlp_bias` say so.
    bias: bool,
    /// Settings that would change the result in ways that are not known here, and the value that does not.
    requires: &'static [(&'static str, &'static str)],
    pub(crate) names: Names,
}

/// Names of tensors, without `.weight` and `.bias`; those of a layer without its number.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub tokens: &'static str,
    pub positions: Option<&'static str>,
    pub types: Option<&'static str>,
    pub embedding_norm: Option<&'static str>,
    pub layer: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    /// Of queries and of keys.
    pub head_norms: Option<(&'static str, &'static str)>,
    pub attention_norm: &'static str,
    pub gate: Option<&'static str>,
    pub up: &'static str,
    pub down: &'static str,
    pub feed_forward_norm: &'static str,
    pub final_norm: Option<&'static str>,
}

/// The settings of a `config.json`, those of an object in it by `object.setting`; values as JSON has them, strings
/// without quotes.
pub type Settings = HashMap<String, String>;

/// A model's numbers.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub vocabulary: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
    pub intermediate: usize,
    pub epsilon: f32,
    pub activation: Activation,
    pub theta: Option<f64>,
    /// Rows of the table of positions, and the first that is used.
    pub positions: usize,
    pub first_position: usize,
    pub types: usize,
    pub attention_bias: bool,
    pub feed_forward_bias: bool,
}

impl Architecture {
    /// The architecture of a `config.json`.
    ///
    /// # Errors
    /// If it is none of [`ARCHITECTURES`], or has a setting that is not known here; the message is the end of a sentence
    /// that begins with the model.
    pub fn of(settings: &Settings) -> Result<&'static Self, String> {
        let kind = settings.get("model_type").map_or("none", String::as_str);
        let Some(found) = ARCHITECTURES.iter().find(|architecture| architecture.name == kind) else {
            let known: Vec<_> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            return Err(format!("has the model_type {kind:?}; the native backend knows {}", known.join(", ")));
        };
        for &(name, required) in found.requires {
            let value = settings.get(name).map(String::as_str);
            let same = |value: &str| {
                let number = value.parse::<f64>().ok();
                value == required || number.is_some() && number == required.parse().ok()
            };
            let required_setting = settings.get(required).map(String::as_str);
            if value.is_some_and(|value| value != "null" && !same(value) && Some(value) != required_setting) {
                let value = value.unwrap_or_default();
                return Err(format!("has {name} {value} in config.json, which the native backend cannot run"));
            }
        }
        found.shape(settings)?;
        Ok(found)
    }

    /// The numbers of a model.
    pub(crate) fn shape(&self, settings: &Settings) -> Result<Shape, String> {
        let set = |name: &str| settings.get(name).map(String::as_str).filter(|&value| value != "null");
        let optional = |name: &str| match set(name).map(str::parse::<usize>) {
            None => Ok(None),
            Some(Ok(value)) if value <= 1 << 24 => Ok(Some(value)),
            Some(_) => {
                Err(format!("has {name} {} in config.json, which must be a whole number", set(name).unwrap_or("")))
            }
        };
        let whole = |name: &str| match optional(name)? {
            Some(value) if value > 0 => Ok(value),
            _ => Err(format!("has no {name} in config.json")),
        };
        let real = |name: &str, default: f64| match set(name).map(str::parse::<f64>) {
            None => Ok(default),
            Some(Ok(value)) if value.is_finite() && value > 0.0 => Ok(value),
            Some(_) => Err(format!("has {name} {} in config.json, which must be above 0", set(name).unwrap_or(""))),
        };
        let flag = |name: &str| set(name) == Some("true");
        let (hidden, heads) = (whole("hidden_size")?, whole("num_attention_heads")?);
        let kv_heads = optional("num_key_value_heads")?.filter(|_| self.theta.is_some()).unwrap_or(heads);
        let head_width =
            optional("head_dim")?.filter(|_| self.theta.is_some()).or(self.head_width).unwrap_or(hidden / heads);
        if head_width == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            return Err(format!(
                "has {heads} attention heads, {kv_heads} for keys and values, in {hidden} dimensions; these do not divide"
            ));
        }
        if self.theta.is_none() && hidden % heads != 0 {
            return Err(format!("has {heads} attention heads in {hidden} dimensions, which they do not divide"));
        }
        if self.theta.is_some() && !head_width.is_multiple_of(2) {
            return Err(format!("has heads of {head_width} dimensions; rotary positions need an even number"));
        }
        let activation = set("hidden_act").unwrap_or(if self.names.gate.is_some() { "silu" } else { "gelu" });
        let Some(activation) = Activation::named(activation) else {
            return Err(format!(
                "has hidden_act {activation:?} in config.json, which the native backend does not know"
            ));
        };
        let theta = match self.theta {
            Some(default) => Some(real("rope_parameters.rope_theta", real("rope_theta", default)?)?),
            None => None,
        };
        let padding = if self.positions_after_padding { optional("pad_token_id")?.unwrap_or(1) + 1 } else { 0 };
        let positions = if self.names.positions.is_some() { whole("max_position_embeddings")? } else { 0 };
        Ok(Shape {
            vocabulary: whole("vocab_size")?,
            hidden,
            layers: whole("num_hidden_layers")?,
            heads,
            kv_heads,
            head_width,
            intermediate: whole("intermediate_size")?,
            epsilon: real(self.epsilon.0, self.epsilon.1)? as f32,
            activation,
            theta,
            positions,
            first_position: padding,
            types: if self.names.types.is_some() { optional("type_vocab_size")?.unwrap_or(2).max(1) } else { 0 },
            attention_bias: self.bias || flag("attention_bias"),
            feed_forward_bias: self.bias || flag("mlp_bias"),
        })
    }
}
