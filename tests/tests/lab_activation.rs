//! DNS sockets that outlive the agent, passed as systemd passes them.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use lb_tests::{
    lab::{Process, wait_until},
    topology::{MASTER, Topology, Wishes, ZONE},
};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

/// On the master, besides 127.0.0.1, where the agent then listens by itself.
const ADDRESS: &str = "10.77.0.1:53";

/// Moves the descriptors that its first argument names to 3 and on, says so as sd_listen_fds(3) wants it, and
/// becomes the agent, which so has the pid that it is told.
const ACTIVATE: &str = r#"
next=3
for fd in $1; do eval "exec $next<&$fd $fd<&-"; next=$((next + 1)); done
shift
export LISTEN_PID=$$ LISTEN_FDS=$((next - 3)) LISTEN_FDNAMES=dns:dns
exec "$@"
"#;

/// What systemd would hold.
struct Held {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Held {
    fn open(topology: &Topology) -> Self {
        let open = || {
            let udp = UdpSocket::bind(ADDRESS)?;
            udp.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((udp, TcpListener::bind(ADDRESS)?))
        };
        let (udp, tcp) = topology
            .master()
            .enter(open)
            .expect("the master's network")
            .expect("sockets");
        Self { udp, tcp }
    }

    fn start_agent(&self, topology: &mut Topology) {
        // Far above those that the shell moves them to.
        let passed = [inheritable(&self.udp), inheritable(&self.tcp)];
        let numbers = passed.each_ref().map(|fd| fd.as_raw_fd().to_string());
        let starter = ["bash", "-c", ACTIVATE, "activate", &numbers.join(" ")];
        topology
            .start_agent_by(MASTER, &starter)
            .expect("it starts");
    }

    fn wait_for_a_query(&self) {
        wait_until("a query waits", Duration::from_secs(10), || {
            match self.udp.peek(&mut [0; 512]) {
                Ok(length) => length > 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => panic!("{error}"),
            }
        })
        .expect("it waits in the socket");
    }
}

fn inheritable(socket: &impl AsFd) -> OwnedFd {
    let fd = fcntl_dupfd_cloexec(socket, 100).expect("a descriptor");
    fcntl_setfd(&fd, FdFlags::empty()).expect("no close-on-exec");
    fd
}

/// One try with much patience.
fn ask(topology: &Topology, question: [&str; 2]) -> Process {
    let [kind, name] = question;
    let dig = [
        "dig",
        "+short",
        "+time=40",
        "+tries=1",
        "@10.77.0.1",
        kind,
        name,
    ];
    topology.client.start("dig", &dig).expect("dig")
}

fn answer(dig: Process) -> String {
    let dig = dig.finish(Duration::from_secs(45)).expect("dig ends");
    dig.ok().expect("an answer")
}

#[test]
fn a_query_that_comes_while_the_agent_is_down_is_answered_when_it_is_back() {
    let services = "services:\n  - name: /waiting\n    framework: marathon\n    port: 80\n    protocol: tcp\n    \
                    backends:\n      - {address: \"10.77.0.11:80\"}\n";
    let mut topology = Topology::without_agents(Wishes {
        services: services.to_owned(),
        ..Wishes::default()
    })
    .expect("a topology");
    let held = Held::open(&topology);

    let early = ask(&topology, ["SOA", "l4lb.thisdcos.directory"]);
    held.wait_for_a_query();
    held.start_agent(&mut topology);
    assert!(answer(early).contains("ns.spartan"));
    topology.agent_answers(MASTER).expect("it is up");
    let vip = topology.vip(MASTER, "waiting", false).expect("a VIP");

    topology.kill_agent(MASTER).expect("killed");
    let name = format!("waiting.{ZONE}");
    let meanwhile = ask(&topology, ["A", &name]);
    held.wait_for_a_query();
    held.start_agent(&mut topology);
    assert_eq!(answer(meanwhile).trim(), vip.to_string());
    let over_tcp = ["dig", "+short", "+tcp", "@10.77.0.1", "A", &name];
    let over_tcp = topology.client.run(&over_tcp).expect("dig").ok();
    assert_eq!(over_tcp.expect("an answer").trim(), vip.to_string());
}
