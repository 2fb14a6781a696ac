//! Searches and products: see the folder's file above.

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::{InputError, NEW, contiguous, not_contiguous};
use crate::dot::MAX_DIM;
use crate::int8_search;
use crate::parts::Mask;
use crate::quantize::code_bytes;
use crate::rescore;
use crate::search::{Codes, Part, search};
use crate::simd;

/// The longest code that is searched: half a million dimensions, far beyond any embedding.
const MAX_CODE_BYTES: usize = 1 << 16;

/// The environment variable that limits the threads of every kernel.
const THREADS: &str = "JV5KIT_THREADS";

type CodesPart<'py> = (PyReadonlyArray2<'py, u8>, Option<PyReadonlyArray1<'py, u8>>);
type RowsPart<'py> = (PyReadonlyArray2<'py, i8>, PyReadonlyArray1<'py, f32>, Option<PyReadonlyArray1<'py, u8>>);
type Pair<'py, A, B> = (Bound<'py, PyArray2<A>>, Bound<'py, PyArray2<B>>);

/// The `top_k` nearest codes of each query: distances int32 and rows int64, both `(queries, k)`, by distance, then row.
///
/// `parts` are searched as one: codes uint8 `(n, bytes)` and the bits of the rows to search, uint8 `(ceil(n / 8),)` with the
/// first row lowest, or None for all. Rows are numbered through over the parts. `k` is `top_k`, or the number of rows to search
/// if that is less.
#[pyfunction]
#[pyo3(signature = (query_codes, parts, top_k, threads))]
pub(super) fn hamming_search<'py>(
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
pub(super) fn dot_search<'py>(
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
        searched.push(int8_search::Part { values, scales, mask: mask_of(mask.as_ref(), rows)? });
    }
    let query_values = contiguous(&query_values, "query_values")?;
    let hits = py.detach(|| int8_search::search(tier, query_values, dim, &searched, top_k, threads));
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

/// The product of `queries[query]` (float32) and `rows[row]` (int8) for each pair of numbers: float32 `(pairs,)`.
#[pyfunction]
pub(super) fn mixed_products<'py>(
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
    let pairs = pairs(&query_numbers, queries.shape()[0], &row_numbers, rows.shape()[0])?;
    let (queries, rows) = (contiguous(&queries, "queries")?, contiguous(&rows, "rows")?);
    let out = PyArray1::zeros(py, [pairs.len()], false);
    // SAFETY: as in `quantize_binary`.
    let products = unsafe { out.as_slice_mut() }.expect(NEW);
    py.detach(|| rescore::products(tier, queries, rows, dim, &pairs, products));
    Ok(out)
}

/// The product of `queries[query]` (float32) and `codes[row]` (uint8, each bit as +1 or -1) for each pair of numbers: float32
/// `(pairs,)`.
#[pyfunction]
pub(super) fn code_products<'py>(
    py: Python<'py>,
    queries: PyReadonlyArray2<'py, f32>,
    codes: PyReadonlyArray2<'py, u8>,
    query_numbers: PyReadonlyArray1<'py, i64>,
    row_numbers: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let tier = simd::active().map_err(InputError::new_err)?.tier;
    let dim = queries.shape()[1];
    if codes.shape()[1] != code_bytes(dim) {
        let bytes = codes.shape()[1];
        return Err(InputError::new_err(format!("queries have {dim} dimensions and codes {bytes} bytes")));
    }
    let pairs = pairs(&query_numbers, queries.shape()[0], &row_numbers, codes.shape()[0])?;
    let (queries, codes) = (contiguous(&queries, "queries")?, contiguous(&codes, "codes")?);
    let out = PyArray1::zeros(py, [pairs.len()], false);
    // SAFETY: as in `quantize_binary`.
    let products = unsafe { out.as_slice_mut() }.expect(NEW);
    py.detach(|| rescore::code_products(tier, queries, codes, dim, &pairs, products));
    Ok(out)
}

/// Pairs of numbers of `queries` queries and `rows` rows.
fn pairs(
    query_numbers: &PyReadonlyArray1<'_, i64>,
    queries: usize,
    row_numbers: &PyReadonlyArray1<'_, i64>,
    rows: usize,
) -> PyResult<Vec<rescore::Pair>> {
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
    let pair = |(&query, &row)| Ok((number(query, queries, "query")?, number(row, rows, "row")?));
    query_numbers.iter().zip(row_numbers).map(pair).collect()
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

/// Threads to use at most: the argument, else `JV5KIT_THREADS`, else the processors of this process.
pub(super) fn thread_limit(threads: Option<usize>) -> PyResult<usize> {
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
