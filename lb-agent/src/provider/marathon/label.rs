//! VIP labels: which keys declare a VIP, and the grammar of their values.
//!
//! Labels are tenants' input. A bad one costs itself alone: it is reported and left out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{
    catalog::{Port, Protocol},
    provider::{
        VipHost,
        values::{MOST_BYTES, said},
    },
};

/// Labels as Marathon gives them; a value that is not a string spoils only its own label.
pub(super) type Labels = Map<String, Value>;

/// What a label's value names: `/dcos-101/app2:10000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Host part.
    pub(super) host: Host,
    /// VIP port.
    pub(super) port: Port,
}

/// The host part of a value, before a framework name is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A name as written.
    Named(String),
    /// An IP VIP.
    Addr(IpAddr),
}

/// A label of the DC/OS 1.7 era on an app: `vip_port0: tcp://NAME:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexedTarget {
    /// Index into the task's host ports.
    pub(super) index: usize,
    /// From the value's scheme.
    pub(super) protocol: Protocol,
    /// The rest of the value.
    pub(super) target: Target,
    /// The key, for messages.
    pub(super) key: String,
}

/// The VIPs that the labels of one port object declare. The suffix of a key carries no meaning.
pub(super) fn of_port(labels: &Labels, problems: &mut Vec<String>) -> Vec<Target> {
    let mut targets = Vec::new();
    for (key, value) in labels {
        if is_vip_key(key) {
            match text(value).and_then(|v| parse_value(v, key, problems)) {
                Ok(target) => targets.push(target),
                Err(why) => problems.push(format!("label {}: {why}; label ignored", said(key))),
            }
        } else if starts_like_vip(key) {
            let key = said(key);
            problems.push(format!(
                "label {key} declares no VIP: the key must be VIP, vip, VIP_... or vip_..."
            ));
        }
    }
    targets
}

/// The VIPs that app-level labels declare (`vip_port<IDX>`, in any letter case).
pub(super) fn of_app(labels: &Labels, problems: &mut Vec<String>) -> Vec<IndexedTarget> {
    let mut targets = Vec::new();
    for (key, value) in labels {
        let lower = key.to_ascii_lowercase();
        let Some(index) = lower.strip_prefix("vip_port") else {
            if is_vip_key(key) {
                let key = said(key);
                problems.push(format!(
                    "label {key} is on the app and declares no VIP there: put it on a port"
                ));
            }
            continue;
        };
        match parse_indexed(key, index, value, problems) {
            Ok(target) => targets.push(target),
            Err(why) => problems.push(format!("label {}: {why}; label ignored", said(key))),
        }
    }
    targets
}

fn parse_indexed(
    key: &str,
    index: &str,
    value: &Value,
    problems: &mut Vec<String>,
) -> Result<IndexedTarget, String> {
    let index = decimal(index)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| format!("{:?} is not an index into the task's ports", said(index)))?;
    let value = text(value)?;
    let (protocol, rest) = if let Some(rest) = value.strip_prefix("tcp://") {
        (Protocol::Tcp, rest)
    } else if let Some(rest) = value.strip_prefix("udp://") {
        (Protocol::Udp, rest)
    } else {
        return Err(format!("{value:?} does not start with tcp:// or udp://"));
    };
    let target = parse_value(rest, key, problems)?;
    Ok(IndexedTarget {
        index,
        protocol,
        target,
        key: said(key).to_owned(),
    })
}

/// `NAME:PORT`, split at the last colon.
fn parse_value(value: &str, key: &str, problems: &mut Vec<String>) -> Result<Target, String> {
    let (name, port) = value
        .rsplit_once(':')
        .ok_or_else(|| format!("{value:?} has no port (NAME:PORT)"))?;
    let port = decimal(port)
        .and_then(|n| u16::try_from(n).ok())
        .and_then(Port::new)
        .ok_or_else(|| format!("{port:?} in {value:?} is not a port (1-65535)"))?;
    if name.is_empty() {
        return Err(format!("{value:?} has no name before the port"));
    }
    let host = parse_host(name);
    if matches!(host, Host::Named(_)) && looks_like_address(name) {
        let key = said(key);
        problems.push(format!(
            "label {key}: {name:?} is taken as a name; an IP VIP is written as four decimal octets \
             or as IPv6 without brackets or slash"
        ));
    }
    Ok(Target { host, port })
}

