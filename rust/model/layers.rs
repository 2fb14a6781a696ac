//! The weights of a model, taken from its tensors and packed.

use super::architecture::{Architecture, Shape};
use super::packed::{Layout, Packed};
use super::rows::{Norm, NormKind};
use super::tensor::{Matrix, Tensors};

/// What comes before the layers.
pub(crate) struct Embedding {
    pub tokens: Matrix,
    /// One row a position.
    pub positions: Option<Matrix>,
    /// The one type that all tokens have.
    pub kind: Vec<f32>,
    pub norm: Option<Norm>,
}

/// A layer: attention, then the feed-forward block.
pub(crate) struct Layer {
    pub query: Linear,
    pub key_value: Linear,
    pub attention_output: Linear,
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
    pub attention_norm: Norm,
    /// Gate and up, interleaved, in a gated block.
    pub up: Linear,
    pub down: Linear,
    pub feed_forward_norm: Norm,
}

/// A linear layer, and what each of the model's adapters adds to it.
pub(crate) struct Linear {
    pub weights: Packed,
    pub adapters: Vec<Option<Adapter>>,
    parts: Parts,
}

/// Low rank adaptation: `up(down(x))`, the scale in `up` (Hu et al., arXiv 2106.09685).
pub(crate) struct Adapter {
    pub down: Packed,
    pub up: Packed,
}

/// Which matrices a linear layer is made of, by name, each with its number of outputs, and in which order its outputs are.
struct Parts {
    names: Vec<(String, usize)>,
    inputs: usize,
    gated: bool,
}

impl Parts {
    /// Outputs, those that fill up panels included.
    fn outputs(&self, layout: Layout) -> usize {
        let total: usize = self.names.iter().map(|(_, outputs)| outputs).sum();
        if self.gated { total.next_multiple_of(layout.width) } else { total }
    }

    /// The part of an output, and its number there.
    fn locate(&self, layout: Layout, output: usize) -> Option<(usize, usize)> {
        if self.gated {
            // The first half of a panel is gates, the second the values that they let through.
            let half = layout.width / 2;
            let (panel, lane) = (output / layout.width, output % layout.width);
            let number = panel * half + lane % half;
            return (number < self.names[0].1).then_some((lane / half, number));
        }
        let mut number = output;
        for (part, &(_, outputs)) in self.names.iter().enumerate() {
            if number < outputs {
                return Some((part, number));
            }
            number -= outputs;
        }
        None
    }
}

