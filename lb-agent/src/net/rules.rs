//! Routing rules, as far as they say whether table *main* has the last word.

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::IpVersion;

use super::{
    Netlink,
    route::{TABLE_LOCAL, TABLE_MAIN},
};

/// The table that nobody uses (`RT_TABLE_DEFAULT`).
const TABLE_DEFAULT: u32 = 253;

/// The rules that a namespace is born with: priority and table (`fib_default_rules_init()` in
/// net/ipv4/fib_rules.c, `fib6_rules_net_init()` in net/ipv6/fib6_rules.c).
const BORN_WITH: [(u32, u32); 3] = [
    (0, TABLE_LOCAL),
    (32_766, TABLE_MAIN),
    (32_767, TABLE_DEFAULT),
];

/// The rules of both families, IPv4 first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules([Vec<RuleMessage>; 2]);

// === impl Rules ===

impl Rules {
    /// Whether a route to anywhere is what table *main* says, whoever sends.
    pub(super) fn are_plain(&self, ipv6: bool) -> bool {
        self.0[usize::from(ipv6)].iter().all(is_plain)
    }
}

fn is_plain(rule: &RuleMessage) -> bool {
    let header = &rule.header;
    let (mut priority, mut table) = (0, u32::from(header.table));
    let mut selects = header.src_len != 0 || header.dst_len != 0 || header.tos != 0;
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            // Who made it, and that shorter prefixes are not suppressed.
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => selects = true,
        }
    }
    header.action == RuleAction::ToTable && !selects && BORN_WITH.contains(&(priority, table))
}

// === impl Netlink ===

impl Netlink {
    /// Every rule of both families.
    ///
    /// # Errors
    ///
    /// If a dump is refused, but for a kernel without rules.
    pub(super) async fn rules(&self) -> Result<Rules> {
        let mut rules = Rules::default();
        for (rules, (version, family)) in rules.0.iter_mut().zip([
            (IpVersion::V4, AddressFamily::Inet),
            (IpVersion::V6, AddressFamily::Inet6),
        ]) {
            let dump = self.handle()?.rule().get(version).execute();
            let messages: Vec<RuleMessage> = match dump.try_collect().await {
                Ok(messages) => messages,
                Err(error) if is_unsupported(&error) => continue,
                Err(error) => return Err(error).context("cannot dump routing rules"),
            };
            let own = |rule: &RuleMessage| rule.header.family == family;
            rules.extend(messages.into_iter().filter(own));
        }
        Ok(rules)
    }
}

/// As a kernel without CONFIG_IP_MULTIPLE_TABLES answers.
fn is_unsupported(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(error) if error.raw_code() == -libc::EOPNOTSUPP)
}
