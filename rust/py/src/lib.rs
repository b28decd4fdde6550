//! `pdeinfl._core`: borrow arrays, dispatch the dtype, release the GIL, map errors; nothing else.

use pyo3::prelude::*;

mod aggregate;
mod distance;
mod errors;
mod euler;
mod finite_difference;
mod gram;
mod matrix;
mod monitor;
mod slices;

/// The Rust core of pdeinfl.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    gram::register(m)?;
    distance::register(m)?;
    aggregate::register(m)?;
    finite_difference::register(m)?;
    euler::register(m)
}
