//! The labels `lb.*` that say what a VIP is to be like: one vocabulary, whatever carries the labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    check::check,
    values::{choice, count, decimal, drain, seconds, yes_or_no},
};
use crate::{
    catalog::{Balance, Check, DENIED, Idle, Mode, Properties, Source},
    config::cidr,
};

/// The longest time-out, s: 30 days.
pub(in crate::provider) const LONGEST: u32 = 30 * 86_400;
/// The longest slow start, s.
const LONGEST_START: u32 = 3_600;
/// The shortest one, s.
pub(in crate::provider) const SHORTEST: u32 = 10;

/// Reads them into `to`; `label`: the value of a label, if it is there.
///
/// # Errors
/// The first label whose value cannot be used.
pub(in crate::provider) fn properties<'l>(
    label: impl Fn(&str) -> Option<&'l str>,
    to: &mut Properties,
) -> Result<(), String> {
    if let Some(mode) = read(&label, "lb.mode", |text| choice(text, &Mode::NAMES))? {
        to.mode = mode;
    }
    if let Some(balance) = read(&label, "lb.balance", |text| choice(text, &Balance::NAMES))? {
        to.balance = balance;
    }
    if let Some(affinity) = read(&label, "lb.affinity", affinity)? {
        to.affinity = affinity;
    }
    if let Some(most) = read(&label, "lb.maxflows", count)? {
        to.max_flows = most;
    }
    if let Some(rate) = read(&label, "lb.rate", count)? {
        to.rate = rate;
    }
    if let Some(rate) = read(&label, "lb.source-rate", count)? {
        to.source_rate = rate;
    }
    if let Some(idle) = read(&label, "lb.idle", |text| seconds(text, SHORTEST..=LONGEST))? {
        to.idle = Idle {
            tcp: idle,
            udp: idle,
            udp_two_way: idle,
        };
    }
    if let Some(check) = read(&label, "lb.check", check_or_none)? {
        to.check = check.map(Arc::new);
    }
    if let Some(open) = read(&label, "lb.fail-open", yes_or_no)? {
        to.fail_closed = !open;
    }
    if let Some(over) = read(&label, "lb.slow-start", |text| {
        seconds(text, 1..=LONGEST_START)
    })? {
        to.slow_start = over;
    }
    if let Some(drain) = read(&label, "lb.drain", drain)? {
        to.drain = drain;
    }
    if let Some(groups) = read(&label, "lb.group", groups)? {
        to.groups = groups;
    }
    let mut sources = BTreeMap::new();
    for (name, rule) in [("lb.allow", Source::Allow), ("lb.deny", Source::Deny)] {
        for net in read(&label, name, prefixes)?.unwrap_or_default() {
            if sources
                .insert(net, rule)
                .is_some_and(|before| before != rule)
            {
                return Err(format!("label {name}: {net} is in lb.allow, too"));
            }
        }
    }
    to.sources = sources;
    if let Some(refuses) = read(&label, "lb.denied", |text| choice(text, &DENIED))? {
        to.refuses = refuses;
    }
    Ok(())
}

/// The value of one label, if it is there; an error names the label.
pub(in crate::provider) fn read<'l, T>(
    label: impl Fn(&str) -> Option<&'l str>,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    let value = label(name).map(parse).transpose();
    value.map_err(|why| format!("label {name}: {why}"))
}

/// A check, or `none`: whatever else says that there is one.
fn check_or_none(text: &str) -> Result<Option<Check>, String> {
    match text {
        "none" => Ok(None),
        _ => check(text).map(Some),
    }
}

/// Text of a label in parts, by commas or blanks.
pub(in crate::provider) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|part| !part.is_empty())
}

/// Groups of agents, at least one.
fn groups(text: &str) -> Result<BTreeSet<Arc<str>>, String> {
    let groups: BTreeSet<Arc<str>> = parts(text).map(Arc::from).collect();
    if groups.is_empty() {
        return Err("it is empty; leave the label out to have all agents serve it".to_owned());
    }
    Ok(groups)
}

/// Prefixes of clients, at least one.
fn prefixes(text: &str) -> Result<Vec<IpNet>, String> {
    let nets: Vec<IpNet> = parts(text).map(cidr).collect::<Result<_, _>>()?;
    if nets.is_empty() {
        return Err("it is empty; leave the label out to allow everybody".to_owned());
    }
    Ok(nets)
}

fn affinity(text: &str) -> Result<u32, String> {
    match decimal(text) {
        Some(0) => Ok(0),
        Some(number) if number <= LONGEST => Ok(number),
        _ => seconds(text, 1..=LONGEST),
    }
}
