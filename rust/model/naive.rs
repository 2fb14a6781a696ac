//! The forward pass as its formulas read, in float64, one value after the other: the truth of the tests.

use std::collections::HashMap;

use super::architecture::{Architecture, Settings, Shape};
use super::floats::Activation;
use super::rows::NormKind;

/// Tensors by name: values, row-major.
pub(super) type Values = HashMap<String, Vec<f32>>;

/// A model in float64.
pub(super) struct Naive {
    architecture: &'static Architecture,
    shape: Shape,
    tensors: HashMap<String, Vec<f64>>,
}

impl Naive {
    /// `added` is what is added to the weights of some layers, by their names.
    pub fn new(settings: &Settings, tensors: &Values, added: &HashMap<String, Vec<f64>>) -> Self {
        let architecture = Architecture::of(settings).unwrap();
        let wide = |values: &Vec<f32>| values.iter().map(|&value| f64::from(value)).collect();
        let mut tensors: HashMap<String, Vec<f64>> =
            tensors.iter().map(|(name, values)| (name.clone(), wide(values))).collect();
        for (name, added) in added {
            let weights = tensors.get_mut(&format!("{name}.weight")).unwrap();
            weights.iter_mut().zip(added).for_each(|(weight, added)| *weight += added);
        }
        Self { architecture, shape: architecture.shape(settings).unwrap(), tensors }
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weights = &self.tensors[&format!("{name}.weight")];
        let bias = self.tensors.get(&format!("{name}.bias"));
        let dot = |row: &[f64]| row.iter().zip(x).map(|(weight, x)| weight * x).sum::<f64>();
        let rows = weights.chunks_exact(x.len()).enumerate();
        rows.map(|(output, row)| dot(row) + bias.map_or(0.0, |bias| bias[output])).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let count = x.len() as f64;
        let weight = &self.tensors[&format!("{name}.weight")];
        let bias = self.tensors.get(&format!("{name}.bias"));
        let mean = match self.architecture.norm {
            NormKind::Layer => x.iter().sum::<f64>() / count,
            NormKind::RootMeanSquare => 0.0,
        };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let scale = 1.0 / (variance + f64::from(self.shape.epsilon)).sqrt();
        let value =
            |(i, (x, weight)): (usize, (&f64, &f64))| (x - mean) * scale * weight + bias.map_or(0.0, |bias| bias[i]);
        x.iter().zip(weight).enumerate().map(value).collect()
    }