/// The standard library's parsers take exactly the two literal forms: four decimal octets without
/// leading zeros, and the text forms of RFC 4291.
fn parse_host(name: &str) -> Host {
    if let Ok(v4) = name.parse::<Ipv4Addr>() {
        return Host::Addr(v4.into());
    }
    let bare = name
        .split_once('%')
        .map_or(name, |(address, _zone)| address);
    bare.parse::<Ipv6Addr>()
        .map_or_else(|_| Host::Named(name.to_owned()), |v6| Host::Addr(v6.into()))
}

/// `^(VIP|vip)(_.*)?$`: DC/OS takes any key that begins so; ours is stricter, with a warning.
fn is_vip_key(key: &str) -> bool {
    key.strip_prefix("VIP")
        .or_else(|| key.strip_prefix("vip"))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

fn starts_like_vip(key: &str) -> bool {
    key.get(..3)
        .is_some_and(|start| start.eq_ignore_ascii_case("vip"))
}

fn looks_like_address(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_digit() || b".:/[]".contains(&b))
}

/// Digits only: no sign, no blank; leading zeros are tolerated.
fn decimal(digits: &str) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    only_digits.then(|| digits.parse().ok()).flatten()
}

/// The value of a label: text of a sane length. What is wrong is said without repeating it at length.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    let kind = match value {
        Value::String(text) if text.len() <= MOST_BYTES => return Ok(text),
        Value::String(_) => return Err(format!("the value has more than {MOST_BYTES} bytes")),
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        _ => return Err(format!("the value {value} is not a string")),
    };
    Err(format!("the value is {kind}, not a string"))
}

// === impl Target ===

