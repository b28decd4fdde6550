//! Order statistics with linear interpolation (NumPy's default, `method="linear"`).

/// Quantile `q ∈ [0, 1]` of a sorted slice: linear interpolation at position `q (n − 1)`; NaN when the slice is empty.
pub fn quantile_sorted(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = q * last as f64;
    let below = (position.floor() as usize).min(last);
    interpolate(sorted[below], sorted[(below + 1).min(last)], position - below as f64)
}

/// `a + (b − a) t`, evaluated from the nearer end so that it is exact at both ends and monotone.
pub fn interpolate(a: f64, b: f64, t: f64) -> f64 {
    let step = b - a;
    if t >= 0.5 { b - step * (1.0 - t) } else { a + step * t }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, from the count of smaller elements.
    fn naive(values: &[f64], q: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let position = q * (sorted.len() - 1) as f64;
        let (lower, upper) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
        lower * (1.0 - position.fract()) + upper * position.fract()
    }

    #[test]
    fn small_cases() {
        assert!(quantile_sorted(&[], 0.5).is_nan());
        assert_eq!(quantile_sorted(&[3.0], 0.25), 3.0);
        assert_eq!(quantile_sorted(&[1.0, 2.0], 0.5), 1.5);
        assert_eq!(quantile_sorted(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }

    proptest! {
        #[test]
        fn matches_the_definition(mut values in prop::collection::vec(-1e3..1e3f64, 1..40), q in 0.0..=1.0f64) {
            let expected = naive(&values, q);
            values.sort_by(f64::total_cmp);
            let got = quantile_sorted(&values, q);
            prop_assert!((got - expected).abs() <= 4.0 * f64::EPSILON * 1e3, "{} {}", got, expected);
        }

        #[test]
        fn is_monotone_in_q(mut values in prop::collection::vec(-1e3..1e3f64, 1..40), a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            values.sort_by(f64::total_cmp);
            prop_assert!(quantile_sorted(&values, a.min(b)) <= quantile_sorted(&values, a.max(b)));
        }
    }
}
