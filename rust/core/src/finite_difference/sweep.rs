//! One pass over a stack of planes: every output row from a window of input rows that stays in the nearest cache.
#![allow(unsafe_code)]

use std::array::from_fn;

use rayon::prelude::*;

use super::stencil::{Real, Stack};
use super::vector::{LINE, Vector};
use super::window::{Reach, Window};
use crate::error::Result;
use crate::isa::{Isa, Kind};
use crate::pool::Progress;

/// Elements of the rows that a thread takes at once.
const BAND: usize = 1 << 16;

/// What is computed, from antisymmetric weights divided by the spacing.
#[derive(Clone, Copy)]
pub(super) enum Term<'a, const W: usize> {
    /// `∂x`.
    X([f64; W]),
    /// `∂y`.
    Y([f64; W]),
    /// `x ∂y − y ∂x`, and the other component of vectors; positions `x` and, by lines, `−y`.
    Rotation { along_x: [f64; W], along_y: [f64; W], x: &'a [f64], minus_y: &'a [[f64; LINE]] },
}

impl<const W: usize> Term<'_, W> {
    fn reach(&self) -> Reach {
        match self {
            Self::X(_) => Reach { rows: W, columns: 0 },
            Self::Y(_) => Reach { rows: 0, columns: W },
            Self::Rotation { .. } => Reach { rows: W, columns: W },
        }
    }
}

/// Fill `out` with a term of every plane. Under a rotation `partner(plane)` is the plane to add and its sign.
pub(super) fn sweep<T: Real, const W: usize>(
    out: &mut [T],
    fields: &Stack<'_, T>,
    term: &Term<'_, W>,
    partner: impl Fn(usize) -> Option<(usize, f64)> + Sync,
    isa: Isa,
    progress: &Progress,
) -> Result<()> {
    let (n_x, n_y) = (fields.n_x, fields.n_y);
    let rows = (BAND / n_y).max(2 * W);
    let rows = if rows > n_x { rows / n_x * n_x } else { rows };
    out.par_chunks_mut(rows * n_y).enumerate().try_for_each_init(Vec::new, |memory, (band, mut out)| {
        let mut row = band * rows;
        while !out.is_empty() {
            let (plane, first) = (row / n_x, row % n_x);
            let n = (n_x - first).min(out.len() / n_y);
            let (now, rest) = std::mem::take(&mut out).split_at_mut(n * n_y);
            let added = partner(plane).map(|(other, sign)| (&fields.plane(other)[first * n_y..], sign));
            let plane = fields.plane(plane);
            Part { out: now, plane, shape: (n_x, n_y), first, added, term, memory }.dispatch(isa);
            (out, row) = (rest, row + n);
            progress.advance(1)?;
        }
        Ok(())
    })
}

/// Consecutive rows of one plane.
struct Part<'a, T, const W: usize> {
    out: &'a mut [T],
    plane: &'a [T],
    shape: (usize, usize),
    first: usize,
    added: Option<(&'a [T], f64)>,
    term: &'a Term<'a, W>,
    memory: &'a mut Vec<f64>,
}

