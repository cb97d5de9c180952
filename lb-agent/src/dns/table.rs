//! What DNS says, as a pure function of a snapshot.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use hickory_server::proto::{
    op::ResponseCode,
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SRV},
    },
};

use super::{
    Zones,
    instances::{self, Asked, Instance},
};
use crate::{
    catalog::NameAddresses,
    vip::{self, VipName},
};

/// The names of one moment.
#[derive(Clone, Debug)]
pub struct Table {
    zones: Zones,
    /// By canonical name.
    names: HashMap<Box<str>, NameAddresses>,
    /// Further names, each of one of those.
    aliases: HashMap<Box<str>, Box<str>>,
    /// Nodes between the zone and a name that have no records of their own.
    inner_nodes: HashSet<Box<str>>,
    /// Who is behind a name.
    instances: HashMap<Box<str>, Vec<Instance>>,
}

/// The sections of a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What became of the query.
    pub code: ResponseCode,
    /// Whether it is our zone that speaks.
    pub authoritative: bool,
    /// Records that answer.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub authority: Vec<Record>,
}

/// What a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name in the zone, without the trailing dot.
    pub fqdn: String,
    /// Its A and AAAA records, in this order.
    pub addrs: Vec<IpAddr>,
}

/// What DNS says of a name, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is there.
    Found(Found),
    /// It would be in the zone and is not there; its full name, without the trailing dot.
    Missing(String),
    /// It is not in the zone: the query is forwarded.
    Outside,
}

// === impl Table ===

impl Table {
    /// A snapshot of `names`, and of who is behind them.
    pub fn new(
        zones: &Zones,
        names: &BTreeMap<VipName, NameAddresses>,
        instances: HashMap<Box<str>, Vec<Instance>>,
    ) -> Self {
        let mut table = Self {
            zones: zones.clone(),
            names: HashMap::with_capacity(names.len()),
            aliases: HashMap::new(),
            inner_nodes: HashSet::new(),
            instances,
        };
        for (name, &addresses) in names {
            table.names.insert(name.as_str().into(), addresses);
            table.pass_by(name.as_str());
        }
        table
    }

    /// With `aliases`: further names, each of one of the others.
    #[must_use]
    pub fn with_aliases(mut self, aliases: &BTreeMap<VipName, VipName>) -> Self {
        for (alias, of) in aliases {
            if self.names.contains_key(of.as_str()) {
                let (alias, of) = (alias.as_str(), of.as_str());
                self.aliases.insert(alias.into(), of.into());
                self.pass_by(alias);
            }
        }
        self
    }

    /// Takes note of the nodes above one.
    fn pass_by(&mut self, mut node: &str) {
        while let Some((_, parent)) = node.split_once('.') {
            if !self.inner_nodes.insert(parent.into()) {
                break;
            }
            node = parent;
        }
    }

    /// The VIP's own name where `name` is a further one.
    fn own<'n>(&'n self, name: &'n str) -> &'n str {
        match self.aliases.get(name) {
            Some(of) if !self.names.contains_key(name) => of,
            _ => name,
        }
    }

    /// What is said of `node`; `None`: it is none, or has no records of its own.
    fn find(&self, node: &str) -> Option<Records<'_>> {
        let node = self.own(node);
        if let Some(NameAddresses { v4, v6 }) = self.names.get(node) {
            let addrs = v4.map(IpAddr::V4).into_iter();
            let addrs = addrs.chain(v6.map(IpAddr::V6)).collect();
            return Some(Records {
                addrs,
                ..Records::default()
            });
        }
        let labels: Vec<&str> = node.split('.').collect();
        let (asked, name) = Asked::read(&labels)?;
        let name = name.join(".");
        let (name, _) = self.names.get_key_value(self.own(&name))?;
        let all = self
            .instances
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut addrs = instances::addresses(all, asked)?;
        addrs.sort_by_key(IpAddr::is_ipv6);
        let services = instances::services(all, asked)?;
        Some(Records {
            addrs,
            services,
            name,
        })
    }

    /// What is said of the whole name `node`, which has so many labels before a domain: of a VIP with that name, or with
    /// `*` for the labels before the rest (RFC 4592).
    fn find_in_domain(&self, node: &str, above: usize) -> Option<Records<'_>> {
        let find = |name: &str| {
            let spaces = [self.zones.space(), vip::OF_DOMAINS];
            spaces
                .iter()
                .find_map(|space| self.find(&format!("{name}.{space}")))
        };
        let exact = find(node);
        if exact.is_some() {
            return exact;
        }
        let mut rest = node;
        for _ in 0..above {
            (_, rest) = rest.split_once('.')?;
            let any = find(&format!("{}.{rest}", vip::ANY));
            if any.is_some() {
                return any;
            }
        }
        None
    }
}

/// What a name stands for.
#[derive(Clone, Debug, Default)]
struct Records<'t> {
    addrs: Vec<IpAddr>,
    /// For SRV records.
    services: Vec<&'t Instance>,
    /// The VIP's name, which their targets are below.
    name: &'t str,
}

