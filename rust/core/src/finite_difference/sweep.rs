//! One pass over a stack of planes: every output row from the input rows around it, which stay in the nearest cache.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::stencil::Stack;
use super::window::{Around, Centre, InPlace, Reach, Window};
use crate::error::Result;
use crate::isa::Isa;
use crate::pool::Progress;
use crate::vector::{Kernel, LINE, Real, Vector};

/// Elements of the rows that a thread takes at once.
const BAND: usize = 1 << 16;

/// Bytes from which on fields and result do not fit the caches: the one is asked for ahead, the other is written past
/// them, since a cached write would first read what it overwrites.
const FAR: usize = 1 << 25;

/// What is computed, from antisymmetric weights divided by the spacing.
#[derive(Clone, Copy)]
pub(super) enum Term<'a, T, const W: usize> {
    /// `∂x`.
    X([f64; W]),
    /// `∂y`.
    Y([f64; W]),
    /// `x ∂y − y ∂x`, and the other component of vectors; positions `x` and, by lines, `−y`.
    Rotation { along_x: [f64; W], along_y: [f64; W], x: &'a [f64], minus_y: &'a [[T; LINE]] },
}

impl<T, const W: usize> Term<'_, T, W> {
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
    term: &Term<'_, T, W>,
    partner: impl Fn(usize) -> Option<(usize, f64)> + Sync,
    isa: Isa,
    progress: &Progress,
) -> Result<()> {
    let (n_x, n_y) = (fields.n_x, fields.n_y);
    let rows = (BAND / n_y).max(2 * W);
    let rows = if rows > n_x { rows / n_x * n_x } else { rows };
    let far = size_of_val(out) >= FAR;
    let streamed = far && (out.as_ptr() as usize).is_multiple_of(64) && n_y.is_multiple_of(LINE);
    out.par_chunks_mut(rows * n_y).enumerate().try_for_each_init(Vec::new, |memory, (band, mut out)| {
        let mut row = band * rows;
        while !out.is_empty() {
            let (plane, first) = (row / n_x, row % n_x);
            let n = (n_x - first).min(out.len() / n_y);
            let (now, rest) = std::mem::take(&mut out).split_at_mut(n * n_y);
            let added = partner(plane).map(|(other, sign)| (&fields.plane(other)[first * n_y..], sign));
            let plane = fields.plane(plane);
            let part = Part { out: now, plane, shape: (n_x, n_y), first, added, term, far, streamed };
            Swept { part, memory }.dispatch(isa);
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
    term: &'a Term<'a, T, W>,
    /// Whether the planes are too large for the caches.
    far: bool,
    /// Whether to write past the caches; then every row of `out` consists of whole lines, aligned to 64 bytes.
    streamed: bool,
}

/// A part, and memory for a window.
struct Swept<'a, T, const W: usize> {
    part: Part<'a, T, W>,
    memory: &'a mut Vec<T>,
}

impl<T: Real, const W: usize> Kernel<T> for Swept<'_, T, W> {
    #[inline(always)]
    unsafe fn run<V: Vector<T>>(self) {
        let Self { part, memory } = self;
        let (plane, shape, reach, far, first) = (part.plane, part.shape, part.term.reach(), part.far, part.first);
        let in_place = if V::JOINS { InPlace::new(plane, shape, reach, far, first) } else { None };
        // SAFETY: as this function.
        unsafe {
            match in_place {
                Some(around) => part.fill::<V>(around),
                None => part.fill::<V>(Window::new::<V>(plane, shape, reach, far, first, memory)),
            }
        }
    }
}

impl<T: Real, const W: usize> Part<'_, T, W> {
    /// # Safety
    /// The machine has the instructions of `V`.
    #[inline(always)]
    unsafe fn fill<V: Vector<T>>(self, mut around: impl Around<T>) {
        let n = self.shape.1;
        // SAFETY: as this function; `streamed` vouches for whole aligned lines, and all rows have `n_lines` of them.
        unsafe {
            for (i, out) in self.out.chunks_exact_mut(n).enumerate() {
                if i > 0 {
                    around.advance::<V>();
                }
                // Whole lines in a loop without calls, which would empty the registers; what is left of the row after.
                let (lines, rest) = out.as_chunks_mut();
                let (n_whole, n_lines) = (lines.len(), n.div_ceil(LINE));
                let mut end = [T::default(); LINE];
                macro_rules! fill {
                    ($v:ident => $value:expr) => {
                        for ($v, to) in lines.iter_mut().enumerate() {
                            if self.streamed { $value.stream(to) } else { $value.store(to) }
                        }
                        if !rest.is_empty() {
                            let $v = n_whole;
                            $value.store(&mut end);
                            rest.copy_from_slice(&end[..rest.len()]);
                        }
                    };
                }
                match self.term {
                    Term::X(c) => {
                        let (c, rows) = (splat::<T, V, W>(c), rows(&around, n_lines));
                        fill!(v => down(&c, &rows, v));
                    }
                    Term::Y(c) => {
                        let (c, row) = (splat::<T, V, W>(c), around.centre());
                        fill!(v => across(&c, row, v));
                    }
                    Term::Rotation { along_x, along_y, x, minus_y } => {
                        let (rows, row, minus_y) = (rows(&around, n_lines), around.centre(), &minus_y[..n_lines]);
                        let x = x[self.first + i];
                        let (along_x, along_y) = (splat::<T, V, W>(along_x), splat::<T, V, W>(&along_y.map(|c| c * x)));
                        if let Some((other, sign)) = self.added {
                            let (other, sign) = (Row::new(&other[i * n..][..n]), V::splat(T::from_f64(sign)));
                            fill!(v => {
                                let value = turned(&along_x, &rows, &along_y, row, minus_y, v);
                                V::load(other.line(v)).multiply_add(sign, value)
                            });
                        } else {
                            fill!(v => turned(&along_x, &rows, &along_y, row, minus_y, v));
                        }
                    }
                }
            }
            if self.streamed {
                V::fence();
            }
        }
    }
}

