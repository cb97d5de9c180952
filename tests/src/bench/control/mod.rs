//! How long a change takes until the kernel has it, with many services.
//!
//! Levels: the library (a plan and its system calls on real maps; bounds hold here), and a running agent
//! that watches a services file (what an operator sees: with the time to notice, read and parse the file), or a Marathon.

mod agent;
mod library;
mod marathon;
mod scrape;
mod services;

use std::time::Duration;

use anyhow::Result;

use super::{
    report::{Bound, Case, Ratio, Report},
    stats::median,
};

const SUITE: &str = "control";

/// Backends of each service.
const BACKENDS: usize = 20;

/// Bounds are held at this number of services.
const BOUNDED_AT: usize = 5_000;

/// A change of state, ms.
const STATE_BOUND: f64 = 1.0;

/// A change of membership, in bare swaps.
const MEMBERSHIP_BOUND: f64 = 1.5;

/// A whole snapshot of Marathon, ms.
const SNAPSHOT_BOUND: f64 = 500.0;

/// One app of it, ms.
const EVENT_BOUND: f64 = 50.0;

/// A page that is scraped, ms.
const SCRAPE_BOUND: f64 = 250.0;

/// A connection while pages are scraped, in those while none is.
const BESIDE_BOUND: f64 = 1.05;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Numbers of services.
    pub services: &'static [usize],
    /// Changes of each kind, by the library.
    pub rounds: usize,
    /// Changes of each kind, by the agent.
    pub agent_rounds: usize,
    /// Seconds that the agent is watched doing nothing, after as many for it to come to rest.
    pub idle: u64,
    /// Scrapes of each page.
    pub scrapes: usize,
    /// Without a scrape before the first.
    pub silence: Duration,
    /// Of connections beside scrapes, and without.
    pub load: Duration,
}

// === impl Effort ===

impl Effort {
    /// For figures. The agent reads everything anew every 30 s, so it is watched for as long.
    pub const FULL: Self = Self {
        services: &[10, 1_000, BOUNDED_AT],
        rounds: 15,
        agent_rounds: 3,
        idle: 30,
        scrapes: 15,
        silence: Duration::from_secs(60),
        load: Duration::from_secs(10),
    };

    /// To see that it runs.
    pub const SMOKE: Self = Self {
        services: &[10],
        rounds: 2,
        agent_rounds: 1,
        idle: 1,
        scrapes: 2,
        silence: Duration::ZERO,
        load: Duration::from_millis(500),
    };
}

/// Measures and adds the cases.
///
/// # Errors
///
/// What is missing on this machine, or which change did not arrive.
pub fn run(report: &mut Report, effort: &Effort) -> Result<()> {
    for &services in effort.services {
        eprintln!("control: {services} services with {BACKENDS} backends each, by the library");
        add_library(report, services, &library::measure(services, effort)?);
    }
    for &services in effort.services {
        eprintln!("control: {services} services with {BACKENDS} backends each, by an agent");
        let taken = agent::measure(services, effort, effort.idle)?;
        add_agent(report, services, &taken);
    }
    if let Some(&services) = effort.services.last() {
        eprintln!("control: {services} services with {BACKENDS} backends each, scraped");
        add_scrapes(report, services, &scrape::measure(services, effort)?);
    }
    eprintln!("control: {} apps of Marathon, by an agent", marathon::APPS);
    // Long enough for what it does once a minute to count for as much as it is.
    add_marathon(report, &marathon::measure(effort, 4 * effort.idle)?);
    Ok(())
}

