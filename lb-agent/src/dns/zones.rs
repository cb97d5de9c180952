//! The zone of named VIPs, and the names it also goes by.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use hickory_server::proto::rr::{
    Name, RData, Record,
    rdata::{NS, SOA},
};

use crate::vip;

/// Other suffixes under which DC/OS clients ask.
const ALIASES: [&str; 3] = [
    "l4lb.thisdcos.global",
    "dclb.thisdcos.directory",
    "dclb.thisdcos.global",
];

/// Of addresses, seconds. Clients follow a changed VIP within this.
pub const TTL: u32 = 5;
const NS_TTL: u32 = 3600;
/// Seconds, RFC 2308 section 4: a missing name is asked for again after this.
pub const NEGATIVE_TTL: u32 = 1;

/// The zone's suffixes and what its apex says. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Zones(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    suffixes: Vec<Name>,
    /// Domains that are ours only as far as a VIP has a name in them.
    domains: Vec<Name>,
    /// The name space of those VIPs.
    space: String,
    soa: RData,
    ns: RData,
}

// === impl Zones ===

impl Zones {
    /// With another name space of Docker's VIPs, in canonical form: those have names in domains, too.
    #[must_use]
    pub fn with_space(mut self, space: &str) -> Self {
        space.clone_into(&mut Arc::make_mut(&mut self.0).space);
        self
    }

    /// The name space of Docker's VIPs, which have names in domains besides those of [`vip::OF_DOMAINS`].
    pub(super) fn space(&self) -> &str {
        &self.0.space
    }

    /// The zone, its aliases, and `l4lb.<key>.dcos.directory` if the cluster has a key (zbase32); and `domains` in which
    /// VIPs have names.
    pub fn new(cluster_key: Option<&str>, domains: &[String]) -> anyhow::Result<Self> {
        let mut suffixes = Vec::new();
        for suffix in std::iter::once(vip::ZONE).chain(ALIASES) {
            suffixes.push(parse(suffix)?);
        }
        if let Some(key) = cluster_key {
            let fits = (1..=63).contains(&key.len());
            ensure!(
                fits && key.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "the cluster key {key:?} is not one DNS label of letters and digits"
            );
            suffixes.push(parse(&format!("l4lb.{key}.dcos.directory"))?);
        }
        let nameserver = parse("ns.spartan")?;
        let contact = parse("support.mesosphere.com")?;
        let soa = SOA::new(
            nameserver.clone(),
            contact,
            1,
            60,
            180,
            86_400,
            NEGATIVE_TTL,
        );
        Ok(Self(Arc::new(Inner {
            suffixes,
            domains: domains
                .iter()
                .map(|domain| parse(domain))
                .collect::<anyhow::Result<_>>()?,
            space: crate::provider::docker::FRAMEWORK.to_owned(),
            soa: RData::SOA(soa),
            ns: RData::NS(NS(nameserver)),
        })))
    }

    /// How many labels of `name` are above the zone; `None` if it is in none of the suffixes.
    pub(super) fn labels_above(&self, name: &Name) -> Option<usize> {
        labels_above(&self.0.suffixes, name)
    }

    /// The same of the domains in which VIPs have names.
    pub(super) fn labels_above_domain(&self, name: &Name) -> Option<usize> {
        labels_above(&self.0.domains, name)
    }

    /// The zone's SOA. The apex is spelt as it was asked, aliases included.
    pub(super) fn soa(&self, apex: Name) -> Record {
        Record::from_rdata(apex, TTL, self.0.soa.clone())
    }

    /// The zone's name server.
    pub(super) fn ns(&self, apex: Name) -> Record {
        Record::from_rdata(apex, NS_TTL, self.0.ns.clone())
    }

    /// A record of a name that is not the apex.
    pub(super) fn record(&self, owner: Name, rdata: RData) -> Record {
        Record::from_rdata(owner, TTL, rdata)
    }
}

fn labels_above(suffixes: &[Name], name: &Name) -> Option<usize> {
    let labels = name.iter().len();
    let suffix = suffixes.iter().find(|suffix| {
        // `Name::zone_of` would clone both.
        let mut asked = name.iter().rev();
        suffix.iter().rev().all(|label| {
            asked
                .next()
                .is_some_and(|asked| asked.eq_ignore_ascii_case(label))
        })
    })?;
    Some(labels - suffix.iter().len())
}

fn parse(name: &str) -> anyhow::Result<Name> {
    let mut parsed = Name::from_ascii(name).with_context(|| format!("{name} is no DNS name"))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}
