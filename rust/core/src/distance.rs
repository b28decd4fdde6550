//! Pairwise distances of fields that are scaled by their root mean square, through the contraction.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::gram::{Element, Products, SliceRows, gram};
use crate::pool::Progress;

/// Added to the scale, as in the observables.
const FLOOR: f64 = 1e-6;

/// `‖a‖² + ‖b‖² − 2ab` is trusted while it is at least this part of `‖a‖² + ‖b‖²`: its rounding error is then at most
/// `γ/NEAR`, with γ the relative rounding error of a dot product. Smaller ones are summed again from differences.
const NEAR: f64 = 1e-3;

/// Elements summed before the partial sum is added to the total, and between looks at whether to stop.
const RUN: usize = 4096;

/// `d_ij = mean over channels of (mean over space of |x_i − x_j|²) / (½(RMS_i + RMS_j) + 1e-6)`, RMS over space.
///
/// `states` is `(n, channels, space)`, contiguous; `out` is `(n, n)`. Products and sums are `f64`; the relative error of
/// every entry stays within `space·eps/1e-3`, nearly equal states included (for `f64` storage up to overflow of squares).
/// Holds one `n × n` matrix beside what [`gram`] holds.
///
/// # Errors
/// [`Error::Invalid`] for lengths that do not match, [`Error::Interrupted`].
pub fn pairwise_distance<T: Element>(
    states: &[T],
    shape: (usize, usize, usize),
    out: &mut [f64],
    progress: &Progress,
) -> Result<()> {
    let (n, channels, space) = shape;
    let state = channels.checked_mul(space);
    let fits = state.and_then(|length| length.checked_mul(n)) == Some(states.len());
    if channels == 0 || space == 0 || !fits || n.checked_mul(n) != Some(out.len()) {
        return Err(Error::invalid(format!(
            "`states` must be ({n}, {channels}, {space}) with channels and space, `out` ({n}, {n}); got {} and {} elements",
            states.len(),
            out.len()
        )));
    }
    out.fill(0.0);
    let stride = channels * space;
    let mut products = vec![0.0; n * n];
    for channel in 0..channels {
        let Some(first) = states.get(channel * space..) else { break };
        let field = |i: usize| &first[i * stride..i * stride + space];
        gram(&SliceRows::new(first, n, space, stride)?, Products::Float64, &mut products, progress)?;
        let scale = (space * channels) as f64;
        out.par_chunks_mut(n.max(1)).enumerate().try_for_each(|(i, row)| -> Result<()> {
            for (j, entry) in row.iter_mut().enumerate().take(i) {
                let (x, y) = (products[i * n + i], products[j * n + j]);
                let mut squared = x + y - 2.0 * products[i * n + j];
                // False for NaN too: infinities in a field then give what differences give.
                let trusted = squared >= NEAR * (x + y);
                if !trusted {
                    squared = squared_difference(field(i), field(j), progress)?;
                }
                let rms = 0.5 * ((x / space as f64).sqrt() + (y / space as f64).sqrt());
                *entry += squared / scale / (rms + FLOOR);
            }
            progress.check()
        })?;
    }
    mirror(out, n);
    Ok(())
}

/// Copy the lower triangle to the upper one.
fn mirror(out: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..i {
            out[j * n + i] = out[i * n + j];
        }
    }
}

fn squared_difference<T: Element>(a: &[T], b: &[T], progress: &Progress) -> Result<f64> {
    let mut total = 0.0;
    for (a, b) in a.chunks(RUN).zip(b.chunks(RUN)) {
        progress.check()?;
        let mut lanes = [0.0f64; 8];
        let (mut a_lanes, mut b_lanes) = (a.chunks_exact(8), b.chunks_exact(8));
        for (x, y) in (&mut a_lanes).zip(&mut b_lanes) {
            for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
                let d = x.widen() - y.widen();
                *lane += d * d;
            }
        }
        for (x, y) in a_lanes.remainder().iter().zip(b_lanes.remainder()) {
            let d = x.widen() - y.widen();
            lanes[0] += d * d;
        }
        total += lanes.iter().sum::<f64>();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool;

    fn naive(states: &[f32], (n, channels, space): (usize, usize, usize)) -> Vec<f64> {
        let field = |i: usize, c: usize| &states[(i * channels + c) * space..(i * channels + c + 1) * space];
        let rms = |x: &[f32]| (x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / space as f64).sqrt();
        let distance = |i: usize, j: usize| {
            let per_channel = (0..channels).map(|c| {
                let (x, y) = (field(i, c), field(j, c));
                let squares = x.iter().zip(y).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
                squares.sum::<f64>() / space as f64 / (0.5 * (rms(x) + rms(y)) + FLOOR)
            });
            per_channel.sum::<f64>() / channels as f64
        };
        (0..n * n).map(|e| distance(e / n, e % n)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn nearly_equal_states_keep_their_digits(
            n in 0usize..7, channels in 1usize..4, space in 1usize..600, exponent in 0i32..24, seed in 1u32..1000,
        ) {
            let mut state = seed;
            let mut draw = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 16_777_216.0
            };
            let common: Vec<f32> = (0..channels * space).map(|_| 1.0 + draw()).collect();
            let scale = 2.0f32.powi(-exponent);
            let states: Vec<f32> = (0..n).flat_map(|_| common.clone()).map(|x| x + scale * draw()).collect();
            let shape = (n, channels, space);
            let mut got = vec![f64::NAN; n * n];
            pool::run(Some(2), &mut |_| true, |p| pairwise_distance(&states, shape, &mut got, p)).expect("runs");
            for (g, w) in got.iter().zip(naive(&states, shape)) {
                prop_assert!((g - w).abs() <= w * (space as f64 + 16.0) * f64::EPSILON / NEAR, "{g} {w}");
            }
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut out = [0.0; 4];
        let result = pool::run(Some(1), &mut |_| true, |p| pairwise_distance(&[0.0f32; 7], (2, 2, 2), &mut out, p));
        assert!(matches!(result, Err(Error::Invalid(_))));
    }
}
