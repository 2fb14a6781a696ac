//! The Python face of the crate, `jv5kit._native`: check shapes, release the GIL, call, return arrays.
//!
//! The only file that knows PyO3. Arrays come in as read-only, C-contiguous borrows (memory maps included) and go out owned
//! by NumPy. Conversions of types and defaults belong to the Python modules that call these functions.

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::dot::{self, MAX_DIM};
use crate::parts::Mask;
use crate::quantize::code_bytes;
use crate::search::{Codes, Part, search};
use crate::simd;

pyo3::import_exception!(jv5kit.errors, InputError);

/// The longest code that is searched: half a million dimensions, far beyond any embedding.
const MAX_CODE_BYTES: usize = 1 << 16;

/// The environment variable that limits the threads of every kernel.
const THREADS: &str = "JV5KIT_THREADS";

/// Why an array made here can be written through a slice.
const NEW: &str = "a new array is contiguous";

type QuantizedRows<'py> = (Bound<'py, PyArray2<i8>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray2<u8>>);
type CodesPart<'py> = (PyReadonlyArray2<'py, u8>, Option<PyReadonlyArray1<'py, u8>>);
type RowsPart<'py> = (PyReadonlyArray2<'py, i8>, PyReadonlyArray1<'py, f32>, Option<PyReadonlyArray1<'py, u8>>);
type Pair<'py, A, B> = (Bound<'py, PyArray2<A>>, Bound<'py, PyArray2<B>>);

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{
        block_checksums, crc32c, damaged_block, dot_search, hamming_search, mixed_products, quantize_binary,
        quantize_rows, simd_tier, truncate,
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

/// Symmetric int8 values `(n, dim)` and scales float32 `(n,)` of finite float32 rows, and their sign bits in the same pass.
#[pyfunction]
fn quantize_rows<'py>(py: Python<'py>, embeddings: PyReadonlyArray2<'py, f32>) -> PyResult<QuantizedRows<'py>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let (rows, columns) = (embeddings.shape()[0], embeddings.shape()[1]);
    if columns == 0 {
        return Err(InputError::new_err(format!("embeddings of shape ({rows}, 0) have no dimension to quantize")));
    }
    let floats = contiguous(&embeddings, "embeddings")?;
    let values = PyArray2::zeros(py, [rows, columns], false);
    let scales = PyArray1::zeros(py, [rows], false);
    let codes = PyArray2::zeros(py, [rows, code_bytes(columns)], false);
    // SAFETY: as in `quantize_binary`.
    let out = unsafe { (values.as_slice_mut(), scales.as_slice_mut(), codes.as_slice_mut()) };
    let (out_values, out_scales, out_codes) = (out.0.expect(NEW), out.1.expect(NEW), out.2.expect(NEW));
    py.detach(|| crate::quantize::quantize_rows(tier, floats, columns, out_values, out_scales, Some(out_codes)));
    Ok((values, scales, codes))
}

/// The product of `queries[query]` (float32) and `rows[row]` (int8) for each pair of numbers: float32 `(pairs,)`.
#[pyfunction]
fn mixed_products<'py>(
    py: Python<'py>,
    queries: PyReadonlyArray2<'py, f32>,
    rows: PyReadonlyArray2<'py, i8>,
    query_numbers: PyReadonlyArray1<'py, i64>,
    row_numbers: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let dim = queries.shape()[1];
    if rows.shape()[1] != dim {
        return Err(InputError::new_err(format!("queries have {dim} dimensions and rows {}", rows.shape()[1])));
    }
    let numbers = (query_numbers.as_slice(), row_numbers.as_slice());
    let query_numbers = numbers.0.map_err(|_| not_contiguous("query_numbers"))?;
    let row_numbers = numbers.1.map_err(|_| not_contiguous("row_numbers"))?;
    if query_numbers.len() != row_numbers.len() {
        let (queries, rows) = (query_numbers.len(), row_numbers.len());
        return Err(InputError::new_err(format!("{queries} query numbers for {rows} row numbers")));
    }
    let number = |number: i64, count: usize, name: &str| {
        usize::try_from(number)
            .ok()
            .filter(|&number| number < count)
            .ok_or_else(|| InputError::new_err(format!("{name} {number} is outside 0..{count}")))
    };
    let pair = |(&query, &row)| Ok((number(query, queries.shape()[0], "query")?, number(row, rows.shape()[0], "row")?));
    let pairs: Vec<_> = query_numbers.iter().zip(row_numbers).map(pair).collect::<PyResult<_>>()?;
    let (queries, rows) = (contiguous(&queries, "queries")?, contiguous(&rows, "rows")?);
    let out = PyArray1::zeros(py, [pairs.len()], false);
    // SAFETY: as in `quantize_binary`.
    let products = unsafe { out.as_slice_mut() }.expect(NEW);
    py.detach(|| crate::rescore::products(tier, queries, rows, dim, &pairs, products));
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

