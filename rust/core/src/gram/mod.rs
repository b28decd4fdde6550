//! Contractions over very long rows: `gram` computes `a aᵀ`, `cross_gram` `a bᵀ`, in `f64`; `combine_into` adds
//! combinations of them.
//!
//! The output is cut into tiles and the contraction into slabs, by the shapes alone (`plan`). A worker packs a panel
//! of a slab (all rows of a tile, 4 KiB of each) while widening it to the product type, runs register tiles over it
//! (`kernel`) and prefetches the next panel meanwhile; every panel's sums go on in `f64`. Partial tiles are added in
//! slab order (`ordered`). The bits depend on the machine's instruction set, not on the number of threads.
//!
//! A call holds, beyond its arguments and result: per worker the packed panels (4 KiB a row, ≤ 1,020 rows a side) and,
//! for files, ≤ 32 MiB read ahead a side (and 8 KiB a row); at most `2·workers + 2` partial tiles of
//! `8·min(n, 1020)·min(m, 1020)` bytes and one more for their sum. Workers are the threads; for files that are read, up
//! to 8 more.

mod combine;
mod direct;
mod element;
mod file;
mod kernel;
mod lanes;
mod ordered;
mod plan;
mod source;
#[cfg(test)]
mod tests;
mod unit;

pub use combine::combine_into;
pub use element::Element;
pub use file::FileMatrix;
pub use source::{Destination, ReadAhead, Rows, SliceRows, Stacked};

use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::pool::{Progress, pool};
use ordered::Ordered;
use plan::{Block, Plan};
use unit::{Packed, Worker, add, partial_length, position};

/// Most workers beyond the threads of the pool that files are read with: while some wait for the disk, others compute.
const MAX_WAITING: usize = 8;

/// How products are taken. The sums are `f64` in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Products and sums in `f64`: products of 32-bit and narrower storage are exact.
    #[default]
    Float64,
    /// `f32` products, added in `f32` in chains of 32; the few chains of a panel and the lanes of a register as well, then
    /// in `f64`.
    Float32,
}

/// `a aᵀ`, row-major, `n × n`: one triangle is computed and mirrored.
///
/// # Errors
/// [`Error::Invalid`] when `out` has the wrong length, [`Error::Io`] from a file, [`Error::Interrupted`].
pub fn gram(a: &dyn Rows, products: Products, out: &mut [f64], progress: &Progress) -> Result<()> {
    contract((a, a), true, products, Isa::best(), out, progress)
}

/// `a bᵀ`, row-major, `n × m`.
///
/// # Errors
/// [`Error::Invalid`] when the columns differ or `out` has the wrong length, [`Error::Io`] from a file,
/// [`Error::Interrupted`].
pub fn cross_gram(a: &dyn Rows, b: &dyn Rows, products: Products, out: &mut [f64], progress: &Progress) -> Result<()> {
    contract((a, b), false, products, Isa::best(), out, progress)
}

fn contract(
    sources: (&dyn Rows, &dyn Rows),
    symmetric: bool,
    products: Products,
    isa: Isa,
    out: &mut [f64],
    progress: &Progress,
) -> Result<()> {
    let ((n_a, k), (n_b, k_b)) = (sources.0.shape(), sources.1.shape());
    if k != k_b {
        return Err(Error::invalid(format!("`a` and `b` must have rows of the same length; got {k} and {k_b}")));
    }
    if n_a.checked_mul(n_b) != Some(out.len()) {
        return Err(Error::invalid(format!("`out` must have {n_a} x {n_b} elements; got {}", out.len())));
    }
    match products {
        Products::Float64 => contract_in::<f64>(sources, symmetric, isa, out, progress),
        Products::Float32 => contract_in::<f32>(sources, symmetric, isa, out, progress),
    }
}

fn contract_in<P: Packed>(
    sources: (&dyn Rows, &dyn Rows),
    symmetric: bool,
    isa: Isa,
    out: &mut [f64],
    progress: &Progress,
) -> Result<()> {
    let ((n_a, n_columns), (n_b, _)) = (sources.0.shape(), sources.1.shape());
    out.fill(0.0);
    let plan = Plan::new(n_a, n_b, symmetric, n_columns, P::WIDTH);
    let length = plan.blocks.iter().map(|block| partial_length(block.a.len(), block.b.len())).max().unwrap_or(0);
    let rows = P::kernel(isa).rows;
    let mut sum = vec![0.0; length];
    let fold = |unit: usize, partial: &[f64]| {
        let (block, slab) = plan.unit(unit);
        if slab.start == 0 {
            sum.fill(0.0);
        }
        add(block, rows, partial, &mut sum);
        if slab.end == n_columns {
            scatter(&sum, block, symmetric, n_b, rows, out);
        }
    };
    let n_threads = rayon::current_num_threads();
    let waits = sources.0.waits() || sources.1.waits();
    let n_workers = if waits { n_threads + n_threads.min(MAX_WAITING) } else { n_threads };
    let ordered = Ordered::new(plan.n_units(), length, 2 * n_workers + 2, fold);
    let all = || {
        let ended = rayon::broadcast(|_| {
            let mut worker = Worker::<P>::new(isa);
            ordered.work(|unit, partial| {
                let (block, slab) = plan.unit(unit);
                worker.run(sources, block, slab, partial, progress)
            })
        });
        ended.into_iter().collect()
    };
    if waits { pool(Some(n_workers))?.install(all) } else { all() }
}

/// Write a summed tile to its place in the output, and mirror it when the output is symmetric.
fn scatter(sum: &[f64], block: &Block, symmetric: bool, n_b: usize, rows: usize, out: &mut [f64]) {
    for i in 0..block.a.len() {
        let end = if block.diagonal { i + 1 } else { block.b.len() };
        for j in 0..end {
            let value = sum[position(i, j, block.b.len(), rows)];
            let (row, column) = (block.a.start + i, block.b.start + j);
            out[row * n_b + column] = value;
            if symmetric {
                out[column * n_b + row] = value;
            }
        }
    }
}
