//! Richardson extrapolation of a ladder of step sizes.

use crate::error::{Error, Result};

/// What a ladder says about each element.
#[derive(Clone, Debug)]
pub struct Extrapolation {
    /// Extrapolated value of each element.
    pub value: Vec<f64>,
    /// Estimate of its error: the larger of the differences to its two parents in the tableau.
    pub error: Vec<f64>,
    /// Observed order, from the three consecutive levels that end where the value was taken; NaN where the differences
    /// do not shrink or there are fewer than three levels.
    pub observed_order: Vec<f64>,
}

/// Extrapolate `ladder` (`n_levels × n`, row-major; level `k` computed with step `ε / ratio^k`) to step 0, assuming an
/// error expansion in powers `order`, `order + increment`, `order + 2 increment`, …: Neville's recursion
/// `T[k][m] = T[k][m−1] + (T[k][m−1] − T[k−1][m−1]) / (ratio^{p_m} − 1)`. Among all entries the one with the smallest
/// error estimate is the value, so rounding at small steps does no harm.
///
/// # Errors
/// [`Error::Invalid`]: fewer than two levels, a length that is not `n_levels · n`, `ratio ≤ 1`, or no positive order.
pub fn richardson(ladder: &[f64], n_levels: usize, ratio: f64, order: f64, increment: f64) -> Result<Extrapolation> {
    if n_levels < 2 {
        return Err(Error::invalid(format!("a Richardson ladder needs at least 2 steps; got {n_levels}")));
    }
    if !ladder.len().is_multiple_of(n_levels) {
        return Err(Error::invalid(format!("`ladder` must have {n_levels} equal levels; got {} values", ladder.len())));
    }
    if !(ratio.is_finite() && ratio > 1.0 && order > 0.0 && increment > 0.0) {
        return Err(Error::invalid("`ratio` must exceed 1, `order` and `increment` must be positive"));
    }
    let n = ladder.len() / n_levels;
    let mut result = Extrapolation { value: vec![0.0; n], error: vec![0.0; n], observed_order: vec![0.0; n] };
    let gains: Vec<f64> = (0..n_levels).map(|m| ratio.powf(order + increment * m as f64) - 1.0).collect();
    let mut levels = vec![0.0; n_levels];
    for element in 0..n {
        levels.iter_mut().enumerate().for_each(|(k, v)| *v = ladder[k * n + element]);
        let (value, error, last) = extrapolate(&levels, &gains);
        result.value[element] = value;
        result.error[element] = error;
        result.observed_order[element] = observed_order(&levels, last.max(2), ratio);
    }
    Ok(result)
}

/// Value, error estimate, and the level that it was taken at.
fn extrapolate(levels: &[f64], gains: &[f64]) -> (f64, f64, usize) {
    let mut previous = vec![levels[0]];
    let mut best = (f64::NAN, f64::INFINITY, 1);
    for (k, &level) in levels.iter().enumerate().skip(1) {
        let mut row = vec![level];
        for m in 0..k {
            let next = row[m] + (row[m] - previous[m]) / gains[m];
            let error = (next - row[m]).abs().max((next - previous[m]).abs());
            if error < best.1 {
                best = (next, error, k);
            }
            row.push(next);
        }
        previous = row;
    }
    best
}

fn observed_order(levels: &[f64], last: usize, ratio: f64) -> f64 {
    if levels.len() < 3 {
        return f64::NAN;
    }
    let coarse = (levels[last - 2] - levels[last - 1]).abs();
    let fine = (levels[last - 1] - levels[last]).abs();
    if coarse > fine && fine > 0.0 { (coarse / fine).ln() / ratio.ln() } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivative_of_the_exponential() {
        let steps: Vec<f64> = (0..6).map(|k| 0.5 / 2f64.powi(k)).collect();
        let ladder: Vec<f64> = steps.iter().map(|h| (h.exp() - (-h).exp()) / (2.0 * h)).collect();
        let result = richardson(&ladder, 6, 2.0, 2.0, 2.0).expect("runs");
        assert!((result.value[0] - 1.0).abs() < 1e3 * f64::EPSILON, "{}", result.value[0]);
        assert!((result.value[0] - 1.0).abs() <= result.error[0].max(4.0 * f64::EPSILON / steps[5]));
        assert!((result.observed_order[0] - 2.0).abs() < 0.02);
    }

    #[test]
    fn one_step_of_a_quadratic_error_is_exact() {
        let result = richardson(&[3.0 + 4.0, 3.0 + 1.0], 2, 2.0, 2.0, 2.0).expect("runs");
        assert_eq!((result.value[0], result.observed_order[0].is_nan()), (3.0, true));
    }

    #[test]
    fn bad_ladders_are_refused() {
        assert!(richardson(&[1.0], 1, 2.0, 2.0, 2.0).is_err());
        assert!(richardson(&[1.0; 3], 2, 2.0, 2.0, 2.0).is_err());
        assert!(richardson(&[1.0; 4], 2, 1.0, 2.0, 2.0).is_err());
    }
}
