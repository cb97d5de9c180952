//! The keys of a service that say how it spreads its flows, limits them and carries them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use ipnet::IpNet;
use serde_saphyr::Spanned;

use super::{OneOrMany, Service, Wrong, check::check, keys};
use crate::{
    catalog::{Balance, DENIED, Idle, Mode, Port, Properties, Source},
    config::cidr,
    provider::values::{choice, count, port, seconds, word, yes_or_no},
};

/// The longest time-out, s: 30 days.
const LONGEST: u32 = 30 * 86_400;
/// The shortest ones, s: the time stamp of a flow may lag behind by [`lb_common::touch_interval`].
const SHORTEST_TCP: u32 = 10;
const SHORTEST_UDP: u32 = 2;
/// The longest slow start, s.
const LONGEST_START: u32 = 3_600;

keys! {
    /// The key `idle`.
    pub(super) struct IdleKeys {
        tcp: Spanned<String>,
        udp: Spanned<String>,
        udp_two_way: Spanned<String>,
    }
}

/// What a service says of itself; `None`: nothing.
pub(super) fn properties(service: &Service) -> Result<Option<Properties>, Wrong> {
    let Service {
        name: _,
        address: _,
        framework: _,
        port: _,
        protocol: _,
        backends: _,
        mode: mode_key,
        balance,
        affinity,
        max_flows,
        rate,
        source_rate,
        idle: idle_keys,
        allow,
        deny,
        denied,
        external: external_key,
        group,
        check: check_keys,
        fail_open,
        slow_start,
    } = service;
    let said = [
        mode_key,
        balance,
        affinity,
        max_flows,
        rate,
        source_rate,
        denied,
        fail_open,
        slow_start,
    ]
    .iter()
    .any(|key| key.is_some());
    let listed = allow.is_some() || deny.is_some();
    let more = external_key.is_some() || group.is_some() || check_keys.is_some();
    if !said && idle_keys.is_none() && !listed && !more {
        return Ok(None);
    }
    let usual = Properties::default();
    Ok(Some(Properties {
        called: None,
        groups: groups(group.as_ref())?,
        mode: read("mode", mode_key, |text| choice(text, &Mode::NAMES))?.unwrap_or_default(),
        balance: read("balance", balance, |text| choice(text, &Balance::NAMES))?
            .unwrap_or_default(),
        affinity: read("affinity", affinity, |text| seconds(text, 1..=LONGEST))?
            .unwrap_or(usual.affinity),
        max_flows: read("max-flows", max_flows, count)?.unwrap_or(usual.max_flows),
        rate: read("rate", rate, count)?.unwrap_or(usual.rate),
        source_rate: read("source-rate", source_rate, count)?.unwrap_or(usual.source_rate),
        idle: idle(idle_keys.as_ref())?,
        sources: sources(allow.as_ref(), deny.as_deref().unwrap_or_default())?,
        refuses: read("denied", denied, |text| choice(text, &DENIED))?.unwrap_or(usual.refuses),
        external: external(external_key.as_ref())?,
        check: check_keys.as_ref().map(check).transpose()?.map(Arc::new),
        fail_closed: read("fail-open", fail_open, yes_or_no)?.is_some_and(|open| !open),
        slow_start: read("slow-start", slow_start, |text| {
            seconds(text, 1..=LONGEST_START)
        })?
        .unwrap_or(usual.slow_start),
        // What a file names does not end: it is there or not.
        drain: None,
    }))
}

/// Reads the value of one key, if it is there.
pub(super) fn read<T>(
    key: &str,
    text: &Option<Spanned<String>>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    let parsed = parse(&text.value);
    parsed
        .map(Some)
        .map_err(|why| (text.referenced, format!("key {key}: {why}")))
}

fn idle(keys: Option<&IdleKeys>) -> Result<Idle, Wrong> {
    let usual = Idle::default();
    let Some(IdleKeys {
        tcp,
        udp,
        udp_two_way,
    }) = keys
    else {
        return Ok(usual);
    };
    let for_tcp = |text: &str| seconds(text, SHORTEST_TCP..=LONGEST);
    let for_udp = |text: &str| seconds(text, SHORTEST_UDP..=LONGEST);
    Ok(Idle {
        tcp: read("idle.tcp", tcp, for_tcp)?.unwrap_or(usual.tcp),
        udp: read("idle.udp", udp, for_udp)?.unwrap_or(usual.udp),
        udp_two_way: read("idle.udp-two-way", udp_two_way, for_udp)?.unwrap_or(usual.udp_two_way),
    })
}

fn sources(
    allow: Option<&Spanned<Vec<Spanned<String>>>>,
    deny: &[Spanned<String>],
) -> Result<BTreeMap<IpNet, Source>, Wrong> {
    let allowed = match allow {
        Some(list) if list.value.is_empty() => {
            let what = "key allow: the list is empty; leave the key out to allow everybody";
            return Err((list.referenced, what.to_owned()));
        }
        list => list.map_or(&[][..], |list| &list.value),
    };
    let mut sources = BTreeMap::new();
    let allowed = allowed.iter().map(|text| ("allow", Source::Allow, text));
    let denied = deny.iter().map(|text| ("deny", Source::Deny, text));
    for (key, source, text) in allowed.chain(denied) {
        let wrong = |what| (text.referenced, format!("key {key}: {what}"));
        let net = cidr(&text.value).map_err(wrong)?;
        match sources.entry(net) {
            Entry::Occupied(held) if *held.get() != source => {
                return Err(wrong(format!("{net} is in allow, too")));
            }
            entry => _ = entry.or_insert(source),
        }
    }
    Ok(sources)
}

/// Which agents are in them, each knows for itself.
fn groups(key: Option<&Spanned<OneOrMany>>) -> Result<BTreeSet<Arc<str>>, Wrong> {
    let Some(key) = key else {
        return Ok(BTreeSet::new());
    };
    let wrong = |what| (key.referenced, format!("key group: {what}"));
    let names = key.value.0.iter().map(|text| word(text).map(Arc::from));
    let names = names.collect::<Result<BTreeSet<_>, _>>().map_err(wrong)?;
    if names.is_empty() {
        let what = "the list is empty; leave the key out to have all agents serve it";
        return Err(wrong(what.to_owned()));
    }
    Ok(names)
}

/// Whether the operator allows the ports, and nobody else has them, each node knows for itself.
fn external(key: Option<&Spanned<OneOrMany>>) -> Result<BTreeSet<Port>, Wrong> {
    let Some(key) = key else {
        return Ok(BTreeSet::new());
    };
    let wrong = |what| (key.referenced, format!("key external: {what}"));
    let ports = key.value.0.iter().map(|text| port(text).map_err(wrong));
    let ports = ports.collect::<Result<BTreeSet<_>, _>>()?;
    if ports.is_empty() {
        return Err(wrong("the list is empty".to_owned()));
    }
    Ok(ports)
}
