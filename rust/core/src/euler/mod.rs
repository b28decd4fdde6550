//! Compressible Euler equations of an ideal gas on the periodic unit square.
//!
//! `∂t (ρ, ρvx, ρvy, E) + ∂x F + ∂y G = 0`, `p = (γ−1)(E − ½ρ|v|²)`, solved by a 2-D unsplit MUSCL–HLLC finite-volume
//! scheme with SSP-RK2 in time, float64 throughout. Array axis −2 is x, axis −1 is y.
//!
//! - [`state`]: grid, row layout, tiles, primitive and conserved variables
//! - [`limiter`]: monotonised-central reconstruction of face states
//! - [`riemann`]: HLLC flux
//! - [`step`]: one Runge–Kutta stage and one time step
//! - [`solve`]: trajectories of snapshots, in parallel
//!
//! Every cell goes through the same IEEE operations (no fused multiply–add, no reassociation) whatever the tile, thread
//! count or vector width, so the bits of a result depend on its arguments alone.

pub mod limiter;
pub mod riemann;
pub mod solve;
pub mod state;
pub mod step;

pub use solve::{MAX_CFL, Setup, Snapshot, solve_into};
