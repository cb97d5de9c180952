//! Every surface on which the agent shows its counters, read at about one time, and whether they agree.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod read;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{
    read::{Cells, Proxies},
    table::{Column, Counter, Kind, ZERO, counters, letter},
};
use crate::{admin, lab::wait_until, stage::Stage};

/// All backends of a proxy together, in the place of a row.
const SERVERS: &str = "servers";

/// How long it may take until everything that happened is shown everywhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// A number, and who told it.
type Told = Vec<(&'static str, f64)>;

/// What every surface said.
struct Surfaces {
    table: Vec<Counter>,
    all: Vec<Surface>,
    /// Numbers of the process by their meaning, from several places each.
    process: Vec<(&'static str, Told)>,
    took: Duration,
}

struct Surface {
    name: &'static str,
    column: Column,
    /// It tells of servers alone.
    servers: bool,
    proxies: Proxies,
}

/// What the traffic makes of one counter.
struct Wish<'a> {
    /// Of this row alone, by the letter of the table.
    row: Option<char>,
    name: &'a str,
    least: u64,
    most: u64,
}

/// Waits until all surfaces agree, and say what is expected: a line for each proxy, with its name and what the traffic
/// makes of its counters, `NAME=NUMBER` or `NAME=LEAST..MOST`. It holds for FRONTEND, BACKEND and all servers together,
/// as far as they have the counter; with `F:`, `B:` or `S:` before it for one of them alone. Whatever is not named is 0
/// or not known, unless it is a limit, a time, an age or a rate.
pub fn expect(stage: &Stage, expected: &str) {
    let table = counters();
    let expected: Vec<_> = expected.lines().map(|line| wishes(&table, line)).collect();
    let mut wrong = Vec::new();
    let settled = wait_until("all is counted alike everywhere", PATIENCE, || {
        let surfaces = Surfaces::read(stage);
        wrong = surfaces.disagreements();
        for (proxy, wishes) in &expected {
            for row in ["FRONTEND", "BACKEND", SERVERS] {
                wrong.extend(surfaces.unmet(proxy, row, wishes));
            }
        }
        wrong.is_empty()
    });
    settled.unwrap_or_else(|late| panic!("{late}: {wrong:#?}"));
}

/// A line of what is expected.
fn wishes<'a>(table: &[Counter], line: &'a str) -> (&'a str, Vec<Wish<'a>>) {
    let mut words = line.split_whitespace();
    let proxy = words.next().expect("a proxy");
    let wishes = words.map(|word| {
        let (name, range) = word.split_once('=').expect("a number");
        let (row, name) = match name.split_once(':') {
            Some((row, name)) => (row.chars().next(), name),
            None => (None, name),
        };
        let known = table.iter().any(|counter| counter.name == name);
        assert!(known, "the table has no {name}");
        let (least, most) = range.split_once("..").unwrap_or((range, range));
        let number = |text: &str| text.parse().expect("a number");
        Wish {
            row,
            name,
            least: number(least),
            most: number(most),
        }
    });
    (proxy, wishes.collect())
}

// === impl Surfaces ===

impl Surfaces {
    /// Asks them all.
    fn read(stage: &Stage) -> Self {
        let began = Instant::now();
        let json = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
        let on_socket = admin::ask(stage, "show stat");
        let (html, metrics) = (
            admin::page(stage, "/haproxy?stats"),
            admin::page(stage, "/metrics"),
        );
        let stats = admin::json(stage, "/v1/stats");
        let csv = read::csv(&admin::page(stage, "/;csv"));
        let field = |name, proxies| Surface::new(name, Column::Field, proxies);
        let status = |name, proxies| Surface::new(name, Column::Status, proxies);
        let all = vec![
            field(";csv", csv),
            field("show stat", read::csv(&on_socket)),
            field(
                ";json",
                read::lists(&admin::json(stage, "/haproxy?stats;json")),
            ),
            field(
                "show stat json",
                read::lists(&json(&admin::ask(stage, "show stat json"))),
            ),
            field(
                "show stat typed",
                read::typed(&admin::ask(stage, "show stat typed")),
            ),
            Surface::new("the page", Column::Head, read::page(&html)),
            Surface::new(
                "/v1/live",
                Column::Live,
                read::live(&admin::json(stage, "/v1/live")),
            ),
            Surface::new("/v1/stats", Column::Stats, read::stats(&stats)),
            Surface::new("/metrics", Column::Metric, read::metrics(&metrics)),
            status(
                "/v1/status",
                read::services(&admin::json(stage, "/v1/status")["services"]),
            ),
            status(
                "lb-agent status",
                read::services(&stage.status()["services"]),
            ),
            status(
                "lb-agent services",
                read::services(&stage.ask(&["services"])),
            ),
            Surface {
                servers: true,
                ..status(
                    "lb-agent backends",
                    read::backends(&stage.ask(&["backends"])),
                )
            },
        ];
        let info = admin::ask(stage, "show info");
        Self {
            table: counters(),
            process: process(&info, &html, &metrics, &stats),
            all,
            took: began.elapsed(),
        }
    }

