//! Numerical core of pdeinfl: everything here works on slices and small checked views, without Python.
//!
//! - [`error`]: the one error type
//! - [`isa`]: the vector instructions of the machine
//! - [`pool`]: the process-local thread pool, with progress and interruption
//! - [`team`]: threads that stay awake for a run of short parallel rounds
//! - [`gram`]: blocked contractions `a bᵀ` with reproducible bits
//! - [`distance`]: pairwise distances of fields, safe against cancellation
//! - [`aggregate`]: two-time, lag, class and distance aggregations of influence matrices, bootstrap
//! - [`finite_difference`]: periodic stencils, Lie derivatives, Richardson ladders
//! - [`euler`]: the compressible Euler solver

pub mod aggregate;
pub mod distance;
pub mod error;
pub mod euler;
pub mod finite_difference;
pub mod gram;
pub mod isa;
pub mod pool;
pub mod team;
mod vector;
