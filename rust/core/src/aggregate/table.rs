//! The entries of every bin, pooled over blocks and sorted once; and per-block sums.

use rayon::prelude::*;

use super::binning::{Binning, Block};
use super::quantile::quantile_sorted;
use crate::error::Result;
use crate::pool::Progress;

/// One bin's entries in increasing order, each with the cluster that it came from.
#[derive(Clone, Debug, Default)]
pub struct Bin {
    /// Entries, increasing.
    pub values: Vec<f64>,
    /// Cluster of each entry.
    pub clusters: Vec<u32>,
}

/// Sorted bins of many blocks.
#[derive(Clone, Debug)]
pub struct Table {
    /// One per bin of the binning.
    pub bins: Vec<Bin>,
}

/// Entries of one block grouped by bin, in row-major order within a bin.
struct Grouped {
    starts: Vec<usize>,
    values: Vec<f64>,
    cluster: u32,
}

fn group(block: &Block<'_>, binning: &Binning<'_>) -> Grouped {
    let n_bins = binning.n_bins();
    let mut starts = vec![0usize; n_bins + 1];
    binning.visit(block, |bin, _| starts[bin + 1] += 1);
    for bin in 0..n_bins {
        starts[bin + 1] += starts[bin];
    }
    let mut next = starts.clone();
    let mut values = vec![0.0; starts[n_bins]];
    binning.visit(block, |bin, value| {
        values[next[bin]] = value;
        next[bin] += 1;
    });
    Grouped { starts, values, cluster: block.cluster }
}

/// The bits of a float as an unsigned integer that sorts as `f64::total_cmp` does.
fn sort_key(value: f64) -> u64 {
    let bits = value.to_bits();
    bits ^ (((bits as i64 >> 63) as u64) | (1 << 63))
}

fn value_of(key: u64) -> f64 {
    f64::from_bits(key ^ (((!key as i64 >> 63) as u64) | (1 << 63)))
}

impl Table {
    /// Pool the entries of all blocks.
    ///
    /// # Errors
    /// [`crate::error::Error::Invalid`] for blocks that do not fit the binning, `Interrupted` when asked to stop.
    pub fn pooled(blocks: &[Block<'_>], binning: &Binning<'_>, progress: &Progress) -> Result<Self> {
        blocks.iter().try_for_each(|block| binning.check(block))?;
        let grouped = blocks
            .par_iter()
            .map(|block| progress.check().map(|()| group(block, binning)))
            .collect::<Result<Vec<_>>>()?;
        let bins = (0..binning.n_bins())
            .into_par_iter()
            .map(|bin| {
                progress.check()?;
                let mut entries = Vec::with_capacity(grouped.iter().map(|g| g.starts[bin + 1] - g.starts[bin]).sum());
                for g in &grouped {
                    let run = &g.values[g.starts[bin]..g.starts[bin + 1]];
                    entries.extend(run.iter().map(|&value| (sort_key(value), g.cluster)));
                }
                entries.sort_unstable();
                let (keys, clusters): (Vec<u64>, Vec<u32>) = entries.into_iter().unzip();
                Ok(Bin { values: keys.into_iter().map(value_of).collect(), clusters })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { bins })
    }

    /// `quantiles.len() × n_bins` quantiles, row-major; NaN where a bin is empty.
    pub fn quantiles(&self, quantiles: &[f64]) -> Vec<f64> {
        let of = |q: f64| self.bins.iter().map(move |bin| quantile_sorted(&bin.values, q));
        quantiles.iter().flat_map(|&q| of(q)).collect()
    }

    /// Entries in each bin.
    pub fn counts(&self) -> Vec<u64> {
        self.bins.iter().map(|bin| bin.values.len() as u64).collect()
    }
}

/// Per block and bin: sum and number of the entries, both `n_blocks × n_bins`, row-major.
#[derive(Clone, Debug)]
pub struct Sums {
    /// Sums, 0 where a bin is empty.
    pub sums: Vec<f64>,
    /// Number of entries.
    pub counts: Vec<u64>,
}

/// Sums over the entries of each bin, block by block.
///
/// # Errors
/// As [`Table::pooled`].
pub fn bin_sums(blocks: &[Block<'_>], binning: &Binning<'_>, progress: &Progress) -> Result<Sums> {
    blocks.iter().try_for_each(|block| binning.check(block))?;
    let per_block = blocks
        .par_iter()
        .map(|block| {
            let mut sums = vec![0.0; binning.n_bins()];
            let mut counts = vec![0u64; binning.n_bins()];
            binning.visit(block, |bin, value| {
                sums[bin] += value;
                counts[bin] += 1;
            });
            progress.advance(1).map(|()| (sums, counts))
        })
        .collect::<Result<Vec<_>>>()?;
    let (sums, counts): (Vec<_>, Vec<_>) = per_block.into_iter().unzip();
    Ok(Sums { sums: sums.concat(), counts: counts.concat() })
}

#[cfg(test)]
mod tests {
    use super::super::binning::Labels;
    use super::*;

    #[test]
    fn keys_sort_as_floats() {
        let values = [f64::NEG_INFINITY, -2.5, -0.0, 0.0, 1e-300, 3.0, f64::INFINITY];
        assert!(values.windows(2).all(|w| sort_key(w[0]) < sort_key(w[1])));
        assert!(values.iter().all(|&v| value_of(sort_key(v)).to_bits() == v.to_bits()));
    }

    #[test]
    fn nan_is_left_out_of_quantiles_and_sums() {
        let labels = Labels { group: &[0, 0], time: &[0, 1] };
        let values = [1.0, f64::NAN, 2.0, 4.0];
        let block = Block { values: &values, rows: labels, columns: labels, distance: None, cluster: 0 };
        let binning = Binning::Class { n_classes: 1, same_time: false };
        let progress = Progress::default();
        let table = Table::pooled(&[block], &binning, &progress).expect("bins");
        assert_eq!((table.quantiles(&[0.0, 0.5]), table.counts()), (vec![1.0, 2.0], vec![3]));
        let sums = bin_sums(&[block], &binning, &progress).expect("bins");
        assert_eq!((sums.sums, sums.counts), (vec![7.0], vec![3]));
    }
}
