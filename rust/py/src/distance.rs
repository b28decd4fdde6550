//! Bindings of `pdeinfl_core::distance`.

use numpy::{Element as Storage, PyArray2, PyArray3, PyArrayMethods, PyUntypedArrayMethods};
use pdeinfl_core::distance;
use pdeinfl_core::gram::Element;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::gram::filled;
use crate::slices::slice;

type Distances<'py> = PyResult<Bound<'py, PyArray2<f64>>>;

fn typed<'py, T: Storage + Element>(
    py: Python<'py>,
    states: &Bound<'py, PyAny>,
    num_threads: Option<usize>,
    callback: Option<&Bound<'py, PyAny>>,
) -> Option<Distances<'py>> {
    let states = states.cast::<PyArray3<T>>().ok()?;
    let compute = || {
        let states = states.try_readonly().map_err(|e| PyValueError::new_err(e.to_string()))?;
        let (n, channels, space) = (states.shape()[0], states.shape()[1], states.shape()[2]);
        let data = slice("states", &states)?;
        filled(py, [n, n], num_threads, callback, |out, progress| {
            distance::pairwise_distance(data, (n, channels, space), out, progress)
        })
    };
    Some(compute())
}

/// RMS-scaled squared distances of states (n, channels, space) in float64, (n, n).
#[pyfunction]
#[pyo3(signature = (states, num_threads = None, callback = None))]
fn pairwise_distance<'py>(
    py: Python<'py>,
    states: &Bound<'py, PyAny>,
    num_threads: Option<usize>,
    callback: Option<&Bound<'py, PyAny>>,
) -> Distances<'py> {
    typed::<f32>(py, states, num_threads, callback)
        .or_else(|| typed::<f64>(py, states, num_threads, callback))
        .or_else(|| typed::<half::f16>(py, states, num_threads, callback))
        .unwrap_or_else(|| Err(PyTypeError::new_err("`states` must be a 3-D array of float32, float64 or float16")))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(pairwise_distance, m)?)
}
