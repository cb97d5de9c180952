//! `GET /v1/vips`, exactly as dcos-net shows it, so that tools written for DC/OS go on working.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

use serde::Serialize;
use sha1::{Digest, Sha1};

use super::report::{ServiceReport, StatusReport};

/// The zone that VIP names live in, without the final dot.
pub const ZONE: &str = "l4lb.thisdcos.directory";

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Vip"))]
pub(super) struct Entry<'a> {
    vip: String,
    protocol: &'a str,
    backend: Vec<Backend>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "VipBackend"))]
struct Backend {
    ip: IpAddr,
    port: u16,
}

/// The body: sorted by VIP as text and protocol, backends by address and port; weight 0 is listed like any other.
pub(super) fn body(report: &StatusReport) -> serde_json::Result<Vec<u8>> {
    let mut merged: BTreeMap<(String, &str), BTreeSet<(IpAddr, u16)>> = BTreeMap::new();
    for service in report.services.iter() {
        for host in hosts(service) {
            let vip = format!("{host}:{}", service.port);
            let backends = service
                .backends
                .iter()
                .map(|backend| (backend.addr.ip(), backend.addr.port()));
            merged
                .entry((vip, service.protocol.as_str()))
                .or_default()
                .extend(backends);
        }
    }
    let entries: Vec<_> = merged
        .into_iter()
        .map(|((vip, protocol), backends)| Entry {
            vip,
            protocol,
            backend: backends
                .into_iter()
                .map(|(ip, port)| Backend { ip, port })
                .collect(),
        })
        .collect();
    serde_json::to_vec(&entries)
}

/// The host parts it is listed under: its name, or the address of an IP VIP, IPv6 without brackets.
fn hosts(service: &ServiceReport) -> Vec<String> {
    match &service.name {
        Some(name) => vec![format!("{name}.{ZONE}")],
        None => service.addrs.iter().map(IpAddr::to_string).collect(),
    }
}

/// A strong entity tag, RFC 9110 section 8.8.3.
pub(super) fn etag(body: &[u8]) -> String {
    let mut tag = String::with_capacity(42);
    tag.push('"');
    for byte in Sha1::digest(body) {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}