    /// What stands on the first surface that has it.
    fn value(&self, proxy: &str, row: &str, name: &str) -> Option<f64> {
        let shown = self.shown(self.counter(row, name), proxy, row);
        shown.first().and_then(|(_, _, value)| *value)
    }

    /// Where surfaces differ, and what they count that the table does not have.
    fn disagreements(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let proxies = &self.all[0].proxies;
        for surface in &self.all {
            let (ours, theirs) = (surface.proxies.keys(), proxies.keys());
            if !ours.clone().eq(theirs.clone()) {
                wrong.push(format!("{}: {ours:?}, not {theirs:?}", surface.name));
            }
        }
        for (proxy, cells) in proxies {
            for row in rows(cells) {
                for counter in self.table.iter().filter(|counter| counter.is_of(row)) {
                    let shown = self.shown(counter, proxy, row);
                    let same = |value| self.same(counter.kind(), shown[0].2, value);
                    if !shown.iter().all(|(_, _, value)| same(*value)) {
                        wrong.push(format!("{} of {proxy} {row}: {shown:?}", counter.name));
                    }
                }
                for zero in ZERO.split_whitespace() {
                    let value = cells.get(&(row.to_owned(), zero.to_owned()));
                    if value.is_some_and(|value| *value != 0.0) {
                        wrong.push(format!("{zero} of {proxy} {row}: {value:?}"));
                    }
                }
            }
        }
        for surface in &self.all {
            let keys = surface.proxies.values().flat_map(Cells::keys);
            let keys = keys.map(|(row, name)| ((letter(row), name), row));
            let mut unknown: BTreeMap<_, _> = keys.collect();
            unknown.retain(|(_, name), row| !self.has(surface.column, row, name));
            if !unknown.is_empty() {
                let name = surface.name;
                let unknown = unknown.keys();
                wrong.push(format!("{name} has what the table has not: {unknown:?}"));
            }
        }
        for (what, told) in &self.process {
            if told.iter().any(|(_, number)| *number != told[0].1) {
                wrong.push(format!("{what}: {told:?}"));
            }
        }
        let whole = |name: &str| -> f64 {
            let values = proxies
                .keys()
                .map(|proxy| self.value(proxy, "FRONTEND", name));
            values.flatten().sum()
        };
        for (what, name) in [("flows at present", "scur"), ("flows ever", "stot")] {
            let told = self.process.iter().find(|(told, _)| *told == what);
            let (_, told) = told.expect(what);
            if told[0].1 != whole(name) {
                wrong.push(format!("{what}: {told:?}, but {} of all", whole(name)));
            }
        }
        wrong
    }

