//! Combinations of very long rows: the other half of a block orthogonalisation.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::source::{Destination, ReadAhead, Rows};
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::pool::Progress;
use crate::vector::{Kernel, LINE, Vector};

/// Columns that a worker takes at a time: 4 KiB of `f64`, so that a group of source rows fits the first-level cache.
const WIDTH: usize = 512;

/// Source rows that are added in one pass over a destination.
const GROUP: usize = 8;

/// `rows += coefficients · q` in `f64`: `rows` is `k × n_columns` and `coefficients` `k × n_rows` of `q`, row-major.
///
/// Source rows are added in their order, so that the bits do not depend on the number of threads. A source row whose
/// coefficients are all zero is not read, unless another one of its group of eight is. Holds 32 KiB a thread.
///
/// # Errors
/// [`Error::Invalid`] when the lengths do not fit together, [`Error::Io`] from a file, [`Error::Interrupted`]; after
/// the latter two, some columns have been added to and others have not.
pub fn combine_into(coefficients: &[f64], q: &dyn Rows, rows: &mut [f64], progress: &Progress) -> Result<()> {
    combine_with(coefficients, q, rows, Isa::best(), progress)
}

pub(super) fn combine_with(
    coefficients: &[f64],
    q: &dyn Rows,
    rows: &mut [f64],
    isa: Isa,
    progress: &Progress,
) -> Result<()> {
    let (n_rows, n_columns) = q.shape();
    if rows.is_empty() || n_rows == 0 {
        return Ok(());
    }
    let n = rows.len() / n_columns.max(1);
    if n * n_columns != rows.len() || n.checked_mul(n_rows) != Some(coefficients.len()) {
        return Err(Error::invalid(format!(
            "`coefficients` ({} elements) and `rows` ({}) do not fit a ({n_rows}, {n_columns}) matrix",
            coefficients.len(),
            rows.len()
        )));
    }
    let groups: Vec<usize> = (0..n_rows)
        .step_by(GROUP)
        .filter(|&first| {
            let columns = first..(first + GROUP).min(n_rows);
            coefficients.chunks(n_rows).any(|row| row[columns.clone()].iter().any(|&c| c != 0.0))
        })
        .collect();
    let mut panels: Vec<Vec<&mut [f64]>> = (0..n_columns.div_ceil(WIDTH)).map(|_| Vec::with_capacity(n)).collect();
    for row in rows.chunks_mut(n_columns) {
        for (panel, part) in panels.iter_mut().zip(row.chunks_mut(WIDTH)) {
            panel.push(part);
        }
    }
    panels.into_par_iter().enumerate().try_for_each_init(Worker::new, |worker, (k, mut panel)| {
        worker.add(coefficients, q, &groups, k * WIDTH, &mut panel, isa)?;
        progress.advance(1)
    })
}

struct Worker {
    held: Vec<[f64; LINE]>,
    weights: Vec<[f64; GROUP]>,
    ahead: ReadAhead,
}

impl Worker {
    fn new() -> Self {
        Self { held: vec![[0.0; LINE]; GROUP * WIDTH / LINE], weights: Vec::new(), ahead: ReadAhead::default() }
    }

    /// All of `groups` of source rows, from `column` on, into one panel.
    fn add(
        &mut self,
        coefficients: &[f64],
        q: &dyn Rows,
        groups: &[usize],
        column: usize,
        panel: &mut [&mut [f64]],
        isa: Isa,
    ) -> Result<()> {
        let n_rows = q.shape().0;
        let width = panel.first().map_or(0, |part| part.len());
        for &first in groups {
            let size = GROUP.min(n_rows - first);
            for (k, to) in self.held.chunks_mut(WIDTH / LINE).enumerate() {
                let to = &mut to.as_flattened_mut()[..width];
                if k < size {
                    self.ahead.restart(0, column + width, column + width);
                    q.stretch(first + k, column, Destination::F64(to), isa, &mut self.ahead)?;
                } else {
                    to.fill(0.0);
                }
            }
            self.weights.clear();
            for row in coefficients.chunks(n_rows) {
                let mut weights = [0.0; GROUP];
                weights[..size].copy_from_slice(&row[first..first + size]);
                self.weights.push(weights);
            }
            let mut held = self.held.chunks(WIDTH / LINE);
            let sources = std::array::from_fn(|_| held.next().unwrap_or_default());
            Group { panel, weights: &self.weights, sources }.dispatch(isa);
        }
        Ok(())
    }
}

/// A group of source rows, one after the other in `sources`, into all rows of a panel.
struct Group<'a, 'b> {
    panel: &'a mut [&'b mut [f64]],
    weights: &'a [[f64; GROUP]],
    sources: [&'a [[f64; LINE]]; GROUP],
}

impl Kernel<f64> for Group<'_, '_> {
    /// Line by line of the sources, which is read once for all rows.
    #[inline(always)]
    unsafe fn run<V: Vector<f64>>(self) {
        let width = self.panel.first().map_or(0, |part| part.len());
        let whole = width / LINE;
        // SAFETY: as this function.
        unsafe {
            for at in 0..whole {
                let (first, second) = load::<V>(&self.sources, at);
                for (part, weights) in self.panel.iter_mut().zip(self.weights) {
                    add(&mut part.as_chunks_mut().0[at], weights, first, second);
                }
            }
            if whole * LINE < width {
                let (first, second) = load::<V>(&self.sources, whole);
                for (part, weights) in self.panel.iter_mut().zip(self.weights) {
                    let to = &mut part[whole * LINE..];
                    let mut line = [0.0; LINE];
                    line[..to.len()].copy_from_slice(to);
                    add(&mut line, weights, first, second);
                    to.copy_from_slice(&line[..to.len()]);
                }
            }
        }
    }
}

/// Four lines by name: the compiler keeps an array of registers in memory.
type Four<V> = (V, V, V, V);

/// Line `at` of each source.
///
/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn load<V: Vector<f64>>([a, b, c, d, e, f, g, h]: &[&[[f64; LINE]]; GROUP], at: usize) -> (Four<V>, Four<V>) {
    // SAFETY: as this function.
    unsafe {
        (
            (V::load(&a[at]), V::load(&b[at]), V::load(&c[at]), V::load(&d[at])),
            (V::load(&e[at]), V::load(&f[at]), V::load(&g[at]), V::load(&h[at])),
        )
    }
}

/// Weighted lines into another one, in their order.
///
/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn add<V: Vector<f64>>(line: &mut [f64; LINE], w: &[f64; GROUP], first: Four<V>, second: Four<V>) {
    // SAFETY: as this function.
    unsafe {
        let mut sum = V::load(line);
        sum = V::splat(w[0]).multiply_add(first.0, sum);
        sum = V::splat(w[1]).multiply_add(first.1, sum);
        sum = V::splat(w[2]).multiply_add(first.2, sum);
        sum = V::splat(w[3]).multiply_add(first.3, sum);
        sum = V::splat(w[4]).multiply_add(second.0, sum);
        sum = V::splat(w[5]).multiply_add(second.1, sum);
        sum = V::splat(w[6]).multiply_add(second.2, sum);
        sum = V::splat(w[7]).multiply_add(second.3, sum);
        sum.store(line);
    }
}
