//! Face states from cell averages.

use super::state::{Block, CHANNELS, lesser};

/// Half of the monotonised-central slope: `½ minmod(2Δ₋, 2Δ₊, ½(Δ₋ + Δ₊))`.
///
/// It never exceeds either difference, so face values lie between the neighbouring averages.
#[inline(always)]
pub fn half_slope(previous: f64, here: f64, next: f64) -> f64 {
    let (back, ahead) = (here - previous, next - here);
    let size = lesser(lesser(back.abs(), ahead.abs()), 0.25 * (back + ahead).abs());
    if back * ahead > 0.0 { size.copysign(back) } else { 0.0 }
}

/// Reconstruct `n` neighbouring cells: `lower` is the state at a cell's lower face, `upper` at its upper face.
///
/// `previous`, `here` and `next` start at the first cell's channel 0; channel `c` starts `c * stride` later. Slopes are
/// multiplied by `slope` (1, or 0 for a first-order scheme). A cell falls back to first order where one of its face
/// densities or pressures is not positive, which rounding can do beside a near-vacuum.
///
/// # Panics
/// When the slices are shorter than `3 * stride + n` or `n` exceeds a block.
#[inline(always)]
pub fn reconstruct(
    [previous, here, next]: [&[f64]; 3],
    (stride, n): (usize, usize),
    slope: f64,
    lower: &mut Block,
    upper: &mut Block,
) {
    let starts = [0, stride, 2 * stride, 3 * stride];
    let [a, b, d] = [previous, here, next].map(|row| starts.map(|start| &row[start..start + n]));
    let (lower, upper) = (lower.first_mut(n), upper.first_mut(n));
    for j in 0..n {
        // Written out: `array::from_fn` was left as a call for each cell, which kept the loop from being vectorised.
        let half = |c: usize| slope * half_slope(a[c][j], b[c][j], d[c][j]);
        let half = [half(0), half(1), half(2), half(3)];
        let positive = (b[0][j] - half[0].abs() > 0.0) & (b[3][j] - half[3].abs() > 0.0);
        for c in 0..CHANNELS {
            let half = if positive { half[c] } else { 0.0 };
            lower[c][j] = b[c][j] - half;
            upper[c][j] = b[c][j] + half;
        }
    }
}