/// A row by lines, the last one with zeros beyond the end.
struct Row<'a, T> {
    lines: &'a [[T; LINE]],
    end: [T; LINE],
}

impl<'a, T: Real> Row<'a, T> {
    #[inline(always)]
    fn new(row: &'a [T]) -> Self {
        let (lines, rest) = row.as_chunks();
        let mut end = [T::default(); LINE];
        // Guarded, here and below: also of nothing a copy is a call.
        if !rest.is_empty() {
            end[..rest.len()].copy_from_slice(rest);
        }
        Self { lines, end }
    }

    #[inline(always)]
    fn line(&self, v: usize) -> &[T; LINE] {
        self.lines.get(v).unwrap_or(&self.end)
    }
}

/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn splat<T: Real, V: Vector<T>, const W: usize>(c: &[f64; W]) -> [V; W] {
    // SAFETY: as this function.
    unsafe {
        let mut splat = [V::splat(T::default()); W];
        for k in 0..W {
            splat[k] = V::splat(T::from_f64(c[k]));
        }
        splat
    }
}

/// Rows that come after the current one, and as many that come before: all of one length, which is checked once.
type Neighbours<'a, T, const W: usize> = ([&'a [[T; LINE]]; W], [&'a [[T; LINE]]; W]);

#[inline(always)]
fn rows<T: Real, const W: usize>(around: &impl Around<T>, n_lines: usize) -> Neighbours<'_, T, W> {
    // In a loop: functions that take closures may be calls, which would empty the registers.
    let (mut after, mut before) = ([&[][..]; W], [&[][..]; W]);
    for k in 0..W {
        after[k] = &around.row(k as isize + 1)[..n_lines];
        before[k] = &around.row(-(k as isize) - 1)[..n_lines];
    }
    (after, before)
}

