//! Service ports: what Marathon-LB opens for an app, here a VIP that stands at the node's own addresses, too.
//!
//! The VIP of a service port is called like the app, or like its deployment group. So the service port 10000 of
//! `/dcos-101/app2` is `dcos-101app2.marathon.l4lb.thisdcos.directory:10000` and port 10000 of every node whose agent
//! serves the app's group. A label `VIP_0: /dcos-101/app2:10000` on the same port names the same VIP.

mod haproxy;
mod silent;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    catalog::{Port, Properties, Protocol},
    provider::{VipHost, values::said},
    vip::{OF_DOMAINS, VipName, ZONE, is_in_domains},
};

use super::{label::Labels, ports::PortObject, reading::App};

pub(super) use haproxy::is_true;

/// Which service ports the operator wants to stand at the node's addresses. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// Of apps in one of these groups; `*`: of every app, in a group or not.
    pub groups: BTreeSet<String>,
    /// Only those that a label `HAPROXY_{n}_ENABLED` asks for.
    pub strict: bool,
    /// Never those of these apps, by id.
    pub skipped: BTreeSet<String>,
    /// Domains in which DNS knows VIPs by name, in lower case.
    pub domains: BTreeSet<String>,
}

/// A service port that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePort {
    /// Its place in the app's list of service ports.
    pub(super) index: usize,
    /// The port of its VIPs.
    pub(super) port: Port,
    /// Of the port object.
    pub(super) protocols: Vec<Protocol>,
    /// Its VIPs, each with its properties; the first has the ports of the node.
    pub(super) vips: Vec<(VipHost, Arc<Properties>)>,
}

/// What an app says about all of its service ports.
struct Asking<'a> {
    app: &'a App,
    /// What its VIPs are called: the app's id, or its deployment group.
    name: &'a str,
    framework: &'a Arc<str>,
    /// What its labels of ours say.
    own: &'a Properties,
    edge: &'a Edge,
}

