//! The text format itself.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details>

use crate::admin::stats::number;

/// Appends families and their samples.
pub(super) struct Writer<'a> {
    out: &'a mut String,
}

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Goes up only.
    Counter,
    /// Counts by size.
    Histogram,
    /// How often, and how much together.
    Summary,
}

// === impl Writer ===

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut String) -> Self {
        Self { out }
    }

    /// The head of a family.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        for part in [
            "# HELP ",
            name,
            " ",
            help,
            "\n# TYPE ",
            name,
            " ",
            kind,
            "\n",
        ] {
            self.out.push_str(part);
        }
    }

    /// A sample with the value `number`.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], number: u64) {
        self.begin(name, labels);
        number::push(self.out, number);
        self.out.push('\n');
    }

    /// As [`Self::sample`]; -1 is possible.
    pub(super) fn signed(&mut self, name: &str, labels: &[(&str, &str)], number: i64) {
        self.begin(name, labels);
        if number < 0 {
            self.out.push('-');
        }
        number::push(self.out, number.unsigned_abs());
        self.out.push('\n');
    }

    /// A sample of so many thousandths.
    pub(super) fn thousandths(&mut self, name: &str, labels: &[(&str, &str)], number: u64) {
        self.begin(name, labels);
        number::push_thousandths(self.out, number);
        self.out.push('\n');
    }

    /// A sample of so many millionths.
    pub(super) fn millionths(&mut self, name: &str, labels: &[(&str, &str)], number: u64) {
        self.begin(name, labels);
        number::push(self.out, number / 1_000_000);
        let rest = number % 1_000_000;
        if rest > 0 {
            self.out
                .push_str(format!(".{rest:06}").trim_end_matches('0'));
        }
        self.out.push('\n');
    }

    fn begin(&mut self, name: &str, labels: &[(&str, &str)]) {
        self.out.push_str(name);
        let mut before = '{';
        for (label, value) in labels {
            self.out.push(before);
            before = ',';
            self.out.push_str(label);
            self.out.push_str("=\"");
            self.value(value);
            self.out.push('"');
        }
        self.out
            .push_str(if labels.is_empty() { " " } else { "} " });
    }

    fn value(&mut self, value: &str) {
        if !value.contains(['\\', '"', '\n']) {
            self.out.push_str(value);
            return;
        }
        for c in value.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '"' => self.out.push_str("\\\""),
                '\n' => self.out.push_str("\\n"),
                c => self.out.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tenants_write_stays_within_its_quotes() {
        let mut out = String::new();
        let mut writer = Writer::new(&mut out);
        writer.sample("a", &[("b", "x\"} 1\n\\"), ("c", "")], 7);
        writer.signed("a", &[], -1);
        writer.thousandths("a", &[], 1_250);
        writer.millionths("a", &[], 2_000_130);
        assert_eq!(
            out,
            "a{b=\"x\\\"} 1\\n\\\\\",c=\"\"} 7\na -1\na 1.25\na 2.00013\n"
        );
    }
}
