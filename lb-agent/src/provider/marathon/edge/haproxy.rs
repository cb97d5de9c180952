//! The labels of Marathon-LB that mean something for connections: `HAPROXY_{n}_...`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::bind;
use crate::{
    catalog::{Balance, Port, Properties, Source},
    provider::{
        marathon::label::{Labels, text},
        shape::parts,
        values::{decimal, port},
    },
};

/// How long a client keeps its backend where a cookie did that before, s.
const STICKY: u32 = 3_600;

/// Ways of HAProxy to choose a server that need a request, or that have no counterpart.
const OTHER_BALANCE: [&str; 7] = [
    "first",
    "hash",
    "hdr",
    "random",
    "rdp-cookie",
    "uri",
    "url_param",
];

/// What the labels say of one service port.
#[derive(Debug, Default)]
pub(super) struct PortLabels {
    /// `_PORT`.
    pub(super) port: Option<Port>,
    /// `_BIND_ADDR`; `None`: the node's addresses.
    pub(super) bind: Option<IpAddr>,
    /// `_VHOST`, in lower case.
    pub(super) vhosts: Vec<String>,
    /// What has another effect than with Marathon-LB.
    pub(super) notes: Vec<String>,
    balance: Option<Balance>,
    sticky: bool,
    allowed: Vec<IpNet>,
}

/// Reads those of service port `index`.
///
/// # Errors
/// The first label whose value cannot be used; then the port is not served, since to serve it in another way than it
/// asks for may be to serve whom it keeps out.
pub(super) fn of_port(labels: &Labels, index: usize) -> Result<PortLabels, String> {
    let mut read = PortLabels::default();
    let each = Each { labels, index };
    read.port = each.value("PORT", port)?;
    read.bind = each.value("BIND_ADDR", bind)?.flatten();
    let allowed = each.value("BACKEND_NETWORK_ALLOWED_ACL", allowed)?;
    read.allowed = allowed.unwrap_or_default();
    read.sticky = each.value("STICKY", |text| Ok(is_true(text)))? == Some(true);
    read.vhosts = each
        .value("VHOST", |text| Ok(hosts(text)))?
        .unwrap_or_default();
    let balance = each.value("BALANCE", balance)?;
    read.balance = balance.flatten();
    if balance == Some(None) {
        read.note(
            &each,
            "BALANCE",
            "needs a request to choose by; maglev is used",
        );
    }
    if read.sticky {
        let note =
            "is taken as affinity by the client's address, for an hour, in place of a cookie";
        read.note(&each, "STICKY", note);
    }
    if each.value("MODE", |text| Ok(text == "http"))? == Some(true) {
        let note = "connections are balanced as they are, also those that carry HTTP";
        read.note(&each, "MODE", note);
    }
    // Every check of Marathon's counts for the whole task, that of the other port among them.
    each.value("BACKEND_HEALTHCHECK_PORT_INDEX", number)?;
    Ok(read)
}

/// What Marathon-LB takes for yes.
pub(in super::super) fn is_true(text: &str) -> bool {
    let yes = ["true", "t", "yes", "y"];
    yes.iter().any(|yes| text.eq_ignore_ascii_case(yes))
}

/// The labels of one service port.
struct Each<'a> {
    labels: &'a Labels,
    index: usize,
}

// === impl Each ===

impl Each<'_> {
    fn name(&self, what: &str) -> String {
        format!("HAPROXY_{}_{what}", self.index)
    }

    fn value<T>(
        &self,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let name = self.name(what);
        let value = self.labels.get(&name).map(|value| parse(text(value)?));
        value
            .transpose()
            .map_err(|why| format!("label {name}: {why}"))
    }
}

// === impl PortLabels ===

impl PortLabels {
    /// What a VIP is to be like that is like `base` where these labels say nothing.
    pub(super) fn shape(&self, base: Properties) -> Properties {
        let mut properties = base;
        if let Some(balance) = self.balance {
            properties.balance = balance;
        }
        if self.sticky {
            properties.affinity = STICKY;
        }
        for net in &self.allowed {
            // A prefix that the operator of the app keeps out stays out.
            properties.sources.entry(*net).or_insert(Source::Allow);
        }
        properties
    }

    fn note(&mut self, each: &Each<'_>, what: &str, note: &str) {
        self.notes
            .push(format!("label {}: {note}", each.name(what)));
    }
}

/// `None`: the word is HAProxy's, without a counterpart here.
fn balance(text: &str) -> Result<Option<Balance>, String> {
    let word = text.split([' ', '(']).next().unwrap_or_default();
    match word {
        "roundrobin" | "static-rr" => Ok(Some(Balance::RoundRobin)),
        "leastconn" => Ok(Some(Balance::LeastConn)),
        "source" => Ok(Some(Balance::Source)),
        other if OTHER_BALANCE.contains(&other) => Ok(None),
        _ => Err(format!(
            "{text:?} is not one of roundrobin, static-rr, leastconn, source"
        )),
    }
}

/// HAProxy looks at the bits before the prefix's end alone, whatever is behind.
fn allowed(text: &str) -> Result<Vec<IpNet>, String> {
    let net = |part: &str| {
        let addr = part.parse::<IpAddr>().map(IpNet::from);
        let net = addr.or_else(|_| part.parse::<IpNet>().map(|net| net.trunc()));
        net.map_err(|_| format!("{part:?} is neither an address nor a prefix such as 10.0.0.0/8"))
    };
    let nets: Vec<IpNet> = parts(text).map(net).collect::<Result<_, _>>()?;
    if nets.is_empty() {
        return Err("it is empty; leave the label out to allow everybody".to_owned());
    }
    Ok(nets)
}

fn number(text: &str) -> Result<u32, String> {
    decimal(text).ok_or_else(|| format!("{text:?} is not the index of a port"))
}

fn hosts(text: &str) -> Vec<String> {
    let hosts = text
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty());
    hosts.map(str::to_ascii_lowercase).collect()
}
