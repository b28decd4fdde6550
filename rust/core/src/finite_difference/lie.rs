//! Lie derivatives of scalar and vector fields along the Euclidean motions of the plane.

use super::stencil::{Stack, scaled_weights};
use super::sweep::{Term, sweep};
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::pool::Progress;
use crate::vector::{LINE, Real};

/// A one-parameter group of motions, by its velocity field `ξ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// `ξ = (1, 0)`.
    TranslationX,
    /// `ξ = (0, 1)`.
    TranslationY,
    /// `ξ = (−y, x)` about the centre of the grid.
    Rotation,
}

/// How a channel transforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A scalar.
    Scalar,
    /// The x component of a vector whose y component is the given channel.
    X(usize),
    /// The y component of a vector whose x component is the given channel.
    Y(usize),
}

/// `out = L_ξ u = ξ·∇u − (u·∇)ξ` (the second term for vectors only) of `(n, C, X, Y)` fields with `kinds.len() = C`;
/// derivatives by periodic central differences of order 2, 4 or 6 on points `spacing` apart. Along a rotation a vector
/// gains `(v_y, −v_x)`. Positions are measured from the grid's centre, `(n_x − 1)/2` points from the first.
///
/// # Errors
/// [`Error::Invalid`]: unknown order, axis shorter than the stencil, channel counts or partners that do not fit.
pub fn lie_derivative<T: Real>(
    out: &mut [T],
    fields: &Stack<'_, T>,
    kinds: &[Kind],
    generator: Generator,
    accuracy_order: usize,
    spacing: (f64, f64),
    progress: &Progress,
) -> Result<()> {
    fields.check_out(out)?;
    let (n_x, n_y) = (fields.n_x, fields.n_y);
    let size = n_x * n_y;
    if out.is_empty() {
        return Ok(());
    }
    if kinds.is_empty() || !out.len().is_multiple_of(size * kinds.len()) {
        return Err(Error::invalid(format!("fields must have {} channels, one per kind", kinds.len())));
    }
    let partners = kinds.iter().enumerate().all(|(channel, &kind)| match kind {
        Kind::Scalar => true,
        Kind::X(other) => kinds.get(other) == Some(&Kind::Y(channel)),
        Kind::Y(other) => kinds.get(other) == Some(&Kind::X(channel)),
    });
    if !partners {
        return Err(Error::invalid("each x component must name its y component and the reverse"));
    }
    let along_x = scaled_weights(accuracy_order, spacing.0, n_x)?;
    let along_y = scaled_weights(accuracy_order, spacing.1, n_y)?;
    let positions = |n: usize, h: f64| (0..n).map(move |i| (i as f64 - (n - 1) as f64 / 2.0) * h);
    let x: Vec<f64> = positions(n_x, spacing.0).collect();
    let mut minus_y: Vec<T> = positions(n_y, -spacing.1).map(T::from_f64).collect();
    minus_y.resize(n_y.next_multiple_of(LINE), T::default());
    let motion = Motion { kinds, generator, x: &x, minus_y: minus_y.as_chunks().0 };
    match (along_x.as_slice(), along_y.as_slice()) {
        (&[a], &[d]) => motion.apply(out, fields, [a], [d], progress),
        (&[a, b], &[d, e]) => motion.apply(out, fields, [a, b], [d, e], progress),
        (&[a, b, c], &[d, e, f]) => motion.apply(out, fields, [a, b, c], [d, e, f], progress),
        _ => Ok(()),
    }
}

struct Motion<'a, T> {
    kinds: &'a [Kind],
    generator: Generator,
    x: &'a [f64],
    minus_y: &'a [[T; LINE]],
}

impl<T: Real> Motion<'_, T> {
    fn apply<const W: usize>(
        &self,
        out: &mut [T],
        fields: &Stack<'_, T>,
        along_x: [f64; W],
        along_y: [f64; W],
        progress: &Progress,
    ) -> Result<()> {
        let term = match self.generator {
            Generator::TranslationX => Term::X(along_x),
            Generator::TranslationY => Term::Y(along_y),
            Generator::Rotation => Term::Rotation { along_x, along_y, x: self.x, minus_y: self.minus_y },
        };
        let partner = |plane: usize| {
            let channel = plane % self.kinds.len();
            match self.kinds[channel] {
                Kind::Scalar => None,
                Kind::X(other) => Some((plane - channel + other, 1.0)),
                Kind::Y(other) => Some((plane - channel + other, -1.0)),
            }
        };
        sweep(out, fields, &term, partner, Isa::best(), progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Radially symmetric scalar and vector fields that vanish at the seam are invariant under rotation.
    fn rotation_error(n: usize, order: usize) -> f64 {
        let h = 1.0 / n as f64;
        let centred = |k: usize| (k as f64 - (n - 1) as f64 / 2.0) * h;
        let bump = |x: f64, y: f64| (-(x * x + y * y) / 0.008).exp();
        let field = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            (0..n * n).map(|k| f(centred(k / n), centred(k % n))).collect()
        };
        let swirl_x = field(&|x, y| -y * bump(x, y));
        let swirl_y = field(&|x, y| x * bump(x, y));
        let values = [field(&bump), swirl_x, swirl_y].concat();
        let stack = Stack::new(&values, n, n).expect("shape");
        let mut out = vec![0.0; values.len()];
        let kinds = [Kind::Scalar, Kind::X(2), Kind::Y(1)];
        lie_derivative(&mut out, &stack, &kinds, Generator::Rotation, order, (h, h), &Progress::default())
            .expect("runs");
        out.iter().map(|v| v.abs()).fold(0.0, f64::max)
    }

    #[test]
    fn rotation_invariant_fields_vanish_at_the_stated_order() {
        for order in [2, 4, 6] {
            let slope = (rotation_error(64, order) / rotation_error(128, order)).log2();
            assert!((slope - order as f64).abs() < 0.3, "{order}: {slope}");
        }
    }

    #[test]
    fn partners_must_agree() {
        let values = [0.0; 2 * 49];
        let stack = Stack::new(&values, 7, 7).expect("shape");
        let mut out = [0.0; 2 * 49];
        let mut try_kinds = |kinds: &[Kind]| {
            lie_derivative(&mut out, &stack, kinds, Generator::Rotation, 2, (1.0, 1.0), &Progress::default())
        };
        assert!(try_kinds(&[Kind::X(1), Kind::Y(0)]).is_ok());
        assert!(try_kinds(&[Kind::X(1), Kind::Scalar]).is_err());
        assert!(try_kinds(&[Kind::Scalar, Kind::Scalar, Kind::Scalar]).is_err());
    }
}