impl Records<'_> {
    /// Those of one type, or all of them. Targets are spelt under `apex`.
    fn answers(
        &self,
        table: &Table,
        name: &Name,
        record_type: RecordType,
        apex: &Name,
    ) -> Vec<Record> {
        let addrs = self.addrs.iter().map(|addr| match addr {
            IpAddr::V4(v4) => RData::A(A(*v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
        });
        let services = self.services.iter();
        let services = services.filter_map(|one| Some(RData::SRV(service(one, self.name, apex)?)));
        let all = record_type == RecordType::ANY;
        addrs
            .chain(services)
            .filter(|rdata| all || rdata.record_type() == record_type)
            .map(|rdata| table.zones.record(name.clone(), rdata))
            .collect()
    }
}

/// The answer to a query; `None` if the name is not ours, whoever else may know it.
pub fn answer(
    table: &Table,
    name: &Name,
    record_type: RecordType,
    class: DNSClass,
) -> Option<Answer> {
    let Some(above) = table.zones.labels_above(name) else {
        return in_domain(table, name, record_type, class);
    };
    if !matches!(class, DNSClass::IN | DNSClass::ANY) {
        return Some(Answer::error(ResponseCode::Refused));
    }
    let mut apex = name.trim_to(name.iter().len() - above);
    apex.set_fqdn(true);
    let any = record_type == RecordType::ANY;
    if above == 0 {
        let mut answers = Vec::new();
        if any || record_type == RecordType::SOA {
            answers.push(table.zones.soa(apex.clone()));
        }
        if any || record_type == RecordType::NS {
            answers.push(table.zones.ns(apex.clone()));
        }
        return Some(Answer::existing(table, answers, apex));
    }
    let node = node(name, above);
    let Some(records) = node.as_deref().and_then(|node| table.find(node)) else {
        // RFC 8020: NXDOMAIN here would deny the names below.
        let code = match node.is_some_and(|node| table.inner_nodes.contains(node.as_str())) {
            true => ResponseCode::NoError,
            false => ResponseCode::NXDomain,
        };
        return Some(Answer::negative(table, code, apex));
    };
    let answers = records.answers(table, name, record_type, &apex);
    Some(Answer::existing(table, answers, apex))
}

/// The same in a domain that is not ours: `None` unless a VIP has the name, since others are known elsewhere.
fn in_domain(
    table: &Table,
    name: &Name,
    record_type: RecordType,
    class: DNSClass,
) -> Option<Answer> {
    let above = table.zones.labels_above_domain(name)?;
    let records = table.find_in_domain(&node(name, name.iter().len())?, above)?;
    if !matches!(class, DNSClass::IN | DNSClass::ANY) {
        return Some(Answer::error(ResponseCode::Refused));
    }
    let mut domain = name.trim_to(name.iter().len() - above);
    domain.set_fqdn(true);
    let mut apex = Name::from_ascii(vip::ZONE).ok()?;
    apex.set_fqdn(true);
    let answers = records.answers(table, name, record_type, &apex);
    Some(Answer::existing(table, answers, domain))
}

/// The target is spelt under the suffix that was asked. `None`: it would be too long for a name.
fn service(one: &Instance, name: &str, apex: &Name) -> Option<SRV> {
    let below = Name::from_ascii(format!("{}.{name}", one.label)).ok()?;
    let mut target = below.append_domain(apex).ok()?;
    target.set_fqdn(true);
    Some(SRV::new(0, one.weight, one.addr.port(), target))
}

/// What DNS would say for a name as a person types it: with the zone, with an alias of it, or the
/// canonical name alone.
///
/// A name without the zone that ends like canonical names do, in a framework that is known, is taken for one.
pub fn lookup(table: &Table, name: &str) -> Lookup {
    let typed = name.trim_end_matches('.');
    let Ok(parsed) = Name::from_ascii(name) else {
        return Lookup::Missing(typed.to_owned());
    };
    let above = table.zones.labels_above(&parsed);
    let node = node(&parsed, above.unwrap_or(parsed.iter().len()));
    let found = node
        .as_ref()
        .and_then(|node| Some((node, table.find(node)?)));
    if let Some((node, records)) = found {
        return Lookup::Found(Found {
            fqdn: format!("{node}.{}", vip::ZONE),
            addrs: records.addrs,
        });
    }
    if above.is_none()
        && let Some(above) = table.zones.labels_above_domain(&parsed)
        && let Some(node) = &node
        && let Some(records) = table.find_in_domain(node, above)
    {
        return Lookup::Found(Found {
            fqdn: node.clone(),
            addrs: records.addrs,
        });
    }
    let framework = node.as_deref().and_then(|node| node.rsplit('.').next());
    match (above, framework) {
        (Some(_), _) => Lookup::Missing(typed.to_owned()),
        (None, Some(last)) if table.inner_nodes.contains(last) => {
            Lookup::Missing(format!("{typed}.{}", vip::ZONE))
        }
        (None, _) => Lookup::Outside,
    }
}

/// The first `count` labels of `name` in lower case, joined by dots. `None` if a label has other
/// characters than our names have: one with a dot in it is not two labels.
fn node(name: &Name, count: usize) -> Option<String> {
    let mut node = String::with_capacity(name.len());
    for label in name.iter().take(count) {
        if !node.is_empty() {
            node.push('.');
        }
        for byte in label {
            match byte.to_ascii_lowercase() {
                byte @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => node.push(char::from(byte)),
                _ => return None,
            }
        }
    }
    Some(node)
}

// === impl Answer ===

impl Answer {
    /// A reply that says nothing but what went wrong.
    pub fn error(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authority: Vec::new(),
        }
    }

    /// The name exists; without records of the type asked for, the SOA says so.
    fn existing(table: &Table, answers: Vec<Record>, apex: Name) -> Self {
        if answers.is_empty() {
            return Self::negative(table, ResponseCode::NoError, apex);
        }
        Self {
            code: ResponseCode::NoError,
            authoritative: true,
            answers,
            authority: Vec::new(),
        }
    }

    fn negative(table: &Table, code: ResponseCode, apex: Name) -> Self {
        Self {
            code,
            authoritative: true,
            answers: Vec::new(),
            authority: vec![table.zones.soa(apex)],
        }
    }
}

#[cfg(test)]
mod tests;
