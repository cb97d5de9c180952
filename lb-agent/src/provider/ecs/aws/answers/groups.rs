//! Target groups: their health checks and attributes.

use serde::Deserialize;

use super::{
    super::Failure,
    List,
    checks::{Numbers, connection, request, unless_wrong},
    delay,
};
use crate::{
    catalog::Check,
    provider::{
        check::Draft,
        ecs::model::{Group, Manner},
    },
};

/// `DescribeTargetGroups`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct Groups {
    describe_target_groups_result: GroupsResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GroupsResult {
    #[serde(default)]
    target_groups: List<GroupAnswer>,
}

/// Numbers are text here: one that is wrong is no reason to know nothing of the target group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct GroupAnswer {
    target_group_name: String,
    protocol: String,
    protocol_version: String,
    load_balancer_arns: List<String>,
    health_check_enabled: String,
    health_check_protocol: String,
    health_check_port: String,
    health_check_path: String,
    health_check_interval_seconds: String,
    health_check_timeout_seconds: String,
    healthy_threshold_count: String,
    unhealthy_threshold_count: String,
    matcher: Matcher,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Matcher {
    http_code: String,
}

/// `DescribeTargetGroupAttributes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct Attributes {
    describe_target_group_attributes_result: AttributesResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributesResult {
    #[serde(default)]
    attributes: List<Attribute>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    key: String,
    #[serde(default)]
    value: String,
}

/// Whether it is an ALB's.
fn is_application(protocol: &str) -> bool {
    matches!(protocol, "HTTP" | "HTTPS")
}

// === impl Groups ===

impl Groups {
    /// The target group of that name, and the ARNs of its load balancers.
    pub(in super::super) fn read(self, name: &str) -> Result<(Group, Vec<String>), Failure> {
        let all = self.describe_target_groups_result.target_groups;
        let mut all = all.member.into_iter();
        let found = all.find(|found| found.target_group_name == name);
        let found = found.ok_or_else(|| {
            Failure::of_answer("DescribeTargetGroups", 400, "TargetGroupNotFound", name)
        })?;
        let mut notes = Vec::new();
        let check = found.check(&mut notes);
        let check = unless_wrong(check, &mut notes);
        let group = Group {
            name: found.target_group_name,
            protocol: found.protocol,
            manner: Manner {
                check,
                notes,
                ..Manner::default()
            },
            listeners: Vec::new(),
        };
        Ok((group, found.load_balancer_arns.member))
    }
}

// === impl GroupAnswer ===

impl GroupAnswer {
    fn check(&self, notes: &mut Vec<String>) -> Result<Option<Check>, String> {
        let protocol = self.health_check_protocol.as_str();
        if self.health_check_enabled == "false" || protocol.is_empty() {
            return Ok(None);
        }
        let mut draft = match (protocol, self.protocol_version.as_str()) {
            ("TCP", _) => Draft::tcp(),
            ("HTTP", version @ ("HTTP2" | "GRPC")) => connection(version, notes),
            ("HTTP", _) => request(&self.health_check_path, self.codes())?,
            ("HTTPS" | "TLS", _) => connection(protocol, notes),
            _ => return Err(format!("{protocol:?} is none of TCP, HTTP and HTTPS")),
        };
        if !matches!(self.health_check_port.as_str(), "" | "traffic-port") {
            draft
                .set("port", &self.health_check_port)
                .map_err(|why| format!("port: {why}"))?;
        }
        let numbers = Numbers {
            interval: &self.health_check_interval_seconds,
            timeout: &self.health_check_timeout_seconds,
            healthy: &self.healthy_threshold_count,
            unhealthy: &self.unhealthy_threshold_count,
        };
        numbers.complete(draft).map(Some)
    }

    /// Status codes that are good; where it does not say, as AWS has it.
    fn codes(&self) -> &str {
        match self.matcher.http_code.as_str() {
            "" if is_application(&self.protocol) => "200",
            "" => "200-399",
            codes => codes,
        }
    }
}

// === impl Attributes ===

impl Attributes {
    /// Takes what has a meaning here.
    pub(in super::super) fn read(self, group: &mut Group) {
        let all = self
            .describe_target_group_attributes_result
            .attributes
            .member;
        let value = |key: &str| {
            let found = all.iter().find(|attribute| attribute.key == key);
            found.map(|attribute| attribute.value.as_str())
        };
        let manner = &mut group.manner;
        if value("stickiness.enabled") == Some("true") {
            match value("stickiness.type") {
                Some("source_ip") => manner.by_source = true,
                kind => manner.notes.push(format!(
                    "stickiness by {} needs the payload and has no effect; `lb.affinity` keeps a client's address at its \
                     backend",
                    kind.unwrap_or("cookie")
                )),
            }
        }
        if value("proxy_protocol_v2.enabled") == Some("true") {
            manner.notes.push(
                "proxy_protocol_v2 has no effect: packets keep the client's own address and port"
                    .to_owned(),
            );
        }
        // An NLB leaves connections alone when the delay is over, unless it is told to end them.
        let ends = value("deregistration_delay.connection_termination.enabled") == Some("true");
        if let Some(text) = value("deregistration_delay.timeout_seconds")
            && (ends || is_application(&group.protocol))
        {
            manner.drain = delay("deregistration delay", text, &mut manner.notes);
        }
    }
}
