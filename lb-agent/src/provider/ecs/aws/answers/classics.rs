//! Classic load balancers: their listeners, health checks and attributes.

use serde::Deserialize;

use super::{
    super::Failure,
    List,
    checks::{Numbers, connection, request, unless_wrong},
    delay,
};
use crate::{
    catalog::{Check, Port},
    provider::{
        check::Draft,
        ecs::model::{Classic, ClassicListener, Manner},
    },
};

/// `DescribeLoadBalancers` of 2012.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct Classics {
    describe_load_balancers_result: ClassicsResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ClassicsResult {
    #[serde(default)]
    load_balancer_descriptions: List<Description>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    load_balancer_name: String,
    #[serde(rename = "DNSName", default)]
    dns_name: String,
    #[serde(default)]
    listener_descriptions: List<ListenerDescription>,
    #[serde(default)]
    health_check: HealthCheck,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListenerDescription {
    listener: ListenerAnswer,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListenerAnswer {
    protocol: String,
    load_balancer_port: u16,
    instance_port: u16,
}

/// Its numbers are text here: one that is wrong is no reason to know nothing of the load balancer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HealthCheck {
    target: String,
    interval: String,
    timeout: String,
    healthy_threshold: String,
    unhealthy_threshold: String,
}

/// `DescribeLoadBalancerAttributes` of 2012.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ClassicAttributes {
    describe_load_balancer_attributes_result: AttributesResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributesResult {
    #[serde(default)]
    load_balancer_attributes: AttributesAnswer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AttributesAnswer {
    connection_draining: ConnectionDraining,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectionDraining {
    enabled: String,
    timeout: String,
}

// === impl Classics ===

impl Classics {
    /// The load balancer of that name.
    pub(in super::super) fn read(self, name: &str) -> Result<Classic, Failure> {
        let all = self
            .describe_load_balancers_result
            .load_balancer_descriptions;
        let mut all = all.member.into_iter();
        let found = all.find(|found| found.load_balancer_name == name);
        let found = found.ok_or_else(|| {
            Failure::of_answer("DescribeLoadBalancers", 400, "LoadBalancerNotFound", name)
        })?;
        let mut notes = Vec::new();
        let check = found.health_check.read(&mut notes);
        let check = unless_wrong(check, &mut notes);
        let listeners = found.listener_descriptions.member.into_iter();
        Ok(Classic {
            dns_name: found.dns_name,
            listeners: listeners
                .filter_map(|described| {
                    Some(ClassicListener {
                        port: Port::new(described.listener.load_balancer_port)?,
                        instance_port: described.listener.instance_port,
                        protocol: described.listener.protocol.to_ascii_uppercase(),
                    })
                })
                .collect(),
            manner: Manner {
                check,
                notes,
                ..Manner::default()
            },
        })
    }
}

// === impl HealthCheck ===

impl HealthCheck {
    /// The check, at each task's own port instead of the one that is named: `TCP:80`, `HTTP:80/path`. `None`: moto has
    /// none until it is configured.
    fn read(&self, notes: &mut Vec<String>) -> Result<Option<Check>, String> {
        if self.target.is_empty() {
            return Ok(None);
        }
        let (protocol, at) = self.target.split_once(':').unwrap_or((&self.target, ""));
        let protocol = protocol.to_ascii_uppercase();
        let draft = match protocol.as_str() {
            "TCP" => Draft::tcp(),
            "HTTP" => request(at.find('/').map_or("/", |start| &at[start..]), "200")?,
            "SSL" | "HTTPS" => connection(&protocol, notes),
            _ => {
                return Err(format!(
                    "{:?} is none of TCP, SSL, HTTP and HTTPS",
                    self.target
                ));
            }
        };
        let numbers = Numbers {
            interval: &self.interval,
            timeout: &self.timeout,
            healthy: &self.healthy_threshold,
            unhealthy: &self.unhealthy_threshold,
        };
        numbers.complete(draft).map(Some)
    }
}

// === impl ClassicAttributes ===

impl ClassicAttributes {
    /// Takes what has a meaning here.
    pub(in super::super) fn read(self, manner: &mut Manner) {
        let ConnectionDraining { enabled, timeout } = self
            .describe_load_balancer_attributes_result
            .load_balancer_attributes
            .connection_draining;
        if enabled == "true" {
            manner.drain = delay("connection draining", &timeout, &mut manner.notes);
        }
    }
}
