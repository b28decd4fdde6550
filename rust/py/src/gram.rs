//! Bindings of `pdeinfl_core::gram`.

use numpy::{PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pdeinfl_core::error::Error;
use pdeinfl_core::gram::{self as contraction, Products, Rows};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::to_py;
use crate::matrix::Matrix;
use crate::monitor;
use crate::slices::{slice, slice_mut};

fn products_of(name: &str) -> PyResult<Products> {
    match name {
        "float64" => Ok(Products::Float64),
        "float32" => Ok(Products::Float32),
        other => Err(PyValueError::new_err(format!("`products` must be \"float64\" or \"float32\"; got \"{other}\""))),
    }
}

/// A new array that `fill` writes, row-major, without the GIL.
pub(crate) fn filled<'py>(
    py: Python<'py>,
    shape: [usize; 2],
    num_threads: Option<usize>,
    callback: Option<&Bound<'py, PyAny>>,
    fill: impl FnOnce(&mut [f64], &pdeinfl_core::pool::Progress) -> pdeinfl_core::error::Result<()> + Send,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let bytes = shape[0].checked_mul(shape[1]).and_then(|n| n.checked_mul(size_of::<f64>()));
    let Some(_) = bytes.filter(|&bytes| bytes <= isize::MAX.unsigned_abs()) else {
        return Err(to_py(Error::OutOfMemory(format!("a ({}, {}) float64 result does not fit", shape[0], shape[1]))));
    };
    let out = PyArray2::<f64>::zeros(py, shape, false);
    {
        let mut writable = out.try_readwrite().map_err(|e| PyValueError::new_err(e.to_string()))?;
        let whole = slice_mut("out", &mut writable)?;
        monitor::run(py, num_threads, callback, |progress| fill(whole, progress))?;
    }
    Ok(out)
}

/// `a aᵀ` in float64, (n, n).
#[pyfunction]
#[pyo3(signature = (a, products = "float64", num_threads = None, bfloat16 = false, callback = None))]
fn gram<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    products: &str,
    num_threads: Option<usize>,
    bfloat16: bool,
    callback: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let products = products_of(products)?;
    let a = Matrix::borrow("a", a, bfloat16)?;
    let a = a.rows()?;
    let (n, a): (_, &dyn Rows) = (a.shape().0, &*a);
    filled(py, [n, n], num_threads, callback, |out, progress| contraction::gram(a, products, out, progress))
}

/// `a bᵀ` in float64, (n, m).
#[pyfunction]
#[pyo3(signature = (a, b, products = "float64", num_threads = None, bfloat16 = false, callback = None))]
fn cross_gram<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    products: &str,
    num_threads: Option<usize>,
    bfloat16: bool,
    callback: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let products = products_of(products)?;
    let (a, b) = (Matrix::borrow("a", a, bfloat16)?, Matrix::borrow("b", b, bfloat16)?);
    let (a, b) = (a.rows()?, b.rows()?);
    let (a, b): (&dyn Rows, &dyn Rows) = (&*a, &*b);
    let shape = [a.shape().0, b.shape().0];
    filled(py, shape, num_threads, callback, |out, progress| contraction::cross_gram(a, b, products, out, progress))
}

/// `rows += coefficients · q` in place; float64 (k, K) and (k, r), q (r, K).
#[pyfunction]
#[pyo3(signature = (coefficients, q, rows, num_threads = None, callback = None))]
fn combine_into(
    py: Python<'_>,
    coefficients: &Bound<'_, PyArray2<f64>>,
    q: &Bound<'_, PyAny>,
    rows: &Bound<'_, PyArray2<f64>>,
    num_threads: Option<usize>,
    callback: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let q = Matrix::borrow("q", q, false)?;
    let q = q.rows()?;
    let q: &dyn Rows = &*q;
    let coefficients = coefficients.try_readonly()?;
    let mut rows = rows.try_readwrite()?;
    if rows.shape()[1] != q.shape().1 || coefficients.shape() != [rows.shape()[0], q.shape().0] {
        return Err(PyValueError::new_err(format!(
            "`coefficients` {:?}, `q` {:?} and `rows` {:?} must have shapes (k, r), (r, K) and (k, K)",
            coefficients.shape(),
            q.shape(),
            rows.shape()
        )));
    }
    let (coefficients, rows) = (slice("coefficients", &coefficients)?, slice_mut("rows", &mut rows)?);
    monitor::run(py, num_threads, callback, |progress| contraction::combine_into(coefficients, q, rows, progress))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(gram, m)?)?;
    m.add_function(wrap_pyfunction!(cross_gram, m)?)?;
    m.add_function(wrap_pyfunction!(combine_into, m)?)
}