/// `Σ_k c[k] (after[k] − before[k])` in line `v`, across rows.
///
/// # Safety
/// The machine has the instructions of `V`; `v` is less than the length of the rows.
#[inline(always)]
unsafe fn down<T: Real, V: Vector<T>, const W: usize>(
    c: &[V; W],
    (after, before): &Neighbours<'_, T, W>,
    v: usize,
) -> V {
    // SAFETY: as this function.
    unsafe {
        let mut sum = V::load(after[0].get_unchecked(v)).subtract(V::load(before[0].get_unchecked(v))).multiply(c[0]);
        for k in 1..W {
            let difference = V::load(after[k].get_unchecked(v)).subtract(V::load(before[k].get_unchecked(v)));
            sum = difference.multiply_add(c[k], sum);
        }
        sum
    }
}

/// `Σ_k c[k] (u[· + k + 1] − u[· − k − 1])` in line `v` of a row.
///
/// # Safety
/// The machine has the instructions of `V`; the row has a line `v`.
#[inline(always)]
unsafe fn across<T: Real, C: Centre<T>, V: Vector<T>, const W: usize>(c: &[V; W], row: C, v: usize) -> V {
    // SAFETY: as this function.
    unsafe {
        let lines = row.lines(v);
        let mut sum = C::shifted::<V>(lines, 1).subtract(C::shifted(lines, -1)).multiply(c[0]);
        if W > 1 {
            sum = C::shifted::<V>(lines, 2).subtract(C::shifted(lines, -2)).multiply_add(c[1], sum);
        }
        if W > 2 {
            sum = C::shifted::<V>(lines, 3).subtract(C::shifted(lines, -3)).multiply_add(c[2], sum);
        }
        sum
    }
}

