//! The one table that maps core errors to Python exceptions.

use pdeinfl_core::error::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};

/// The Python exception for a core error.
pub(crate) fn to_py(error: Error) -> PyErr {
    match error {
        Error::Invalid(message) => PyValueError::new_err(message),
        Error::Io(source) => match source.raw_os_error() {
            Some(_) => source.into(),
            None => PyOSError::new_err(source.to_string()),
        },
        Error::OutOfMemory(message) => PyMemoryError::new_err(message),
        Error::Interrupted => PyKeyboardInterrupt::new_err("interrupted"),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}
