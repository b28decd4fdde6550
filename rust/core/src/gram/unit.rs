//! One work unit: an output tile over a slab of the contraction, panel by panel.

use std::ops::Range;

use super::kernel::{Ahead, Kernel, MAX_TILE_ROWS, Product, TILE_COLUMNS};
use super::plan::Block;
use super::source::{Destination, ReadAhead, Rows};
use crate::error::Result;
use crate::isa::Isa;
use crate::pool::Progress;

/// Rows of the right panel that stay in the second-level cache while all rows of the left panel pass by.
const CACHED_ROWS: usize = 96;

/// Most parts that a row is prefetched in.
const MOST_PARTS: usize = 64;

/// Bytes of files that a worker holds, shared between its rows.
const READ_AHEAD_BYTES: usize = 32 << 20;

/// Least and most bytes read from a row of a file at once.
const READ_BYTES: Range<usize> = 32 << 10..1 << 20;

/// Packed rows of one group, zero beyond the last column. Rows beyond the last hold anything: what they are multiplied
/// into is never read.
struct Panel<P> {
    data: Vec<P>,
    start: usize,
    ahead: Vec<ReadAhead>,
}

impl<P: Product> Panel<P> {
    fn new() -> Self {
        Self { data: Vec::new(), start: 0, ahead: Vec::new() }
    }

    fn restart(&mut self, n_rows: usize, slab: &Range<usize>) {
        let padded = (n_rows + MAX_TILE_ROWS) * P::STRIDE + 64 / size_of::<P>();
        if self.data.len() < padded {
            self.data = vec![P::zeroed(); padded];
            self.start = self.data.as_ptr().align_offset(64).min(64 / size_of::<P>());
        }
        self.ahead.resize_with(n_rows, ReadAhead::default);
        let limit = (READ_AHEAD_BYTES / n_rows.max(1)).clamp(READ_BYTES.start, READ_BYTES.end);
        // Units are handed out in order, one to each worker.
        let soon = slab.start + rayon::current_num_threads() * slab.len();
        self.ahead.iter_mut().for_each(|ahead| ahead.restart(limit, slab.end, soon));
    }

    fn rows(&self) -> &[P] {
        &self.data[self.start..]
    }
}

/// How to hand a stretch of a packed row to a source.
pub(super) trait Packed: Product {
    fn destination(row: &mut [Self]) -> Destination<'_>;
}

impl Packed for f32 {
    fn destination(row: &mut [Self]) -> Destination<'_> {
        Destination::F32(row)
    }
}

impl Packed for f64 {
    fn destination(row: &mut [Self]) -> Destination<'_> {
        Destination::F64(row)
    }
}

impl<P: Packed> Panel<P> {
    fn pack(&mut self, source: &dyn Rows, rows: &Range<usize>, columns: &Range<usize>, isa: Isa) -> Result<()> {
        let packed = self.data[self.start..].chunks_exact_mut(P::STRIDE);
        for ((row, to), ahead) in rows.clone().zip(packed).zip(&mut self.ahead) {
            let (to, rest) = to.split_at_mut(columns.len());
            source.stretch(row, columns.start, P::destination(to), isa, ahead)?;
            rest.fill(P::zeroed());
        }
        Ok(())
    }
}

/// Memory of one worker: packed panels and what it has read ahead.
pub(super) struct Worker<P> {
    kernel: Kernel<P>,
    isa: Isa,
    a: Panel<P>,
    b: Panel<P>,
}

/// Elements of the partial tile of a block, register tile after register tile.
pub(super) fn partial_length(n_a: usize, n_b: usize) -> usize {
    n_a.next_multiple_of(MAX_TILE_ROWS) * n_b.next_multiple_of(TILE_COLUMNS)
}

impl<P: Packed> Worker<P> {
    pub(super) fn new(isa: Isa) -> Self {
        Self { kernel: P::kernel(isa), isa, a: Panel::new(), b: Panel::new() }
    }

    /// Add the contraction over `slab` of the rows of `block` to `partial`.
    pub(super) fn run(
        &mut self,
        sources: (&dyn Rows, &dyn Rows),
        block: &Block,
        slab: Range<usize>,
        partial: &mut [f64],
        progress: &Progress,
    ) -> Result<()> {
        self.a.restart(block.a.len(), &slab);
        if !block.diagonal {
            self.b.restart(block.b.len(), &slab);
        }
        let parts = parts(block, self.kernel.rows);
        for start in slab.clone().step_by(P::WIDTH) {
            let columns = start..(start + P::WIDTH).min(slab.end);
            self.a.pack(sources.0, &block.a, &columns, self.isa)?;
            if !block.diagonal {
                self.b.pack(sources.1, &block.b, &columns, self.isa)?;
            }
            let next = (columns.end < slab.end).then_some(columns.end);
            self.multiply(sources, block, next, parts, partial);
            progress.advance(1)?;
        }
        Ok(())
    }

