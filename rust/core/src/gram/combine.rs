//! Combinations of very long rows: the other half of a block orthogonalisation.

use rayon::prelude::*;

use super::source::{Destination, ReadAhead, Rows};
use crate::error::{Error, Result};
use crate::isa::{Isa, Kind, dispatch};
use crate::pool::Progress;

/// Columns that a worker takes at a time: 4 KiB of `f64`, so that a group of source rows stays in the first-level cache.
const WIDTH: usize = 512;

/// Source rows that are added in one pass over a destination.
const GROUP: usize = 4;

/// `rows += coefficients · q` in `f64`: `rows` is `k × n_columns` and `coefficients` `k × n_rows` of `q`, row-major.
///
/// Source rows are added in their order, so that the bits do not depend on the number of threads. A source row whose
/// coefficients are all zero is not read, unless another one of its group of four is. Holds 16 KiB a thread.
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
    held: Vec<f64>,
    ahead: ReadAhead,
}

impl Worker {
    fn new() -> Self {
        Self { held: vec![0.0; GROUP * WIDTH], ahead: ReadAhead::default() }
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
            for (k, to) in self.held.chunks_mut(WIDTH).enumerate() {
                if k < size {
                    self.ahead.restart(0, column + width, column + width);
                    q.stretch(first + k, column, Destination::F64(&mut to[..width]), isa, &mut self.ahead)?;
                } else {
                    to.fill(0.0);
                }
            }
            let sources: [&[f64]; GROUP] = std::array::from_fn(|k| &self.held[k * WIDTH..k * WIDTH + width]);
            for (part, row) in panel.iter_mut().zip(coefficients.chunks(n_rows)) {
                let weights: [f64; GROUP] = std::array::from_fn(|k| if k < size { row[first + k] } else { 0.0 });
                match isa.kind() {
                    Kind::Portable => add_group(part, weights, sources, |c, x, sum| c * x + sum),
                    _ => dispatch(isa, || add_group(part, weights, sources, f64::mul_add)),
                }
            }
        }
        Ok(())
    }
}

#[inline(always)]
fn add_group(
    part: &mut [f64],
    weights: [f64; GROUP],
    sources: [&[f64]; GROUP],
    multiply_add: impl Fn(f64, f64, f64) -> f64,
) {
    let [a, b, c, d] = sources.map(|source| &source[..part.len()]);
    for (i, sum) in part.iter_mut().enumerate() {
        let mut value = multiply_add(weights[0], a[i], *sum);
        value = multiply_add(weights[1], b[i], value);
        value = multiply_add(weights[2], c[i], value);
        *sum = multiply_add(weights[3], d[i], value);
    }
}
