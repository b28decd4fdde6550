//! Which bin an entry of an influence matrix belongs to.

use crate::error::{Error, Result};

/// Labels of the rows or of the columns of one block. What `group` means is up to the binning: trajectory for
/// [`Binning::TwoTime`], initial-condition class for the others.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Trajectory or class of each example.
    pub group: &'a [i64],
    /// Transition index of each example (for [`Binning::TwoTime`]: its position on the common time axis).
    pub time: &'a [i64],
}

impl Labels<'_> {
    fn check(&self, name: &str) -> Result<usize> {
        if self.group.len() == self.time.len() {
            Ok(self.group.len())
        } else {
            let (g, t) = (self.group.len(), self.time.len());
            Err(Error::invalid(format!("{name} labels must have one length; got {g} groups and {t} times")))
        }
    }
}

/// One influence matrix with its labels.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Row-major `n_response × n_perturbation` entries.
    pub values: &'a [f64],
    /// Labels of the rows (responses).
    pub rows: Labels<'a>,
    /// Labels of the columns (perturbations).
    pub columns: Labels<'a>,
    /// Distance between the inputs of `i` and `j`, laid out as `values`; only [`Binning::Distance`] reads it.
    pub distance: Option<&'a [f64]>,
    /// The unit of resampling that the block belongs to: its (seed, mini-batch).
    pub cluster: u32,
}

impl Block<'_> {
    /// Whether the lengths agree.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they do not.
    pub fn check(&self) -> Result<()> {
        let (n_rows, n_columns) = (self.rows.check("row")?, self.columns.check("column")?);
        if self.values.len() != n_rows * n_columns {
            let got = self.values.len();
            return Err(Error::invalid(format!(
                "a block of {n_rows} × {n_columns} examples cannot hold {got} entries"
            )));
        }
        if self.distance.is_some_and(|d| d.len() != self.values.len()) {
            return Err(Error::invalid("`distance` must have the shape of `values`"));
        }
        Ok(())
    }
}

/// A partition of the entries `(i, j)` into bins; entries outside every bin are left out.
#[derive(Clone, Copy, Debug)]
pub enum Binning<'a> {
    /// Bin `time_i · n_times + time_j` for pairs of the same group.
    TwoTime {
        /// Length of the common time axis.
        n_times: usize,
    },
    /// Bin `max_lag + time_i − time_j` for pairs of the same group, the same plus `2 max_lag + 1` for other pairs.
    Lag {
        /// Largest |lag| kept.
        max_lag: usize,
    },
    /// Bin `group_i · n_classes + group_j`.
    Class {
        /// Number of classes.
        n_classes: usize,
        /// Keep only pairs with equal times.
        same_time: bool,
    },
    /// Bin `k` holds the distances in `[edges[k], edges[k + 1])`, the last one closed.
    Distance {
        /// Strictly increasing edges.
        edges: &'a [f64],
    },
    /// Bin `j`: every column is a bin of its own.
    Column {
        /// Number of columns.
        n_columns: usize,
    },
}

