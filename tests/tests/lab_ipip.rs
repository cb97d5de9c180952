//! Direct server return by IP-in-IP, to a server that unpacks by the RFCs and not by our code: each packet is taken out of
//! its outer header by a program of the test, and its own network stack goes on from there.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fmt::Write as _,
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_tests::{
    asking::{ask, expect_all},
    lab::{Host, Process, http, programs::program, servers::Server, wait_until},
    stage::{PATIENCE, Stage, bytes, echoed},
    task::READY,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Protocol numbers: IPv4 inside of IPv4 (RFC 2003), IPv6 inside of IPv6 (RFC 2473).
const INSIDE: [i32; 2] = [4, 41];
/// Whose packets are sent as they are, header and all: `IPPROTO_RAW`, raw(7).
const AS_IT_IS: i32 = 255;

const NODE: [&str; 2] = ["10.77.0.1", "fd77::1"];
const SERVER: [&str; 2] = ["10.77.0.11", "fd77::11"];
const CLIENT: [&str; 2] = ["10.77.0.100", "fd77::100"];
const VIP: [&str; 2] = ["10.99.0.1", "fd99::1"];
const HTTP: u16 = 8_080;
const ECHO: u16 = 7;

/// What fits into a packet of 1,500 bytes beside the outer header.
const FITS: [usize; 2] = [1_480, 1_460];
const DOWNLOAD: usize = 500_000;
const UPLOAD: usize = 300_000;

/// What a server's tunnel took out of outer headers.
#[derive(Debug, Default)]
struct Taken {
    packets: usize,
    longest: usize,
    /// What was not as the RFCs have it.
    wrong: Vec<String>,
}

/// The receiving end of a tunnel, of one family: what an interface of type `ipip` or `ip6tnl` does. Ended on drop.
struct Tunnel {
    taken: Arc<Mutex<Taken>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A server with tunnels and the VIPs on its loopback. Fields end in this order.
struct Backend {
    _task: Process,
    _echo: Server,
    tunnels: [Tunnel; 2],
}

// === impl Tunnel ===

impl Tunnel {
    /// Raw sockets get what the kernel has taken for the host itself, with a good outer header. What was inside goes to
    /// the host's own address through its loopback, where its stack takes it as from anywhere.
    fn open(server: &Host, family: usize) -> Self {
        let domain = [Domain::IPV4, Domain::IPV6][family];
        let raw = |protocol| Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)));
        let open = || std::io::Result::Ok((raw(INSIDE[family])?, raw(AS_IT_IS)?));
        let opened = server.enter(open).expect("in the host");
        let (outer, inner) = opened.expect("raw sockets");
        let tick = Duration::from_millis(50);
        outer.set_read_timeout(Some(tick)).expect("a time-out");
        let taken = Arc::<Mutex<Taken>>::default();
        let end = Arc::<AtomicBool>::default();
        let (all, asked) = (Arc::clone(&taken), Arc::clone(&end));
        let thread = thread::spawn(move || {
            let to = SocketAddr::new(VIP[family].parse().expect("an address"), 0).into();
            let mut room = vec![0; 65_536];
            while !asked.load(Ordering::Relaxed) {
                let length = match (&outer).read(&mut room) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => panic!("the tunnel: {error}"),
                };
                let packet = unpack(&room[..length], family);
                let sent = packet.and_then(|packet| {
                    let sent = inner.send_to(packet, &to);
                    sent.map_err(|error| format!("{} bytes: {error}", packet.len()))
                });
                let mut taken = all.lock().expect("no panic");
                match sent {
                    Ok(length) => {
                        taken.packets += 1;
                        taken.longest = taken.longest.max(length);
                    }
                    Err(wrong) => taken.wrong.push(wrong),
                }
            }
        });
        Self {
            taken,
            end,
            thread: Some(thread),
        }
    }

    /// Since the last time.
    fn take(&self) -> Taken {
        std::mem::take(&mut self.taken.lock().expect("no panic"))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The packet inside, if it is whole and from the client for the VIP. Of IPv4, a raw socket gives the outer header, too;
/// of IPv6 it does not.
fn unpack(packet: &[u8], family: usize) -> Result<&[u8], String> {
    let inner = match family {
        0 => {
            let header = packet.get(..20).ok_or("no header")?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if header[0] != 0x45 || length != packet.len() || header[12..16] != raw(NODE[0])[..] {
                return Err(format!(
                    "outer header {header:02x?}, {} bytes",
                    packet.len()
                ));
            }
            &packet[20..]
        }
        _ => packet,
    };
    let (least, at) = [(20, 12), (40, 8)][family];
    let header = inner.get(..least).ok_or("nothing inside")?;
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (length, sound) = match family {
        0 => {
            let sum: u32 = (0..10).map(|word| u32::from(half(2 * word))).sum();
            let whole = header[0] == 0x45 && (sum & 0xffff) + (sum >> 16) == 0xffff;
            (usize::from(half(2)), whole)
        }
        _ => (40 + usize::from(half(4)), header[0] >> 4 == 6),
    };
    let addresses = [raw(CLIENT[family]), raw(VIP[family])].concat();
    let theirs = header.get(at..at + addresses.len());
    if !sound || length != inner.len() || theirs != Some(&addresses[..]) {
        return Err(format!("inner header {header:02x?}, {} bytes", inner.len()));
    }
    Ok(inner)
}

/// An address as it stands in a packet.
fn raw(address: &str) -> Vec<u8> {
    match address.parse().expect("an address") {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

// === impl Backend ===

impl Backend {
    fn start(server: &Host) -> Self {
        // Joined segments would come out of the raw socket as one packet, with an unfinished checksum.
        run(server, "ethtool -K eth0 gro off");
        for vip in VIP {
            run(server, &format!("ip address add {vip} dev lo"));
        }
        let task = program("task-server").expect("a server");
        let argv = [&task, "--node", "s1", "--port", &HTTP.to_string()];
        let mut process = server.start("task", &argv).expect("started");
        wait_until("the server is ready", PATIENCE, || {
            process.stdout().contains(READY) || process.has_ended()
        })
        .expect("it is");
        let any = SocketAddr::new("::".parse().expect("an address"), ECHO);
        Self {
            _task: process,
            _echo: Server::tcp_echo(server, any, "s1").expect("a server"),
            tunnels: [0, 1].map(|family| Tunnel::open(server, family)),
        }
    }
}

fn run(host: &Host, command: &str) {
    let argv: Vec<_> = command.split(' ').collect();
    let done = host.run(&argv).and_then(|done| done.ok());
    done.expect(command);
}

/// A stage with both families, whose first server unpacks.
fn stage(flags: &[&str]) -> (Stage, Backend) {
    let flags = [&["--ip-vips", "fd99::/64"], flags].concat();
    let stage = Stage::up("services: []\n", &flags);
    let [node, server, client] = [&stage.node, &stage.servers[0], &stage.clients[0]];
    for (host, address) in [(node, NODE[1]), (server, SERVER[1]), (client, CLIENT[1])] {
        run(host, &format!("ip address add {address}/64 dev eth0 nodad"));
    }
    run(client, &format!("ip route add fd99::/64 via {}", NODE[1]));
    let backend = Backend::start(server);
    let mut services = "services:\n".to_owned();
    for (vip, at) in VIP.into_iter().zip(SERVER) {
        for port in [HTTP, ECHO] {
            let at = SocketAddr::new(at.parse().expect("an address"), port);
            writeln!(
                services,
                "- {{address: '{vip}', port: {port}, mode: dsr-ipip, backends: ['{at}']}}"
            )
            .expect("written");
        }
    }
    stage.write(&services, |status| {
        status["services"].as_array().map(Vec::len) == Some(4)
    });
    (stage, backend)
}

/// The server sees the client itself, and what it answers does not come by the node.
fn is_answered_directly(stage: &Stage, backend: &Backend, family: usize) {
    let [client, node] = [&stage.clients[0], &stage.node];
    let to = SocketAddr::new(VIP[family].parse().expect("an address"), HTTP);
    let ipv6: &[&str] = [&[][..], &["--ipv6"]][family];
    let outcome = ask(client, &to.to_string(), 20, ipv6).expect("probe");
    let seen = CLIENT[family].parse().expect("an address");
    expect_all(&outcome, to, Some(seen)).expect("it is served");
    let before = bytes(node, "rx");
    let path = format!("/download?bytes={DOWNLOAD}");
    let reply = client.enter(|| http::get(to, &path)).expect("in the host");
    let reply = reply.expect("a download");
    assert_eq!((reply.status, reply.body.len()), (200, DOWNLOAD));
    let came = bytes(node, "rx") - before;
    assert!(came < DOWNLOAD as u64 / 4, "{came} bytes came by the node");
    let taken = backend.tunnels[family].take();
    assert_eq!(taken.wrong, [""; 0]);
    // Of each question at least a SYN, an ACK, the question and a FIN.
    assert!(taken.packets >= 4 * 21, "{taken:?}");
}

#[test]
fn by_xdp_a_server_that_unpacks_answers_the_client_itself() {
    let (stage, backend) = stage(&[]);
    for family in [0, 1] {
        is_answered_directly(&stage, &backend, family);
        // The client's segments are too long with an outer header, until it is told so.
        let to = SocketAddr::new(VIP[family].parse().expect("an address"), ECHO);
        let server = echoed(&stage.clients[0], to, UPLOAD).expect("an upload");
        assert_eq!(server, "s1");
        let taken = backend.tunnels[family].take();
        assert_eq!(taken.wrong, [""; 0]);
        assert_eq!(taken.longest, FITS[family]);
    }
    let status = stage.status();
    for service in status["services"].as_array().expect("services") {
        let traffic = &service["traffic"];
        assert!(traffic["bytes_in"].as_u64() > Some(1_000), "{service}");
        assert!(traffic["bytes_out"].is_null(), "{service}");
    }
}

#[test]
fn by_tc_a_server_that_unpacks_answers_the_client_itself() {
    let (stage, backend) = stage(&["--xdp-mode", "off"]);
    for family in [0, 1] {
        is_answered_directly(&stage, &backend, family);
    }
}
