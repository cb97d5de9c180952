//! The lab itself: what later tests rely on.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fs,
    net::{TcpStream, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use lb_tests::lab::{BridgeSpec, Host, HostSpec, Lab, UPLINK, cgroup, leftovers, servers::Server};

const SECOND: Duration = Duration::from_secs(1);

fn two_hosts() -> (Lab, Host, Host) {
    let lab = Lab::new().expect("a lab");
    let spec = |name, v4, v6| HostSpec::new(name).address(v4).address(v6).forwarding();
    let a = lab
        .host(&spec("a", "10.77.0.1/24", "fd77::1/64"))
        .expect("host a");
    let b = lab
        .host(&spec("b", "10.77.0.2/24", "fd77::2/64"))
        .expect("host b");
    (lab, a, b)
}

fn ping(host: &Host, address: &str) -> bool {
    let finished = host
        .run(&["ping", "-c", "1", "-W", "2", address])
        .expect("ping runs");
    finished.status.success()
}

#[test]
fn hosts_reach_each_other_over_both_families() {
    let (_lab, a, b) = two_hosts();
    assert!(ping(&a, "10.77.0.2") && ping(&a, "fd77::2"));
    assert!(ping(&b, "10.77.0.1") && ping(&b, "fd77::1"));
}

#[test]
fn no_host_has_a_route_out() {
    let (lab, a, _b) = two_hosts();
    for outside in ["1.1.1.1", "192.0.2.2", "2606:4700:4700::1111"] {
        let route = a.run(&["ip", "route", "get", outside]).expect("ip runs");
        assert!(
            !route.status.success(),
            "a route to {outside}: {}",
            route.stdout
        );
    }
    // The switch has no address and no cable but those of the hosts.
    let links = lab
        .switch()
        .enter(|| fs::read_to_string("/proc/thread-self/net/dev"))
        .expect("enter");
    let links = links.expect("/proc/net/dev");
    let names: Vec<_> = links
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    // Modules such as ifb put idle devices into every new namespace; only a veth is a cable.
    assert_eq!(
        names
            .iter()
            .filter(|name| ["eth", "en", "wl", "veth"]
                .iter()
                .any(|nic| name.starts_with(nic)))
            .count(),
        0,
        "{names:?}"
    );
    assert!(
        ["a", "b", "br0"].iter().all(|port| names.contains(port)),
        "{names:?}"
    );
}

#[test]
fn a_process_is_in_the_cgroup_of_its_host_and_sees_sys_as_it_is() {
    let (lab, a, _b) = two_hosts();
    let own = a
        .run(&["cat", "/proc/self/cgroup"])
        .expect("cat")
        .ok()
        .expect("exit 0");
    let unified = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .expect("a v2 line");
    assert_eq!(unified, format!("/{}/a", lab.name()));
    let root = cgroup::root().expect("cgroup v2");
    let procs = root.join("cgroup.procs");
    for visible in [procs.to_str().expect("UTF-8"), "/sys/fs/bpf"] {
        assert!(
            a.run(&["ls", visible]).expect("ls").status.success(),
            "{visible}"
        );
    }
}

#[test]
fn each_host_has_a_resolv_conf_of_its_own() {
    let lab = Lab::new().expect("a lab");
    let spec = HostSpec::new("a").nameserver([10, 77, 0, 53].into());
    let a = lab.host(&spec).expect("a host");
    let seen = a.run(&["cat", "/etc/resolv.conf"]).expect("cat").stdout;
    assert!(seen.starts_with("nameserver 10.77.0.53\n"), "{seen}");
    assert_ne!(
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        seen
    );
}

#[test]
fn processes_end_with_their_host_even_grandchildren() {
    let (_lab, a, _b) = two_hosts();
    let shell = a
        .start("sleepers", &["sh", "-c", "sleep 1000 & sleep 1000 & wait"])
        .expect("sh");
    let pids = lb_tests::lab::wait_for("both sleepers run", 5 * SECOND, || {
        let pids = a.cgroup().pids();
        (pids.len() == 3).then_some(pids)
    })
    .expect("sleepers");
    drop(a);
    drop(shell);
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}/exe")).exists(),
            "{pid} lives on"
        );
    }
}