impl Binning<'_> {
    /// Number of bins.
    pub fn n_bins(&self) -> usize {
        match *self {
            Binning::TwoTime { n_times } => n_times * n_times,
            Binning::Lag { max_lag } => 2 * (2 * max_lag + 1),
            Binning::Class { n_classes, .. } => n_classes * n_classes,
            Binning::Distance { edges } => edges.len().saturating_sub(1),
            Binning::Column { n_columns } => n_columns,
        }
    }

    /// Whether the block can be binned: lengths, label ranges, distances where they are needed.
    ///
    /// # Errors
    /// [`Error::Invalid`] otherwise.
    pub fn check(&self, block: &Block<'_>) -> Result<()> {
        block.check()?;
        let within = |labels: &[i64], n: usize| labels.iter().all(|&l| usize::try_from(l).is_ok_and(|l| l < n));
        let fits = match *self {
            Binning::TwoTime { n_times } => within(block.rows.time, n_times) && within(block.columns.time, n_times),
            Binning::Class { n_classes, .. } => {
                within(block.rows.group, n_classes) && within(block.columns.group, n_classes)
            }
            Binning::Distance { edges } => {
                if !edges.windows(2).all(|w| w[0] < w[1]) {
                    return Err(Error::invalid("`edges` must increase strictly"));
                }
                block.distance.is_some()
            }
            Binning::Column { n_columns } => block.columns.group.len() == n_columns,
            Binning::Lag { .. } => true,
        };
        if fits { Ok(()) } else { Err(Error::invalid("labels of a block lie outside the bins")) }
    }

    /// Call `visit(bin, value)` for every binned entry that is not NaN, in row-major order. The block must have passed
    /// [`Binning::check`].
    pub fn visit(&self, block: &Block<'_>, mut visit: impl FnMut(usize, f64)) {
        let n_columns = block.columns.group.len();
        if n_columns == 0 {
            return;
        }
        for (i, row) in block.values.chunks_exact(n_columns).enumerate() {
            let (group, time) = (block.rows.group[i], block.rows.time[i]);
            let distances = block.distance.map(|d| &d[i * n_columns..(i + 1) * n_columns]);
            for (j, &value) in row.iter().enumerate() {
                if value.is_nan() {
                    continue;
                }
                let (other, earlier) = (block.columns.group[j], block.columns.time[j]);
                let bin = match *self {
                    Binning::TwoTime { n_times } => {
                        (group == other).then(|| time as usize * n_times + earlier as usize)
                    }
                    Binning::Lag { max_lag } => lag_bin(time, earlier, max_lag)
                        .map(|bin| if group == other { bin } else { bin + 2 * max_lag + 1 }),
                    Binning::Class { n_classes, same_time } => {
                        (!same_time || time == earlier).then(|| group as usize * n_classes + other as usize)
                    }
                    Binning::Distance { edges } => distances.and_then(|d| distance_bin(d[j], edges)),
                    Binning::Column { .. } => Some(j),
                };
                if let Some(bin) = bin {
                    visit(bin, value);
                }
            }
        }
    }
}

fn lag_bin(time: i64, earlier: i64, max_lag: usize) -> Option<usize> {
    let shifted = time.checked_sub(earlier)?.checked_add(max_lag as i64)?;
    usize::try_from(shifted).ok().filter(|&bin| bin <= 2 * max_lag)
}

fn distance_bin(distance: f64, edges: &[f64]) -> Option<usize> {
    let last = *edges.last()?;
    if distance == last {
        return edges.len().checked_sub(2);
    }
    if distance < last { edges.partition_point(|&edge| edge <= distance).checked_sub(1) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_bins_are_centred_and_bounded() {
        assert_eq!(lag_bin(5, 5, 2), Some(2));
        assert_eq!(lag_bin(3, 5, 2), Some(0));
        assert_eq!(lag_bin(7, 5, 2), Some(4));
        assert_eq!(lag_bin(8, 5, 2), None);
        assert_eq!(lag_bin(i64::MAX, -1, 2), None);
    }

    #[test]
    fn distance_bins_are_half_open_with_a_closed_end() {
        let edges = [1.0, 2.0, 4.0];
        let bins: Vec<_> = [0.5, 1.0, 1.9, 2.0, 4.0, 4.1, f64::NAN].iter().map(|&d| distance_bin(d, &edges)).collect();
        assert_eq!(bins, [None, Some(0), Some(0), Some(1), Some(1), None, None]);
        assert_eq!(distance_bin(1.0, &[]), None);
        assert_eq!(distance_bin(1.0, &[1.0]), None);
    }

    #[test]
    fn labels_outside_the_bins_are_refused() {
        let rows = Labels { group: &[0, 3], time: &[0, 1] };
        let block = Block { values: &[0.0; 4], rows, columns: rows, distance: None, cluster: 0 };
        assert!(Binning::Class { n_classes: 3, same_time: true }.check(&block).is_err());
        assert!(Binning::Class { n_classes: 4, same_time: true }.check(&block).is_ok());
        assert!(Binning::Distance { edges: &[0.0, 1.0] }.check(&block).is_err());
    }
}
