//! Periodic first derivatives of stacks of planes.

use rayon::prelude::*;

use super::weights::central_weights;
use crate::error::{Error, Result};
use crate::pool::Progress;

/// Storage type of a field; arithmetic is in f64.
pub trait Real: Copy + Send + Sync + 'static {
    /// Widen.
    fn to_f64(self) -> f64;
    /// Round.
    fn from_f64(value: f64) -> Self;
}

impl Real for f64 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
}

impl Real for f32 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

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
    out.par_chunks_exact_mut(fields.n_x * fields.n_y).enumerate().try_for_each(|(index, out)| {
        let plane = fields.plane(index);
        plane_derivative(out, plane, (fields.n_x, fields.n_y), axis, &weights);
        progress.advance(1)
    })
}

#[inline(always)]
fn plane_body<T: Real, const W: usize>(out: &mut [T], plane: &[T], shape: (usize, usize), axis: Axis, c: &[f64; W]) {
    for i in 0..shape.0 {
        let row = &mut out[i * shape.1..(i + 1) * shape.1];
        match axis {
            Axis::X => row_along_x(row, plane, shape, i, c),
            Axis::Y => row_along_y(row, &plane[i * shape.1..(i + 1) * shape.1], c),
        }
    }
}

/// Row `i` of `∂x`: differences of whole rows, the index wrapped once per row.
#[inline(always)]
pub(super) fn row_along_x<T: Real, const W: usize>(
    out: &mut [T],
    plane: &[T],
    (n_x, n_y): (usize, usize),
    i: usize,
    c: &[f64; W],
) {
    let row = |i: usize| &plane[i * n_y..][..n_y];
    let after: [&[T]; W] = std::array::from_fn(|k| row((i + k + 1) % n_x));
    let before: [&[T]; W] = std::array::from_fn(|k| row((i + n_x - k - 1) % n_x));
    let out = &mut out[..n_y];
    for j in 0..n_y {
        let mut sum = 0.0;
        for k in 0..W {
            sum += c[k] * (after[k][j].to_f64() - before[k][j].to_f64());
        }
        out[j] = T::from_f64(sum);
    }
}

/// `∂y` of one row: the interior without wrapping, then the `2 W` points next to the seam.
#[inline(always)]
pub(super) fn row_along_y<T: Real, const W: usize>(out: &mut [T], row: &[T], c: &[f64; W]) {
    let n = row.len();
    let interior = n - 2 * W;
    let out = &mut out[..n];
    for (j, o) in out[W..W + interior].iter_mut().enumerate() {
        let near = &row[j..j + 2 * W + 1];
        let mut sum = 0.0;
        for k in 0..W {
            sum += c[k] * (near[W + k + 1].to_f64() - near[W - k - 1].to_f64());
        }
        *o = T::from_f64(sum);
    }
    for j in (0..W).chain(n - W..n) {
        let mut sum = 0.0;
        for k in 0..W {
            sum += c[k] * (row[(j + k + 1) % n].to_f64() - row[(j + n - k - 1) % n].to_f64());
        }
        out[j] = T::from_f64(sum);
    }
}

#[inline(always)]
fn dispatch<T: Real>(out: &mut [T], plane: &[T], shape: (usize, usize), axis: Axis, weights: &[f64]) {
    match *weights {
        [a] => plane_body(out, plane, shape, axis, &[a]),
        [a, b] => plane_body(out, plane, shape, axis, &[a, b]),
        [a, b, c] => plane_body(out, plane, shape, axis, &[a, b, c]),
        _ => {}
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dispatch_avx2<T: Real>(out: &mut [T], plane: &[T], shape: (usize, usize), axis: Axis, weights: &[f64]) {
    dispatch(out, plane, shape, axis, weights);
}

#[allow(unsafe_code)]
fn plane_derivative<T: Real>(out: &mut [T], plane: &[T], shape: (usize, usize), axis: Axis, weights: &[f64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA, the only things that the callee asks for.
        return unsafe { dispatch_avx2(out, plane, shape, axis, weights) };
    }
    dispatch(out, plane, shape, axis, weights);
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