#[test]
fn test_threads_open_sockets_in_a_host() {
    let (_lab, a, b) = two_hosts();
    let tcp = Server::tcp_echo(&b, "[::]:7000".parse().expect("address"), "tcp").expect("server");
    let udp =
        Server::udp_echo(&b, "0.0.0.0:7000".parse().expect("address"), "udp:").expect("server");
    assert_eq!(tcp.address().port(), udp.address().port());

    let mut stream = a
        .enter(|| TcpStream::connect("10.77.0.2:7000"))
        .expect("enter")
        .expect("TCP");
    let mut mark = [0; 3];
    std::io::Read::read_exact(&mut stream, &mut mark).expect("a mark");
    assert_eq!(&mark, b"tcp");

    let socket = a
        .enter(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("enter")
        .expect("UDP");
    socket.set_read_timeout(Some(5 * SECOND)).expect("time-out");
    socket.send_to(b"hello", "10.77.0.2:7000").expect("send");
    let mut answer = [0; 64];
    let (length, from) = socket.recv_from(&mut answer).expect("an answer");
    assert_eq!(
        (&answer[..length], from.to_string().as_str()),
        (&b"udp:hello"[..], "10.77.0.2:7000")
    );
}

#[test]
fn a_container_behind_forward_drop_gets_out_but_nobody_gets_in() {
    let (_lab, a, b) = two_hosts();
    let bridge = BridgeSpec {
        device: "docker0".into(),
        addresses: vec!["172.31.1.1/24".into(), "fd78:1::1/64".into()],
        forward_drop: true,
        masquerade: true,
    };
    let bridge = a.bridge(&bridge).expect("a bridge");
    let spec = HostSpec::new("box")
        .address("172.31.1.2/24")
        .address("fd78:1::2/64");
    let inside = bridge.container(&spec).expect("a container");
    assert!(
        ping(&inside, "10.77.0.2") && ping(&inside, "fd77::2"),
        "out, masqueraded"
    );
    assert!(
        inside.cgroup().path().starts_with(a.cgroup().path()),
        "a child of the node's cgroup"
    );

    let to_box = ["ip", "route", "add", "172.31.1.0/24", "via", "10.77.0.1"];
    b.run(&to_box).expect("ip").ok().expect("a route");
    assert!(!ping(&b, "172.31.1.2"), "FORWARD drops what comes in");
    assert!(
        ping(&a, "172.31.1.2"),
        "the node itself reaches its container"
    );
}

#[test]
fn checksum_offload_is_off_unless_asked_for() {
    let lab = Lab::new().expect("a lab");
    let off = lab.host(&HostSpec::new("off")).expect("a host");
    let on = lab
        .host(&HostSpec::new("on").tx_checksum(true))
        .expect("a host");
    for (host, state) in [(off, "off"), (on, "on")] {
        let features = host
            .run(&["ethtool", "-k", UPLINK])
            .expect("ethtool")
            .stdout;
        assert!(
            features.contains(&format!("tx-checksumming: {state}")),
            "{features}"
        );
        assert!(
            features.contains("generic-receive-offload: on"),
            "{features}"
        );
    }
}

#[test]
fn what_a_crashed_run_left_is_removed_and_what_lives_is_not() {
    let (lab, _a, _b) = two_hosts();
    // A pid above any `pid_max`, so nobody's.
    let dead = "lblab-4999999-1-0";
    let root = cgroup::root().expect("cgroup v2");
    let group = root.join(dead);
    fs::create_dir_all(group.join("host")).expect("a cgroup");
    let pins = Path::new("/sys/fs/bpf").join(dead);
    fs::create_dir_all(pins.join("host")).expect("pins");
    let netns = format!("{dead}-host");
    assert!(
        Command::new("ip")
            .args(["netns", "add", &netns])
            .status()
            .expect("ip")
            .success()
    );
    let mut orphan = Command::new("sleep").arg("1000").spawn().expect("sleep");
    fs::write(group.join("host/cgroup.procs"), orphan.id().to_string()).expect("move");

    let removed = leftovers::remove().expect("removal");

    assert_eq!(removed.len(), 3, "{removed:?}");
    assert!(!orphan.wait().expect("wait").success(), "killed");
    assert!(!group.exists() && !pins.exists() && !Path::new("/run/netns").join(&netns).exists());
    assert!(root.join(lab.name()).exists() && lab.switch().path().exists());
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    let (lab, a, b) = two_hosts();
    let name = lab.name().to_owned();
    drop((a, b, lab));
    let root = cgroup::root().expect("cgroup v2");
    let places = [
        root,
        "/sys/fs/bpf".into(),
        "/run/netns".into(),
        std::env::temp_dir(),
    ];
    for place in &places {
        let mut names = fs::read_dir(place)
            .expect("readable")
            .flatten()
            .map(|e| e.file_name());
        let left = names.find(|found| {
            found
                .to_str()
                .is_some_and(|found| found == name || found.starts_with(&format!("{name}-")))
        });
        assert_eq!(left, None, "in {}", place.display());
    }
}
