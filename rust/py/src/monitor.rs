//! Runs core work without the GIL while the calling thread watches Python's signals and reports progress.

use pdeinfl_core::error::Result;
use pdeinfl_core::pool::{self, Progress};
use pyo3::prelude::*;

use crate::errors::to_py;

/// Run `work` in the core's pool, detached from the interpreter; every 50 ms check signals and call
/// `callback(units_done)`. An exception from either cancels the work and is what the caller sees.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    num_threads: Option<usize>,
    callback: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Progress) -> Result<T> + Send,
) -> PyResult<T> {
    let callback = callback.map(|c| c.clone().unbind());
    let (result, raised) = py.detach(move || {
        let mut raised: Option<PyErr> = None;
        let mut watch = |done: u64| {
            let seen = Python::attach(|py| {
                py.check_signals()?;
                if let Some(callback) = &callback {
                    callback.call1(py, (done,))?;
                }
                Ok(())
            });
            raised = seen.err();
            raised.is_none()
        };
        let result = pool::run(num_threads, &mut watch, work);
        (result, raised)
    });
    match raised {
        Some(error) => Err(error),
        None => result.map_err(to_py),
    }
}
