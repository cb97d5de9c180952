//! Rounds: every case has its turn in each, so that whatever slows the machine slows all of them.

use std::collections::HashMap;

use super::stats::median;

/// What was measured of one case, one figure a round, and what is to be taken away from each.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    gross: Vec<f64>,
    away: Vec<f64>,
}

/// The figures of all cases, by name.
#[derive(Debug, Default)]
pub(super) struct Figures {
    by_name: HashMap<String, Series>,
}

// === impl Series ===

impl Series {
    /// The smallest, less the smallest of what is taken away: two undisturbed rounds, not the one in which
    /// only the latter was disturbed.
    pub(super) fn smallest(&self) -> f64 {
        let smallest = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
        smallest(&self.gross) - smallest(&self.away)
    }

    /// The largest of all differences.
    pub(super) fn largest(&self) -> f64 {
        self.net().into_iter().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The median of all differences.
    pub(super) fn median(&self) -> f64 {
        median(&self.net())
    }

    fn net(&self) -> Vec<f64> {
        let rounds = self.gross.iter().zip(&self.away);
        rounds.map(|(gross, away)| gross - away).collect()
    }
}

// === impl Figures ===

impl Figures {
    /// Adds a round of one case, with what is to be taken away from its figure.
    pub(super) fn push(&mut self, name: &str, gross: f64, away: f64) {
        let series = self.by_name.entry(name.to_owned()).or_default();
        series.gross.push(gross);
        series.away.push(away);
    }

    /// Whether a case was measured.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// One case's figures.
    ///
    /// # Panics
    ///
    /// It was not measured.
    pub(super) fn of(&self, name: &str) -> &Series {
        self.by_name
            .get(name)
            .unwrap_or_else(|| panic!("`{name}` was not measured"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(figures: &[(f64, f64)]) -> Series {
        let (gross, away) = figures.iter().copied().unzip();
        Series { gross, away }
    }

    #[test]
    fn the_median_is_of_each_rounds_difference() {
        let odd = series(&[(13.0, 10.0), (21.0, 20.0), (32.0, 30.0)]);
        assert_eq!(odd.median(), 2.0);
        assert_eq!(odd.largest(), 3.0);
    }

    #[test]
    fn a_round_in_which_only_the_no_op_was_slow_is_not_the_best() {
        let disturbed = series(&[(15.0, 10.0), (15.0, 18.0)]);
        assert_eq!(disturbed.smallest(), 5.0);
    }
}
