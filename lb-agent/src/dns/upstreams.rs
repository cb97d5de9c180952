//! Who answers what is not ours: the given resolvers or the system's, never ourselves.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// Where systemd-resolved writes the name servers that its stub asks.
const RESOLVED_UPLINKS: &str = "/run/systemd/resolve/resolv.conf";

/// `given` without our own addresses.
pub(super) fn given(given: &[SocketAddr], own: &[SocketAddr]) -> Vec<SocketAddr> {
    let others = given.iter().filter(|addr| !own.contains(addr));
    others.copied().collect()
}

/// The name servers of the system, except ourselves; `None` if the file cannot be read.
pub(super) async fn of_system(resolv_conf: &Path, own: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
    let listed = tokio::fs::read_to_string(resolv_conf).await.ok()?;
    let uplinks = tokio::fs::read_to_string(RESOLVED_UPLINKS).await.ok();
    Some(choose(&listed, uplinks.as_deref(), own))
}

/// Behind systemd-resolved's stub its uplinks are asked: where the stub asks us, it would ask in a circle.
fn choose(listed: &str, uplinks: Option<&str>, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let listed = given(&parse(listed), own);
    let stub = |addr: &SocketAddr| {
        [[127, 0, 0, 53], [127, 0, 0, 54]].contains(&match addr.ip() {
            IpAddr::V4(addr) => addr.octets(),
            IpAddr::V6(_) => return false,
        })
    };
    if !listed.iter().any(stub) {
        return listed;
    }
    let behind_stub = uplinks.map(parse).unwrap_or_default();
    if behind_stub.is_empty() {
        return listed;
    }
    given(&behind_stub, own)
}

/// The `nameserver` lines of a resolv.conf(5). Addresses with a zone (`fe80::1%eth0`) are left out.
fn parse(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let addr = words
            .next()
            .filter(|word| *word == "nameserver")
            .and(words.next())?;
        addr.parse()
            .ok()
            .map(|addr: IpAddr| SocketAddr::new(addr, 53))
    });
    servers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<SocketAddr> {
        vec!["127.0.0.1:53".parse().expect("an address")]
    }

    fn chosen(listed: &str, uplinks: Option<&str>) -> Vec<String> {
        let servers = choose(listed, uplinks, &own());
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_systems_name_servers_are_asked_in_their_order_and_we_are_not() {
        let listed = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 127.0.0.1\n\
                      nameserver\t10.0.0.2 \nnameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver\n";
        assert_eq!(chosen(listed, None), ["10.0.0.2:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn no_circle_goes_through_the_stub_of_resolved() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";
        assert_eq!(chosen(stub, None), ["127.0.0.53:53"]);
        assert_eq!(chosen(stub, Some("# nothing\n")), ["127.0.0.53:53"]);
        assert_eq!(chosen(stub, Some("nameserver 10.0.0.2\n")), ["10.0.0.2:53"]);
        assert_eq!(
            chosen(stub, Some("nameserver 127.0.0.1\nnameserver 10.0.0.2\n")),
            ["10.0.0.2:53"]
        );
        assert_eq!(chosen(stub, Some("nameserver 127.0.0.1\n")), [""; 0]);
    }

    #[test]
    fn the_uplinks_of_an_unused_resolved_are_left_alone() {
        assert_eq!(
            chosen("nameserver 10.0.0.9\n", Some("nameserver 10.0.0.2\n")),
            ["10.0.0.9:53"]
        );
    }
}
