//! Weights of the first derivative on the nodes 0, 1, …, n − 1.

/// Weights `w` with `f'(at) = Σ w[k] f(k)` for every polynomial of degree below `n_nodes`: derivatives of the Lagrange
/// basis, `w[k] = (Π_{m ≠ k, at} (at − m)) / Π_{m ≠ k} (k − m)`, and minus the sum of the others at `k = at`.
pub fn first_derivative_weights(n_nodes: usize, at: usize) -> Vec<f64> {
    let difference = |a: usize, b: usize| a as f64 - b as f64;
    let mut weights: Vec<f64> = (0..n_nodes)
        .map(|k| {
            let numerator: f64 = (0..n_nodes).filter(|&m| m != k && m != at).map(|m| difference(at, m)).product();
            let denominator: f64 = (0..n_nodes).filter(|&m| m != k).map(|m| difference(k, m)).product();
            if k == at { 0.0 } else { numerator / denominator }
        })
        .collect();
    if at < n_nodes {
        weights[at] = -weights.iter().sum::<f64>();
    }
    weights
}

/// Antisymmetric central weights `c[k]`, `f'(x) ≈ Σ_k c[k] (f(x + (k + 1) h) − f(x − (k + 1) h)) / h`.
pub const fn central_weights(accuracy_order: usize) -> Option<&'static [f64]> {
    match accuracy_order {
        2 => Some(&[0.5]),
        4 => Some(&[2.0 / 3.0, -1.0 / 12.0]),
        6 => Some(&[0.75, -0.15, 1.0 / 60.0]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_on_polynomials() {
        for n in 2..=7usize {
            for at in 0..n {
                let weights = first_derivative_weights(n, at);
                for degree in 0..n as i32 {
                    let terms = || weights.iter().enumerate().map(|(k, w)| w * (k as f64).powi(degree));
                    let exact = if degree == 0 { 0.0 } else { f64::from(degree) * (at as f64).powi(degree - 1) };
                    let size: f64 = terms().map(f64::abs).sum();
                    assert!((terms().sum::<f64>() - exact).abs() <= 8.0 * n as f64 * f64::EPSILON * size);
                }
            }
        }
    }

    #[test]
    fn central_weights_are_the_centred_case() {
        for order in [2, 4, 6] {
            let general = first_derivative_weights(order + 1, order / 2);
            for (k, c) in central_weights(order).expect("known order").iter().enumerate() {
                assert!((general[order / 2 + 1 + k] - c).abs() < 4.0 * f64::EPSILON);
                assert!((general[order / 2 - 1 - k] + c).abs() < 4.0 * f64::EPSILON);
            }
        }
        assert!(central_weights(3).is_none());
    }
}
