//! Matrices that Python hands over, borrowed as row sources of the core.

use half::{bf16, f16};
use numpy::{Element as Storage, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pdeinfl_core::gram::{Element, FileMatrix, Rows, SliceRows, Stacked};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::errors::to_py;

/// What keeps the memory of a source borrowed.
pub(crate) enum Matrix<'py> {
    F32(PyReadonlyArray2<'py, f32>),
    F64(PyReadonlyArray2<'py, f64>),
    F16(PyReadonlyArray2<'py, f16>),
    BF16(PyReadonlyArray2<'py, u16>),
    File(FileMatrix),
    Stack(Vec<Matrix<'py>>),
}

impl<'py> Matrix<'py> {
    /// Borrow a 2-D array (float32, float64, float16; uint16 as bfloat16 when asked), a file as
    /// `(path, offset, dtype, (rows, columns), mapped)`, or a list of these.
    pub(crate) fn borrow(name: &str, object: &Bound<'py, PyAny>, bfloat16: bool) -> PyResult<Self> {
        if let Ok(parts) = object.cast::<PyList>() {
            let parts: PyResult<_> = parts.iter().map(|part| Self::borrow(name, &part, bfloat16)).collect();
            return Ok(Self::Stack(parts?));
        }
        if let Ok(file) = object.cast::<PyTuple>() {
            let (path, offset, dtype, shape, mapped) = file.extract()?;
            return Ok(Self::File(FileMatrix { path, offset, dtype, shape, mapped }));
        }
        if let Some(array) = readonly(name, object)? {
            return Ok(Self::F32(array));
        }
        if let Some(array) = readonly(name, object)? {
            return Ok(Self::F64(array));
        }
        if let Some(array) = readonly(name, object)? {
            return Ok(Self::F16(array));
        }
        if bfloat16 && let Some(array) = readonly(name, object)? {
            return Ok(Self::BF16(array));
        }
        Err(PyTypeError::new_err(format!(
            "`{name}` must be a 2-D array of float32, float64, float16 (or uint16 with bfloat16=True); got {}",
            object.repr().map_or_else(|_| "something else".to_owned(), |r| summary(&r.to_string()))
        )))
    }

    /// The source over the borrowed memory.
    pub(crate) fn rows(&self) -> PyResult<Box<dyn Rows + '_>> {
        match self {
            Self::F32(array) => slice_rows::<f32, f32>(array),
            Self::F64(array) => slice_rows::<f64, f64>(array),
            Self::F16(array) => slice_rows::<f16, f16>(array),
            Self::BF16(array) => slice_rows::<u16, bf16>(array),
            Self::File(file) => file.open().map_err(to_py).map(|rows| rows as Box<dyn Rows + '_>),
            Self::Stack(parts) => {
                let parts: PyResult<_> = parts.iter().map(Self::rows).collect();
                Ok(Box::new(Stacked::new(parts?).map_err(to_py)?))
            }
        }
    }
}

fn summary(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(60).collect()
}

fn readonly<'py, T: Storage>(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Option<PyReadonlyArray2<'py, T>>> {
    let Ok(array) = object.cast::<PyArray2<T>>() else { return Ok(None) };
    let borrowed = array.try_readonly();
    borrowed.map(Some).map_err(|_| PyValueError::new_err(format!("`{name}` is being written to elsewhere")))
}

/// `D` is the meaning of the bits that NumPy knows as `T`.
fn slice_rows<'a, T: Storage + bytemuck::Pod, D: Element>(
    array: &'a PyReadonlyArray2<'_, T>,
) -> PyResult<Box<dyn Rows + 'a>> {
    let (n_rows, n_columns) = (array.shape()[0], array.shape()[1]);
    let size = size_of::<T>().cast_signed();
    let (down, right) = (array.strides()[0], array.strides()[1]);
    let empty = n_rows == 0 || n_columns == 0;
    let stride = if n_rows > 1 && !empty { down / size } else { n_columns.cast_signed() };
    let contiguous = n_columns <= 1 || right == size;
    let pointer = array.as_array().as_ptr();
    if !empty && (!contiguous || stride < 0 || (n_rows > 1 && down % size != 0) || !pointer.is_aligned()) {
        return Err(PyValueError::new_err(
            "the rows of a matrix must be contiguous, aligned and in ascending order: pass np.ascontiguousarray(...)",
        ));
    }
    let stride = stride.unsigned_abs();
    let data: &[T] = if empty {
        &[]
    } else {
        // SAFETY: aligned and checked to be rows of `n_columns` elements, `stride` apart, of an array that stays
        // borrowed for 'a; the slice ends with the last element.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(pointer, (n_rows - 1) * stride + n_columns)
        }
    };
    let stride = if empty { 0 } else { stride };
    Ok(Box::new(SliceRows::<D>::new(bytemuck::cast_slice(data), n_rows, n_columns, stride).map_err(to_py)?))
}
