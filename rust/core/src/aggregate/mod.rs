//! Aggregations of influence matrices: from many `n_response × n_perturbation` blocks to a few numbers with quartiles.
//!
//! - [`standardize()`]: put the rows of a stack of matrices on a common scale
//! - [`binning`]: which bin an entry `H[i, j]` belongs to: two-time, lag, class, distance
//! - [`table`]: the entries of each bin, pooled over blocks and sorted
//! - [`quantile`]: order statistics with linear interpolation
//! - [`plan`]: hierarchical bootstrap resamples from a counter-based generator
//! - [`bootstrap`]: the pooled median of every bin under every resample
//! - [`translation`]: how far a matrix is from invariance under `(t, τ) → (t + s, τ + s)`
//!
//! NaN entries are left out everywhere. No result depends on the number of threads.

pub mod binning;
pub mod bootstrap;
pub mod plan;
pub mod quantile;
pub mod standardize;
pub mod table;
pub mod translation;

pub use binning::{Binning, Block, Labels};
pub use bootstrap::bootstrap_medians;
pub use plan::multiplicities;
pub use standardize::{Standardization, standardize};
pub use table::{Sums, Table, bin_sums};
pub use translation::translation_defect;
