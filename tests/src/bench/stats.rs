//! Medians, percentiles and the interval of a median.

/// The middle of the values, or the mean of both in the middle; NaN without any.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

/// The value below which this share (0 to 1) of the values lies; NaN without any.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let sorted = sorted(values);
    let last = sorted.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

/// The interval that holds the true median with a probability of at least 95 %, whatever the values'
/// distribution: the closest pair of order statistics whose binomial weight suffices. `None` below 6 values,
/// where no pair does.
pub fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    const OUTSIDE: f64 = 0.05;
    let sorted = sorted(values);
    let n = sorted.len();
    // P(the median lies outside of the k-th smallest and k-th largest) = 2 * P(Binomial(n, 1/2) < k).
    let mut weight = 0.5_f64.powi(i32::try_from(n).ok()?);
    let (mut tail, mut k) = (0.0, 0);
    while 2.0 * (tail + weight) <= OUTSIDE {
        tail += weight;
        weight *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    let low = k.checked_sub(1)?;
    Some((*sorted.get(low)?, *sorted.get(n - 1 - low)?))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 3.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn of_fifteen_values_the_interval_goes_from_the_fourth_to_the_twelfth() {
        // Tables of the sign test: 96.5 % for n = 15, k = 4.
        let values: Vec<f64> = (1..=15).map(f64::from).collect();
        assert_eq!(median_interval(&values), Some((4.0, 12.0)));
        assert_eq!(median_interval(&values[..6]), Some((1.0, 6.0)));
        assert_eq!(median_interval(&values[..5]), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 0.5), 50.0);
    }
}
