//! Tensors as a weights file has them: borrowed bytes of some type, read to float32 row by row.

use std::collections::HashMap;
use std::sync::Arc;

/// Memory that somebody keeps, such as a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The type of a tensor's values, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// 4 bytes.
    Float32,
    /// 2 bytes, IEEE.
    Float16,
    /// 2 bytes, the upper half of a float32.
    Bfloat16,
    /// 1 byte, to be multiplied with the scale of its row: a float32 tensor that has the name with `_scale` after it.
    Int8,
}

impl Type {
    /// The type of that name in a safetensors file.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::Float32),
            "F16" => Some(Self::Float16),
            "BF16" => Some(Self::Bfloat16),
            "I8" => Some(Self::Int8),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Int8 => 1,
        }
    }
}

/// A tensor: its type, its shape and its bytes.
#[derive(Clone)]
pub struct Tensor {
    kind: Type,
    shape: Vec<usize>,
    bytes: Bytes,
    /// One scale a row, for [`Type::Int8`].
    scales: Vec<f32>,
}

impl Tensor {
    /// A tensor over bytes.
    ///
    /// # Errors
    /// If there are not as many bytes as the shape says.
    pub fn new(kind: Type, shape: Vec<usize>, bytes: Bytes) -> Result<Self, String> {
        let values = shape.iter().try_fold(kind.bytes(), |product, &size| product.checked_mul(size));
        let found = (*bytes).as_ref().len();
        if values != Some(found) {
            return Err(format!("has {found} bytes, which a shape of {shape:?} does not"));
        }
        Ok(Self { kind, shape, bytes, scales: Vec::new() })
    }

    /// The lengths of its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Values of a row; all there are, for a vector.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Copy row `row` to `out`, which has [`Self::columns`] values.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let size = self.kind.bytes();
        let bytes = &(*self.bytes).as_ref()[row * out.len() * size..][..out.len() * size];
        match self.kind {
            Type::Float32 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Type::Float16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = float16(u16::from_le_bytes(*bytes));
                }
            }
            Type::Bfloat16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                }
            }
            Type::Int8 => {
                let scale = self.scales[row];
                for (value, &byte) in out.iter_mut().zip(bytes) {
                    *value = f32::from(byte as i8) * scale;
                }
            }
        }
    }
}

/// The value of an IEEE half-precision number.
fn float16(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 0x1F), u32::from(bits & 0x3FF));
    match exponent {
        // Subnormal: fraction × 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 * 5.960_464_5e-8).to_bits()),
        0x1F => f32::from_bits(sign | 0x7F80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// The tensors of a weights file by name, each to be taken once: what is left over in the end is too much.
pub struct Tensors(HashMap<String, Result<Tensor, String>>);

impl Tensors {
    /// All tensors of the files of a model; what is wrong with one is an error if it is wanted.
    pub fn new(tensors: impl IntoIterator<Item = (String, Result<Tensor, String>)>) -> Self {
        Self(tensors.into_iter().collect())
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Rows of the matrix of that name, if there is one.
    pub(crate) fn rows_of(&self, name: &str) -> Option<usize> {
        self.0.get(name)?.as_ref().ok()?.shape.first().copied()
    }

    /// Take a matrix of that shape.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, String> {
        let tensor = self.take(name, &[rows, columns])?;
        Ok(Matrix { name: name.to_string(), tensor })
    }

    /// Take a vector of that length.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, String> {
        let tensor = self.take(name, &[len])?;
        if tensor.kind == Type::Int8 {
            return Err(format!("{name} is int8; only matrices may be"));
        }
        let mut out = vec![0.0; len];
        tensor.read_row(0, &mut out);
        check_finite(name, 0, &out)?;
        Ok(out)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let Some(tensor) = self.0.remove(name) else {
            return Err(format!("its weights lack {name}"));
        };
        let mut tensor = tensor.map_err(|problem| format!("{name} {problem}"))?;
        if tensor.shape != shape {
            let found = tensor.shape;
            return Err(format!("{name} has the shape {found:?}, where config.json asks for {shape:?}"));
        }
        if tensor.kind == Type::Int8 && shape.len() == 2 {
            tensor.scales = self.vector(&format!("{name}_scale"), shape[0])?;
        }
        Ok(tensor)
    }

    /// Drop the tensors whose names begin so.
    pub(crate) fn ignore(&mut self, prefix: &str) {
        self.0.retain(|name, _| !name.starts_with(prefix));
    }

    /// Refuse what was not taken.
    pub(crate) fn finish(self) -> Result<(), String> {
        match self.0.into_keys().min() {
            Some(name) => Err(format!("its weights have {name}, which config.json knows nothing of")),
            None => Ok(()),
        }
    }
}

/// A matrix and its name, for messages.
pub(crate) struct Matrix {
    name: String,
    pub tensor: Tensor,
}

impl Matrix {
    /// Copy a row; notes in `error` when it has a value that is no number.
    pub fn read(&self, row: usize, out: &mut [f32], error: &mut Option<String>) {
        self.tensor.read_row(row, out);
        if error.is_none() {
            *error = check_finite(&self.name, row, out).err();
        }
    }
}

fn check_finite(name: &str, row: usize, values: &[f32]) -> Result<(), String> {
    // Infinities and NaN make the sum of zero times each value NaN; most rows need no second look.
    if values.iter().map(|value| value * 0.0).sum::<f32>() == 0.0 {
        return Ok(());
    }
    let value = values.iter().find(|value| !value.is_finite()).copied().unwrap_or(f32::NAN);
    Err(format!("{name} has the value {value} in row {row}"))
}
