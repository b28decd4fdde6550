//! The error type of the core.

/// What can go wrong in the core; the bindings map each kind to one Python exception.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has a value or shape that the routine cannot take (`ValueError`).
    #[error("{0}")]
    Invalid(String),
    /// A file could not be read or written (`OSError`).
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Memory could not be allocated (`MemoryError`).
    #[error("{0}")]
    OutOfMemory(String),
    /// The caller asked to stop (`KeyboardInterrupt`, or the exception its callback raised).
    #[error("interrupted")]
    Interrupted,
}

/// Result of every fallible routine of the core.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Invalid`] from anything printable.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}