/// `x ∂y − y ∂x` in line `v`, from weights along y times `x`.
///
/// # Safety
/// The machine has the instructions of `V`; all rows and `minus_y` have a line `v`.
#[inline(always)]
unsafe fn turned<T: Real, V: Vector<T>, const W: usize>(
    along_x: &[V; W],
    rows: &Neighbours<'_, T, W>,
    along_y_by_x: &[V; W],
    row: impl Centre<T>,
    minus_y: &[[T; LINE]],
    v: usize,
) -> V {
    // SAFETY: as this function.
    unsafe { down(along_x, rows, v).multiply_add(V::load(minus_y.get_unchecked(v)), across(along_y_by_x, row, v)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finite_difference::weights::central_weights;

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

    fn check<T: Real + Into<f64>>(eps: f64) {
        let weights = central_weights(6).expect("order 6");
        let c = [weights[0], weights[1], weights[2]];
        for shape in [(7, 7), (9, 8), (7, 16), (8, 17), (40, 33), (40, 48), (300, 263)] {
            let size = shape.0 * shape.1;
            // On a cache line: rows of whole lines are taken where they lie.
            let mut memory = vec![T::default(); 3 * size + LINE];
            let start = memory.as_ptr().align_offset(64);
            let u = &mut memory[start..][..3 * size];
            for (k, u) in u.iter_mut().enumerate() {
                *u = T::from_f64((k as f64 * 0.618_033_988_749_895).fract() - 0.5);
            }
            let exact: Vec<f64> = u.iter().map(|&value| value.into()).collect();
            let stack = Stack::new(u, shape.0, shape.1).expect("planes");
            let x: Vec<f64> = (0..shape.0).map(|i| i as f64 - 3.0).collect();
            let mut minus_y: Vec<T> = (0..shape.1).map(|j| T::from_f64(2.0 - j as f64)).collect();
            minus_y.resize(shape.1.next_multiple_of(LINE), T::default());
            let term = Term::Rotation { along_x: c, along_y: c, x: &x, minus_y: minus_y.as_chunks().0 };
            for isa in Isa::available() {
                let run = |threads: usize| {
                    let mut out = vec![T::from_f64(f64::NAN); u.len()];
                    let work = |p: &Progress| sweep(&mut out, &stack, &term, |k| Some(((k + 1) % 3, -1.0)), isa, p);
                    crate::pool::run(Some(threads), &mut |_| true, work).expect("runs");
                    out.into_iter().map(Into::into).collect::<Vec<f64>>()
                };
                let out = run(1);
                for (at, got) in out.iter().enumerate() {
                    let (plane, at) = (at / size, at % size);
                    let (u_plane, other) = (&exact[plane * size..][..size], &exact[(plane + 1) % 3 * size..][..size]);
                    let (x, y) = (x[at / shape.1], (at % shape.1) as f64 - 2.0);
                    let (expected, terms) = slow(u_plane, other, shape, c, x, y, at);
                    assert!((got - expected).abs() <= 8.0 * eps * terms, "{isa:?} {shape:?} {plane} {at}");
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

    /// Rows of whole lines, where they lie and, from memory that is not on a cache line, in a window.
    #[test]
    fn in_place_it_is_the_same() {
        let shape = (9, 2 * LINE);
        let u: Vec<f32> = (0..2 * 9 * shape.1).map(|k| (k as f32 * 0.618_034).fract() - 0.5).collect();
        let x = [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0];
        let (c, minus_y) = ([0.75, -0.15, 1.0 / 60.0], [[0.5; LINE], [-1.5; LINE]]);
        let terms = [Term::X(c), Term::Y(c), Term::Rotation { along_x: c, along_y: c, x: &x, minus_y: &minus_y }];
        let mut memory = vec![0.0; u.len() + 2 * LINE];
        let line = memory.as_ptr().align_offset(64);
        for (term, isa) in terms.iter().flat_map(|term| Isa::available().into_iter().map(move |isa| (term, isa))) {
            let mut from = |start: usize| {
                let place = &mut memory[start..][..u.len()];
                place.copy_from_slice(&u);
                let (stack, mut out) = (Stack::new(place, shape.0, shape.1).expect("planes"), vec![f32::NAN; u.len()]);
                sweep(&mut out, &stack, term, |k| Some((1 - k, 1.0)), isa, &Progress::default()).expect("runs");
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(from(line), from(line + 1), "{isa:?}");
        }
    }

    /// A result of that size, aligned, against the same planes by themselves.
    #[test]
    fn written_past_the_caches_it_is_the_same() {
        let (shape, n_planes) = ((9, 2 * LINE), FAR / (9 * 2 * LINE * 4) + 1);
        let size = shape.0 * shape.1;
        let u: Vec<f32> = (0..n_planes * size).map(|k| (k as f32 * 0.618_034).fract() - 0.5).collect();
        let term = Term::Rotation {
            along_x: [0.75, -0.15],
            along_y: [0.5, -0.25],
            x: &[-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0],
            minus_y: &[[0.5; LINE], [-1.5; LINE]],
        };
        let mut memory = vec![f32::NAN; u.len() + LINE];
        let start = memory.as_ptr().align_offset(64);
        let progress = Progress::default();
        for isa in Isa::available() {
            let out = &mut memory[start..][..u.len()];
            let stack = Stack::new(&u, shape.0, shape.1).expect("planes");
            sweep(out, &stack, &term, |k| (k % 2 == 1).then(|| (k - 1, -1.0)), isa, &progress).expect("runs");
            let mut alone = [f32::NAN; 2 * 9 * 2 * LINE];
            for (u, out) in u.chunks_exact(alone.len()).zip(out.chunks_exact(alone.len())) {
                let stack = Stack::new(u, shape.0, shape.1).expect("planes");
                sweep(&mut alone, &stack, &term, |k| (k == 1).then_some((0, -1.0)), isa, &progress).expect("runs");
                assert!(alone.iter().zip(out).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa:?}");
            }
        }
    }

    /// Each term is rounded as a difference, a weight times a position, a product and a few sums.
    #[test]
    fn every_instruction_set_and_thread_count_gives_the_stated_sums() {
        check::<f32>(f64::from(f32::EPSILON));
        check::<f64>(f64::EPSILON);
    }
}
