//! The Lie derivative of an influence matrix along `(t, τ) → (t + s, τ + s)`.

use std::collections::BTreeMap;

use super::binning::Labels;
use crate::error::{Error, Result};
use crate::finite_difference::weights::first_derivative_weights;

/// Row or column indices of one trajectory in order of time, with the common spacing of the times (0 for one time).
struct Track {
    indices: Vec<usize>,
    spacing: i64,
}

fn tracks(labels: &Labels<'_>) -> Result<Vec<Track>> {
    let mut by_group: BTreeMap<i64, Vec<(i64, usize)>> = BTreeMap::new();
    for (index, (&group, &time)) in labels.group.iter().zip(labels.time).enumerate() {
        by_group.entry(group).or_default().push((time, index));
    }
    let make = |(group, mut entries): (i64, Vec<(i64, usize)>)| {
        entries.sort_unstable();
        let steps = || entries.windows(2).map(|w| w[1].0 - w[0].0);
        let spacing = steps().next().unwrap_or(0);
        if steps().any(|step| step != spacing || step == 0) {
            return Err(Error::invalid(format!(
                "the time-translation defect needs equally spaced, distinct times; trajectory {group} has others"
            )));
        }
        Ok(Track { indices: entries.into_iter().map(|e| e.1).collect(), spacing })
    };
    by_group.into_iter().map(make).collect()
}

/// `‖𝓛_t H‖_F / ‖H‖_F`: for each pair of trajectories the derivative of `H` along the diagonals of its `(t, τ)` block,
/// per time step of the labels, by differences of order `accuracy_order` (2, 4 or 6): central inside, one-sided at the
/// ends, of lower order on diagonals too short for it. Both norms run over the entries where the derivative exists: on
/// diagonals of at least two entries, with no NaN in the stencil. NaN when there is none or `H` vanishes there.
/// A matrix that depends on `t − τ` alone within each pair has defect 0.
///
/// # Errors
/// [`Error::Invalid`]: shapes disagree, an unknown order, times that are not equally spaced, or rows and columns whose
/// spacings differ.
pub fn translation_defect(values: &[f64], rows: Labels<'_>, columns: Labels<'_>, accuracy_order: usize) -> Result<f64> {
    super::binning::Block { values, rows, columns, distance: None, cluster: 0 }.check()?;
    if ![2, 4, 6].contains(&accuracy_order) {
        return Err(Error::invalid(format!("`accuracy_order` must be 2, 4 or 6; got {accuracy_order}")));
    }
    let n_columns = columns.group.len();
    let (row_tracks, column_tracks) = (tracks(&rows)?, tracks(&columns)?);
    let (mut derivative, mut norm) = (0.0, 0.0);
    for r in &row_tracks {
        for c in &column_tracks {
            let (n, m) = (r.indices.len(), c.indices.len());
            if n < 2 || m < 2 {
                continue;
            }
            if r.spacing != c.spacing {
                return Err(Error::invalid(format!(
                    "the time-translation defect needs one time spacing; got {} and {}",
                    r.spacing, c.spacing
                )));
            }
            let starts = (0..n).map(|a| (a, 0)).chain((1..m).map(|b| (0, b)));
            for (a, b) in starts {
                let length = (n - a).min(m - b);
                let diagonal: Vec<f64> =
                    (0..length).map(|k| values[r.indices[a + k] * n_columns + c.indices[b + k]]).collect();
                add_diagonal(&diagonal, accuracy_order, r.spacing as f64, &mut derivative, &mut norm);
            }
        }
    }
    Ok(if norm > 0.0 { (derivative / norm).sqrt() } else { f64::NAN })
}

fn add_diagonal(h: &[f64], accuracy_order: usize, spacing: f64, derivative: &mut f64, norm: &mut f64) {
    let width = h.len().min(accuracy_order + 1);
    if width < 2 {
        return;
    }
    for k in 0..h.len() {
        let first = k.saturating_sub(width / 2).min(h.len() - width);
        let stencil = &h[first..first + width];
        if stencil.iter().any(|v| v.is_nan()) {
            continue;
        }
        // Differences from the centre vanish exactly on a constant diagonal, whatever the rounding of the weights.
        let weights = first_derivative_weights(width, k - first);
        let slope = stencil.iter().zip(&weights).map(|(v, w)| w * (v - h[k])).sum::<f64>() / spacing;
        *derivative += slope * slope;
        *norm += h[k] * h[k];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(n_trajectories: i64, n_times: i64) -> (Vec<i64>, Vec<i64>) {
        let all = |f: fn(i64, i64) -> i64| (0..n_trajectories * n_times).map(|k| f(k, n_times)).collect();
        (all(|k, n| k / n), all(|k, n| k % n + 1))
    }

    fn defect(n_times: i64, order: usize, h: impl Fn(f64, f64) -> f64) -> f64 {
        let (group, time) = grid(2, n_times);
        let labels = Labels { group: &group, time: &time };
        let values: Vec<f64> =
            time.iter().flat_map(|&t| time.iter().map(move |&s| (t, s))).map(|(t, s)| h(t as f64, s as f64)).collect();
        translation_defect(&values, labels, labels, order).expect("runs")
    }

    #[test]
    fn toeplitz_has_no_defect() {
        for order in [2, 4, 6] {
            assert_eq!(defect(9, order, |t, s| 1.0 / (1.0 + (t - s).abs()) + 0.1 * (t - s)), 0.0);
        }
    }

    #[test]
    fn polynomials_are_differentiated_exactly() {
        // H = t + τ: the derivative along (1, 1) is 2 everywhere; the norm leaves out diagonals of one entry.
        let (mut squares, mut count) = (0.0, 0.0);
        for t in 1..=5 {
            for s in 1..=5 {
                if i32::abs(t - s) < 4 {
                    squares += f64::from((t + s) * (t + s));
                    count += 1.0;
                }
            }
        }
        let expected = 2.0 * f64::sqrt(count / squares);
        for order in [2, 4, 6] {
            assert!((defect(5, order, |t, s| t + s) - expected).abs() < 64.0 * f64::EPSILON * expected);
        }
    }

    #[test]
    fn irregular_times_are_refused() {
        let labels = Labels { group: &[0, 0, 0], time: &[1, 2, 4] };
        assert!(translation_defect(&[0.0; 9], labels, labels, 2).is_err());
        let labels = Labels { group: &[0, 0], time: &[1, 1] };
        assert!(translation_defect(&[0.0; 4], labels, labels, 2).is_err());
        let labels = Labels { group: &[0, 0], time: &[1, 2] };
        assert!(translation_defect(&[0.0; 4], labels, labels, 3).is_err());
    }
}
