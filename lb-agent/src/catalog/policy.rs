//! What labels may do. They are written by tenants; these bounds are the operator's.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr, sync::Arc};

use ipnet::IpNet;

use crate::{
    provider::ProviderId,
    vip::{Claim, Owner},
};

/// The operator's bounds on declarations.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Where IP VIPs may lie; none by default. The name policy does not concern them.
    pub ip_vips: Vec<IpNet>,
    /// Addresses of nodes, resolvers and orchestrators, which no VIP may take.
    pub forbidden: BTreeSet<IpAddr>,
    /// Which names an app may claim.
    pub name_policy: NamePolicy,
    /// The groups that this agent is in; `*`: all.
    pub groups: BTreeSet<Arc<str>>,
}

/// The group that stands for all.
const EVERY_GROUP: &str = "*";

/// Which names an app may claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamePolicy {
    /// Any; who joins another's pool is reported.
    #[default]
    Any,
    /// Names that begin with the app's id or with the group it is in. Two such NAMEs that mangling confuses
    /// are not merged: the one declared first keeps the canonical name.
    AppPath,
    /// A name belongs to the owner (provider and top-level group) that declared it first, until released.
    Owner,
}

// === impl Policy ===

impl Policy {
    /// Whether this agent serves what asks for these groups of agents.
    pub(super) fn serves(&self, groups: &BTreeSet<Arc<str>>) -> bool {
        groups.is_empty() || self.groups.contains(EVERY_GROUP) || !self.groups.is_disjoint(groups)
    }

    /// Why `addr` must not be an IP VIP.
    ///
    /// A label that could take any address could take anybody's traffic (CVE-2020-8554).
    pub fn refuse_ip_vip(&self, addr: IpAddr) -> Option<String> {
        // `::ffff:a.b.c.d` is a.b.c.d to a socket, whatever the label meant.
        let meanings = [addr, addr.to_canonical()];
        if let Some(what) = meanings.into_iter().find_map(special) {
            return Some(format!("IP VIP {addr} is {what}, which no VIP may be"));
        }
        if meanings.iter().any(|addr| self.forbidden.contains(addr)) {
            return Some(format!(
                "IP VIP {addr} is the address of a node, a resolver or an orchestrator"
            ));
        }
        if !self.ip_vips.iter().any(|range| range.contains(&addr)) {
            return Some(format!(
                "IP VIP {addr} is outside the ranges that the operator allows (--ip-vips)"
            ));
        }
        None
    }

    /// Why `app` may not declare `name`, whoever else does.
    pub(super) fn refuse_name(&self, app: &str, name: &str) -> Option<String> {
        if self.name_policy != NamePolicy::AppPath || begins_with_app_path(app, name) {
            return None;
        }
        Some(format!(
            "VIP name {name} begins neither with the app's id nor with its group (--name-policy app-path)"
        ))
    }

    /// Why `owner` may not declare `name` when `claim` was first.
    pub(super) fn refuse_against(
        &self,
        claim: &Claim,
        owner: &Owner,
        name: &str,
    ) -> Option<String> {
        match self.name_policy {
            NamePolicy::Owner if claim.owner != *owner => Some(format!(
                "VIP name {name} belongs to {} (--name-policy owner)",
                claim.owner
            )),
            NamePolicy::AppPath if claim.declared != declared(name) => Some(format!(
                "VIP name {name} has the same DNS name as {}, which {} declared first \
                 (--name-policy app-path)",
                claim.declared, claim.owner
            )),
            _ => None,
        }
    }
}

/// The NAME without what is a matter of taste: leading slashes and letter case.
pub(super) fn declared(name: &str) -> Arc<str> {
    name.trim_start_matches('/').to_ascii_lowercase().into()
}

/// The tenant that an app belongs to. An app outside any group is a tenant of its own.
pub(super) fn owner(provider: &ProviderId, app: &str) -> Owner {
    Owner {
        provider: provider.as_str().into(),
        group: segments(app).next().unwrap_or(app).into(),
    }
}

fn special(addr: IpAddr) -> Option<&'static str> {
    let link_local = match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    let broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    match addr {
        _ if addr.is_loopback() => Some("a loopback address"),
        _ if link_local => Some("a link-local address"),
        _ if addr.is_multicast() => Some("a multicast address"),
        _ if addr.is_unspecified() => Some("the unspecified address"),
        _ if broadcast => Some("the broadcast address"),
        _ => None,
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// Whole segments are compared, so that `/team` does not own `/team2/x`. An app outside any group owns its
/// id alone.
fn begins_with_app_path(app: &str, name: &str) -> bool {
    let app: Vec<&str> = segments(app).collect();
    let group = match app.len() {
        0 => return false,
        1 => &app[..],
        len => &app[..len - 1],
    };
    let mut name = segments(name);
    group
        .iter()
        .all(|part| name.next().is_some_and(|n| n.eq_ignore_ascii_case(part)))
}

// === impl NamePolicy ===

impl FromStr for NamePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "app-path" => Ok(Self::AppPath),
            "owner" => Ok(Self::Owner),
            _ => Err(format!(
                "{text:?} is no name policy; give any, app-path or owner"
            )),
        }
    }
}

impl fmt::Display for NamePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::AppPath => "app-path",
            Self::Owner => "owner",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_owns_its_id_and_its_group_in_whole_segments() {
        for (app, name, owned) in [
            ("/dcos-101/app2", "/dcos-101/app2", true),
            ("/dcos-101/app2", "dcos-101/APP2/admin", true),
            ("/dcos-101/app2", "//dcos-101//other", true),
            ("/dcos-101/app2", "/dcos-101", true),
            ("/dcos-101/app2", "/dcos-1012/app2", false),
            ("/dcos-101/app2", "/dcos-101app2", false),
            ("/dcos-101/app2", "redis", false),
            ("/a/b/c", "/a/x", false),
            ("/redis", "redis", true),
            ("/redis", "/redis/slave", true),
            ("/redis", "/other", false),
            ("/", "/anything", false),
        ] {
            assert_eq!(begins_with_app_path(app, name), owned, "{app} {name}");
        }
    }

    #[test]
    fn ip_vips_lie_where_the_operator_says_and_never_where_they_hurt() {
        let forbidden = "10.0.0.1".parse().expect("an address");
        let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a prefix"));
        let policy = Policy {
            ip_vips: everything.to_vec(),
            forbidden: BTreeSet::from([forbidden]),
            ..Policy::default()
        };
        for (addr, says) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("255.255.255.255", "broadcast"),
            ("::ffff:127.0.0.1", "loopback"),
            ("10.0.0.1", "a node"),
            ("::ffff:10.0.0.1", "a node"),
        ] {
            let refused = policy.refuse_ip_vip(addr.parse().expect("an address"));
            assert!(
                refused.as_ref().is_some_and(|r| r.contains(says)),
                "{addr}: {refused:?}"
            );
        }
        let fine = "10.0.0.2".parse().expect("an address");
        assert_eq!(policy.refuse_ip_vip(fine), None);
        let refused = Policy::default().refuse_ip_vip(fine);
        assert!(refused.is_some_and(|reason| reason.contains("--ip-vips")));
    }
}
