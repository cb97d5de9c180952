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
            inner_nodes: HashSet::new(),
            instances,
        };
        for (name, &addresses) in names {
            let mut node = name.as_str();
            table.names.insert(node.into(), addresses);
            while let Some((_, parent)) = node.split_once('.') {
                if !table.inner_nodes.insert(parent.into()) {
                    break;
                }
                node = parent;
            }
        }
        table
    }

    /// What is said of `node`; `None`: it is none, or has no records of its own.
    fn find(&self, node: &str) -> Option<Records<'_>> {
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
        let (name, _) = self.names.get_key_value(name.as_str())?;
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

/// The answer to a query; `None` if the name is not ours, whoever else may know it.
pub fn answer(
    table: &Table,
    name: &Name,
    record_type: RecordType,
    class: DNSClass,
) -> Option<Answer> {
    let above = table.zones.labels_above(name)?;
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
    let addrs = records.addrs.iter().map(|addr| match addr {
        IpAddr::V4(v4) => RData::A(A(*v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
    });
    let services = records.services.iter();
    let services = services.filter_map(|one| Some(RData::SRV(service(one, records.name, &apex)?)));
    let answers = addrs
        .chain(services)
        .filter(|rdata| any || rdata.record_type() == record_type)
        .map(|rdata| table.zones.record(name.clone(), rdata))
        .collect();
    Some(Answer::existing(table, answers, apex))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> Table {
        let zones = Zones::new(Some("ybndrfg8ejkmcpqxot1uwisza345h769")).expect("zones");
        let name = |canonical: &str| VipName::from_canonical(canonical).expect("a name");
        let four = NameAddresses {
            v4: Some([11, 0, 0, 1].into()),
            v6: None,
        };
        let both = NameAddresses {
            v6: Some("fd01:c::1".parse().expect("an address")),
            ..four
        };
        let names = BTreeMap::from([
            (name("app.marathon"), four),
            (name("dispatcher.spark.marathon"), both),
        ]);
        Table::new(&zones, &names, HashMap::new())
    }

    fn ask(name: &str, record_type: RecordType) -> Option<Answer> {
        let mut name = Name::from_ascii(name).expect("a DNS name");
        name.set_fqdn(true);
        answer(&table(), &name, record_type, DNSClass::IN)
    }

    /// `NOERROR app.example. 5 IN A 11.0.0.1`
    fn said(name: &str, record_type: RecordType) -> String {
        let answer = ask(name, record_type).expect("a name of ours");
        assert!(answer.authoritative);
        let mut line = format!("{:?}", answer.code);
        for record in answer.answers.iter().chain(&answer.authority) {
            line += &format!(" | {record}");
        }
        line
    }

    fn soa(apex: &str) -> String {
        format!("{apex} 5 IN SOA ns.spartan. support.mesosphere.com. 1 60 180 86400 1")
    }

    #[test]
    fn a_name_has_its_addresses_for_five_seconds() {
        assert_eq!(
            said("app.marathon.l4lb.thisdcos.directory", RecordType::A),
            "NoError | app.marathon.l4lb.thisdcos.directory. 5 IN A 11.0.0.1"
        );
        assert_eq!(
            said(
                "dispatcher.spark.marathon.l4lb.thisdcos.directory",
                RecordType::AAAA
            ),
            "NoError | dispatcher.spark.marathon.l4lb.thisdcos.directory. 5 IN AAAA fd01:c::1"
        );
    }

    #[test]
    fn every_alias_answers_under_the_name_and_spelling_that_was_asked() {
        for suffix in [
            "l4lb.thisdcos.directory",
            "L4LB.ThisDCOS.Global",
            "dclb.thisdcos.directory",
            "dclb.thisdcos.GLOBAL",
            "l4lb.YbndRfg8ejkmcpqxot1uwisza345h769.dcos.directory",
        ] {
            assert_eq!(
                said(&format!("ApP.marathon.{suffix}"), RecordType::A),
                format!("NoError | ApP.marathon.{suffix}. 5 IN A 11.0.0.1")
            );
            let negative = said(&format!("x.{suffix}"), RecordType::A);
            assert_eq!(
                negative,
                format!("NXDomain | {}", soa(&format!("{suffix}.")))
            );
        }
    }

    #[test]
    fn a_missing_type_is_no_missing_name() {
        let no_data = format!("NoError | {}", soa("l4lb.thisdcos.directory."));
        for (name, record_type) in [
            ("app.marathon.l4lb.thisdcos.directory", RecordType::AAAA),
            ("app.marathon.l4lb.thisdcos.directory", RecordType::SRV),
            ("marathon.l4lb.thisdcos.directory", RecordType::A),
            ("spark.marathon.l4lb.thisdcos.directory", RecordType::A),
            ("l4lb.thisdcos.directory", RecordType::A),
        ] {
            assert_eq!(said(name, record_type), no_data, "{name} {record_type}");
        }
    }

    #[test]
    fn a_missing_name_comes_with_the_soa() {
        let missing = format!("NXDomain | {}", soa("l4lb.thisdcos.directory."));
        for name in [
            "other.marathon.l4lb.thisdcos.directory",
            "below.app.marathon.l4lb.thisdcos.directory",
            r"app\.marathon.l4lb.thisdcos.directory",
            r"app\.marathon.marathon.l4lb.thisdcos.directory",
        ] {
            assert_eq!(said(name, RecordType::A), missing, "{name}");
        }
    }

    #[test]
    fn the_apex_has_soa_and_ns() {
        let ns = "l4lb.thisdcos.directory. 3600 IN NS ns.spartan.";
        let soa = soa("l4lb.thisdcos.directory.");
        let apex = "l4lb.thisdcos.directory";
        assert_eq!(said(apex, RecordType::SOA), format!("NoError | {soa}"));
        assert_eq!(said(apex, RecordType::NS), format!("NoError | {ns}"));
        assert_eq!(
            said(apex, RecordType::ANY),
            format!("NoError | {soa} | {ns}")
        );
    }

    #[test]
    fn any_gives_every_address() {
        let name = "dispatcher.spark.marathon.l4lb.thisdcos.directory";
        assert_eq!(
            said(name, RecordType::ANY),
            format!("NoError | {name}. 5 IN A 11.0.0.1 | {name}. 5 IN AAAA fd01:c::1")
        );
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            ".",
            "directory",
            "thisdcos.directory",
            "app.marathon.l4lb.thisdcos.directory.example.com",
            "xl4lb.thisdcos.directory",
            "app.marathon.l4lb.otherkey.dcos.directory",
            "leader.mesos",
        ] {
            assert_eq!(ask(name, RecordType::A), None, "{name}");
        }
    }

    #[test]
    fn another_class_is_refused() {
        let name = Name::from_ascii("app.marathon.l4lb.thisdcos.directory.").expect("a name");
        let refused = answer(&table(), &name, RecordType::A, DNSClass::CH).expect("ours");
        assert_eq!(refused, Answer::error(ResponseCode::Refused));
    }

    #[test]
    fn people_may_leave_out_the_zone() {
        for name in [
            "App.marathon",
            "app.marathon.l4lb.thisdcos.directory",
            "app.marathon.dclb.thisdcos.global.",
        ] {
            let Lookup::Found(found) = lookup(&table(), name) else {
                panic!("{name} exists");
            };
            assert_eq!(found.fqdn, "app.marathon.l4lb.thisdcos.directory");
            assert_eq!(found.addrs, [IpAddr::from([11, 0, 0, 1])]);
        }
        for (name, fqdn) in [
            ("marathon", "marathon.l4lb.thisdcos.directory"),
            ("no.Marathon", "no.Marathon.l4lb.thisdcos.directory"),
            (
                "no.marathon.dclb.thisdcos.global.",
                "no.marathon.dclb.thisdcos.global",
            ),
            ("l4lb.thisdcos.directory", "l4lb.thisdcos.directory"),
            ("a..b", "a..b"),
        ] {
            assert_eq!(lookup(&table(), name), Lookup::Missing(fqdn.to_owned()));
        }
    }

    #[test]
    fn a_name_of_somebody_else_is_not_called_missing() {
        for name in ["", "example.com", "app.marathon.example.com.", "localhost"] {
            assert_eq!(lookup(&table(), name), Lookup::Outside, "{name}");
        }
    }

    #[test]
    fn a_cluster_key_is_one_label() {
        for key in ["", "a.b", "a b", &"a".repeat(64)] {
            let error = Zones::new(Some(key)).expect_err("no key").to_string();
            assert!(error.contains("cluster key"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_in_the_zone_gets_an_answer_or_the_soa(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
            record_type in any::<u16>(),
        ) {
            let suffix: [&[u8]; 3] = [b"l4lb", b"ThisDCOS", b"directory"];
            let labels = labels.iter().map(Vec::as_slice).chain(suffix);
            let name = Name::from_labels(labels).expect("a name");
            let answer = answer(&table(), &name, record_type.into(), DNSClass::IN).expect("ours");
            prop_assert!(answer.authoritative);
            prop_assert_eq!(answer.answers.is_empty(), answer.authority.len() == 1);
            prop_assert!(answer.answers.iter().all(|record| record.name.eq_case(&name)));
        }
    }
}
