//! The forward pass for Python: a model is made of arrays that stay mapped, and embeds tokens into arrays.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;

use super::search::thread_limit;
use super::{InputError, ModelNotFoundError, NEW, not_contiguous};
use crate::model::tensor::{Tensor, Tensors, Type};
use crate::model::{self, Architecture, DType, EmbedError, Pooling, Settings};
use crate::quantize::code_bytes;
use crate::simd;

/// How often Python is asked whether somebody wants it to stop.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// `(type, shape, bytes)` of a tensor.
type PyTensor<'py> = (String, Vec<usize>, PyReadonlyArray1<'py, u8>);

/// `(name, tensors, scale)` of an adapter.
type PyAdapter<'py> = (String, HashMap<String, PyTensor<'py>>, f32);

/// Why the native backend cannot run a model of these settings, or None if it can.
#[pyfunction]
pub(super) fn why_not_native(settings: Settings) -> Option<String> {
    Architecture::of(&settings).err()
}

/// What a model's matrices are multiplied in on this processor unless something else is asked for.
#[pyfunction]
pub(super) fn default_dtype() -> PyResult<&'static str> {
    Ok(name(simd::active().map_err(InputError::new_err)?.tier.model.fastest))
}

fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::Float32 => "float32",
        DType::Bfloat16 => "bfloat16",
    }
}

/// A model, packed for this processor.
#[pyclass(frozen, module = "jv5kit._native")]
pub(super) struct Model(model::Model);

#[pymethods]
impl Model {
    #[new]
    fn new(
        py: Python<'_>,
        settings: Settings,
        tensors: HashMap<String, PyTensor<'_>>,
        adapters: Vec<PyAdapter<'_>>,
        dtype: Option<&str>,
    ) -> PyResult<Self> {
        let tier = simd::active().map_err(InputError::new_err)?.tier;
        let dtype = match dtype {
            None => None,
            Some("float32") => Some(DType::Float32),
            Some("bfloat16") => Some(DType::Bfloat16),
            Some(name) => return Err(InputError::new_err(format!("dtype={name:?} is not known"))),
        };
        let tensors = taken(tensors)?;
        let adapters: Vec<_> =
            adapters.into_iter().map(|(name, own, scale)| Ok((name, taken(own)?, scale))).collect::<PyResult<_>>()?;
        py.detach(|| {
            let mut model = model::Model::new(&settings, tensors, tier, dtype)?;
            for (name, tensors, scale) in adapters {
                let named = |error| format!("adapter {name}: {error}");
                model.add_adapter(&name, tensors, scale).map_err(named)?;
            }
            Ok(Self(model))
        })
        .map_err(|error: String| ModelNotFoundError::new_err(error))
    }

    /// What its matrices are multiplied in.
    #[getter]
    fn dtype(&self) -> &'static str {
        name(self.0.dtype())
    }

    /// Embed texts: `tokens` of all of them, one after the other; text i has those from `starts[i]` to `starts[i + 1]`.
    ///
    /// Returns float32 `(n, dim)`, at unit length with `normalize`; with `binary` the sign bits, uint8 `(n, ceil(dim / 8))`.
    /// `unit` brings embeddings to unit length before they are truncated.
    #[pyo3(signature = (tokens, starts, *, pooling, adapter, dim, unit, normalize, binary, threads))]
    #[expect(clippy::too_many_arguments, reason = "they are named in Python")]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        starts: PyReadonlyArray1<'py, i64>,
        pooling: &str,
        adapter: Option<&str>,
        dim: usize,
        unit: bool,
        normalize: bool,
        binary: bool,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tier = simd::active().map_err(InputError::new_err)?.tier;
        let threads = thread_limit(threads)?;
        let tokens = tokens.as_slice().map_err(|_| not_contiguous("tokens"))?;
        let texts = texts(starts.as_slice().map_err(|_| not_contiguous("starts"))?, tokens.len())?;
        let pooling = match pooling {
            "mean" => Pooling::Mean,
            "cls" => Pooling::First,
            "lasttoken" => Pooling::Last,
            _ => return Err(InputError::new_err(format!("pooling={pooling:?} is not known"))),
        };
        let adapter = match adapter {
            None => None,
            Some(name) => match self.0.adapters().iter().position(|other| other == name) {
                Some(number) => Some(number),
                None => return Err(InputError::new_err(format!("there is no adapter {name:?}"))),
            },
        };
        let columns = self.0.dim();
        if dim == 0 || dim > columns {
            return Err(InputError::new_err(format!("dim={dim} is outside 1..{columns}")));
        }
        let raised = RefCell::new(None);
        let asked = Cell::new(Instant::now());
        let interrupted = || {
            if asked.get().elapsed() < ASK_EVERY {
                return false;
            }
            asked.set(Instant::now());
            let error = Python::attach(|py| py.check_signals()).err();
            let stop = error.is_some();
            raised.replace(error);
            stop
        };
        let embed = Unshared(|| self.0.embed(tokens, &texts, adapter, pooling, threads, &interrupted));
        let embedded = py.detach(|| embed.call());
        if let Some(error) = raised.take() {
            return Err(error);
        }
        let mut rows = embedded.map_err(|error| ModelNotFoundError::new_err(self.message(&error, &texts)))?;
        if unit && !normalize && !binary {
            let whole = rows.clone();
            crate::truncate::truncate(tier, &whole, columns, columns, &mut rows);
        }
        if binary {
            // The sign of a value does not depend on the length of its row.
            let out = PyArray2::zeros(py, [texts.len(), code_bytes(dim)], false);
            // SAFETY: the array was made here, and nobody else has seen it yet.
            let codes = unsafe { out.as_slice_mut() }.expect(NEW);
            crate::quantize::quantize(tier, &first_columns(&rows, columns, dim), dim, codes);
            return Ok(out.into_any());
        }
        let out = PyArray2::zeros(py, [texts.len(), dim], false);
        // SAFETY: as above.
        let values = unsafe { out.as_slice_mut() }.expect(NEW);
        if normalize {
            crate::truncate::truncate(tier, &rows, columns, dim, values);
        } else {
            values.copy_from_slice(&first_columns(&rows, columns, dim));
        }
        Ok(out.into_any())
    }
}

