//! The native forward pass: token ids in, pooled embeddings out.
//!
//! ```text
//! config.json ─► architecture ─► layers (tensors, packed once) ─► Model
//! token ids ─► pieces ─► forward: embed, layers (product, rows, attention), pool ─► embeddings
//! ```
//!
//! * [`architecture`] is the table of what is known, as rows over shared blocks;
//! * [`tensor`] reads a weights file's tensors of any type; `packed` keeps them in the order in which they are read;
//! * `floats` has the vectors and their functions, `product` the matrix product and all that happens in its registers,
//!   `rows` norms and rotary positions, `attention` attention: each written once, over small traits;
//! * `simd` compiles them for each tier;
//! * `forward` takes a piece of the texts through the layers, alone or by a `crew` of threads.
//!
//! Nothing is padded: tokens of all texts lie one after the other. Every sum has one order, so that the embedding of a
//! text is the same to the last bit whatever is encoded beside it and by however many threads.

pub mod architecture;
mod attention;
// Only tiers of x86-64 multiply bfloat16; the tests run everywhere.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod bfloat16;
mod crew;
mod floats;
mod forward;
pub mod kernels;
mod layers;
#[cfg(test)]
mod naive;
mod packed;
mod product;
#[cfg(test)]
mod random;
mod rows;
pub(crate) mod simd;
pub mod tensor;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use architecture::Shape;
pub use architecture::{Architecture, Settings};
use crew::{Crew, Interruption};
use forward::{Forward, Piece, Stream, Workspace, passes};
use layers::Weights;
use rows::Angles;
pub use simd::DType;
use simd::Kernels;
use tensor::Tensors;

use crate::simd::Tier;

/// Tokens that one thread takes through the model together, unless a text is longer.
const PIECE_TOKENS: usize = 384;

/// Tokens below which a second thread costs more than it brings.
const TOKENS_WORTH_A_THREAD: usize = 64;

/// Tokens from which all threads work on one text.
const LONG: usize = 2048;

/// How the states of a text's tokens become one embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first.
    First,
    /// The last.
    Last,
}

/// A model, its weights packed for a tier.
pub struct Model {
    architecture: &'static Architecture,
    shape: Shape,
    dtype: DType,
    kernels: &'static Kernels,
    weights: Weights,
    adapters: Vec<String>,
    /// The most that an adapter's inner width needs.
    rank: usize,
    angles: Mutex<Arc<Angles>>,
}

/// Why a batch was not embedded.
#[derive(Debug, PartialEq, Eq)]
pub enum EmbedError {
    /// This token is beyond the vocabulary.
    Token(u32),
    /// This text has more tokens than the model has positions.
    TooLong(usize),
    /// The embedding of this text has a value that is no number.
    NotFinite(usize),
    /// It was asked to stop.
    Interrupted,
}

impl Model {
    /// Pack a model's tensors for a tier; by default in the type that it multiplies fastest.
    ///
    /// # Errors
    /// If the architecture is not known, or a tensor is missing, has another shape, is left over or has values that are
    /// no numbers.
    pub fn new(settings: &Settings, tensors: Tensors, tier: &Tier, dtype: Option<DType>) -> Result<Self, String> {
        let dtype = dtype.unwrap_or(tier.model.fastest);
        Self::with_kernels(settings, tensors, dtype, tier.model.of(dtype))
    }

    fn with_kernels(
        settings: &Settings,
        tensors: Tensors,
        dtype: DType,
        kernels: &'static Kernels,
    ) -> Result<Self, String> {
        let architecture = Architecture::of(settings)?;
        let shape = architecture.shape(settings)?;
        let weights = Weights::new(architecture, &shape, kernels.layout, tensors)?;
        let angles = Mutex::new(Arc::new(Angles { width: shape.head_width, values: Vec::new() }));
        Ok(Self { architecture, shape, dtype, kernels, weights, adapters: Vec::new(), rank: 0, angles })
    }

    /// Add an adapter: `lora_A` and `lora_B` of some of the linear layers, by their names in the model, and their scale.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn add_adapter(&mut self, name: &str, mut tensors: Tensors, scale: f32) -> Result<(), String> {
        let layout = self.kernels.layout;
        let mut rank = 0;
        for linear in self.weights.linears() {
            linear.add_adapter(&mut tensors, layout, scale)?;
            if let Some(Some(adapter)) = linear.adapters.last() {
                rank = rank.max(adapter.down.panels() * layout.width);
            }
        }
        tensors.finish()?;
        self.rank = self.rank.max(rank);
        self.adapters.push(name.to_string());
        Ok(())
    }

    /// The names of the adapters, in order.
    pub fn adapters(&self) -> &[String] {
        &self.adapters
    }

    /// Values of an embedding.
    pub fn dim(&self) -> usize {
        self.shape.hidden
    }

    /// What its matrices are multiplied in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Tokens that it has embeddings of.
    pub fn vocabulary(&self) -> usize {
        self.shape.vocabulary
    }

    /// Positions that a text may have; 0 if there is no table of them.
    pub fn positions(&self) -> usize {
        self.shape.positions.saturating_sub(self.shape.first_position)
    }

    /// Embed texts: `tokens` of all of them, one after the other, `texts` where each is, none of them empty.
    ///
    /// `interrupted` is called now and then on the calling thread. Returns one row of [`Self::dim`] values a text.
    ///
    /// # Errors
    /// See [`EmbedError`].
    ///
    /// # Panics
    /// If a text is empty or the texts do not follow each other.
    pub fn embed(
        &self,
        tokens: &[u32],
        texts: &[Range<usize>],
        adapter: Option<usize>,
        pooling: Pooling,
        threads: usize,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>, EmbedError> {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.shape.vocabulary) {
            return Err(EmbedError::Token(token));
        }
        let mut end = 0;
        for text in texts {
            assert!(text.start == end && text.end > text.start, "texts follow each other and are not empty");
            end = text.end;
        }
        assert_eq!(end, tokens.len(), "every token belongs to a text");
        let longest = texts.iter().map(Range::len).max().unwrap_or(0);
        if self.shape.positions > 0 && longest + self.shape.first_position > self.shape.positions {
            return Err(EmbedError::TooLong(longest));
        }
        let mut pooled = vec![0.0f32; texts.len() * self.dim()];
        let noticed = AtomicBool::new(false);
        let call = Call {
            model: self,
            angles: self.shape.theta.map(|theta| self.angles(longest, theta)),
            adapter,
            pooling,
            interruption: Interruption::new(interrupted, &noticed),
        };
        call.run(tokens, texts, threads, &mut pooled);
        if noticed.load(Ordering::Relaxed) {
            return Err(EmbedError::Interrupted);
        }
        let finite = |row: &[f32]| row.iter().all(|value| value.is_finite());
        match pooled.chunks_exact(self.dim()).position(|row| !finite(row)) {
            Some(text) => Err(EmbedError::NotFinite(text)),
            None => Ok(pooled),
        }
    }

    /// Angles of at least so many positions.
    fn angles(&self, positions: usize, theta: f64) -> Arc<Angles> {
        let mut angles = self.angles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if angles.values.len() < positions * angles.width {
            *angles = Arc::new(Angles::new(positions.next_power_of_two(), self.shape.head_width, theta));
        }
        angles.clone()
    }
}

