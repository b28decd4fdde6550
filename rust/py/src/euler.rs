//! Bindings of `pdeinfl_core::euler`.

use numpy::{Element, PyArray1, PyArray4, PyArray5, PyArrayMethods, PyUntypedArrayMethods};
use pdeinfl_core::euler::{Setup, Snapshot, solve_into};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::monitor;
use crate::slices::{slice, slice_mut};

/// Simulate the compressible Euler equations into `out`; returns the number of time steps of each trajectory.
///
/// `primitives` is float64 `(n, 4, nx, ny)`, `out` float32 or float64 `(n, n_snapshots, 4, nx / refinement,
/// ny / refinement)`, both C-contiguous.
#[pyfunction]
#[pyo3(signature = (primitives, out, interval, gamma, cfl, refinement=1, num_threads=None, progress=None))]
#[allow(clippy::too_many_arguments)] // the face that Python sees
fn euler_solve<'py>(
    py: Python<'py>,
    primitives: &Bound<'py, PyAny>,
    out: &Bound<'py, PyAny>,
    interval: f64,
    gamma: f64,
    cfl: f64,
    refinement: usize,
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let primitives = primitives
        .cast::<PyArray4<f64>>()
        .map_err(|_| PyTypeError::new_err("`primitives` must be a float64 array of shape (n, 4, nx, ny)"))?;
    let [n, channels, nx, ny] = *primitives.shape() else {
        return Err(PyValueError::new_err("`primitives` must have four axes"));
    };
    if channels != 4 {
        return Err(PyValueError::new_err(format!("`primitives` must have 4 channels on axis 1; got {channels}")));
    }
    let setup = Setup { n, nx, ny, n_snapshots: 0, interval, gamma, cfl, refinement };
    if let Ok(out) = out.cast::<PyArray5<f32>>() {
        solve(py, setup, primitives, out, num_threads, progress)
    } else if let Ok(out) = out.cast::<PyArray5<f64>>() {
        solve(py, setup, primitives, out, num_threads, progress)
    } else {
        Err(PyTypeError::new_err("`out` must be a float32 or float64 array of shape (n, n_snapshots, 4, x, y)"))
    }
}

fn solve<'py, T: Element + Snapshot>(
    py: Python<'py>,
    setup: Setup,
    primitives: &Bound<'py, PyArray4<f64>>,
    out: &Bound<'py, PyArray5<T>>,
    num_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let setup = Setup { n_snapshots: out.shape()[1], ..setup };
    let r = setup.refinement.max(1);
    let expected = [setup.n, setup.n_snapshots, 4, setup.nx / r, setup.ny / r];
    if out.shape() != expected {
        return Err(PyValueError::new_err(format!("`out` must have shape {expected:?}; got {:?}", out.shape())));
    }
    let primitives = primitives.try_readonly()?;
    let mut out = out.try_readwrite()?;
    let (primitives, out) = (slice("primitives", &primitives)?, slice_mut("out", &mut out)?);
    let steps = monitor::run(py, num_threads, progress, |watch| {
        let mut steps = vec![0; setup.n];
        solve_into(&setup, primitives, out, &mut steps, watch).map(|()| steps)
    })?;
    Ok(PyArray1::from_vec(py, steps))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(euler_solve, m)?)
}
