//! Medians of the pooled entries under every resample, without resampling: a resample only changes the integer weights
//! of clusters, so one sorted pass over a bin finds the weighted medians of many resamples at once.

use rayon::prelude::*;

use super::quantile::interpolate;
use super::table::{Bin, Table};
use crate::error::{Error, Result};
use crate::pool::Progress;

/// Resamples that one pass over a bin serves: the accumulators fill a few vector registers.
const LANES: usize = 16;
/// Entries between two looks at how far the lanes are from their medians.
const STRIDE: usize = 16;

type Lane = [i32; LANES];

/// `n_resamples × n_bins` medians, row-major: the median of each bin's entries when entry `e` counts as often as
/// `multiplicities[r, cluster(e)]` says; NaN where nothing counts. `multiplicities` is `n_resamples × n_clusters`.
///
/// # Errors
/// [`Error::Invalid`] for negative or too large multiplicities or unknown clusters, `Interrupted` when asked to stop.
pub fn bootstrap_medians(
    table: &Table,
    multiplicities: &[i32],
    n_clusters: usize,
    progress: &Progress,
) -> Result<Vec<f64>> {
    if n_clusters == 0 || !multiplicities.len().is_multiple_of(n_clusters) {
        return Err(Error::invalid("`multiplicities` must have one column per cluster"));
    }
    if table.bins.iter().any(|bin| bin.clusters.iter().any(|&c| c as usize >= n_clusters)) {
        return Err(Error::invalid("`multiplicities` has fewer columns than there are clusters"));
    }
    let n_resamples = multiplicities.len() / n_clusters;
    let heaviest = multiplicities.iter().copied().max().unwrap_or(0);
    let longest = table.bins.iter().map(|bin| bin.values.len()).max().unwrap_or(0);
    if multiplicities.iter().any(|&m| m < 0) || i64::from(heaviest).saturating_mul(longest as i64) > i64::from(i32::MAX)
    {
        return Err(Error::invalid("`multiplicities` must be non-negative and their total in a bin below 2³¹"));
    }
    // Lane-major weights: weights[pass][cluster] holds the multiplicities of LANES consecutive resamples.
    let passes: Vec<Vec<Lane>> = multiplicities
        .chunks(LANES * n_clusters)
        .map(|rows| {
            let mut weights = vec![[0i32; LANES]; n_clusters];
            for (lane, row) in rows.chunks_exact(n_clusters).enumerate() {
                row.iter().zip(&mut weights).for_each(|(&m, w)| w[lane] = m);
            }
            weights
        })
        .collect();
    let n_bins = table.bins.len();
    let held: Vec<Vec<Held>> = table.bins.iter().map(|bin| cluster_sizes(bin, n_clusters)).collect();
    let units: Vec<(usize, usize)> = (0..passes.len()).flat_map(|p| (0..n_bins).map(move |b| (p, b))).collect();
    let medians = units
        .par_iter()
        .with_min_len(4)
        .map(|&(pass, bin)| {
            progress.advance(1)?;
            Ok(lane_medians(&table.bins[bin], &held[bin], &passes[pass]))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut out = vec![f64::NAN; n_resamples * n_bins];
    for (&(pass, bin), lanes) in units.iter().zip(&medians) {
        let first = pass * LANES;
        for (lane, &median) in lanes.iter().enumerate().take(n_resamples - first) {
            out[(first + lane) * n_bins + bin] = median;
        }
    }
    Ok(out)
}

/// A cluster and the number of a bin's entries that come from it.
type Held = (u32, i32);

/// The clusters that a bin has entries from.
fn cluster_sizes(bin: &Bin, n_clusters: usize) -> Vec<Held> {
    let mut sizes = vec![0; n_clusters];
    bin.clusters.iter().for_each(|&cluster| sizes[cluster as usize] += 1);
    (0..).zip(sizes).filter(|&(_, size)| size > 0).collect()
}

fn lane_medians(bin: &Bin, held: &[Held], weights: &[Lane]) -> [f64; LANES] {
    let found = find(&bin.clusters, held, weights);
    std::array::from_fn(|lane| {
        if found.total[lane] == 0 {
            return f64::NAN;
        }
        let (a, b) = (bin.values[found.lower[lane] as usize], bin.values[found.upper[lane] as usize]);
        if found.total[lane] % 2 == 1 { a } else { interpolate(a, b, 0.5) }
    })
}

/// Of each lane: the total weight of a bin's entries, and the indices of the two middle ones, equal if it is odd.
struct Found {
    total: Lane,
    lower: Lane,
    upper: Lane,
}

#[inline(always)]
fn find_body(clusters: &[u32], held: &[Held], weights: &[Lane]) -> Found {
    let mut total = [0i32; LANES];
    for &(cluster, size) in held {
        let weight = &weights[cluster as usize];
        for lane in 0..LANES {
            total[lane] += size * weight[lane];
        }
    }
    let lower = total.map(|total| (total - 1).max(0) / 2);
    // A lane without entries is done from the start.
    let upper = total.map(|total| if total == 0 { -1 } else { total / 2 });
    let (lower, upper) = select(clusters, weights, &lower, &upper);
    Found { total, lower, upper }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn find_avx2(clusters: &[u32], held: &[Held], weights: &[Lane]) -> Found {
    find_body(clusters, held, weights)
}

#[allow(unsafe_code)]
fn find(clusters: &[u32], held: &[Held], weights: &[Lane]) -> Found {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, the only thing that the callee asks for.
        return unsafe { find_avx2(clusters, held, weights) };
    }
    find_body(clusters, held, weights)
}

/// Index of the first entry whose cumulative weight exceeds `lower` and `upper`, lane by lane: the number of entries
/// whose cumulative weight does not. Runs of entries that leave every lane below are only added.
#[inline(always)]
fn select(clusters: &[u32], weights: &[Lane], lower: &Lane, upper: &Lane) -> (Lane, Lane) {
    let mut cumulative = [0i32; LANES];
    let (mut below_lower, mut below_upper) = ([0i32; LANES], [0i32; LANES]);
    for run in clusters.chunks(STRIDE) {
        let mut after = cumulative;
        for &cluster in run {
            let weight = &weights[cluster as usize];
            for lane in 0..LANES {
                after[lane] += weight[lane];
            }
        }
        if after.iter().zip(lower).all(|(c, l)| c <= l) {
            cumulative = after;
            for lane in 0..LANES {
                below_lower[lane] += run.len() as i32;
                below_upper[lane] += run.len() as i32;
            }
            continue;
        }
        for &cluster in run {
            let weight = &weights[cluster as usize];
            for lane in 0..LANES {
                cumulative[lane] += weight[lane];
                below_lower[lane] += i32::from(cumulative[lane] <= lower[lane]);
                below_upper[lane] += i32::from(cumulative[lane] <= upper[lane]);
            }
        }
        if cumulative.iter().zip(upper).all(|(c, u)| c > u) {
            break;
        }
    }
    (below_lower, below_upper)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::quantile::quantile_sorted;
    use super::*;

    fn repeated_median(bin: &Bin, row: &[i32]) -> f64 {
        let repeat = |(&v, &c): (&f64, &u32)| std::iter::repeat_n(v, row[c as usize] as usize);
        let pooled: Vec<f64> = bin.values.iter().zip(&bin.clusters).flat_map(repeat).collect();
        quantile_sorted(&pooled, 0.5)
    }

    proptest! {
        #[test]
        fn equals_the_median_of_the_repeated_entries(
            mut entries in prop::collection::vec((-5i32..5, 0u32..6), 0..300),
            rows in prop::collection::vec(prop::collection::vec(0i32..4, 6), 1..70),
        ) {
            entries.sort_unstable();
            let bin = Bin {
                values: entries.iter().map(|e| f64::from(e.0) * 0.3).collect(),
                clusters: entries.iter().map(|e| e.1).collect(),
            };
            let table = Table { bins: vec![Bin::default(), bin.clone()] };
            let medians = bootstrap_medians(&table, &rows.concat(), 6, &Progress::default()).expect("runs");
            for (row, pair) in rows.iter().zip(medians.chunks_exact(2)) {
                prop_assert!(pair[0].is_nan());
                let expected = repeated_median(&bin, row);
                prop_assert!(pair[1].to_bits() == expected.to_bits() || (pair[1].is_nan() && expected.is_nan()));
            }
        }
    }

    #[test]
    fn bad_multiplicities_are_refused() {
        let table = Table { bins: vec![Bin { values: vec![1.0, 2.0, 3.0], clusters: vec![0, 1, 0] }] };
        let progress = Progress::default();
        for bad in [vec![1, -1], vec![i32::MAX, 0], vec![1, 1, 1]] {
            assert!(bootstrap_medians(&table, &bad, 2, &progress).is_err());
        }
        assert!(bootstrap_medians(&table, &[1], 1, &progress).is_err());
    }
}
