//! The forward pass over a piece: some texts, their tokens one after the other, without padding.
//!
//! A layer is two passes over blocks of rows. The first computes keys and values of all tokens; the second, block by
//! block, everything else up to the next layer, so that only the residual stream, the keys and the values of a piece
//! are ever held, and what a block works in stays in the cache of one core.

use std::ops::Range;

use super::attention::{KeysValues, Queries, attend_room};
use super::crew::Crew;
use super::layers::{Layer, Linear};
use super::packed::Memory;
use super::product::{Inputs, Product, Rows, Target, Term};
use super::rows::{Angles, Heads, Norm};
use super::simd::Kernels;
use super::{Model, Pooling};

/// Rows that go through a layer together.
const BLOCK: usize = 96;

/// Bytes that the widest inputs of a block may take: half of a core's second cache.
const BLOCK_BYTES: usize = 512 << 10;

/// Texts that go through the model together.
pub(crate) struct Piece<'a> {
    pub tokens: &'a [u32],
    /// Where each text's tokens are.
    pub texts: &'a [Range<usize>],
}

/// Memory of a piece, shared by the threads that work on it: each row is written by one of them in each pass.
pub(crate) struct Stream {
    rows: Rows,
    keys: *mut f32,
    values: *mut f32,
    /// Where the keys and values of each text begin.
    starts: Vec<(usize, usize)>,
    memory: [Memory; 3],
}

// SAFETY: rows are claimed by one thread in each pass, and passes do not overlap; see `Crew`.
unsafe impl Sync for Stream {}
// SAFETY: the pointers are into `memory`.
unsafe impl Send for Stream {}

/// What a block works in, of one thread.
pub(crate) struct Workspace {
    hidden: Inputs,
    context: Inputs,
    intermediate: Inputs,
    low_rank: Inputs,
    heads: Rows,
    row: Rows,
    scratch: *mut f32,
    _memory: Vec<Memory>,
}

/// Columns of a row of float32 or inputs: whole panels and cache lines, and no multiple of 2 KiB, which would put
/// the rows of a tile into the same few lines of a cache.
fn padded(columns: usize) -> usize {
    let columns = columns.next_multiple_of(32);
    if columns.is_multiple_of(512) { columns + 32 } else { columns }
}

/// Rows of a block of a model.
fn block_rows(model: &Model) -> usize {
    let bytes = model.shape.intermediate.max(model.shape.hidden) * model.kernels.layout.factors.input_bytes();
    (BLOCK_BYTES / bytes / 16 * 16).clamp(48, BLOCK)
}

impl Stream {
    pub fn new() -> Self {
        let null = std::ptr::null_mut();
        let memory = [(); 3].map(|()| Memory::zeroed(0));
        Self { rows: Rows { values: null, stride: 0 }, keys: null, values: null, starts: Vec::new(), memory }
    }

    /// Make room for a piece.
    pub fn fit(&mut self, model: &Model, piece: &Piece) {
        let stride = padded(model.shape.hidden);
        let [rows, keys, values] = &mut self.memory;
        rows.grow(piece.tokens.len() * stride * 4);
        self.starts.clear();
        let mut total = (0, 0);
        for text in piece.texts {
            self.starts.push(total);
            let (heads, width) = (model.shape.kv_heads, model.shape.head_width);
            let sizes = KeysValues::sizes(text.len(), heads, width, model.kernels.layout.width);
            total = (total.0 + sizes.0, total.1 + sizes.1);
        }
        keys.grow(total.0 * 4);
        values.grow(total.1 * 4);
        self.rows = Rows { values: rows.as_mut_ptr().cast(), stride };
        self.keys = keys.as_mut_ptr().cast();
        self.values = values.as_mut_ptr().cast();
    }

    fn keys_values(&self, model: &Model, piece: &Piece, text: usize) -> KeysValues {
        let (keys, values) = self.starts[text];
        KeysValues {
            keys: self.keys.wrapping_add(keys),
            values: self.values.wrapping_add(values),
            tokens: piece.texts[text].len(),
            heads: model.shape.kv_heads,
            width: model.shape.head_width,
            panel: model.kernels.layout.width,
        }
    }
}

impl Workspace {
    pub fn new(model: &Model, tokens: usize) -> Self {
        let (shape, layout) = (&model.shape, model.kernels.layout);
        // Units may write whole tiles of 16 rows.
        let rows = block_rows(model).min(tokens).next_multiple_of(16);
        let mut memory = Vec::new();
        let mut room = |bytes: usize| {
            memory.push(Memory::zeroed(bytes));
            memory.last_mut().expect("just pushed").as_mut_ptr()
        };
        let mut inputs = |columns: usize| {
            let columns = padded(columns);
            Inputs { values: room(rows * columns * layout.factors.input_bytes()), columns }
        };
        let query_width = shape.heads * shape.head_width;
        let hidden = inputs(shape.hidden);
        let context = inputs(query_width);
        let intermediate = inputs(shape.intermediate.next_multiple_of(layout.width));
        let low_rank = inputs(model.rank);
        let width = padded(query_width.max(2 * shape.kv_heads * shape.head_width));
        let heads = Rows { values: room(rows * width * 4).cast(), stride: width };
        let stride = padded(shape.hidden);
        let row = Rows { values: room(stride * 4).cast(), stride };
        let scratch = room(attend_room(shape.head_width, layout.width) * 4).cast();
        Self { hidden, context, intermediate, low_rank, heads, row, scratch, _memory: memory }
    }
}

