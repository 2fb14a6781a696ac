//! The Python face of the crate, `jv5kit._native`: check shapes, release the GIL, call, return arrays.
//!
//! Only this file and those of its folder know PyO3. Arrays come in as read-only, C-contiguous borrows (memory maps included) and go out owned
//! by NumPy. Conversions of types and defaults belong to the Python modules that call these functions.

mod matrix;
mod model;
mod search;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::quantize::{Ranges, code_bytes};
use crate::simd;

pyo3::import_exception!(jv5kit.errors, InputError);
pyo3::import_exception!(jv5kit.errors, ModelNotFoundError);

/// Why an array made here can be written through a slice.
const NEW: &str = "a new array is contiguous";

type QuantizedRows<'py> = (Bound<'py, PyArray2<i8>>, Bound<'py, PyArray1<f32>>, Option<Bound<'py, PyArray2<u8>>>);

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::matrix::PackedMatrix;
    #[pymodule_export]
    use super::model::{Model, default_dtype, why_not_native};
    #[pymodule_export]
    use super::search::{code_products, dot_search, hamming_search, mixed_products};
    #[pymodule_export]
    use super::{
        block_checksums, crc32c, damaged_block, quantize_binary, quantize_ranges, quantize_rows, simd_tier, truncate,
    };
}

/// `(name, forced, available)`: the tier in use, whether `JV5KIT_SIMD` asked for it, and the names of all that could be.
#[pyfunction]
fn simd_tier() -> PyResult<(&'static str, bool, Vec<&'static str>)> {
    let choice = simd::active().map_err(InputError::new_err)?;
    Ok((choice.tier.name, choice.forced, simd::available_tiers().map(|tier| tier.name).collect()))
}

/// Sign bits of float32 rows `(n, dim)`: uint8 `(n, ceil(dim / 8))`.
#[pyfunction]
fn quantize_binary<'py>(py: Python<'py>, embeddings: PyReadonlyArray2<'py, f32>) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let (rows, columns) = (embeddings.shape()[0], embeddings.shape()[1]);
    if columns == 0 {
        return Err(InputError::new_err(format!("embeddings of shape ({rows}, 0) have no dimension to quantize")));
    }
    let values = contiguous(&embeddings, "embeddings")?;
    let out = PyArray2::zeros(py, [rows, code_bytes(columns)], false);
    // SAFETY: the array was made here, and nobody else has seen it yet.
    let codes = unsafe { out.as_slice_mut() }.expect(NEW);
    py.detach(|| crate::quantize::quantize(tier, values, columns, codes));
    Ok(out)
}

/// Symmetric int8 values `(n, dim)` and scales float32 `(n,)` of finite float32 rows, and with `binary` their sign bits as well,
/// in the same pass.
#[pyfunction]
fn quantize_rows<'py>(
    py: Python<'py>,
    embeddings: PyReadonlyArray2<'py, f32>,
    binary: bool,
) -> PyResult<QuantizedRows<'py>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let (rows, columns) = (embeddings.shape()[0], embeddings.shape()[1]);
    if columns == 0 {
        return Err(InputError::new_err(format!("embeddings of shape ({rows}, 0) have no dimension to quantize")));
    }
    let floats = contiguous(&embeddings, "embeddings")?;
    let values = PyArray2::zeros(py, [rows, columns], false);
    let scales = PyArray1::zeros(py, [rows], false);
    let codes = binary.then(|| PyArray2::zeros(py, [rows, code_bytes(columns)], false));
    // SAFETY: as in `quantize_binary`.
    let out =
        unsafe { (values.as_slice_mut(), scales.as_slice_mut(), codes.as_ref().map(|codes| codes.as_slice_mut())) };
    let (out_values, out_scales, out_codes) =
        (out.0.expect(NEW), out.1.expect(NEW), out.2.map(|codes| codes.expect(NEW)));
    py.detach(|| crate::quantize::quantize_rows(tier, floats, columns, out_values, out_scales, out_codes));
    Ok((values, scales, codes))
}

/// int8 values `(n, dim)` of float32 rows: whole steps of each dimension from its low end on, less 128. `lows` and `steps` are
/// float32 `(dim,)`.
#[pyfunction]
fn quantize_ranges<'py>(
    py: Python<'py>,
    embeddings: PyReadonlyArray2<'py, f32>,
    lows: PyReadonlyArray1<'py, f32>,
    steps: PyReadonlyArray1<'py, f32>,
) -> PyResult<Bound<'py, PyArray2<i8>>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let (rows, columns) = (embeddings.shape()[0], embeddings.shape()[1]);
    if columns == 0 || lows.len() != columns || steps.len() != columns {
        let (lows, steps) = (lows.len(), steps.len());
        return Err(InputError::new_err(format!("{lows} low ends and {steps} steps for {columns} dimensions")));
    }
    let lows = lows.as_slice().map_err(|_| not_contiguous("lows"))?;
    let steps = steps.as_slice().map_err(|_| not_contiguous("steps"))?;
    let floats = contiguous(&embeddings, "embeddings")?;
    let out = PyArray2::zeros(py, [rows, columns], false);
    // SAFETY: as in `quantize_binary`.
    let values = unsafe { out.as_slice_mut() }.expect(NEW);
    py.detach(|| crate::quantize::quantize_ranges(tier, floats, Ranges { lows, steps }, values));
    Ok(out)
}

