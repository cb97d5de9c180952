//! A benchmark's results: a table for people, JSON for machines.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde_json::{Value, json};

/// What a case is held against.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// The figure may be this much at most.
    AtMost(f64),
    /// The figure must be this much at least.
    AtLeast(f64),
}

/// A figure in relation to another one of the same run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// This case's median divided by the other's, or the difference where `to` says so.
    pub value: f64,
    /// Name of the case that it is compared to.
    pub to: String,
}

/// One measured case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// `packet`, `live`, `lab` or `control`.
    pub suite: &'static str,
    /// What was measured, as it is read in the table.
    pub case: String,
    /// The best of all rounds, in `unit`.
    pub best: f64,
    /// The median of all rounds, in `unit`.
    pub median: f64,
    /// `ns`, `packets/s`, `connections/s`, `ms`, ...
    pub unit: &'static str,
    /// In relation to another case.
    pub ratio: Option<Ratio>,
    /// The bound on the ratio, or on the median where there is no ratio.
    pub bound: Option<Bound>,
}

/// The cases of one run, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Report {
    cases: Vec<Case>,
}

// === impl Bound ===

impl Bound {
    /// Whether a figure keeps to it.
    pub fn holds(&self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= *most,
            Self::AtLeast(least) => figure >= *least,
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::AtMost(number) | Self::AtLeast(number) => *number,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(number) => write!(f, "<= {number}"),
            Self::AtLeast(number) => write!(f, ">= {number}"),
        }
    }
}

// === impl Case ===

impl Case {
    /// Whether the bound is kept; `None` without one.
    pub fn met(&self) -> Option<bool> {
        let figure = self.ratio.as_ref().map_or(self.median, |r| r.value);
        self.bound.as_ref().map(|bound| bound.holds(figure))
    }
}

// === impl Report ===

impl Report {
    /// Adds a case.
    pub fn push(&mut self, case: Case) {
        self.cases.push(case);
    }

    /// All cases, in the order in which they were added.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "suite", "case", "best", "median", "unit", "ratio", "to", "bound", "met",
        ]);
        for case in &self.cases {
            table.add_row([
                case.suite.to_owned(),
                case.case.clone(),
                figure(case.best),
                figure(case.median),
                case.unit.to_owned(),
                case.ratio
                    .as_ref()
                    .map_or(String::new(), |r| figure(r.value)),
                case.ratio.as_ref().map_or(String::new(), |r| r.to.clone()),
                case.bound.as_ref().map_or(String::new(), Bound::to_string),
                match case.met() {
                    Some(true) => "yes".to_owned(),
                    Some(false) => "NO".to_owned(),
                    None => String::new(),
                },
            ]);
        }
        for column in [2, 3, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// `{"machine": ..., "results": [...]}`, one result a case.
    pub fn json(&self) -> Value {
        let results: Vec<Value> = self
            .cases
            .iter()
            .map(|case| {
                json!({
                    "suite": case.suite,
                    "case": case.case,
                    "best": case.best,
                    "median": case.median,
                    "unit": case.unit,
                    "ratio": case.ratio.as_ref().map(|r| r.value),
                    "to": case.ratio.as_ref().map(|r| r.to.as_str()),
                    "bound": case.bound.as_ref().map(Bound::number),
                    "met": case.met(),
                })
            })
            .collect();
        json!({ "machine": machine(), "results": results })
    }

    /// Writes [`Report::json`] to a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Processor, number of cores and kernel release.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(bound: Bound, ratio: Option<f64>) -> Case {
        Case {
            suite: "packet",
            case: "a case".to_owned(),
            best: 1.0,
            median: 2.0,
            unit: "ns",
            ratio: ratio.map(|value| Ratio {
                value,
                to: "the floor".to_owned(),
            }),
            bound: Some(bound),
        }
    }

    #[test]
    fn a_bound_is_on_the_ratio_where_there_is_one_else_on_the_median() {
        assert_eq!(case(Bound::AtMost(1.5), Some(1.4)).met(), Some(true));
        assert_eq!(case(Bound::AtMost(1.5), None).met(), Some(false));
        assert_eq!(case(Bound::AtLeast(0.95), Some(0.9)).met(), Some(false));
        assert_eq!(case(Bound::AtLeast(0.95), None).met(), Some(true));
    }

    #[test]
    fn json_has_every_field_of_every_case() {
        let mut report = Report::default();
        report.push(case(Bound::AtMost(1.5), Some(1.4)));
        let json = report.json();
        let result = &json["results"][0];
        assert_eq!(result["ratio"], 1.4);
        assert_eq!(result["to"], "the floor");
        assert_eq!(result["bound"], 1.5);
        assert_eq!(result["met"], true);
        assert!(
            json["machine"]
                .as_str()
                .is_some_and(|m| m.contains("Linux"))
        );
    }
}