impl<T: Real, const W: usize> Part<'_, T, W> {
    fn dispatch(self, isa: Isa) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m256d, __m512d};
            #[target_feature(enable = "avx512f,avx2,fma")]
            unsafe fn avx512<T: Real, const W: usize>(part: Part<'_, T, W>) {
                // SAFETY: as this function.
                unsafe { part.run::<__m512d>() }
            }
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2<T: Real, const W: usize>(part: Part<'_, T, W>) {
                // SAFETY: as this function.
                unsafe { part.run::<[__m256d; 2]>() }
            }
            match isa.kind() {
                // SAFETY: `Isa::available` found the features before it made this `Isa`.
                Kind::Avx512 => return unsafe { avx512(self) },
                // SAFETY: as above.
                Kind::Avx2 => return unsafe { avx2(self) },
                Kind::Portable => {}
            }
        }
        let _ = isa;
        // SAFETY: plain arrays need no instructions.
        unsafe { self.run::<[f64; LINE]>() }
    }

    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let n = self.shape.1;
        // SAFETY: as this function; so below.
        let mut window =
            unsafe { Window::new::<V>(self.plane, self.shape, self.term.reach(), self.first, self.memory) };
        for (i, out) in self.out.chunks_exact_mut(n).enumerate() {
            if i > 0 {
                unsafe { window.advance::<V>() };
            }
            let lines = 0..n.div_ceil(LINE);
            match self.term {
                Term::X(c) => {
                    let (c, rows) = (unsafe { splat::<V, W>(c) }, rows(&window));
                    for v in lines {
                        unsafe { store(out, v, down(&c, &rows, v)) };
                    }
                }
                Term::Y(c) => {
                    let (c, row) = (unsafe { splat::<V, W>(c) }, window.padded_row());
                    for v in lines {
                        unsafe { store(out, v, across(&c, row, v)) };
                    }
                }
                Term::Rotation { along_x, along_y, x, minus_y } => {
                    let (rows, row) = (rows(&window), window.padded_row());
                    let x = x[self.first + i];
                    let (along_x, along_y) =
                        unsafe { (splat::<V, W>(along_x), splat::<V, W>(&along_y.map(|c| c * x))) };
                    let added = self.added.map(|(other, sign)| (&other[i * n..][..n], unsafe { V::splat(sign) }));
                    for (v, minus_y) in lines.zip(*minus_y) {
                        unsafe {
                            let d_x = down(&along_x, &rows, v);
                            let d_y = across(&along_y, row, v);
                            let mut value = d_x.multiply_add(V::load(minus_y), d_y);
                            if let Some((other, sign)) = added {
                                value = load::<T, V>(other, v).multiply_add(sign, value);
                            }
                            store(out, v, value);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn splat<V: Vector, const W: usize>(c: &[f64; W]) -> [V; W] {
    // SAFETY: the caller vouches for the instructions of `V`.
    from_fn(|k| unsafe { V::splat(c[k]) })
}

/// Rows that come after the current one, and as many that come before.
type Neighbours<'a, const W: usize> = ([&'a [[f64; LINE]]; W], [&'a [[f64; LINE]]; W]);

#[inline(always)]
fn rows<'a, T: Real, const W: usize>(window: &'a Window<'_, T>) -> Neighbours<'a, W> {
    (from_fn(|k| window.row(k as isize + 1)), from_fn(|k| window.row(-(k as isize) - 1)))
}

/// `Σ_k c[k] (after[k] − before[k])` in line `v`, across rows.
///
/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn down<V: Vector, const W: usize>(c: &[V; W], (after, before): &Neighbours<'_, W>, v: usize) -> V {
    // SAFETY: as this function.
    unsafe { weighted(c, |k| V::load(&after[k][v]).subtract(V::load(&before[k][v]))) }
}

/// `Σ_k c[k] (u[· + k + 1] − u[· − k − 1])` in line `v` of a padded row.
///
/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn across<V: Vector, const W: usize>(c: &[V; W], row: &[[f64; LINE]], v: usize) -> V {
    // In place: of a copy, loads across two lines would wait for the stores that made it.
    let Some((lines, _)) = row[v..].split_first_chunk() else { unreachable!("a padded row has a line on each side") };
    let reach = |k: usize| k as isize + 1;
    // SAFETY: as this function.
    unsafe { weighted(c, |k| V::shifted(lines, reach(k)).subtract(V::shifted(lines, -reach(k)))) }
}

#[inline(always)]
unsafe fn weighted<V: Vector, const W: usize>(c: &[V; W], change: impl Fn(usize) -> V) -> V {
    // SAFETY: the caller vouches for the instructions of `V`.
    unsafe {
        let mut sum = change(0).multiply(c[0]);
        // An iterator that skips is not unrolled, and then the shifts are not constants: 40 times slower.
        #[expect(clippy::needless_range_loop)]
        for k in 1..W {
            sum = change(k).multiply_add(c[k], sum);
        }
        sum
    }
}

/// Line `v` of a row, zero beyond its end.
///
/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn load<T: Real, V: Vector>(row: &[T], v: usize) -> V {
    let (lines, rest) = row.as_chunks();
    let mut end = [T::default(); LINE];
    let line = lines.get(v).unwrap_or_else(|| {
        end[..rest.len()].copy_from_slice(rest);
        &end
    });
    // SAFETY: as this function.
    unsafe { T::load(line) }
}

/// Round to line `v` of a row, as far as the row goes.
///
/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn store<T: Real, V: Vector>(row: &mut [T], v: usize, value: V) {
    let (lines, rest) = row.as_chunks_mut();
    // SAFETY: as this function.
    unsafe {
        if let Some(line) = lines.get_mut(v) {
            T::store(value, line);
        } else {
            let mut end = [T::default(); LINE];
            T::store(value, &mut end);
            rest.copy_from_slice(&end[..rest.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finite_difference::weights::central_weights;

    fn values(n: usize) -> Vec<f64> {
        (0..n).map(|k| (k as f64 * 0.618_033_988_749_895).fract() - 0.5).collect()
    }

    /// `x ∂y u − y ∂x u + sign·other` with wrapped indices, and the sum of the sizes of its terms.
    fn slow(u: &[f64], other: &[f64], shape: (usize, usize), c: [f64; 3], x: f64, y: f64, at: usize) -> (f64, f64) {
        let (i, j) = (at / shape.1, at % shape.1);
        let value = |i: usize, j: usize| u[i % shape.0 * shape.1 + j % shape.1];
        let (mut sum, mut size) = (-other[at], other[at].abs());
        for (k, c) in c.iter().enumerate() {
            let k = k + 1;
            let d_x = value(i + k, j) - value(i + shape.0 - k, j);
            let d_y = value(i, j + k) - value(i, j + shape.1 - k);
            sum += c * (x * d_y - y * d_x);
            size += c.abs() * (x.abs() * d_y.abs() + y.abs() * d_x.abs());
        }
        (sum, size)
    }

    #[test]
    fn every_instruction_set_and_thread_count_gives_the_stated_sums() {
        let weights = central_weights(6).expect("order 6");
        let c = [weights[0], weights[1], weights[2]];
        for shape in [(7, 7), (9, 8), (8, 17), (300, 263)] {
            let size = shape.0 * shape.1;
            let u = values(3 * size);
            let stack = Stack::new(&u, shape.0, shape.1).expect("planes");
            let x: Vec<f64> = (0..shape.0).map(|i| i as f64 - 3.0).collect();
            let mut minus_y: Vec<f64> = (0..shape.1).map(|j| 2.0 - j as f64).collect();
            minus_y.resize(shape.1.next_multiple_of(LINE), 0.0);
            let term = Term::Rotation { along_x: c, along_y: c, x: &x, minus_y: minus_y.as_chunks().0 };
            for isa in Isa::available() {
                let run = |threads: usize| {
                    let mut out = vec![f64::NAN; u.len()];
                    let work = |p: &Progress| sweep(&mut out, &stack, &term, |k| Some(((k + 1) % 3, -1.0)), isa, p);
                    crate::pool::run(Some(threads), &mut |_| true, work).expect("runs");
                    out
                };
                let out = run(1);
                for (at, got) in out.iter().enumerate() {
                    let (plane, at) = (at / size, at % size);
                    let (u_plane, other) = (&u[plane * size..][..size], &u[(plane + 1) % 3 * size..][..size]);
                    let (x, y) = (x[at / shape.1], -minus_y[at % shape.1]);
                    let (expected, terms) = slow(u_plane, other, shape, c, x, y, at);
                    assert!((got - expected).abs() <= 16.0 * f64::EPSILON * terms, "{isa:?} {shape:?} {plane} {at}");
                }
                for threads in [2, 5] {
                    assert!(
                        run(threads).iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits()),
                        "{isa:?} {threads}"
                    );
                }
            }
        }
    }
}
