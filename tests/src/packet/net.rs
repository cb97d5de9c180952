//! A network in which the kernel knows every next hop: two veth pairs in the test's own namespace.
//!
//! Nothing is sent: `bpf_fib_lookup` asks routes and neighbours, and both are written by hand.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use super::sys;

/// MAC address of the first interface.
pub const FIRST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC address of the second interface.
pub const SECOND_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// MAC address of the gateway to the clients, on the first interface.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfd];

/// MAC address of backend `n` of either network; those above 9 have none, the kernel would have to ask.
pub fn neighbour_mac(n: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x0b, n]
}

/// The network of this thread's namespace.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Index of the interface to clients and the first network.
    pub first: u32,
    /// Index of the interface to the second network.
    pub second: u32,
    /// The other ends of both, where whatever is sent out arrives.
    pub ends: (u32, u32),
}

// === impl Net ===

impl Net {
    /// Makes it; the namespace must be fresh ([`super::Rig::new`]).
    pub fn new() -> Self {
        let links = fs::read_to_string("/proc/thread-self/net/dev").expect("links");
        // Two lines of headings, and `lo`.
        assert!(
            links.lines().count() <= 3,
            "this network namespace is not fresh; make a rig first"
        );
        for knob in [
            "ipv4/conf/all/forwarding",
            "ipv4/conf/default/forwarding",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/default/forwarding",
        ] {
            fs::write(format!("/proc/sys/net/{knob}"), "1")
                .unwrap_or_else(|error| panic!("cannot set {knob}: {error}"));
        }
        let mut lines = Vec::new();
        for (name, mac, net) in [("lbt1", FIRST_MAC, 1), ("lbt2", SECOND_MAC, 2)] {
            let mac = text(mac);
            lines.extend([
                format!("link add {name} address {mac} type veth peer name {name}p"),
                format!("link set {name}p up"),
                format!("link set {name} up"),
                format!("addr add 10.{net}.0.254/24 dev {name}"),
                format!("addr add fd00:{net}::254/64 dev {name} nodad"),
            ]);
            for n in 1..=9 {
                let mac = text(neighbour_mac(n));
                for addr in [format!("10.{net}.0.{n}"), format!("fd00:{net}::{n}")] {
                    lines.push(format!(
                        "neigh add {addr} lladdr {mac} dev {name} nud permanent"
                    ));
                }
            }
        }
        let mac = text(GATEWAY_MAC);
        for (gateway, clients) in [
            ("10.1.0.253", "192.0.2.0/24"),
            ("fd00:1::253", "2001:db8:1::/64"),
        ] {
            lines.extend([
                format!("neigh add {gateway} lladdr {mac} dev lbt1 nud permanent"),
                format!("route add {clients} via {gateway} dev lbt1"),
            ]);
        }
        ip(&lines);
        Self {
            first: index("lbt1"),
            second: index("lbt2"),
            ends: (index("lbt1p"), index("lbt2p")),
        }
    }
}

impl Net {
    /// Lets no IP packet longer than this, in bytes, on the ways to the clients and to the first backend.
    pub fn narrow(&self, mtu: u32) {
        ip(&[
            format!("route replace 192.0.2.0/24 via 10.1.0.253 dev lbt1 mtu lock {mtu}"),
            format!("route replace 10.1.0.1/32 dev lbt1 mtu lock {mtu}"),
            format!("route replace 2001:db8:1::/64 via fd00:1::253 dev lbt1 mtu lock {mtu}"),
            format!("route replace fd00:1::1/128 dev lbt1 mtu lock {mtu}"),
        ]);
    }
}

impl Net {
    /// Lets frames with IP packets of so many bytes through the first pair of interfaces.
    pub fn widen(&self, mtu: u32) {
        ip(&["lbt1", "lbt1p"].map(|name| format!("link set {name} mtu {mtu}")));
    }

    /// Sends a frame from the other end to the first interface.
    pub fn deliver(&self, frame: &[u8]) {
        sys::send_frame(self.ends.0, frame).unwrap_or_else(|error| panic!("not sent: {error}"));
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `ip` commands, in the thread's namespace.
fn ip(lines: &[String]) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("packet tests need the program `ip` (iproute2)");
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all((lines.join("\n") + "\n").as_bytes())
        .unwrap();
    drop(stdin);
    let out = child.wait_with_output().unwrap();
    assert!(
        out.status.success(),
        "ip: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn index(name: &str) -> u32 {
    rustix::net::netdevice::name_to_index(
        rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )
        .unwrap(),
        name,
    )
    .unwrap()
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
