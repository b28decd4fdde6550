//! Bindings of `pdeinfl_core::finite_difference`.

use numpy::{Element, PyArray1, PyArray4, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pdeinfl_core::finite_difference::{self as core, Axis, Generator, Kind, Real, Stack};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::errors::to_py;
use crate::monitor;
use crate::slices::{slice, slice_mut};

/// What to compute from each plane.
enum Task {
    Derivative(Axis, f64),
    Lie(Vec<Kind>, Generator, (f64, f64)),
}

fn run<'py>(
    out: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyAny>,
    task: &Task,
    accuracy_order: usize,
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    if let (Ok(out), Ok(fields)) = (out.cast::<PyArray4<f32>>(), fields.cast::<PyArray4<f32>>()) {
        fill(out, fields, task, accuracy_order, num_threads, progress)
    } else if let (Ok(out), Ok(fields)) = (out.cast::<PyArray4<f64>>(), fields.cast::<PyArray4<f64>>()) {
        fill(out, fields, task, accuracy_order, num_threads, progress)
    } else {
        Err(PyTypeError::new_err("`out` and `fields` must both be float32 or both float64, of shape (n, C, x, y)"))
    }
}

fn fill<'py, T: Element + Real>(
    out: &Bound<'py, PyArray4<T>>,
    fields: &Bound<'py, PyArray4<T>>,
    task: &Task,
    accuracy_order: usize,
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    if out.shape() != fields.shape() {
        return Err(PyValueError::new_err("`out` must have the shape of `fields`"));
    }
    let (n_channels, n_x, n_y) = (fields.shape()[1], fields.shape()[2], fields.shape()[3]);
    let py = out.py();
    let fields = fields.try_readonly()?;
    let mut out = out.try_readwrite()?;
    let (fields, out) = (slice("fields", &fields)?, slice_mut("out", &mut out)?);
    if let Task::Lie(kinds, ..) = task
        && kinds.len() != n_channels
    {
        let n = kinds.len();
        return Err(PyValueError::new_err(format!("`kinds` must describe {n_channels} channels; got {n}")));
    }
    let stack = Stack::new(fields, n_x, n_y).map_err(to_py)?;
    monitor::run(py, num_threads, progress, |watch| match task {
        Task::Derivative(axis, spacing) => core::derivative(out, &stack, *axis, accuracy_order, *spacing, watch),
        Task::Lie(kinds, generator, spacing) => {
            core::lie_derivative(out, &stack, kinds, *generator, accuracy_order, *spacing, watch)
        }
    })
}

/// Fill `out` with the periodic derivative of `fields` `(n, C, x, y)` along `axis` (−2 is x, −1 is y).
#[pyfunction]
#[pyo3(signature = (out, fields, axis, accuracy_order, spacing, num_threads=None, progress=None))]
fn derivative_into<'py>(
    out: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyAny>,
    axis: i64,
    accuracy_order: usize,
    spacing: f64,
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let axis = match axis {
        -2 => Axis::X,
        -1 => Axis::Y,
        other => return Err(PyValueError::new_err(format!("`axis` must be -2 (x) or -1 (y); got {other}"))),
    };
    run(out, fields, &Task::Derivative(axis, spacing), accuracy_order, num_threads, progress)
}

/// Fill `out` with the Lie derivative of `fields` along `generator` (`"x"`, `"y"` or `"rotation"`). `kinds` holds for
/// each channel ("scalar", −1), ("x", index of the y component) or ("y", index of the x component).
#[pyfunction]
#[pyo3(signature = (out, fields, kinds, generator, accuracy_order, spacing, num_threads=None, progress=None))]
#[allow(clippy::too_many_arguments)] // the face that Python sees
fn lie_derivative_into<'py>(
    out: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyAny>,
    kinds: Vec<(String, i64)>,
    generator: &str,
    accuracy_order: usize,
    spacing: (f64, f64),
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let kind = |(name, partner): (String, i64)| match (name.as_str(), usize::try_from(partner)) {
        ("scalar", _) => Ok(Kind::Scalar),
        ("x", Ok(partner)) => Ok(Kind::X(partner)),
        ("y", Ok(partner)) => Ok(Kind::Y(partner)),
        _ => Err(PyValueError::new_err(format!("unknown channel kind ({name:?}, {partner})"))),
    };
    let kinds = kinds.into_iter().map(kind).collect::<PyResult<_>>()?;
    let generator = match generator {
        "x" => Generator::TranslationX,
        "y" => Generator::TranslationY,
        "rotation" => Generator::Rotation,
        other => {
            return Err(PyValueError::new_err(format!("`generator` must be x, y or rotation; got {other:?}")));
        }
    };
    run(out, fields, &Task::Lie(kinds, generator, spacing), accuracy_order, num_threads, progress)
}

type Extrapolated<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>);

/// Extrapolated value, error estimate and observed order, each `(n,)`, of a ladder `(n_levels, n)`.
#[pyfunction]
fn richardson<'py>(
    py: Python<'py>,
    ladder: PyReadonlyArray2<'py, f64>,
    ratio: f64,
    order: f64,
    increment: f64,
) -> PyResult<Extrapolated<'py>> {
    let n_levels = ladder.shape()[0];
    let ladder = slice("ladder", &ladder)?;
    let result = py.detach(|| core::richardson(ladder, n_levels, ratio, order, increment)).map_err(to_py)?;
    let array = |values| PyArray1::from_vec(py, values);
    Ok((array(result.value), array(result.error), array(result.observed_order)))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(derivative_into, m)?)?;
    m.add_function(wrap_pyfunction!(lie_derivative_into, m)?)?;
    m.add_function(wrap_pyfunction!(richardson, m)?)
}