fn add_library(report: &mut Report, services: usize, taken: &library::Taken) {
    let library::Taken {
        full,
        read_back,
        nothing,
        bare,
        down,
        drain,
        remove,
        add,
    } = taken;
    let bounded = |bound: Bound| (services == BOUNDED_AT).then_some(bound);
    let title = |what: &str| format!("{what}, {services} services");
    for (what, values, bound) in [
        ("change of state: down or up again", down, true),
        ("drain by weight 0, until it takes no new flow", drain, true),
        ("nothing changed", nothing, false),
        ("full sync from nothing", full, false),
        ("all maps read and compared", read_back, false),
        ("bare swap of one map in a map", bare, false),
    ] {
        let bound = bound.then(|| bounded(Bound::AtMost(STATE_BOUND))).flatten();
        report.push(Case {
            bound,
            ..case(title(what), values, "ms")
        });
    }
    for (what, values) in [("backend removed", remove), ("backend added", add)] {
        let ratio = Ratio {
            value: median(values) / median(bare),
            to: "bare swap".to_owned(),
        };
        report.push(Case {
            ratio: Some(ratio),
            bound: bounded(Bound::AtMost(MEMBERSHIP_BOUND)),
            ..case(title(what), values, "ms")
        });
    }
}

fn add_agent(report: &mut Report, services: usize, taken: &agent::Taken) {
    let agent::Taken {
        start,
        drain,
        remove,
        resident,
        idle,
    } = taken;
    for (what, values, unit) in [
        ("agent: start to all services in the maps", start, "ms"),
        ("agent: weight 0 in the file to the map", drain, "ms"),
        (
            "agent: backend out of the file to freed in the map",
            remove,
            "ms",
        ),
        ("agent: resident memory", resident, "MB"),
        ("agent: idle, of one CPU", idle, "%"),
    ] {
        report.push(case(format!("{what}, {services} services"), values, unit));
    }
}

fn add_scrapes(report: &mut Report, services: usize, taken: &scrape::Taken) {
    let scrape::Taken {
        pages,
        quiet,
        scraped,
    } = taken;
    let is_bounded = services == BOUNDED_AT;
    for (page, times) in scrape::PAGES.iter().zip(pages) {
        let bound = (is_bounded && page.bounded).then_some(Bound::AtMost(SCRAPE_BOUND));
        for (when, values) in [
            ("after a minute without", &times.cold),
            ("each second", &times.watched),
        ] {
            let title = format!("scrape of {}, {when}, {services} services", page.target);
            report.push(Case {
                bound: bound.clone(),
                ..case(title, values, "ms")
            });
        }
    }
    for (what, alone, beside, bound) in [
        (
            "median connect() to a VIP",
            &quiet.median,
            &scraped.median,
            is_bounded.then_some(Bound::AtMost(BESIDE_BOUND)),
        ),
        (
            "99 % of connect() to a VIP",
            &quiet.late,
            &scraped.late,
            None,
        ),
    ] {
        let title = format!("{what}, {services} services");
        let ratio = Ratio {
            value: median(beside) / median(alone),
            to: "nobody scrapes".to_owned(),
        };
        let beside = case(format!("{title}, scraped each second"), beside, "us");
        report.push(case(format!("{title}, nobody scrapes"), alone, "us"));
        report.push(Case {
            ratio: Some(ratio),
            bound,
            ..beside
        });
    }
}

fn add_marathon(report: &mut Report, taken: &marathon::Taken) {
    let marathon::Taken {
        snapshot,
        event,
        whole,
        idle,
    } = taken;
    for (what, values, unit, bound) in [
        (
            "a new task in each app, from the answer to the maps",
            snapshot,
            "ms",
            Some(SNAPSHOT_BOUND),
        ),
        (
            "a task that stops, from the answer to the map",
            event,
            "ms",
            Some(EVENT_BOUND),
        ),
        ("the same from the event", whole, "ms", None),
        ("agent idle, of one CPU", idle, "%", None),
    ] {
        let title = format!(
            "Marathon, {} apps with {} tasks: {what}",
            marathon::APPS,
            marathon::TASKS
        );
        report.push(Case {
            bound: bound.map(Bound::AtMost),
            ..case(title, values, unit)
        });
    }
}

fn case(case: String, values: &[f64], unit: &'static str) -> Case {
    Case {
        suite: SUITE,
        case,
        best: values.iter().copied().fold(f64::NAN, f64::min),
        median: median(values),
        unit,
        ratio: None,
        bound: None,
    }
}