    /// What of a row is not as the traffic made it.
    fn unmet(&self, proxy: &str, row: &str, wishes: &[Wish<'_>]) -> Vec<String> {
        let Some(cells) = self.all[0].proxies.get(proxy) else {
            return vec![format!("no {proxy}")];
        };
        let meant: Vec<_> = match row {
            SERVERS => rows(cells).filter(|row| letter(row) == 'S').collect(),
            row => vec![row],
        };
        let wish = |counter: &Counter| {
            let mut named = wishes.iter().filter(|wish| wish.name == counter.name);
            // The one for this row stands behind the one for all.
            named.rfind(|wish| wish.row.is_none_or(|only| only == letter(row)))
        };
        let of_row: Vec<_> = self.table.iter().filter(|one| one.is_of(row)).collect();
        let named = of_row.iter().filter(|one| wish(one).is_some());
        let told: BTreeSet<_> = named.flat_map(|one| one.places(Column::Stats)).collect();
        let mut wrong = Vec::new();
        for counter in of_row {
            let (least, most) = match wish(counter) {
                Some(wish) => (wish.least, wish.most),
                // Another name of something that is named.
                None if counter
                    .places(Column::Stats)
                    .iter()
                    .any(|place| told.contains(place)) =>
                {
                    continue;
                }
                None if counter.kind() == Kind::Count => (0, 0),
                None => continue,
            };
            let values = meant
                .iter()
                .filter_map(|row| self.value(proxy, row, counter.name));
            let sum: f64 = values.sum();
            if sum < least as f64 || sum > most as f64 {
                let name = counter.name;
                wrong.push(format!(
                    "{name} of {proxy} {row}: {sum}, not {least} to {most}"
                ));
            }
        }
        wrong
    }

    /// The line of the table that is for this row.
    fn counter(&self, row: &str, name: &str) -> &Counter {
        let mut lines = self.table.iter();
        let line = lines.find(|line| line.name == name && line.is_of(row));
        line.unwrap_or_else(|| panic!("the table has no {name} of {row}"))
    }

    /// A counter on every surface that has it.
    fn shown(
        &self,
        counter: &Counter,
        proxy: &str,
        row: &str,
    ) -> Vec<(&'static str, String, Option<f64>)> {
        let surfaces = self.all.iter();
        let meant = surfaces.filter(|surface| !surface.servers || letter(row) == 'S');
        meant
            .flat_map(|surface| {
                let cells = surface.proxies.get(proxy);
                let places = counter.places(surface.column).into_iter();
                places.map(move |place| {
                    let key = (row.to_owned(), place.to_owned());
                    let value = cells.and_then(|cells| cells.get(&key)).copied();
                    (surface.name, key.1, value)
                })
            })
            .collect()
    }

    fn same(&self, kind: Kind, one: Option<f64>, other: Option<f64>) -> bool {
        // The CSV's times are whole ms. Ages go on while all is read, and end in whole seconds.
        let apart = match kind {
            Kind::Count | Kind::Setting => 0.0,
            Kind::Time => 0.501,
            Kind::Age => self.took.as_secs_f64() + 2.0,
        };
        match (one, other) {
            (Some(one), Some(other)) => (one - other).abs() <= apart,
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Whether the table has a number of a surface, or it counts nothing.
    fn has(&self, column: Column, row: &str, name: &str) -> bool {
        // One object of these tells of FRONTEND and BACKEND together.
        let both = [Column::Stats, Column::Status].contains(&column) && letter(row) != 'S';
        let rows = if both {
            &["FRONTEND", "BACKEND"][..]
        } else {
            &[row][..]
        };
        let mut lines = self.table.iter();
        let told = lines.any(|line| {
            rows.iter().any(|row| line.is_of(row)) && line.places(column).contains(&name)
        });
        let zero = column == Column::Field && ZERO.split_whitespace().any(|zero| zero == name);
        told || zero || column.leaves_out(name)
    }
}

// === impl Surface ===

impl Surface {
    fn new(name: &'static str, column: Column, proxies: Proxies) -> Self {
        Self {
            name,
            column,
            servers: false,
            proxies,
        }
    }
}

/// The rows of a proxy.
fn rows(cells: &Cells) -> impl Iterator<Item = &str> {
    let rows: BTreeSet<_> = cells.keys().map(|(row, _)| row.as_str()).collect();
    rows.into_iter()
}

/// What is told of the whole process.
fn process(info: &str, html: &str, metrics: &str, stats: &Value) -> Vec<(&'static str, Told)> {
    let after = |text: &str, start: &str| -> f64 {
        let (_, rest) = text.split_once(start).expect(start);
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let digits = &rest[..end.unwrap_or(rest.len())];
        digits.parse().expect("a number")
    };
    let of = |name: &'static str| ("show info", after(info, &format!("\n{name}: ")));
    let ours = |name: &str| ("/v1/stats", stats[name].as_f64().expect("a number"));
    let metric = |name: &str| ("/metrics", after(metrics, &format!("\n{name} ")));
    vec![
        (
            "flows at present",
            vec![
                of("CurrConns"),
                ours("flows_active"),
                metric("haproxy_process_current_connections"),
                ("the page", after(html, "current conns = ")),
            ],
        ),
        (
            "flows ever",
            vec![
                of("CumConns"),
                ours("flows_new"),
                metric("haproxy_process_connections_total"),
            ],
        ),
        ("rate", vec![of("ConnRate"), of("SessRate"), ours("rate")]),
        (
            "highest rate",
            vec![of("MaxConnRate"), of("MaxSessRate"), ours("rate_max")],
        ),
    ]
}
