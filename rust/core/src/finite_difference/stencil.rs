//! Periodic first derivatives of stacks of planes.

use super::sweep::{Term, sweep};
use super::weights::central_weights;
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::pool::Progress;
use crate::vector::Real;

/// Axis of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Axis −2.
    X,
    /// Axis −1.
    Y,
}

/// A row-major stack of `x × y` planes.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a, T> {
    values: &'a [T],
    pub(super) n_x: usize,
    pub(super) n_y: usize,
}

impl<'a, T: Real> Stack<'a, T> {
    /// View `values` as planes.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the length is not a multiple of `n_x · n_y`.
    pub fn new(values: &'a [T], n_x: usize, n_y: usize) -> Result<Self> {
        let size = n_x * n_y;
        if (size == 0 && !values.is_empty()) || (size > 0 && !values.len().is_multiple_of(size)) {
            return Err(Error::invalid(format!("fields must be a stack of {n_x} × {n_y} planes")));
        }
        Ok(Self { values, n_x, n_y })
    }

    pub(super) fn plane(&self, index: usize) -> &'a [T] {
        let size = self.n_x * self.n_y;
        &self.values[index * size..(index + 1) * size]
    }

    pub(super) fn check_out(&self, out: &[T]) -> Result<()> {
        if out.len() == self.values.len() {
            Ok(())
        } else {
            Err(Error::invalid("`out` must have the shape of the fields"))
        }
    }
}

/// Central weights divided by the spacing; the stencil must fit the axis without meeting itself.
pub(super) fn scaled_weights(accuracy_order: usize, spacing: f64, n: usize) -> Result<Vec<f64>> {
    let weights = central_weights(accuracy_order)
        .ok_or_else(|| Error::invalid(format!("`accuracy_order` must be 2, 4 or 6; got {accuracy_order}")))?;
    if !(spacing.is_finite() && spacing > 0.0) {
        return Err(Error::invalid(format!("`spacing` must be positive; got {spacing}")));
    }
    if n <= accuracy_order {
        return Err(Error::invalid(format!(
            "a stencil of order {accuracy_order} needs at least {} points along the axis; got {n}",
            accuracy_order + 1
        )));
    }
    Ok(weights.iter().map(|w| w / spacing).collect())
}

/// `out = ∂u/∂axis` for every plane, periodic central differences of order 2, 4 or 6 on points `spacing` apart.
///
/// # Errors
/// [`Error::Invalid`] for an unknown order, an axis shorter than the stencil, or a mis-sized `out`; `Interrupted`.
pub fn derivative<T: Real>(
    out: &mut [T],
    fields: &Stack<'_, T>,
    axis: Axis,
    accuracy_order: usize,
    spacing: f64,
    progress: &Progress,
) -> Result<()> {
    fields.check_out(out)?;
    if out.is_empty() {
        return Ok(());
    }
    let n = if axis == Axis::X { fields.n_x } else { fields.n_y };
    let weights = scaled_weights(accuracy_order, spacing, n)?;
    match *weights {
        [a] => along(out, fields, axis, [a], progress),
        [a, b] => along(out, fields, axis, [a, b], progress),
        [a, b, c] => along(out, fields, axis, [a, b, c], progress),
        _ => Ok(()),
    }
}

fn along<T: Real, const W: usize>(
    out: &mut [T],
    fields: &Stack<'_, T>,
    axis: Axis,
    c: [f64; W],
    progress: &Progress,
) -> Result<()> {
    let term = if axis == Axis::X { Term::X(c) } else { Term::Y(c) };
    sweep(out, fields, &term, |_| None, Isa::best(), progress)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(values: &[f64], n_x: usize, n_y: usize, axis: Axis, order: usize, h: f64) -> Vec<f64> {
        let mut out = vec![f64::NAN; values.len()];
        let stack = Stack::new(values, n_x, n_y).expect("shape");
        derivative(&mut out, &stack, axis, order, h, &Progress::default()).expect("runs");
        out
    }

    fn wave_error(n: usize, axis: Axis, order: usize) -> f64 {
        let h = 1.0 / n as f64;
        let tau = std::f64::consts::TAU;
        let at = |k: usize| if axis == Axis::X { k / n } else { k % n } as f64 * h;
        let values: Vec<f64> = (0..n * n).map(|k| (tau * at(k)).sin()).collect();
        let out = run(&values, n, n, axis, order, h);
        out.iter().enumerate().map(|(k, d)| (d - tau * (tau * at(k)).cos()).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn observed_order_is_the_stated_one() {
        for axis in [Axis::X, Axis::Y] {
            for order in [2, 4, 6] {
                let slope = (wave_error(16, axis, order) / wave_error(32, axis, order)).log2();
                assert!((slope - order as f64).abs() < 0.15, "{axis:?} {order}: {slope}");
            }
        }
    }

    proptest! {
        #[test]
        fn matches_wrapped_indices(
            n_x in 7usize..12, n_y in 7usize..12, planes in 1usize..4, order in prop::sample::select(vec![2usize, 4, 6]),
            seed in prop::collection::vec(-1.0..1.0f64, 11 * 11 * 3),
        ) {
            let values = &seed[..planes * n_x * n_y];
            let weights = central_weights(order).expect("order");
            for axis in [Axis::X, Axis::Y] {
                let out = run(values, n_x, n_y, axis, order, 0.5);
                for (index, &got) in out.iter().enumerate() {
                    let (plane, i, j) = (index / (n_x * n_y), index / n_y % n_x, index % n_y);
                    let at = |s: i64| {
                        let wrap = |p: usize, n: usize| (p as i64 + s).rem_euclid(n as i64) as usize;
                        let (i, j) = if axis == Axis::X { (wrap(i, n_x), j) } else { (i, wrap(j, n_y)) };
                        values[(plane * n_x + i) * n_y + j]
                    };
                    let term = |(k, w): (usize, &f64)| w * (at(k as i64 + 1) - at(-(k as i64) - 1)) / 0.5;
                    let expected: f64 = weights.iter().enumerate().map(term).sum();
                    prop_assert!((got - expected).abs() < 32.0 * f64::EPSILON);
                }
            }
        }
    }

    #[test]
    fn short_axes_and_unknown_orders_are_refused() {
        let values = [0f32; 16];
        let stack = Stack::new(&values, 4, 4).expect("shape");
        let mut out = [0f32; 16];
        let mut try_order = |order| derivative(&mut out, &stack, Axis::X, order, 1.0, &Progress::default());
        assert!(try_order(2).is_ok() && try_order(4).is_err() && try_order(3).is_err());
        assert!(Stack::new(&values, 3, 4).is_err());
    }
}