    fn activation(&self, x: f64) -> f64 {
        match self.shape.activation {
            Activation::Gelu => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }

    /// Heads of one token, normed and turned.
    fn heads(&self, x: &[f64], norm: Option<&str>, position: usize) -> Vec<Vec<f64>> {
        let width = self.shape.head_width;
        let turned = |head: &[f64]| {
            let head = norm.map_or_else(|| head.to_vec(), |norm| self.norm(norm, head));
            let Some(theta) = self.shape.theta else { return head };
            let angle = |i: usize| position as f64 * theta.powf(-2.0 * i as f64 / width as f64);
            let half = width / 2;
            let first = (0..half).map(|i| head[i] * angle(i).cos() - head[half + i] * angle(i).sin());
            let second = (0..half).map(|i| head[half + i] * angle(i).cos() + head[i] * angle(i).sin());
            first.chain(second).collect()
        };
        x.chunks_exact(width).map(turned).collect()
    }

    /// The states of a text's tokens.
    pub fn states(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let (names, shape) = (&self.architecture.names, &self.shape);
        let row =
            |name: &str, row: usize| &self.tensors[&format!("{name}.weight")][row * shape.hidden..][..shape.hidden];
        let mut states: Vec<Vec<f64>> = Vec::new();
        for (position, &token) in tokens.iter().enumerate() {
            let mut state = row(names.tokens, token as usize).to_vec();
            if let (Some(positions), Some(types)) = (names.positions, names.types) {
                let others = row(positions, position + shape.first_position).iter().zip(row(types, 0));
                state.iter_mut().zip(others).for_each(|(state, (a, b))| *state += a + b);
            }
            states.push(names.embedding_norm.map_or(state.clone(), |norm| self.norm(norm, &state)));
        }
        for layer in 0..shape.layers {
            let name = |part: &str| format!("{}{layer}.{part}", names.layer);
            self.block(&mut states, &name(names.attention_norm), |inputs| self.attention(&name, inputs));
            self.block(&mut states, &name(names.feed_forward_norm), |inputs| {
                inputs.iter().map(|x| self.feed_forward(&name, x)).collect()
            });
        }
        states.into_iter().map(|x| names.final_norm.map_or(x.clone(), |norm| self.norm(norm, &x))).collect()
    }

    /// A block with its residual and its norm.
    fn block(&self, states: &mut [Vec<f64>], norm: &str, block: impl Fn(&[Vec<f64>]) -> Vec<Vec<f64>>) {
        let inputs: Vec<_> = if self.architecture.post_norm {
            states.to_vec()
        } else {
            states.iter().map(|x| self.norm(norm, x)).collect()
        };
        for (state, output) in states.iter_mut().zip(block(&inputs)) {
            state.iter_mut().zip(output).for_each(|(state, output)| *state += output);
            if self.architecture.post_norm {
                *state = self.norm(norm, state);
            }
        }
    }

    fn attention(&self, name: &impl Fn(&str) -> String, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (names, shape) = (&self.architecture.names, &self.shape);
        let norms = names.head_norms.map(|(query, key)| (name(query), name(key)));
        let all = |part: &str, norm: Option<&str>, turn: bool| -> Vec<Vec<Vec<f64>>> {
            let values = inputs.iter().map(|x| self.linear(&name(part), x));
            let heads = |(position, x): (usize, Vec<f64>)| {
                if turn {
                    self.heads(&x, norm, position)
                } else {
                    x.chunks_exact(shape.head_width).map(<[f64]>::to_vec).collect()
                }
            };
            values.enumerate().map(heads).collect()
        };
        let queries = all(names.query, norms.as_ref().map(|norms| norms.0.as_str()), true);
        let keys = all(names.key, norms.as_ref().map(|norms| norms.1.as_str()), true);
        let values = all(names.value, None, false);
        let mut outputs = Vec::new();
        for (position, query) in queries.iter().enumerate() {
            let mut context = Vec::new();
            for (head, query) in query.iter().enumerate() {
                let head = head / (shape.heads / shape.kv_heads);
                let seen = if self.architecture.causal { position + 1 } else { inputs.len() };
                let dot = |key: &[f64]| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
                let scores: Vec<_> =
                    keys[..seen].iter().map(|key| dot(&key[head]) / (shape.head_width as f64).sqrt()).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<_> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..shape.head_width {
                    let sum: f64 = weights.iter().zip(&values).map(|(weight, value)| weight * value[head][i]).sum();
                    context.push(sum / total);
                }
            }
            outputs.push(self.linear(&name(names.attention_output), &context));
        }
        outputs
    }

    fn feed_forward(&self, name: &impl Fn(&str) -> String, x: &[f64]) -> Vec<f64> {
        let names = &self.architecture.names;
        let up = self.linear(&name(names.up), x);
        let inner: Vec<f64> = match names.gate {
            Some(gate) => {
                self.linear(&name(gate), x).iter().zip(up).map(|(gate, up)| self.activation(*gate) * up).collect()
            }
            None => up.into_iter().map(|x| self.activation(x)).collect(),
        };
        self.linear(&name(names.down), &inner)
    }
}

/// The error function, by the series of 7.1.6 in Abramowitz and Stegun, whose terms are all positive.
pub(super) fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    (2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum).clamp(-1.0, 1.0)
}
