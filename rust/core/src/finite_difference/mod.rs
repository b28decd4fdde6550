//! Finite differences: of periodic fields in space, and of quantities along a parameter.
//!
//! - [`weights`]: weights of the first derivative on equally spaced nodes
//! - [`stencil`]: periodic derivatives of stacks of planes
//! - [`lie`]: Lie derivatives of fields along translations and rotation
//! - `sweep`, `window`: one pass over a stack, by rows that stay in the nearest cache
//! - [`richardson()`]: extrapolation of a ladder of steps, with error estimate and observed order

pub mod lie;
pub mod richardson;
pub mod stencil;
mod sweep;
pub mod weights;
mod window;

pub use crate::vector::Real;
pub use lie::{Generator, Kind, lie_derivative};
pub use richardson::{Extrapolation, richardson};
pub use stencil::{Axis, Stack, derivative};
