//! A matrix that rows of floats are multiplied with, for Python.

use numpy::{PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::{InputError, NEW, contiguous};
use crate::model::DType;
use crate::model::kernels;
use crate::simd;

/// A matrix, packed for this processor.
#[pyclass(frozen, module = "jv5kit._native")]
pub(super) struct PackedMatrix(kernels::PackedMatrix);

#[pymethods]
impl PackedMatrix {
    /// Of float32 weights `(outputs, inputs)`.
    #[new]
    fn new(weights: PyReadonlyArray2<'_, f32>) -> PyResult<Self> {
        let tier = simd::active().map_err(InputError::new_err)?.tier;
        let (outputs, inputs) = (weights.shape()[0], weights.shape()[1]);
        if outputs == 0 || inputs == 0 {
            return Err(InputError::new_err(format!("weights of shape ({outputs}, {inputs}) multiply nothing")));
        }
        let weights = contiguous(&weights, "weights")?;
        Ok(Self(kernels::PackedMatrix::new(tier, DType::Float32, weights, inputs)))
    }

    /// float32 rows `(n, inputs)` times the transposed weights: float32 `(n, outputs)`.
    fn apply<'py>(&self, py: Python<'py>, rows: PyReadonlyArray2<'py, f32>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (count, columns) = (rows.shape()[0], rows.shape()[1]);
        let (inputs, outputs) = self.0.shape();
        if columns != inputs {
            return Err(InputError::new_err(format!("rows have {columns} columns; the matrix takes {inputs}")));
        }
        let values = contiguous(&rows, "rows")?;
        let out = PyArray2::zeros(py, [count, outputs], false);
        // SAFETY: the array was made here, and nobody else has seen it yet.
        let products = unsafe { out.as_slice_mut() }.expect(NEW);
        py.detach(|| self.0.apply(values, products));
        Ok(out)
    }
}
