//! The table: every case, what it is compared to, and its bound.

use super::name;
use crate::bench::{
    report::{Bound, Case, Ratio, Report},
    rounds::{Figures, Series},
};

/// What a first packet cannot do without: is the address ours; is there a flow, half-open or not; which
/// service; may this source; which backend, where is it and by which next hop; a source port that no flow
/// has, half-open or not, which is claimed by inserting; and who was given it.
const FIRST_PACKET: [&str; 11] = [
    name::ARRAY,
    name::MAIN4_MISS,
    name::HALF4_MISS,
    name::SERVICE,
    name::SOURCE,
    name::TABLE,
    name::ARRAY,
    name::ARRAY,
    name::MAIN4_MISS,
    name::PAIR4,
    name::COUNT,
];

/// Cases that are shown as they are.
const PLAIN: [&str; 24] = [
    name::DROP,
    name::DROP_FLOWS,
    name::DROP_SWING,
    name::PASS,
    name::TX,
    name::PARSE4,
    name::PARSE6,
    name::NAT4,
    name::FILTER_HIT,
    name::FILTER_MISS,
    name::SERVICE,
    name::SOURCE,
    name::TABLE,
    name::ARRAY,
    name::FLOW4,
    name::FLOW6,
    name::FLOW4_FEW,
    name::FLOW4_MANY,
    name::MAIN4_MISS,
    name::HALF4_MISS,
    name::INSERT4,
    name::INSERT6,
    name::PAIR4,
    name::GROW,
];

/// Cases in relation to the floor of full NAT.
const TO_NAT: [(&str, Option<f64>); 15] = [
    (name::TCP4, Some(1.5)),
    (name::TCP6, Some(2.0)),
    (name::UDP4, Some(1.6)),
    (name::UDP6, None),
    (name::ANSWER4, None),
    (name::OTHER4, None),
    (name::HERE4, None),
    (name::IPIP4, Some(2.0)),
    (name::IPIP6, Some(2.0)),
    (name::GENEVE4, Some(2.0)),
    (name::GENEVE6, Some(2.0)),
    (name::PEER4, Some(2.0)),
    (name::PEER6, Some(2.0)),
    (name::L2, None),
    (name::SYN4_GUARD, Some(2.5)),
];

/// Adds all cases to the report.
pub(super) fn fill(figures: &Figures, report: &mut Report) {
    for name in PLAIN {
        report.push(case(figures, name));
    }
    let nat = figures.of(name::NAT4).median();
    for (name, bound) in TO_NAT {
        let case = case(figures, name);
        report.push(Case {
            ratio: Some(Ratio {
                value: case.median / nat,
                to: name::NAT4.to_owned(),
            }),
            bound: bound.map(Bound::AtMost),
            ..case
        });
    }
    for (ours, bare) in [
        (name::TCP4_FEW, name::FLOW4_FEW),
        (name::TCP4_MANY, name::FLOW4_MANY),
    ] {
        report.push(over_flows(figures, ours, bare));
    }
    // Packets and bytes of a backend and of its service are two entries of an array per CPU, which is what they cost.
    let alone = [(name::FOREIGN, 10.0), (name::OWN, 15.0), (name::COUNT, 3.0)];
    for (name, most) in alone {
        report.push(Case {
            bound: Some(Bound::AtMost(most)),
            ..case(figures, name)
        });
    }
    first_packet(figures, report);
    // The floor of full NAT has one flow, so that is what the bound is on. In a flood each search for a
    // flow comes to a part of the table that is in no cache.
    report.push(case(figures, name::SYN4_FLOOD));
    if figures.has(name::BESIDE_DROP) {
        let calm = case(figures, name::BESIDE_DROP);
        let flooded = case(figures, name::BESIDE_FLOOD);
        let ratio = Some(Ratio {
            value: flooded.median / calm.median,
            to: calm.case.clone(),
        });
        report.push(calm);
        report.push(Case {
            ratio,
            bound: Some(Bound::AtMost(1.1)),
            ..flooded
        });
    }
}

/// What more flows cost us, and what they cost a bare lookup.
fn over_flows(figures: &Figures, ours: &str, bare: &str) -> Case {
    let median = |name| figures.of(name).median();
    let case = case(figures, ours);
    Case {
        ratio: Some(Ratio {
            value: (case.median - median(name::TCP4)) / (median(bare) - median(name::FLOW4)),
            to: "both less one flow: bare lookup".to_owned(),
        }),
        bound: Some(Bound::AtMost(1.3)),
        ..case
    }
}

fn first_packet(figures: &Figures, report: &mut Report) {
    // Each floor reads the headers, a first packet does so once.
    let parse = figures.of(name::PARSE4);
    let sum = |of: fn(&Series) -> f64| {
        let floors = FIRST_PACKET.map(|name| (of(figures.of(name)) - of(parse)).max(0.0));
        of(parse) + floors.iter().sum::<f64>()
    };
    let needs = Case {
        best: sum(Series::smallest),
        median: sum(Series::median),
        ..blank("floor: sum of what a SYN needs")
    };
    let syn = case(figures, name::SYN4);
    let ratio = Some(Ratio {
        value: syn.median / needs.median,
        to: needs.case.clone(),
    });
    report.push(needs);
    report.push(Case {
        ratio,
        bound: Some(Bound::AtMost(1.3)),
        ..syn
    });
    report.push(case(figures, name::SYN6));
}

fn case(figures: &Figures, name: &str) -> Case {
    let series = figures.of(name);
    Case {
        best: series.smallest(),
        median: series.median(),
        ..blank(name)
    }
}

fn blank(name: &str) -> Case {
    Case {
        suite: "packet",
        case: name.to_owned(),
        best: 0.0,
        median: 0.0,
        unit: "ns",
        ratio: None,
        bound: None,
    }
}
