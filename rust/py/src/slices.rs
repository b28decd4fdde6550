//! Arrays as slices, in the order of their indices: `as_slice` of the numpy crate takes Fortran order as well.

use numpy::{Element, PyReadonlyArray, PyReadwriteArray, PyUntypedArrayMethods, ndarray::Dimension};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

fn refused(name: &str) -> PyErr {
    PyValueError::new_err(format!("`{name}` must be C-contiguous: pass np.ascontiguousarray(...)"))
}

/// The elements of an array in C order.
pub(crate) fn slice<'a, T: Element, D: Dimension>(
    name: &str,
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    if array.is_c_contiguous() { array.as_slice().map_err(|_| refused(name)) } else { Err(refused(name)) }
}

/// The same, to write.
pub(crate) fn slice_mut<'a, T: Element, D: Dimension>(
    name: &str,
    array: &'a mut PyReadwriteArray<'_, T, D>,
) -> PyResult<&'a mut [T]> {
    if array.is_c_contiguous() { array.as_slice_mut().map_err(|_| refused(name)) } else { Err(refused(name)) }
}
