//! From what stands in front of a service to the VIPs that stand in its stead.

use std::{collections::BTreeSet, sync::Arc};

use super::model::{Asked, Classic, Entry, Front, Group, Known, Manner, last};
use crate::catalog::{Port, Protocol};

/// One VIP in a load balancer's stead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontVip<'a> {
    /// The load balancer's name.
    pub(super) name: Arc<str>,
    /// The host name that AWS gave it, in lower case; `None`: it is not known.
    pub(super) dns_name: Option<Arc<str>>,
    /// Where clients come.
    pub(super) port: Port,
    /// By which protocol.
    pub(super) protocol: Protocol,
    /// The target group with its share of the clients, where several share them.
    pub(super) share: Option<(Arc<str>, u32)>,
    /// How the load balancer treats tasks; `None`: nobody knows.
    pub(super) manner: Option<&'a Manner>,
}

/// The VIPs of an entry. `host_ports`: the ports of hosts that lead to its container's port. `notes`: what has no
/// effect, or another one than at AWS.
///
/// # Errors
/// Why they are not known.
pub(super) fn vips<'a>(
    known: &'a Known,
    entry: &Entry,
    host_ports: &BTreeSet<Port>,
    notes: &mut Vec<String>,
) -> Result<Vec<FrontVip<'a>>, String> {
    match &entry.front {
        Front::Classic(name) => match known.classics.get(name) {
            Some(Asked::Is(classic)) => Ok(classic.vips(name, entry.port, host_ports, notes)),
            Some(Asked::Refused(why)) => {
                notes.push(format!(
                    "load balancer {name} cannot be read, so that it stands at the container's port {}: {why}",
                    entry.port
                ));
                Ok(vec![plain(name, entry.port, Protocol::Tcp)])
            }
            None => Err(format!("load balancer {name} has not been read yet")),
        },
        Front::Group(arn) => match known.groups.get(arn) {
            Some(Asked::Is(group)) => Ok(group.vips(arn, entry.port, notes)),
            Some(Asked::Refused(why)) => {
                let name = name_in(arn);
                notes.push(format!(
                    "target group {name} cannot be read, so that it stands under its own name at the container's port {}: \
                     {why}",
                    entry.port
                ));
                Ok(vec![plain(name, entry.port, Protocol::Tcp)])
            }
            None => Err(format!(
                "target group {} has not been read yet",
                name_in(arn)
            )),
        },
    }
}

fn plain<'a>(name: &str, port: Port, protocol: Protocol) -> FrontVip<'a> {
    FrontVip {
        name: name.into(),
        dns_name: None,
        port,
        protocol,
        share: None,
        manner: None,
    }
}

fn host_name(text: &str) -> Option<Arc<str>> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty()).then(|| name.into())
}

/// `web-tg` of `arn:aws:elasticloadbalancing:...:targetgroup/web-tg/0123456789abcdef`.
fn name_in(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(head, _)| last(head))
}

/// What carries it here; notes what stays as it is.
fn carried(protocol: &str, at: &str, notes: &mut Vec<String>) -> &'static [Protocol] {
    match protocol {
        "UDP" => &[Protocol::Udp],
        "TCP_UDP" => &[Protocol::Tcp, Protocol::Udp],
        "TLS" | "SSL" | "HTTPS" => {
            notes.push(format!(
                "{at} ends {protocol}, which needs the payload; it is passed through for the container to end"
            ));
            &[Protocol::Tcp]
        }
        _ => &[Protocol::Tcp],
    }
}

// === impl Classic ===

impl Classic {
    fn vips(
        &self,
        name: &str,
        container: Port,
        host_ports: &BTreeSet<Port>,
        notes: &mut Vec<String>,
    ) -> Vec<FrontVip<'_>> {
        let told = self.manner.notes.iter();
        notes.extend(told.map(|note| format!("load balancer {name}: {note}")));
        let vip = |port, protocol| FrontVip {
            dns_name: host_name(&self.dns_name),
            manner: Some(&self.manner),
            ..plain(name, port, protocol)
        };
        let leads =
            |to: u16| to == container.get() || host_ports.iter().any(|port| port.get() == to);
        let mut listeners: Vec<_> = self
            .listeners
            .iter()
            .filter(|listener| leads(listener.instance_port))
            .collect();
        if let ([], [only]) = (listeners.as_slice(), self.listeners.as_slice()) {
            listeners.push(only);
        }
        if listeners.is_empty() {
            notes.push(format!(
                "no listener of load balancer {name} leads to port {container} of the container, so that it stands at that \
                 port"
            ));
            return vec![vip(container, Protocol::Tcp)];
        }
        let mut vips = Vec::new();
        for listener in listeners {
            let at = format!("{name}:{}", listener.port);
            for protocol in carried(&listener.protocol, &at, notes) {
                vips.push(vip(listener.port, *protocol));
            }
        }
        vips
    }
}

// === impl Group ===

impl Group {
    fn vips(&self, arn: &Arc<str>, container: Port, notes: &mut Vec<String>) -> Vec<FrontVip<'_>> {
        let told = self.manner.notes.iter();
        notes.extend(told.map(|note| format!("target group {}: {note}", self.name)));
        if self.listeners.is_empty() {
            let protocols = carried(&self.protocol, &self.name, notes).iter();
            return protocols
                .map(|protocol| FrontVip {
                    manner: Some(&self.manner),
                    ..plain(&self.name, container, *protocol)
                })
                .collect();
        }
        let mut vips = Vec::new();
        for listener in &self.listeners {
            let at = format!("{}:{}", listener.balancer, listener.port);
            for protocol in carried(&listener.protocol, &at, notes) {
                vips.push(FrontVip {
                    dns_name: host_name(&listener.dns_name),
                    share: listener.share.map(|share| (Arc::clone(arn), share)),
                    manner: Some(&self.manner),
                    ..plain(&listener.balancer, listener.port, *protocol)
                });
            }
        }
        vips
    }
}