impl Target {
    /// The VIP's host in the name space of `framework`.
    pub(super) fn host(&self, framework: &Arc<str>) -> VipHost {
        match &self.host {
            Host::Named(name) => VipHost::Named {
                name: name.as_str().into(),
                framework: Arc::clone(framework),
            },
            Host::Addr(addr) => VipHost::Addr(*addr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(labels: &Value) -> (Vec<String>, Vec<String>) {
        let mut problems = Vec::new();
        let targets = of_port(labels.as_object().unwrap(), &mut problems);
        (targets.iter().map(show).collect(), problems)
    }

    fn show(target: &Target) -> String {
        match &target.host {
            Host::Named(name) => format!("name {name} port {}", target.port),
            Host::Addr(addr) => format!("addr {addr} port {}", target.port),
        }
    }

    fn value(value: &str) -> Result<String, String> {
        let (targets, problems) = port(&serde_json::json!({ "VIP_0": value }));
        targets
            .into_iter()
            .next()
            .ok_or_else(|| problems.join("; "))
    }

    #[test]
    fn a_value_is_split_at_the_last_colon() {
        assert_eq!(
            value("/dcos-101/app2:10000").unwrap(),
            "name /dcos-101/app2 port 10000"
        );
        assert_eq!(value("shop-api:8080").unwrap(), "name shop-api port 8080");
        assert_eq!(value("a:b:80").unwrap(), "name a:b port 80");
        assert_eq!(value("/x:00080").unwrap(), "name /x port 80");
    }

    #[test]
    fn literal_addresses_are_ip_vips() {
        assert_eq!(value("10.1.2.3:5000").unwrap(), "addr 10.1.2.3 port 5000");
        assert_eq!(
            value("fd01:c::1234:8080").unwrap(),
            "addr fd01:c::1234 port 8080"
        );
        assert_eq!(
            value("::ffff:10.0.0.1:80").unwrap(),
            "addr ::ffff:10.0.0.1 port 80"
        );
        assert_eq!(value("fd01::1%eth0:80").unwrap(), "addr fd01::1 port 80");
        assert_eq!(value("::1:80").unwrap(), "addr ::1 port 80");
    }

    #[test]
    fn near_addresses_are_names_with_a_warning() {
        for name in ["1.2.3", "010.1.2.3", "/10.1.2.3", "[fd01::1]", "1.2.3.256"] {
            let (targets, problems) = port(&serde_json::json!({ "VIP_0": format!("{name}:80") }));
            assert_eq!(targets, [format!("name {name} port 80")]);
            let hexadecimal = name.contains("fd");
            assert_eq!(
                problems.len(),
                usize::from(!hexadecimal),
                "{name}: {problems:?}"
            );
        }
        assert_eq!(value("0x0a010203:80").unwrap(), "name 0x0a010203 port 80");
    }

    #[test]
    fn a_port_is_decimal_digits_from_1_to_65535() {
        for bad in [
            "/x", "/x:", "/x: 80", "/x:80 ", "/x:+80", "/x:-1", "/x:0", "/x:65536", ":80",
        ] {
            assert!(value(bad).is_err(), "{bad} was taken");
        }
        assert!(value("/x:99999999999999999999999").is_err());
        assert_eq!(value("/x:65535").unwrap(), "name /x port 65535");
    }

    #[test]
    fn a_bad_label_leaves_its_neighbours_alone() {
        let labels = serde_json::json!({ "VIP_0": "/a:0", "VIP_1": "/b:2", "VIP_2": 7 });
        let (targets, problems) = port(&labels);
        assert_eq!(targets, ["name /b port 2"]);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn keys_are_vip_in_one_case_with_any_suffix_after_an_underscore() {
        for key in ["VIP", "vip", "VIP_", "VIP_0", "vip_x", "VIP_any thing"] {
            assert_eq!(
                port(&serde_json::json!({ key: "/a:1" })).0.len(),
                1,
                "{key}"
            );
        }
        for key in ["Vip_0", "VIP0", "vIP", "VIPER", "vip-0"] {
            let (targets, problems) = port(&serde_json::json!({ key: "/a:1" }));
            assert_eq!((targets.len(), problems.len()), (0, 1), "{key}");
        }
        for key in ["HAPROXY_GROUP", "a_vip", "vi", "ÄVIP"] {
            let (targets, problems) = port(&serde_json::json!({ key: "/a:1" }));
            assert_eq!((targets.len(), problems.len()), (0, 0), "{key}");
        }
    }

    fn app(key: &str, value: &str) -> (Vec<IndexedTarget>, Vec<String>) {
        let mut problems = Vec::new();
        let labels = serde_json::json!({ key: value });
        (of_app(labels.as_object().unwrap(), &mut problems), problems)
    }

    #[test]
    fn an_app_label_names_the_index_of_a_host_port() {
        for (key, index) in [("vip_port0", 0), ("VIP_PORT12", 12), ("Vip_Port007", 7)] {
            let (targets, problems) = app(key, "udp://foo:53");
            assert_eq!(problems, [""; 0]);
            assert_eq!(
                (targets[0].index, targets[0].protocol),
                (index, Protocol::Udp)
            );
            assert_eq!(show(&targets[0].target), "name foo port 53");
        }
        assert_eq!(
            show(&app("vip_port0", "tcp://1.2.3.4:5").0[0].target),
            "addr 1.2.3.4 port 5"
        );
    }

    #[test]
    fn an_app_label_without_index_or_scheme_is_ignored() {
        for (key, value) in [
            ("vip_port-1", "tcp://a:1"),
            ("vip_port", "tcp://a:1"),
            ("vip_port1.0", "tcp://a:1"),
            ("vip_port0", "TCP://a:1"),
            ("vip_port0", "http://a:1"),
            ("vip_port0", "a:1"),
            ("vip_port0", "tcp://a"),
        ] {
            let (targets, problems) = app(key, value);
            assert_eq!((targets.len(), problems.len()), (0, 1), "{key}={value}");
        }
        assert_eq!(app("HAPROXY_GROUP", "external"), (vec![], vec![]));
    }

    #[test]
    fn a_port_label_on_the_app_is_pointed_out() {
        let (targets, problems) = app("VIP_0", "/a:1");
        assert!(targets.is_empty());
        assert!(problems[0].contains("put it on a port"), "{problems:?}");
    }
}