impl Model {
    fn message(&self, error: &EmbedError, texts: &[Range<usize>]) -> String {
        match error {
            EmbedError::Token(token) => format!(
                "its tokenizer gives the token {token}, but its vocabulary ends at {}; the two do not belong together",
                self.0.vocabulary() - 1
            ),
            EmbedError::TooLong(tokens) => {
                format!("a text has {tokens} tokens, more than the model has positions, {}", self.0.positions())
            }
            EmbedError::NotFinite(text) => format!(
                "the embedding of a text of {} tokens has values that are no numbers; so have its weights",
                texts[*text].len()
            ),
            EmbedError::Interrupted => "interrupted".into(),
        }
    }
}

/// The rows' first columns.
fn first_columns(rows: &[f32], columns: usize, dim: usize) -> std::borrow::Cow<'_, [f32]> {
    if dim == columns {
        return rows.into();
    }
    rows.chunks_exact(columns).flat_map(|row| &row[..dim]).copied().collect::<Vec<_>>().into()
}

fn texts(starts: &[i64], tokens: usize) -> PyResult<Vec<Range<usize>>> {
    let rising = starts.windows(2).all(|pair| pair[0] < pair[1]);
    if starts.first() != Some(&0) || starts.last() != Some(&(tokens as i64)) || !rising {
        return Err(InputError::new_err(format!("starts must rise from 0 to the number of tokens, {tokens}")));
    }
    Ok(starts.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect())
}

fn taken(tensors: HashMap<String, PyTensor<'_>>) -> PyResult<Tensors> {
    let mut all = Vec::with_capacity(tensors.len());
    for (name, (kind, shape, array)) in tensors {
        let bytes = array.as_slice().map_err(|_| not_contiguous(&name))?;
        let mapped = Mapped { start: bytes.as_ptr(), len: bytes.len(), _array: (*array).clone().unbind() };
        let tensor = match Type::named(&kind) {
            Some(kind) => Tensor::new(kind, shape, Arc::new(mapped)),
            None => Err(format!("is of type {kind}; the native backend reads F32, F16, BF16 and I8")),
        };
        all.push((name, tensor));
    }
    Ok(Tensors::new(all))
}

/// Bytes of an array that is kept.
struct Mapped {
    start: *const u8,
    len: usize,
    _array: Py<PyArray1<u8>>,
}

// SAFETY: the bytes are only read, and stay where they are as long as the array is kept.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: see above.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// What stays on the thread that releases the GIL, though its type could not leave it.
struct Unshared<F>(F);

// SAFETY: `Python::detach` calls its closure on the calling thread.
unsafe impl<F> Send for Unshared<F> {}

impl<F: FnOnce() -> T, T> Unshared<F> {
    fn call(self) -> T {
        (self.0)()
    }
}