impl Linear {
    fn new(tensors: &mut Tensors, layout: Layout, parts: Parts, bias: bool) -> Result<Self, String> {
        let mut matrices = Vec::new();
        let mut biases = Vec::new();
        for (name, outputs) in &parts.names {
            matrices.push(tensors.matrix(&format!("{name}.weight"), *outputs, parts.inputs)?);
            if bias {
                biases.push(tensors.vector(&format!("{name}.bias"), *outputs)?);
            }
        }
        let mut error = None;
        let mut weights = Packed::new(layout, parts.outputs(layout), parts.inputs, |output, row| {
            match parts.locate(layout, output) {
                Some((part, number)) => matrices[part].read(number, row, &mut error),
                None => row.fill(0.0),
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        if bias {
            let value = |output| parts.locate(layout, output).map_or(0.0, |(part, number)| biases[part][number]);
            let all = (0..weights.outputs).map(value).collect();
            weights = weights.with_bias(all);
        }
        Ok(Self { weights, adapters: Vec::new(), parts })
    }

    /// Take what an adapter adds, if anything: `lora_A` and `lora_B` of each part.
    pub fn add_adapter(&mut self, tensors: &mut Tensors, layout: Layout, scale: f32) -> Result<(), String> {
        let mut downs: Vec<Matrix> = Vec::new();
        let mut ups: Vec<Option<(usize, Matrix)>> = Vec::new();
        let mut rank = 0;
        for (name, outputs) in &self.parts.names {
            let (down, up) = (format!("{name}.lora_A.weight"), format!("{name}.lora_B.weight"));
            let Some(own) = tensors.rows_of(&down) else {
                ups.push(None);
                continue;
            };
            downs.push(tensors.matrix(&down, own, self.parts.inputs)?);
            ups.push(Some((rank, tensors.matrix(&up, *outputs, own)?)));
            rank += own;
        }
        if rank == 0 {
            self.adapters.push(None);
            return Ok(());
        }
        let mut error = None;
        let rows: Vec<_> =
            downs.iter().flat_map(|matrix| (0..matrix.tensor.shape()[0]).map(move |row| (matrix, row))).collect();
        let down = Packed::new(layout, rank, self.parts.inputs, |output, out| {
            let (matrix, row) = rows[output];
            matrix.read(row, out, &mut error);
        });
        let up = Packed::new(layout, self.weights.outputs, rank, |output, out| {
            out.fill(0.0);
            let Some((part, number)) = self.parts.locate(layout, output) else { return };
            if let Some((first, matrix)) = &ups[part] {
                let out = &mut out[*first..][..matrix.tensor.columns()];
                matrix.read(number, out, &mut error);
                out.iter_mut().for_each(|value| *value *= scale);
            }
        });
        self.adapters.push(Some(Adapter { down, up }));
        error.map_or(Ok(()), Err)
    }
}

fn norm(tensors: &mut Tensors, kind: NormKind, epsilon: f32, name: &str, width: usize) -> Result<Norm, String> {
    let weight = tensors.vector(&format!("{name}.weight"), width)?;
    let bias = match kind {
        NormKind::Layer => tensors.vector(&format!("{name}.bias"), width)?,
        NormKind::RootMeanSquare => Vec::new(),
    };
    Ok(Norm { kind, epsilon, weight, bias })
}

/// All weights of a model.
pub(crate) struct Weights {
    pub embedding: Embedding,
    pub layers: Vec<Layer>,
    pub final_norm: Option<Norm>,
}

impl Weights {
    /// Take them from the tensors; it is an error if one is missing, has another shape, or is left over.
    pub fn new(
        architecture: &Architecture,
        shape: &Shape,
        layout: Layout,
        mut tensors: Tensors,
    ) -> Result<Self, String> {
        let names = &architecture.names;
        let tokens_of = |prefix: &&&str| tensors.has(&format!("{prefix}{}.weight", names.tokens));
        let prefix = architecture.prefixes.iter().find(tokens_of).copied().unwrap_or("");
        for ignored in architecture.ignored {
            tensors.ignore(ignored);
            tensors.ignore(&format!("{prefix}{ignored}"));
        }
        let tensors_ref = &mut tensors;
        let hidden = shape.hidden;
        let norm_of =
            |tensors: &mut Tensors, name: &str, width| norm(tensors, architecture.norm, shape.epsilon, name, width);
        let tokens = tensors_ref.matrix(&format!("{prefix}{}.weight", names.tokens), shape.vocabulary, hidden)?;
        let positions = match names.positions {
            Some(name) => Some(tensors_ref.matrix(&format!("{prefix}{name}.weight"), shape.positions, hidden)?),
            None => None,
        };
        let mut kind = Vec::new();
        if let Some(name) = names.types {
            let table = tensors_ref.matrix(&format!("{prefix}{name}.weight"), shape.types, hidden)?;
            kind.resize(hidden, 0.0);
            let mut error = None;
            table.read(0, &mut kind, &mut error);
            if let Some(error) = error {
                return Err(error);
            }
        }
        let embedding_norm = match names.embedding_norm {
            Some(name) => Some(norm_of(tensors_ref, &format!("{prefix}{name}"), hidden)?),
            None => None,
        };
        let embedding = Embedding { tokens, positions, kind, norm: embedding_norm };
        let (query_width, kv_width) = (shape.heads * shape.head_width, shape.kv_heads * shape.head_width);
        // Not with room for all: their number has been read, but no weights of theirs yet.
        let mut layers = Vec::new();
        for number in 0..shape.layers {
            let name = |part: &str| format!("{prefix}{}{number}.{part}", names.layer);
            let linear = |tensors: &mut Tensors, parts: &[(&str, usize)], inputs, gated, bias| {
                let names = parts.iter().map(|&(part, outputs)| (name(part), outputs)).collect();
                Linear::new(tensors, layout, Parts { names, inputs, gated }, bias)
            };
            let (attention, feed_forward) = (shape.attention_bias, shape.feed_forward_bias);
            let mut up = vec![(names.up, shape.intermediate)];
            if let Some(gate) = names.gate {
                up.insert(0, (gate, shape.intermediate));
            }
            let kv = [(names.key, kv_width), (names.value, kv_width)];
            let tensors = &mut *tensors_ref;
            let (query_norm, key_norm) = match names.head_norms {
                Some((query, key)) => (
                    Some(norm_of(tensors, &name(query), shape.head_width)?),
                    Some(norm_of(tensors, &name(key), shape.head_width)?),
                ),
                None => (None, None),
            };
            layers.push(Layer {
                query: linear(tensors, &[(names.query, query_width)], hidden, false, attention)?,
                key_value: linear(tensors, &kv, hidden, false, attention)?,
                attention_output: linear(tensors, &[(names.attention_output, hidden)], query_width, false, attention)?,
                query_norm,
                key_norm,
                attention_norm: norm_of(tensors, &name(names.attention_norm), hidden)?,
                up: linear(tensors, &up, hidden, names.gate.is_some(), feed_forward)?,
                down: linear(tensors, &[(names.down, hidden)], shape.intermediate, false, feed_forward)?,
                feed_forward_norm: norm_of(tensors, &name(names.feed_forward_norm), hidden)?,
            });
        }
        let final_norm = match names.final_norm {
            Some(name) => Some(norm_of(tensors_ref, &format!("{prefix}{name}"), hidden)?),
            None => None,
        };
        tensors.finish()?;
        Ok(Self { embedding, layers, final_norm })
    }

    /// Every linear layer.
    pub fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|layer| {
            [&mut layer.query, &mut layer.key_value, &mut layer.attention_output, &mut layer.up, &mut layer.down]
        })
    }
}
