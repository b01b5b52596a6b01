//! Statistics of repeated runs: medians, spreads, and ratios of pairs.
//!
//! Must never use averages: one disturbed run in five must not change the result.

/// The summary of a quantity that was measured several times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// Returns the median and the spread of the finite values, or `None` without values.
pub fn summary(values: &[f64]) -> Option<Summary> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    Some(Summary { median, least, most })
}

/// Returns the median and the spread of `ours / theirs`. Each ratio is from one repetition, so that a disturbance of both runs cancels out. Each
/// value has the number of its repetition; a value without a partner is ignored.
pub fn ratio(ours: &[(u32, f64)], theirs: &[(u32, f64)]) -> Option<Summary> {
    let ratios: Vec<f64> = ours
        .iter()
        .filter_map(|(repetition, value)| {
            let (_, other) = theirs.iter().find(|(number, _)| number == repetition)?;
            Some(value / other)
        })
        .collect();
    summary(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0]), Some(Summary { median: 3.0, least: 3.0, most: 3.0 }));
        assert_eq!(summary(&[9.0, 1.0, 2.0]), Some(Summary { median: 2.0, least: 1.0, most: 9.0 }));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 9.0]), Some(Summary { median: 3.0, least: 1.0, most: 9.0 }));
        assert_eq!(summary(&[f64::NAN, 1.0]).map(|found| found.median), Some(1.0));
    }

    #[test]
    fn ratios_are_taken_within_a_repetition() {
        // In the second repetition both runs took twice as long; in the third the other run failed.
        let (ours, theirs) = ([(0, 2.0), (1, 4.0), (2, 7.0)], [(1, 2.0), (0, 1.0)]);
        assert_eq!(ratio(&ours, &theirs), Some(Summary { median: 2.0, least: 2.0, most: 2.0 }));
        assert_eq!(ratio(&ours, &[]), None);
        assert_eq!(ratio(&[(0, 1.0)], &[(0, 0.0)]), None, "a division by zero");
    }
}
