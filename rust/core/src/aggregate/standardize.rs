//! Common scales for the rows of influence matrices.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::pool::Progress;

/// What an entry `H[i, j]` is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standardization {
    /// Sample standard deviation (ddof 1) of row `i`.
    Standard,
    /// `√(H[i, i] H[j, j])`.
    Cosine,
    /// Mean of the diagonal.
    Trace,
    /// `H[i, i]`.
    ByResponse,
    /// `H[j, j]`.
    ByPerturbation,
    /// Loss of the response example.
    Loss,
    /// One.
    None,
}

const NAMES: [(&str, Standardization); 7] = [
    ("standard", Standardization::Standard),
    ("cosine", Standardization::Cosine),
    ("trace", Standardization::Trace),
    ("by_response", Standardization::ByResponse),
    ("by_perturbation", Standardization::ByPerturbation),
    ("loss", Standardization::Loss),
    ("none", Standardization::None),
];

impl std::str::FromStr for Standardization {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|&(_, kind)| kind).ok_or_else(|| {
            let known: Vec<_> = NAMES.iter().map(|(known, _)| *known).collect();
            Error::invalid(format!("`standardize` must be one of {}; got {name:?}", known.join(", ")))
        })
    }
}

/// Standardise each `n_rows × n_columns` matrix of a row-major stack in place; returns how many rows (for `Cosine` and
/// `ByPerturbation` rows plus columns) became NaN because their divisor is no larger than rounding: at most
/// `n_columns · ε · max|H|` of their matrix, the bound on the error of a sum of `n_columns` entries. NaN entries stay
/// NaN and do not enter a divisor. `losses` is `n_matrices × n_rows`.
///
/// # Errors
/// [`Error::Invalid`]: lengths disagree; `Standard` with fewer than two columns; a diagonal of a matrix that is not
/// square; `Loss` without losses. `Interrupted` when asked to stop.
pub fn standardize(
    values: &mut [f64],
    (n_rows, n_columns): (usize, usize),
    kind: Standardization,
    losses: Option<&[f64]>,
    progress: &Progress,
) -> Result<u64> {
    let size = n_rows * n_columns;
    if size == 0 || kind == Standardization::None {
        return Ok(0);
    }
    if !values.len().is_multiple_of(size) {
        let got = values.len();
        return Err(Error::invalid(format!("`values` must be a stack of {n_rows} × {n_columns} matrices; got {got}")));
    }
    match kind {
        Standardization::Standard if n_columns < 2 => {
            return Err(Error::invalid(
                "standardize=\"standard\" divides a row by its standard deviation and needs at least 2 perturbations; \
                 got 1: pass standardize=\"none\"",
            ));
        }
        Standardization::Standard => {}
        Standardization::Loss => match losses {
            Some(losses) if losses.len() == values.len() / n_columns => {}
            Some(losses) => {
                let (expected, got) = (values.len() / n_columns, losses.len());
                return Err(Error::invalid(format!("`losses` must hold one loss per row, {expected}; got {got}")));
            }
            None => return Err(Error::invalid("standardize=\"loss\" needs the `losses` of the response examples")),
        },
        _ if n_rows != n_columns => {
            return Err(Error::invalid(format!(
                "this standardisation reads the diagonal and needs as many responses as perturbations; got {n_rows} \
                 and {n_columns}: pass standardize=\"standard\" or \"none\""
            )));
        }
        _ => {}
    }
    let masked = values.par_chunks_exact_mut(size).enumerate().map(|(k, matrix)| {
        progress.advance(1)?;
        Ok(one(matrix, n_columns, kind, losses.map(|l| &l[k * n_rows..(k + 1) * n_rows])))
    });
    masked.sum()
}

