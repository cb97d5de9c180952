//! What containers made for dockercloud/haproxy and tutum/haproxy say in their environment.
//!
//! What has a meaning for connections is taken over; what needs the payload (HTTP, TLS) is named once as having no effect.

mod balancer;
mod lines;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::balancer::Balancer;
pub(super) use self::lines::with_unit;

use super::{domains, labels::Wish, probes};
use crate::{
    catalog::Port,
    provider::{
        shape::parts,
        values::{count, port, weight},
    },
};

/// Variables that are read.
const READ: [&str; 12] = [
    "TCP_PORTS",
    "SERVICE_PORTS",
    "EXCLUDE_PORTS",
    "VIRTUAL_HOST",
    "BALANCE",
    "FAILOVER",
    "COOKIE",
    "EXTRA_ROUTE_SETTINGS",
    "HEALTH_CHECK",
    "HTTP_CHECK",
    "OPTION",
    EXTRA,
];

/// Lines of HAProxy's configuration. Most of them may be secrets, and are not kept either.
const EXTRA: &str = "EXTRA_SETTINGS";

/// Variables without a meaning for connections. Their values may be secrets, and are not kept.
const IGNORED: [&str; 7] = [
    "VIRTUAL_HOST_WEIGHT",
    "SSL_CERT",
    "FORCE_SSL",
    "GZIP_COMPRESSION_TYPE",
    "HSTS_MAX_AGE",
    "HTTP_BASIC_AUTH",
    "EXCLUDE_BASIC_AUTH",
];

/// How long a client keeps its backend where a cookie did that before, s.
const STICKY: u32 = 3_600;

/// Keeps of an environment what is read here.
pub(super) fn keep(lines: &[String]) -> BTreeMap<String, String> {
    let pairs = lines.iter().filter_map(|line| line.split_once('='));
    pairs
        .filter_map(|(name, value)| match name {
            EXTRA => Some((name.to_owned(), lines::without_secrets(value))),
            _ if READ.contains(&name) => Some((name.to_owned(), value.trim().to_owned())),
            _ if IGNORED.contains(&name) => Some((name.to_owned(), String::new())),
            _ => None,
        })
        .collect()
}

/// Reads the environment into a wish that begins as the balancer's; `notes`: what has no effect.
///
/// # Errors
/// The first variable whose value cannot be used.
pub(super) fn read(
    env: &BTreeMap<String, String>,
    balancer: &Balancer,
    notes: &mut Vec<String>,
) -> Result<Wish, String> {
    let mut wish = balancer.wish.clone();
    let get = |name: &str| {
        env.get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let wrong = |name: &'static str| move |why: String| format!("{name} of the environment: {why}");
    if let Some(text) = get("EXCLUDE_PORTS") {
        wish.excluded = ports(text).map_err(wrong("EXCLUDE_PORTS"))?;
    }
    if let Some(text) = get("SERVICE_PORTS") {
        wish.ports = Some(ports(text).map_err(wrong("SERVICE_PORTS"))?);
        wish.asks = true;
    }
    if let Some(text) = get("TCP_PORTS") {
        let bare: Vec<&str> = parts(text)
            .map(|part| part.strip_suffix("/ssl").unwrap_or(part))
            .collect();
        wish.plain = ports(&bare.join(",")).map_err(wrong("TCP_PORTS"))?;
        wish.asks = true;
        if text.contains("/ssl") {
            notes.push(
                "/ssl in TCP_PORTS has no effect: TLS goes through to the container".to_owned(),
            );
        }
    }
    if let Some(text) = get("VIRTUAL_HOST") {
        wish.asks = true;
        wish.domains = domains::read(text, notes);
    }
    if let Some(text) = get("BALANCE") {
        let word = text.split_whitespace().next().unwrap_or_default();
        wish.properties.balance = lines::balance(word).map_err(wrong("BALANCE"))?;
    }
    if get("FAILOVER").is_some() {
        wish.backup = true;
    }
    if get("COOKIE").is_some() {
        wish.properties.affinity = STICKY;
        notes.push("COOKIE is taken as affinity by the client's address, for an hour".to_owned());
    }
    if let Some(text) = get("EXTRA_ROUTE_SETTINGS") {
        route_settings(text, &mut wish, notes).map_err(wrong("EXTRA_ROUTE_SETTINGS"))?;
    }
    if let Some(text) = get(EXTRA) {
        lines::read(EXTRA, text, &mut wish.properties, notes).map_err(wrong(EXTRA))?;
    }
    if let Some(text) = get("OPTION") {
        notes.extend(option(text));
    }
    // What the operator's words lack was told to him at the start.
    let unsaid = &mut Vec::new();
    let (health, told) = match (get("HEALTH_CHECK"), balancer.health.as_deref()) {
        (Some(own), _) => (Some(own), &mut *notes),
        (None, preset) => (preset, unsaid),
    };
    let check = probes::check(health, get("HTTP_CHECK"), told)?;
    wish.tcp_check = check.map(Arc::new);
    for name in IGNORED.iter().filter(|name| env.contains_key(**name)) {
        notes.push(format!(
            "{name} of the environment has no effect: connections are balanced, not requests"
        ));
    }
    Ok(wish)
}

/// What is said of HAProxy's options. `redispatch` is what happens anyway: a SYN without an answer goes elsewhere when
/// it is sent again.
fn option(text: &str) -> Option<String> {
    let words = text
        .split(',')
        .filter_map(|one| one.split_whitespace().next());
    let others: Vec<&str> = words.filter(|word| *word != "redispatch").collect();
    (!others.is_empty()).then(|| {
        format!(
            "{} in OPTION has no effect: connections are balanced, not requests",
            others.join(", ")
        )
    })
}

/// Words of HAProxy's `server` line.
fn route_settings(text: &str, wish: &mut Wish, notes: &mut Vec<String>) -> Result<(), String> {
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("{word} without a value"))
        };
        match word {
            "weight" => wish.weight = weight(value()?)?,
            "maxconn" => wish.max_flows = count(value()?)?,
            "backup" => wish.backup = true,
            _ => notes.push(format!("{word} in EXTRA_ROUTE_SETTINGS has no effect")),
        }
    }
    Ok(())
}

fn ports(text: &str) -> Result<BTreeSet<Port>, String> {
    parts(text).map(port).collect()
}