/// The `top_k` nearest codes of each query: distances int32 and rows int64, both `(queries, k)`, by distance, then row.
///
/// `parts` are searched as one: codes uint8 `(n, bytes)` and the bits of the rows to search, uint8 `(ceil(n / 8),)` with the
/// first row lowest, or None for all. Rows are numbered through over the parts. `k` is `top_k`, or the number of rows to search
/// if that is less.
#[pyfunction]
#[pyo3(signature = (query_codes, parts, top_k, threads))]
fn hamming_search<'py>(
    py: Python<'py>,
    query_codes: PyReadonlyArray2<'py, u8>,
    parts: Vec<CodesPart<'py>>,
    top_k: usize,
    threads: Option<usize>,
) -> PyResult<Pair<'py, i32, i64>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let threads = thread_limit(threads)?;
    let (queries, bytes) = (query_codes.shape()[0], query_codes.shape()[1]);
    if bytes == 0 || bytes > MAX_CODE_BYTES {
        return Err(InputError::new_err(format!("codes of {bytes} bytes; they must have 1 to {MAX_CODE_BYTES}")));
    }
    if top_k == 0 {
        return Err(InputError::new_err("top_k=0; it must be at least 1"));
    }
    let mut searched = Vec::with_capacity(parts.len());
    for (codes, mask) in &parts {
        let (rows, other) = (codes.shape()[0], codes.shape()[1]);
        if other != bytes {
            return Err(InputError::new_err(format!("query codes have {bytes} bytes, the codes to search {other}")));
        }
        let codes = Codes::new(contiguous(codes, "codes")?, bytes);
        searched.push(Part { codes, mask: mask_of(mask.as_ref(), rows)? });
    }
    let query_codes = Codes::new(contiguous(&query_codes, "query_codes")?, bytes);
    let hits = py.detach(|| search(tier, query_codes, &searched, top_k, threads));
    let found = hits.first().map_or(0, Vec::len);
    let distances = PyArray2::zeros(py, [queries, found], false);
    let numbers = PyArray2::zeros(py, [queries, found], false);
    // SAFETY: as in `quantize_binary`.
    let out = unsafe { (distances.as_slice_mut(), numbers.as_slice_mut()) };
    let (out_distances, out_rows) = (out.0.expect(NEW), out.1.expect(NEW));
    for (i, hit) in hits.iter().flatten().enumerate() {
        (out_distances[i], out_rows[i]) = (hit.distance as i32, hit.row as i64);
    }
    Ok((distances, numbers))
}

/// The `top_k` int8 rows that score highest with each int8 query: scores float32 and rows int64, both `(queries, k)`, best first,
/// then by row.
///
/// `parts` are searched as one: values int8 `(n, dim)`, scales float32 `(n,)`, and a mask as in `hamming_search`. A score is the
/// dot product, exact in int32, times the scale of the row; one that is not a number is minus infinity.
#[pyfunction]
#[pyo3(signature = (query_values, parts, top_k, threads))]
fn dot_search<'py>(
    py: Python<'py>,
    query_values: PyReadonlyArray2<'py, i8>,
    parts: Vec<RowsPart<'py>>,
    top_k: usize,
    threads: Option<usize>,
) -> PyResult<Pair<'py, f32, i64>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let threads = thread_limit(threads)?;
    let (queries, dim) = (query_values.shape()[0], query_values.shape()[1]);
    if dim == 0 || dim > MAX_DIM {
        return Err(InputError::new_err(format!("queries of {dim} dimensions; they must have 1 to {MAX_DIM}")));
    }
    if top_k == 0 {
        return Err(InputError::new_err("top_k=0; it must be at least 1"));
    }
    let mut searched = Vec::with_capacity(parts.len());
    for (values, scales, mask) in &parts {
        let (rows, other) = (values.shape()[0], values.shape()[1]);
        if other != dim {
            return Err(InputError::new_err(format!("queries have {dim} dimensions, the rows to search {other}")));
        }
        if scales.len() != rows {
            return Err(InputError::new_err(format!("{} scales for {rows} rows", scales.len())));
        }
        let values = contiguous(values, "values")?;
        let scales = scales.as_slice().map_err(|_| not_contiguous("scales"))?;
        searched.push(dot::Part { values, scales, mask: mask_of(mask.as_ref(), rows)? });
    }
    let query_values = contiguous(&query_values, "query_values")?;
    let hits = py.detach(|| dot::search(tier, query_values, dim, &searched, top_k, threads));
    let found = hits.first().map_or(0, Vec::len);
    let scores = PyArray2::zeros(py, [queries, found], false);
    let numbers = PyArray2::zeros(py, [queries, found], false);
    // SAFETY: as in `quantize_binary`.
    let out = unsafe { (scores.as_slice_mut(), numbers.as_slice_mut()) };
    let (out_scores, out_rows) = (out.0.expect(NEW), out.1.expect(NEW));
    for (i, hit) in hits.iter().flatten().enumerate() {
        (out_scores[i], out_rows[i]) = (hit.score, hit.row as i64);
    }
    Ok((scores, numbers))
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

/// The bits of a mask of so many rows, if there is one.
fn mask_of<'a>(mask: Option<&'a PyReadonlyArray1<'_, u8>>, rows: usize) -> PyResult<Option<Mask<'a>>> {
    let Some(mask) = mask else { return Ok(None) };
    let bits = mask.as_slice().map_err(|_| not_contiguous("mask"))?;
    if bits.len() != rows.div_ceil(8) {
        return Err(InputError::new_err(format!("mask has {} bytes for {rows} rows, one bit each", bits.len())));
    }
    Ok(Some(Mask::new(bits, rows)))
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

/// Threads to use at most: the argument, else `JV5KIT_THREADS`, else the processors of this process.
fn thread_limit(threads: Option<usize>) -> PyResult<usize> {
    let forced = std::env::var_os(THREADS).filter(|value| !value.is_empty());
    match (threads, forced) {
        (Some(0), _) => Err(InputError::new_err("threads=0; it must be at least 1")),
        (Some(threads), _) => Ok(threads),
        (None, Some(value)) => match value.to_string_lossy().parse() {
            Ok(threads) if threads > 0 => Ok(threads),
            _ => Err(InputError::new_err(format!("{THREADS}={} is not a positive number", value.to_string_lossy()))),
        },
        (None, None) => Ok(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    }
}