/// The service ports of `app` that are served under `name`, and what is to be said of its labels.
pub(super) fn service_ports(
    app: &App,
    (name, framework): (&str, &Arc<str>),
    objects: &[PortObject<'_>],
    own: &Properties,
    edge: &Edge,
    problems: &mut Vec<String>,
) -> Vec<ServicePort> {
    let asking = Asking {
        app,
        name,
        framework,
        own,
        edge,
    };
    let mut served = Vec::<ServicePort>::new();
    let with_port = objects
        .iter()
        .filter(|object| object.service_port.is_some());
    for (index, object) in with_port.enumerate() {
        if !edge.wants(&app.id, &app.current.labels, index) {
            continue;
        }
        match asking.service_port(index, object, &served, problems) {
            Ok(port) => served.push(port),
            Err(why) => problems.push(format!("service port {index} is not served: {why}")),
        }
    }
    if !served.is_empty() {
        let indices = served.iter().map(|served| (served.index, served.port));
        silent::notes(&app.current.labels, indices.collect(), problems);
    }
    served
}

/// Which of the app's service ports each of these port objects has.
pub(super) fn indices(objects: &[PortObject<'_>]) -> Vec<Option<usize>> {
    let mut next = 0..;
    let index = |object: &PortObject<'_>| object.service_port.and_then(|_| next.next());
    objects.iter().map(index).collect()
}

// === impl Edge ===

impl Edge {
    /// Whether it wants the `index`-th service port of the app. Groups are compared as they are written.
    fn wants(&self, app: &str, labels: &Labels, index: usize) -> bool {
        if self.groups.is_empty() || self.skipped.contains(app) {
            return false;
        }
        let group = |name: &str| labels.get(name).and_then(|value| value.as_str());
        let groups = group(&format!("HAPROXY_{index}_GROUP")).or_else(|| group("HAPROXY_GROUP"));
        let mut groups = groups.into_iter().flat_map(|list| list.split(','));
        if !self.groups.contains("*") && !groups.any(|group| self.groups.contains(group)) {
            return false;
        }
        let enabled = labels.get(&format!("HAPROXY_{index}_ENABLED"));
        enabled.map_or(!self.strict, |value| value.as_str().is_some_and(is_true))
    }
}

// === impl Asking ===

impl Asking<'_> {
    fn service_port(
        &self,
        index: usize,
        object: &PortObject<'_>,
        before: &[ServicePort],
        problems: &mut Vec<String>,
    ) -> Result<ServicePort, String> {
        let labels = haproxy::of_port(&self.app.current.labels, index)?;
        let port = match labels.port {
            Some(port) => port,
            None => own_port(object.service_port.unwrap_or(0), index)?,
        };
        let protocols = object.protocols(problems);
        let host = match labels.bind {
            Some(addr) => VipHost::Addr(addr),
            None => self.named(self.name),
        };
        let holder = before.iter().find(|other| {
            let same_host = other
                .vips
                .first()
                .is_some_and(|(theirs, _)| *theirs == host);
            let shared = other.protocols.iter().any(|p| protocols.contains(p));
            same_host && other.port == port && shared
        });
        if let Some(holder) = holder {
            return Err(format!(
                "its port {port} is that of service port {} already, which comes first",
                holder.index
            ));
        }
        let inside = labels.shape(self.own.clone());
        let mut outside = inside.clone();
        // As Marathon-LB: the id of the app or of its deployment group, as it is written.
        let called = self.name.trim_start_matches('/').replace('/', "_");
        outside.called = Some(called.into());
        if labels.bind.is_none() {
            outside.external.insert(port);
        }
        let mut vips = vec![(host, Arc::new(outside))];
        let inside = Arc::new(inside);
        for host in labels.vhosts.iter().filter_map(|host| self.vip_of(host)) {
            if vips.iter().all(|(other, _)| *other != host) {
                vips.push((host, Arc::clone(&inside)));
            }
        }
        problems.extend(labels.notes);
        problems.extend(self.foreign_names(index, port, &labels.vhosts));
        Ok(ServicePort {
            index,
            port,
            protocols,
            vips,
        })
    }

    fn named(&self, name: &str) -> VipHost {
        VipHost::Named {
            name: name.into(),
            framework: Arc::clone(self.framework),
        }
    }

    /// The VIP that a host name stands for: one of this framework in the zone, or one in a domain.
    fn vip_of(&self, host: &str) -> Option<VipHost> {
        let in_zone = self.name_in_zone(host).map(|name| self.named(&name));
        in_zone.or_else(|| {
            is_in_domains(host, &self.edge.domains).then(|| VipHost::Named {
                name: host.into(),
                framework: OF_DOMAINS.into(),
            })
        })
    }

    /// Without this framework's end of the zone.
    fn name_in_zone(&self, host: &str) -> Option<String> {
        let canonical = host.strip_suffix(ZONE)?.strip_suffix('.')?;
        let any = VipName::mangle("x", self.framework).ok()?;
        let name = canonical.strip_suffix(any.as_str().strip_prefix('x')?)?;
        let mangled = VipName::mangle(name, self.framework).ok()?;
        (mangled.as_str() == canonical).then(|| name.to_owned())
    }

    fn foreign_names(&self, index: usize, port: Port, vhosts: &[String]) -> Option<String> {
        let foreign = vhosts.iter().filter(|host| self.vip_of(host).is_none());
        let foreign: Vec<&str> = foreign.map(|host| said(host)).collect();
        (!foreign.is_empty()).then(|| {
            format!(
                "label HAPROXY_{index}_VHOST: requests are not told apart by host, so {} has no effect; connections are \
                 served at port {port} of the nodes, where that name may point to",
                foreign.join(", ")
            )
        })
    }
}

fn own_port(number: u32, index: usize) -> Result<Port, String> {
    let port = u16::try_from(number).ok().and_then(Port::new);
    port.ok_or_else(|| {
        format!("{number} is not a port (1-65535); HAPROXY_{index}_PORT can name another")
    })
}

/// An address at which a service port is to stand instead of those of the node; `None`: those of the node.
fn bind(text: &str) -> Result<Option<IpAddr>, String> {
    match text {
        "*" | "" | "::" | "0.0.0.0" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is neither an IP address nor *")),
    }
}