fn one(matrix: &mut [f64], n_columns: usize, kind: Standardization, losses: Option<&[f64]>) -> u64 {
    let largest = matrix.iter().fold(0.0f64, |m, v| if v.abs() > m { v.abs() } else { m });
    let floor = n_columns as f64 * f64::EPSILON * largest;
    let keep = |divisor: f64| if divisor.abs() > floor { divisor } else { f64::NAN };
    let n_rows = matrix.len() / n_columns;
    let diagonal: Vec<f64> = (0..n_rows.min(n_columns)).map(|i| matrix[i * n_columns + i]).collect();
    let ones = |n: usize| vec![1.0; n];
    let (rows, columns) = match kind {
        Standardization::Standard => (matrix.chunks_exact(n_columns).map(deviation).map(keep).collect(), None),
        Standardization::Cosine => {
            let roots: Vec<f64> = diagonal.iter().map(|&d| keep(d).sqrt()).collect();
            (roots.clone(), Some(roots))
        }
        Standardization::Trace => (vec![keep(diagonal.iter().sum::<f64>() / diagonal.len() as f64); n_rows], None),
        Standardization::ByResponse => (diagonal.into_iter().map(keep).collect(), None),
        Standardization::ByPerturbation => (ones(n_rows), Some(diagonal.into_iter().map(keep).collect())),
        // A loss is on a scale of its own: only zero and NaN are no divisors.
        Standardization::Loss => {
            let usable = |&l: &f64| if l > 0.0 { l } else { f64::NAN };
            (losses.unwrap_or_default().iter().map(usable).collect(), None)
        }
        Standardization::None => (ones(n_rows), None),
    };
    for (row, divisor) in matrix.chunks_exact_mut(n_columns).zip(&rows) {
        match &columns {
            None => row.iter_mut().for_each(|v| *v /= divisor),
            Some(columns) => row.iter_mut().zip(columns).for_each(|(v, c)| *v = *v / divisor / c),
        }
    }
    let masked = |divisors: &[f64]| divisors.iter().filter(|d| d.is_nan()).count() as u64;
    masked(&rows) + columns.as_deref().map_or(0, masked)
}

/// Sample standard deviation (ddof 1) of the entries that are not NaN; NaN when there are fewer than two.
fn deviation(row: &[f64]) -> f64 {
    let finite = || row.iter().copied().filter(|v| !v.is_nan());
    let n = finite().count();
    if n < 2 {
        return f64::NAN;
    }
    let mean = finite().sum::<f64>() / n as f64;
    (finite().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[f64], shape: (usize, usize), kind: Standardization) -> Result<(Vec<f64>, u64)> {
        let mut out = values.to_vec();
        let masked = standardize(&mut out, shape, kind, None, &Progress::default())?;
        Ok((out, masked))
    }

    #[test]
    fn diagonal_matrix_gives_root_n() {
        let n = 7;
        let values: Vec<f64> = (0..n * n).map(|k| if k % (n + 1) == 0 { 1.0 + k as f64 } else { 0.0 }).collect();
        let (out, masked) = run(&values, (n, n), Standardization::Standard).expect("runs");
        assert_eq!(masked, 0);
        for i in 0..n {
            assert!((out[i * (n + 1)] - (n as f64).sqrt()).abs() < 8.0 * f64::EPSILON * 7f64.sqrt());
        }
    }

    #[test]
    fn flat_rows_are_masked_and_counted() {
        let (out, masked) = run(&[0.1, 0.1, 0.1, 1.0, 2.0, 3.0], (2, 3), Standardization::Standard).expect("runs");
        assert_eq!(masked, 1);
        assert!(out[..3].iter().all(|v| v.is_nan()));
        assert!(out[3..].iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 4.0 * f64::EPSILON * b));
    }

    #[test]
    fn cosine_has_a_unit_diagonal() {
        let (out, _) = run(&[4.0, 3.0, 3.0, 9.0], (2, 2), Standardization::Cosine).expect("runs");
        assert_eq!(out, [1.0, 0.5, 0.5, 1.0]);
    }

    #[test]
    fn impossible_requests_are_refused() {
        assert!(run(&[1.0], (1, 1), Standardization::Standard).is_err());
        assert!(run(&[1.0, 2.0], (1, 2), Standardization::Trace).is_err());
        assert!(run(&[1.0, 2.0], (1, 2), Standardization::Loss).is_err());
        assert!("cosin".parse::<Standardization>().is_err());
    }
}