    /// All register tiles of one packed panel. The rows of the next one are prefetched meanwhile, evenly: memory answers
    /// only so many requests at a time, and those beyond would hold up the kernel's own.
    fn multiply(
        &self,
        sources: (&dyn Rows, &dyn Rows),
        block: &Block,
        next: Option<usize>,
        parts: usize,
        partial: &mut [f64],
    ) {
        let rows = self.kernel.rows;
        let a = self.a.rows();
        let b = if block.diagonal { a } else { self.b.rows() };
        let n_strips = block.b.len().div_ceil(TILE_COLUMNS);
        let mut calls = 0;
        for (i, columns) in strips(block, rows) {
            for j in columns.step_by(TILE_COLUMNS) {
                let ahead = next.and_then(|column| ahead::<P>(sources, block, column, calls, parts));
                let at = (i / rows * n_strips + j / TILE_COLUMNS) * rows * TILE_COLUMNS;
                let (left, right) = (&a[i * P::STRIDE..], &b[j * P::STRIDE..]);
                self.kernel.run(left, right, ahead.unwrap_or_else(|| idle(a)), &mut partial[at..]);
                calls += 1;
            }
        }
    }
}

/// The first rows of the strips of `a` in the order in which they are multiplied, each with its columns.
fn strips(block: &Block, rows: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (n_a, n_b, diagonal) = (block.a.len(), block.b.len(), block.diagonal);
    (0..n_b).step_by(CACHED_ROWS).flat_map(move |start| {
        let end = (start + CACHED_ROWS).min(n_b);
        let first = if diagonal { start / rows * rows } else { 0 };
        (first..n_a).step_by(rows).map(move |i| (i, start..if diagonal { end.min(i + rows) } else { end }))
    })
}

/// Add the partial tile of a block to a sum of them: of a diagonal block, the register tiles that were computed.
pub(super) fn add(block: &Block, rows: usize, partial: &[f64], sum: &mut [f64]) {
    for (i, columns) in strips(block, rows) {
        let start = position(i, columns.start, block.b.len(), rows);
        let end = start + columns.len().div_ceil(TILE_COLUMNS) * rows * TILE_COLUMNS;
        sum[start..end].iter_mut().zip(&partial[start..end]).for_each(|(s, p)| *s += p);
    }
}

/// Parts to prefetch a row in, so that all rows take most of the kernel's calls: a power of two, for whole steps of bytes.
fn parts(block: &Block, rows: usize) -> usize {
    let n_calls: usize = strips(block, rows).map(|(_, columns)| columns.len().div_ceil(TILE_COLUMNS)).sum();
    1 << (n_calls / block.n_packed().max(1)).clamp(1, MOST_PARTS).ilog2()
}

/// The stretch of the next panel, from `column` on, that a call prefetches: a part of a row, those of `a` before those
/// of `b`.
fn ahead<P: Product>(
    sources: (&dyn Rows, &dyn Rows),
    block: &Block,
    column: usize,
    call: usize,
    parts: usize,
) -> Option<Ahead> {
    let (row, part) = (call / parts, call % parts);
    let (address, size) = if row < block.a.len() {
        sources.0.address(block.a.start + row, column)?
    } else if row < block.n_packed() {
        sources.1.address(block.b.start + row - block.a.len(), column)?
    } else {
        return None;
    };
    // A vector of the panel is 64 bytes with the widest registers; half-wide ones prefetch each line twice.
    let address = address.wrapping_add(part * (P::WIDTH * size / parts));
    Some(Ahead { address, step: (64 / size_of::<P>() * size / parts).max(1) })
}

/// Prefetch something that is in the cache already.
fn idle<P>(a: &[P]) -> Ahead {
    Ahead { address: a.as_ptr().cast(), step: 0 }
}

/// Element `(i, j)` of a block in its partial tile.
pub(super) fn position(i: usize, j: usize, n_b: usize, rows: usize) -> usize {
    let tile = i / rows * n_b.div_ceil(TILE_COLUMNS) + j / TILE_COLUMNS;
    (tile * rows + i % rows) * TILE_COLUMNS + j % TILE_COLUMNS
}