/// The first `dim` values of float32 rows `(n, columns)`, at unit length: float32 `(n, dim)`.
#[pyfunction]
fn truncate<'py>(
    py: Python<'py>,
    embeddings: PyReadonlyArray2<'py, f32>,
    dim: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let (rows, columns) = (embeddings.shape()[0], embeddings.shape()[1]);
    if dim == 0 || dim > columns {
        return Err(InputError::new_err(format!(
            "dim={dim} is outside 1..{columns}, the dimensions of the embeddings"
        )));
    }
    let values = contiguous(&embeddings, "embeddings")?;
    let out = PyArray2::zeros(py, [rows, dim], false);
    // SAFETY: as in `quantize_binary`.
    let truncated = unsafe { out.as_slice_mut() }.expect(NEW);
    py.detach(|| crate::truncate::truncate(tier, values, columns, dim, truncated));
    Ok(out)
}

/// CRC32C of bytes: for the many small records of the catalogue, so the GIL stays held.
#[pyfunction]
fn crc32c(data: &[u8]) -> u32 {
    crate::checksum::crc32c(data)
}

/// CRC32C of each block of `block_bytes` bytes of a uint8 array: uint32 `(blocks,)`.
#[pyfunction]
fn block_checksums<'py>(
    py: Python<'py>,
    data: PyReadonlyArray1<'py, u8>,
    block_bytes: usize,
) -> PyResult<Bound<'py, PyArray1<u32>>> {
    if block_bytes == 0 {
        return Err(InputError::new_err("block_bytes=0; it must be at least 1"));
    }
    let data = data.as_slice().map_err(|_| not_contiguous("data"))?;
    Ok(PyArray1::from_vec(py, py.detach(|| crate::checksum::block_checksums(data, block_bytes))))
}

/// The first of `blocks` (int64 numbers; None for all) of a uint8 array that does not match its checksum, or None.
#[pyfunction]
#[pyo3(signature = (data, block_bytes, checksums, blocks))]
fn damaged_block<'py>(
    py: Python<'py>,
    data: PyReadonlyArray1<'py, u8>,
    block_bytes: usize,
    checksums: PyReadonlyArray1<'py, u32>,
    blocks: Option<PyReadonlyArray1<'py, i64>>,
) -> PyResult<Option<usize>> {
    if block_bytes == 0 {
        return Err(InputError::new_err("block_bytes=0; it must be at least 1"));
    }
    let data = data.as_slice().map_err(|_| not_contiguous("data"))?;
    let checksums = checksums.as_slice().map_err(|_| not_contiguous("checksums"))?;
    let count = data.len().div_ceil(block_bytes);
    if checksums.len() != count {
        return Err(InputError::new_err(format!("{} checksums for {count} blocks", checksums.len())));
    }
    let Some(blocks) = blocks else {
        return Ok(py.detach(|| crate::checksum::damaged_block(data, block_bytes, checksums, 0..count)));
    };
    let blocks = blocks.as_slice().map_err(|_| not_contiguous("blocks"))?;
    if let Some(block) = blocks.iter().find(|&&block| usize::try_from(block).map_or(true, |block| block >= count)) {
        return Err(InputError::new_err(format!("block {block} is outside 0..{count}")));
    }
    let blocks = blocks.iter().map(|&block| block as usize);
    Ok(py.detach(|| crate::checksum::damaged_block(data, block_bytes, checksums, blocks)))
}

fn contiguous<'a, T: numpy::Element>(array: &'a PyReadonlyArray2<'_, T>, name: &str) -> PyResult<&'a [T]> {
    // An array without elements may have any strides, which NumPy's own flags forgive and `as_slice` does not.
    if array.len() == 0 {
        return Ok(&[]);
    }
    if !array.is_c_contiguous() {
        return Err(not_contiguous(name));
    }
    array.as_slice().map_err(|_| not_contiguous(name))
}

fn not_contiguous(name: &str) -> PyErr {
    InputError::new_err(format!("{name} is not C-contiguous; pass it through numpy.ascontiguousarray"))
}