/// One thread's part of the forward pass over a piece.
pub(crate) struct Forward<'a> {
    pub model: &'a Model,
    pub piece: &'a Piece<'a>,
    pub stream: &'a Stream,
    pub adapter: Option<usize>,
    pub angles: Option<&'a Angles>,
    pub pooling: Pooling,
}

/// Passes of a crew over a piece.
pub(crate) fn passes(model: &Model) -> usize {
    2 * model.weights.layers.len() + 2
}

impl Forward<'_> {
    /// Take part in all passes; `pooled` has room for an embedding of each text, of which each thread writes some.
    ///
    /// # Safety
    /// The stream and the workspace fit the piece, and the threads of the crew call this with the same arguments.
    pub unsafe fn run(&self, work: &mut Workspace, crew: &Crew, leader: bool, pooled: *mut f32) {
        let rows = self.piece.tokens.len();
        let block = block_rows(self.model);
        let blocks = rows.div_ceil(block);
        let range = |number: usize| number * block..rows.min((number + 1) * block);
        // SAFETY: rows of different blocks, and embeddings of different texts, do not overlap.
        unsafe {
            crew.pass(0, blocks, leader, |number| self.embed(range(number)));
            for (number, layer) in self.model.weights.layers.iter().enumerate() {
                crew.pass(2 * number + 1, blocks, leader, |number| self.keys_values(layer, range(number), work));
                crew.pass(2 * number + 2, blocks, leader, |number| self.layer(layer, range(number), work));
            }
            let last = 2 * self.model.weights.layers.len() + 1;
            crew.pass(last, self.piece.texts.len(), leader, |text| {
                let hidden = self.model.shape.hidden;
                self.pool(text, std::slice::from_raw_parts_mut(pooled.add(text * hidden), hidden));
            });
        }
    }

    fn kernels(&self) -> &'static Kernels {
        self.model.kernels
    }

    /// The parts of texts in a range of rows: text, its rows, the position of the first.
    fn texts(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        let first = self.piece.texts.partition_point(|text| text.end <= rows.start);
        let texts = self.piece.texts.iter().enumerate().skip(first);
        texts.take_while(move |(_, text)| text.start < rows.end).map(move |(number, text)| {
            let part = rows.start.max(text.start)..rows.end.min(text.end);
            (number, part.clone(), part.start - text.start)
        })
    }

    unsafe fn embed(&self, rows: Range<usize>) {
        let embedding = &self.model.weights.embedding;
        let hidden = self.model.shape.hidden;
        let mut other = vec![0.0f32; hidden];
        let mut no_error = None;
        // SAFETY: see `run`; here and below.
        unsafe {
            let out = self.stream.rows.from(rows.start);
            for (_, part, position) in self.texts(rows.clone()) {
                for (i, row) in part.enumerate() {
                    let start = self.stream.rows.from(row).values;
                    let values = std::slice::from_raw_parts_mut(start, hidden);
                    // A value that is no number shows in the embedding, which is checked.
                    embedding.tokens.read(self.piece.tokens[row] as usize, values, &mut no_error);
                    if let Some(positions) = &embedding.positions {
                        positions.read(self.model.shape.first_position + position + i, &mut other, &mut no_error);
                        // Type and position are added to each other last, as in transformers' order of sums.
                        for ((value, other), kind) in values.iter_mut().zip(&other).zip(&embedding.kind) {
                            *value = *value + kind + other;
                        }
                    }
                }
            }
            if let Some(norm) = &embedding.norm {
                (self.kernels().normalize)(out, rows.len(), norm);
            }
        }
    }

    unsafe fn keys_values(&self, layer: &Layer, rows: Range<usize>, work: &mut Workspace) {
        let shape = &self.model.shape;
        let width = shape.kv_heads * shape.head_width;
        let heads = Heads {
            count: shape.kv_heads,
            width: shape.head_width,
            norm: layer.key_norm.as_ref(),
            angles: self.angles,
            scale: 1.0,
        };
        // SAFETY: see `run`; here and below.
        unsafe {
            self.prepare(&rows, &layer.attention_norm, work);
            self.product(&layer.key_value, rows.len(), work.hidden, Target::Rows(work.heads), work);
            for (text, part, position) in self.texts(rows.clone()) {
                let keys_values = self.stream.keys_values(self.model, self.piece, text);
                for (i, row) in part.enumerate() {
                    let key = work.heads.from(row - rows.start).values;
                    (self.kernels().finish_heads)(key, position + i, heads);
                    keys_values.write(position + i, key, key.add(width));
                }
            }
        }
    }

    unsafe fn layer(&self, layer: &Layer, rows: Range<usize>, work: &mut Workspace) {
        let (shape, architecture) = (&self.model.shape, self.model.architecture);
        let heads = Heads {
            count: shape.heads,
            width: shape.head_width,
            norm: layer.query_norm.as_ref(),
            angles: self.angles,
            scale: 1.0 / (shape.head_width as f32).sqrt(),
        };
        // SAFETY: see `run`; here and below.
        unsafe {
            let stream = self.stream.rows.from(rows.start);
            self.prepare(&rows, &layer.attention_norm, work);
            self.product(&layer.query, rows.len(), work.hidden, Target::Rows(work.heads), work);
            for (text, part, position) in self.texts(rows.clone()) {
                let first = part.start - rows.start;
                let queries = Queries {
                    rows: work.heads.from(first),
                    count: part.len(),
                    position,
                    heads: shape.heads,
                    causal: architecture.causal,
                };
                for i in 0..queries.count {
                    (self.kernels().finish_heads)(queries.rows.from(i).values, position + i, heads);
                }
                let keys_values = self.stream.keys_values(self.model, self.piece, text);
                (self.kernels().attend)(queries, keys_values, work.context, first, work.scratch);
            }
            self.product(&layer.attention_output, rows.len(), work.context, Target::Sum(stream), work);
            if architecture.post_norm {
                (self.kernels().normalize)(stream, rows.len(), &layer.attention_norm);
            }
            self.prepare(&rows, &layer.feed_forward_norm, work);
            let target = if architecture.names.gate.is_some() {
                Target::Gated(work.intermediate, shape.activation)
            } else {
                Target::Inputs(work.intermediate, Some(shape.activation))
            };
            self.product(&layer.up, rows.len(), work.hidden, target, work);
            self.product(&layer.down, rows.len(), work.intermediate, Target::Sum(stream), work);
            if architecture.post_norm {
                (self.kernels().normalize)(stream, rows.len(), &layer.feed_forward_norm);
            }
        }
    }

    /// Rows of the stream as inputs, through the norm that stands before a block.
    unsafe fn prepare(&self, rows: &Range<usize>, norm: &Norm, work: &Workspace) {
        let norm = (!self.model.architecture.post_norm).then_some(norm);
        // SAFETY: see `run`.
        unsafe {
            (self.kernels().prepare)(self.stream.rows.from(rows.start), rows.len(), norm, work.hidden, work.row);
        }
    }

    /// A linear layer with the adapter, if there is one.
    unsafe fn product(&self, linear: &Linear, rows: usize, inputs: Inputs, target: Target, work: &Workspace) {
        let own = Term { inputs, weights: &linear.weights };
        let adapter = self.adapter.and_then(|adapter| linear.adapters[adapter].as_ref());
        // SAFETY: see `run`; here and below.
        unsafe {
            let Some(adapter) = adapter else {
                return (self.kernels().product)(&Product { rows, terms: &[own], target });
            };
            let down = Term { inputs, weights: &adapter.down };
            (self.kernels().product)(&Product { rows, terms: &[down], target: Target::Inputs(work.low_rank, None) });
            let up = Term { inputs: work.low_rank, weights: &adapter.up };
            (self.kernels().product)(&Product { rows, terms: &[own, up], target });
        }
    }

    /// The embedding of a text.
    unsafe fn pool(&self, text: usize, out: &mut [f32]) {
        let text = &self.piece.texts[text];
        let final_norm = self.model.weights.final_norm.as_ref();
        // SAFETY: see `run`; here and below.
        unsafe {
            let rows = match self.pooling {
                Pooling::Mean => text.clone(),
                Pooling::First => text.start..text.start + 1,
                Pooling::Last => text.end - 1..text.end,
            };
            if let Some(norm) = final_norm {
                (self.kernels().normalize)(self.stream.rows.from(rows.start), rows.len(), norm);
            }
            let row = |row: usize| std::slice::from_raw_parts(self.stream.rows.from(row).values, out.len());
            if rows.len() == 1 {
                out.copy_from_slice(row(rows.start));
                return;
            }
            let mut sums = vec![0.0f64; out.len()];
            for number in rows.clone() {
                for (sum, &value) in sums.iter_mut().zip(row(number)) {
                    *sum += f64::from(value);
                }
            }
            let scale = 1.0 / rows.len() as f64;
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = (sum * scale) as f32;
            }
        }
    }
}
