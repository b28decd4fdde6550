//! Bootstrap resamples as multiplicities: how often each (seed, mini-batch) cluster is drawn.
//!
//! Draw `k` of resample `r` is a pure function of `(seed, r, k)` (SplitMix64's finaliser over a counter), so a resample
//! does not depend on which thread makes it nor on how many resamples are asked for.

use crate::error::{Error, Result};

const INCREMENT: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's output function (Steele, Lea & Flood, 2014): a bijection of 64 bits with full avalanche.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The draws of one resample.
struct Draws {
    key: u64,
    counter: u64,
}

impl Draws {
    fn new(seed: u64, resample: u64) -> Self {
        let key = mix(mix(seed.wrapping_add(INCREMENT)).wrapping_add(resample.wrapping_mul(INCREMENT)));
        Self { key, counter: 0 }
    }

    /// A uniform index below `n`; its bias is below `n / 2⁶⁴`.
    fn below(&mut self, n: usize) -> usize {
        self.counter = self.counter.wrapping_add(INCREMENT);
        let random = mix(self.key.wrapping_add(self.counter));
        ((u128::from(random) * n as u128) >> 64) as usize
    }
}

/// `n_resamples × n_clusters` multiplicities, row-major. Clusters are numbered seed by seed; seed `s` has
/// `group_sizes[s]` of them. `hierarchical`: draw as many seeds as there are, with replacement, and within each drawn
/// seed as many of its mini-batches as it has; otherwise every seed is kept and only its mini-batches are drawn.
///
/// # Errors
/// [`Error::Invalid`] when a seed has no cluster or there is no seed.
pub fn multiplicities(group_sizes: &[usize], n_resamples: usize, seed: u64, hierarchical: bool) -> Result<Vec<i32>> {
    if group_sizes.is_empty() || group_sizes.contains(&0) {
        return Err(Error::invalid("`group_sizes` must hold a positive number of mini-batches for each seed"));
    }
    let starts: Vec<usize> = group_sizes
        .iter()
        .scan(0, |start, &size| {
            let this = *start;
            *start += size;
            Some(this)
        })
        .collect();
    let n_clusters: usize = group_sizes.iter().sum();
    let mut counts = vec![0i32; n_resamples * n_clusters];
    for (resample, row) in counts.chunks_exact_mut(n_clusters).enumerate() {
        let mut draws = Draws::new(seed, resample as u64);
        for s in 0..group_sizes.len() {
            let drawn = if hierarchical { draws.below(group_sizes.len()) } else { s };
            for _ in 0..group_sizes[drawn] {
                row[starts[drawn] + draws.below(group_sizes[drawn])] += 1;
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_keeps_its_number_of_batches() {
        let counts = multiplicities(&[3, 5], 50, 7, false).expect("plan");
        for row in counts.chunks_exact(8) {
            assert_eq!((row[..3].iter().sum::<i32>(), row[3..].iter().sum::<i32>()), (3, 5));
        }
    }

    #[test]
    fn hierarchical_draws_whole_seeds() {
        let counts = multiplicities(&[4, 4, 4], 200, 1, true).expect("plan");
        let mut absent = 0;
        for row in counts.chunks_exact(12) {
            assert_eq!(row.iter().sum::<i32>(), 12);
            assert!(row.chunks_exact(4).all(|seed| seed.iter().sum::<i32>() % 4 == 0));
            absent += row.chunks_exact(4).filter(|seed| seed.iter().all(|&c| c == 0)).count();
        }
        // A seed is absent with probability (2/3)³ ≈ 0.296: 178 of 600 expected, standard deviation about 11.
        assert!((120..240).contains(&absent), "{absent}");
    }

    #[test]
    fn a_prefix_does_not_depend_on_the_number_of_resamples() {
        let (few, many) = (multiplicities(&[3, 2], 5, 3, true), multiplicities(&[3, 2], 9, 3, true));
        assert_eq!(few.expect("plan"), many.expect("plan")[..25]);
    }

    #[test]
    fn draws_are_uniform() {
        let mut draws = Draws::new(11, 0);
        let mut histogram = [0f64; 7];
        (0..70_000).for_each(|_| histogram[draws.below(7)] += 1.0);
        let chi_squared: f64 = histogram.iter().map(|c| (c - 1e4).powi(2) / 1e4).sum();
        // 6 degrees of freedom: P(χ² > 33) < 1e-5.
        assert!(chi_squared < 33.0, "{chi_squared}");
    }

    #[test]
    fn empty_groups_are_refused() {
        assert!(multiplicities(&[], 1, 0, true).is_err() && multiplicities(&[2, 0], 1, 0, true).is_err());
    }
}
