//! What the query APIs answer, as far as it matters, and how it is read.

mod checks;
mod classics;
mod groups;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::Deserialize;

pub(super) use self::{
    classics::{ClassicAttributes, Classics},
    groups::{Attributes, Groups},
};

use crate::{
    catalog::Port,
    provider::{
        ecs::model::{self, Group},
        values::decimal,
    },
};

/// An answer that may have a next page.
pub(super) trait Answered {
    /// What asks for it.
    fn next_page(&self) -> Option<String>;
}

/// A list; EC2 calls its members `item`.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct List<T> {
    #[serde(default = "Vec::new", alias = "item")]
    pub(super) member: Vec<T>,
}

/// `DescribeInstances`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instances {
    #[serde(default)]
    reservation_set: List<Reservation>,
    #[serde(default)]
    next_token: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    #[serde(default)]
    instances_set: List<Instance>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Instance {
    instance_id: String,
    private_ip_address: Option<String>,
    ipv6_address: Option<String>,
}

/// `DescribeLoadBalancers` of 2015.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Balancers {
    describe_load_balancers_result: BalancersResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BalancersResult {
    #[serde(default)]
    load_balancers: List<BalancerAnswer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BalancerAnswer {
    load_balancer_arn: String,
    load_balancer_name: String,
    #[serde(rename = "DNSName", default)]
    dns_name: String,
    #[serde(default)]
    r#type: String,
}

/// A load balancer of the newer kinds.
#[derive(Debug)]
pub(super) struct Balancer {
    pub(super) arn: String,
    pub(super) name: String,
    pub(super) dns_name: String,
    pub(super) is_application: bool,
}

/// `DescribeListeners`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listeners {
    #[serde(rename = "DescribeListenersResult")]
    pub(super) result: ListenersResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListenersResult {
    #[serde(default)]
    pub(super) listeners: List<Listener>,
    #[serde(default)]
    next_marker: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listener {
    port: Option<u16>,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    default_actions: List<Action>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Action {
    r#type: String,
    #[serde(default)]
    target_group_arn: String,
    forward_config: Option<ForwardConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ForwardConfig {
    #[serde(default)]
    target_groups: List<Weighted>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weighted {
    target_group_arn: String,
    weight: Option<u32>,
}

/// How long flows of a target that is taken out go on, s. What is wrong is noted: then they go on until they are over.
fn delay(what: &str, text: &str, notes: &mut Vec<String>) -> Option<u32> {
    /// The longest that AWS admits, s.
    const LONGEST: u32 = 3_600;
    let seconds = decimal(text).filter(|seconds| *seconds <= LONGEST);
    if seconds.is_none() {
        notes.push(format!(
            "its {what} is not taken over: {text:?} is not a number of seconds from 0 to {LONGEST}"
        ));
    }
    seconds
}

// === impl List ===

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { member: Vec::new() }
    }
}

// === impl Instances ===

impl Instances {
    /// The first address of each family, by instance.
    pub(super) fn addresses(self) -> impl Iterator<Item = (String, Vec<IpAddr>)> {
        let reservations = self.reservation_set.member.into_iter();
        reservations
            .flat_map(|reservation| reservation.instances_set.member)
            .map(|instance| {
                let texts = [instance.private_ip_address, instance.ipv6_address];
                let addresses = texts.into_iter().flatten();
                let addresses = addresses.filter_map(|text| text.parse().ok()).collect();
                (instance.instance_id, addresses)
            })
    }
}

impl Answered for Instances {
    fn next_page(&self) -> Option<String> {
        Some(self.next_token.clone()).filter(|token| !token.is_empty())
    }
}

// === impl Balancers ===

impl Balancers {
    pub(super) fn read(self) -> impl Iterator<Item = Balancer> {
        let all = self.describe_load_balancers_result.load_balancers.member;
        all.into_iter().map(|answer| Balancer {
            arn: answer.load_balancer_arn,
            name: answer.load_balancer_name,
            dns_name: answer.dns_name,
            is_application: answer.r#type == "application",
        })
    }
}

// === impl Listeners ===

impl Answered for Listeners {
    fn next_page(&self) -> Option<String> {
        Some(self.result.next_marker.clone()).filter(|marker| !marker.is_empty())
    }
}

impl Listener {
    /// Adds itself to a target group if it forwards to it.
    pub(super) fn read(self, group_arn: &str, balancer: &Balancer, group: &mut Group) {
        let Some(port) = self.port.and_then(Port::new) else {
            return;
        };
        for action in &self.default_actions.member {
            if action.r#type.starts_with("authenticate") {
                group.manner.notes.push(format!(
                    "{}:{port} asks clients who they are ({}), which needs the payload; nobody is asked here",
                    balancer.name, action.r#type
                ));
            }
        }
        let mut actions = self.default_actions.member.iter();
        let Some(forward) = actions.find(|action| action.r#type == "forward") else {
            return;
        };
        let all = forward.forward_config.iter();
        let all: Vec<_> = all
            .flat_map(|config| &config.target_groups.member)
            .collect();
        let share = match all
            .iter()
            .find(|weighted| weighted.target_group_arn == group_arn)
        {
            Some(_) if all.len() == 1 => None,
            Some(own) => Some(own.weight.unwrap_or(1)),
            None if forward.target_group_arn == group_arn => None,
            None => return,
        };
        group.listeners.push(model::Listener {
            balancer: balancer.name.clone(),
            dns_name: balancer.dns_name.clone(),
            port,
            protocol: self.protocol,
            share,
        });
    }
}