/// What the threads of a call share.
struct Call<'a> {
    model: &'a Model,
    angles: Option<Arc<Angles>>,
    adapter: Option<usize>,
    pooling: Pooling,
    interruption: Interruption<'a>,
}

/// Some texts, and their tokens in a call's.
struct Share {
    texts: Range<usize>,
    tokens: Range<usize>,
}

impl Call<'_> {
    fn run(&self, tokens: &[u32], texts: &[Range<usize>], threads: usize, pooled: &mut [f32]) {
        let threads = threads.min(tokens.len() / TOKENS_WORTH_A_THREAD).max(1);
        // Too little for each thread to take pieces of its own: they work on all of it together.
        let together = threads > 1 && tokens.len() < 4 * threads * PIECE_TOKENS;
        let shares = shares(texts, if together { tokens.len() } else { PIECE_TOKENS });
        let (long, short): (Vec<_>, Vec<_>) =
            shares.into_iter().partition(|share| together || threads > 1 && share.tokens.len() >= LONG);
        let pooled = Pooled(pooled.as_mut_ptr());
        for share in long {
            self.together(tokens, texts, &share, threads, &pooled);
        }
        let next = AtomicUsize::new(0);
        let most = short.iter().map(|share| share.tokens.len()).max().unwrap_or(0);
        let work = |leader: bool| {
            let mut workspace = Workspace::new(self.model, most);
            let mut stream = Stream::new();
            while let Some(share) = short.get(next.fetch_add(1, Ordering::Relaxed)) {
                let texts = share.relative(texts);
                let piece = Piece { tokens: &tokens[share.tokens.clone()], texts: &texts };
                stream.fit(self.model, &piece);
                let crew = Crew::alone(passes(self.model), &self.interruption);
                // SAFETY: stream and workspace fit, and each share is one thread's.
                unsafe {
                    self.forward(&piece, &stream).run(&mut workspace, &crew, leader, pooled.of(self.model, share));
                }
            }
        };
        if !short.is_empty() {
            Crew::new(0, &self.interruption).run(threads.min(short.len()), work);
        }
    }

    /// All threads on one share.
    fn together(&self, tokens: &[u32], texts: &[Range<usize>], share: &Share, threads: usize, pooled: &Pooled) {
        let texts = share.relative(texts);
        let piece = Piece { tokens: &tokens[share.tokens.clone()], texts: &texts };
        let mut stream = Stream::new();
        stream.fit(self.model, &piece);
        let crew = Crew::new(passes(self.model), &self.interruption);
        crew.run(threads, |leader| {
            let mut workspace = Workspace::new(self.model, piece.tokens.len());
            // SAFETY: stream and workspace fit.
            unsafe {
                self.forward(&piece, &stream).run(&mut workspace, &crew, leader, pooled.of(self.model, share));
            }
        });
    }

    fn forward<'a>(&'a self, piece: &'a Piece<'a>, stream: &'a Stream) -> Forward<'a> {
        Forward {
            model: self.model,
            piece,
            stream,
            adapter: self.adapter,
            angles: self.angles.as_deref(),
            pooling: self.pooling,
        }
    }
}

/// Where the embeddings go, one row a text.
struct Pooled(*mut f32);

// SAFETY: each text's row is written by one thread.
unsafe impl Sync for Pooled {}

impl Pooled {
    /// The rows of a share.
    fn of(&self, model: &Model, share: &Share) -> *mut f32 {
        self.0.wrapping_add(share.texts.start * model.dim())
    }
}

impl Share {
    /// Where its texts are in its own tokens.
    fn relative(&self, texts: &[Range<usize>]) -> Vec<Range<usize>> {
        let first = self.tokens.start;
        texts[self.texts.clone()].iter().map(|text| text.start - first..text.end - first).collect()
    }
}

/// Texts that follow each other, in shares of at most so many tokens, or of one text.
fn shares(texts: &[Range<usize>], most: usize) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        match shares.last_mut() {
            Some(share) if text.end - share.tokens.start <= most => {
                share.texts.end = number + 1;
                share.tokens.end = text.end;
            }
            _ => shares.push(Share { texts: number..number + 1, tokens: text.clone() }),
        }
    }
    shares
}
