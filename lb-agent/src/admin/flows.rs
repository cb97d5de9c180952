//! `GET /v1/flows` and `/v1/explain`: which flows are asked for, and their VIPs' names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde::Deserialize;

use super::{report::StatusReport, vips::ZONE};
use crate::{
    catalog::Protocol,
    look::{Explanation, Filter, FlowsReport, LIMIT, MOST, Question, Spot},
    plan::Endpoint,
};

/// The query, as it stands in the address.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Wish {
    vip: Option<String>,
    client: Option<String>,
    backend: Option<String>,
    service: Option<String>,
    limit: Option<String>,
}

/// The query of `/v1/explain`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Doubt {
    client: Option<String>,
    vip: Option<String>,
    protocol: Option<String>,
    local: Option<bool>,
}

/// VIPs by what they are.
pub(super) type Names<'a> = BTreeMap<Endpoint, &'a str>;

// === impl Wish ===

impl Wish {
    /// What is asked for, and how many of it.
    ///
    /// # Errors
    ///
    /// One sentence about what is wrong with the query.
    pub(super) fn read(&self, report: &StatusReport) -> Result<(Filter, usize), String> {
        let spot = |name: &str, text: &Option<String>| -> Result<Option<Spot>, String> {
            let parse = |text: &String| text.parse().map_err(|error| format!("{name}: {error}"));
            text.as_ref().map(parse).transpose()
        };
        let limit = match &self.limit {
            None => LIMIT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| format!("limit: not a number from 1 to {MOST}"))?,
        };
        let service = self.service.as_ref();
        let services = service.map(|name| services(report, name, "service"));
        let filter = Filter {
            vip: spot("vip", &self.vip)?,
            client: spot("client", &self.client)?,
            backend: spot("backend", &self.backend)?,
            services: services.transpose()?,
        };
        Ok((filter, limit))
    }
}

// === impl Doubt ===

impl Doubt {
    /// Which flow is asked about.
    ///
    /// # Errors
    ///
    /// One sentence about what is wrong with the query.
    pub(super) fn read(&self) -> Result<Question, String> {
        let at = |name: &str, text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            let at: SocketAddr = text
                .parse()
                .map_err(|_| format!("{name}: not ADDRESS:PORT or [ADDRESS]:PORT"))?;
            Ok::<_, String>(SocketAddr::new(at.ip().to_canonical(), at.port()))
        };
        let (client, vip) = (at("client", &self.client)?, at("vip", &self.vip)?);
        if client.is_ipv4() != vip.is_ipv4() {
            return Err("client and VIP must both be IPv4 or both IPv6".to_owned());
        }
        let protocol = match self.protocol.as_deref().unwrap_or("tcp") {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err("protocol: neither tcp nor udp".to_owned()),
        };
        Ok(Question {
            protocol,
            client,
            vip,
            local: self.local.unwrap_or_default(),
        })
    }
}

/// The VIPs of a named service, which may be given with its zone and one of its ports; `key`: what names it in the
/// query.
///
/// # Errors
///
/// One sentence, which begins with `key`.
pub(super) fn services(
    report: &StatusReport,
    wanted: &str,
    key: &str,
) -> Result<BTreeSet<Endpoint>, String> {
    let (name, port) = match wanted.rsplit_once(':') {
        Some((name, port)) => match port.parse::<u16>() {
            Ok(port) => (name, Some(port)),
            Err(_) => return Err(format!("{key}: {port} is no port")),
        },
        None => (wanted, None),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name
        .strip_suffix(ZONE)
        .and_then(|name| name.strip_suffix('.'))
        .unwrap_or(&name);
    let found: BTreeSet<_> = names(report)
        .into_iter()
        .filter(|(vip, known)| *known == bare && port.is_none_or(|port| port == vip.port))
        .map(|(vip, _)| vip)
        .collect();
    if found.is_empty() {
        return Err(format!(
            "{key}: there is no {wanted}; `lb-agent status` lists all"
        ));
    }
    Ok(found)
}

/// The name of every VIP that has one.
pub(super) fn names(report: &StatusReport) -> Names<'_> {
    let mut names = Names::new();
    for service in report.services.iter() {
        let Some(name) = &service.name else { continue };
        for addr in &service.addrs {
            let at = SocketAddr::new(*addr, service.port.get());
            names.insert(Endpoint::new(at, service.protocol.number()), name.as_str());
        }
    }
    names
}

/// Gives each flow its VIP's name.
pub(super) fn name(found: &mut FlowsReport, names: &Names<'_>) {
    for flow in &mut found.flows {
        let vip = Endpoint::new(flow.vip, flow.protocol.number());
        flow.name = names.get(&vip).map(|name| (*name).to_owned());
    }
}

/// Gives the service and the flow of an explanation their name.
pub(super) fn name_service(told: &mut Explanation, names: &Names<'_>) {
    let vip = Endpoint::new(told.vip, told.protocol.number());
    let name = names.get(&vip).map(|name| (*name).to_owned());
    if let Some(flow) = &mut told.flow {
        flow.name.clone_from(&name);
    }
    if let Some(service) = &mut told.service {
        service.name = name;
    }
}
