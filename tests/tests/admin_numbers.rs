//! Known traffic, and what every surface says of it.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    admin::{self, PROXY, VIP, ask, json, page, rows, services},
    lab::{Host, servers::Server, wait_until},
    stage::{PATIENCE, Stage, connect},
    surfaces,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// One for each kind of traffic; no two have a backend in common.
const SERVICES: &str = "services:
- {address: 10.99.0.1, port: 80, backends: ['10.77.0.11:80', '10.77.0.12:80']}
- {address: 10.99.0.2, port: 80, backends: ['10.77.0.11:81']}
- {address: 10.99.0.3, port: 80, deny: [10.77.0.101/32], max-flows: 1, backends: ['10.77.0.13:80']}
- {address: 10.99.0.4, port: 80, backends: ['10.77.0.12:82', '10.77.0.13:82']}
- {address: 10.99.0.5, port: 80, backends: ['10.77.0.13:83']}
- {address: 10.99.0.6, port: 53, protocol: udp, backends: ['10.77.0.11:5353']}
- {address: 10.99.0.7, port: 80, backends: ['10.77.0.11:84']}
- {address: 10.99.0.8, port: 80, backends: ['10.77.0.11:85']}
- {address: 10.99.0.9, port: 80, backends: ['10.77.0.11:86']}
- {address: 10.99.0.10, port: 80, backends: [{address: '10.77.0.11:87', weight: 0}]}
";

/// Connections that end well, each with so many bytes there and back.
const CONNECTIONS: u64 = 10;
const BYTES: usize = 1_000;
/// Connections that clients reset.
const CLIENT_RESETS: u64 = 4;
/// Connections that a backend accepts and resets.
const BACKEND_RESETS: u64 = 2;
/// Connections that nobody takes.
const REFUSED: u64 = 3;
/// Connections of a client that may not use the service.
const DENIED: u64 = 2;
/// Segments without the end of their header.
const CUT: u64 = 2;
/// Datagrams of one flow, and the bytes of each.
const DATAGRAMS: u64 = 5;
const DATAGRAM: usize = 100;
/// Connections of the node's own processes, each with 5 bytes there, and as many and a name back.
const LOCAL: u64 = 4;

/// The headers of a connection take fewer bytes: 40 and more a packet, few packets a connection.
const HEADERS: u64 = 1_000;

/// So many handshakes, each of 1 us and more.
fn accepted(count: u64) -> String {
    let time = count * 1_000;
    format!(
        "connect={count} .by_time={count} .connect_ns={time}..{}",
        u64::MAX
    )
}

/// As many connections with so much payload each way: SYN, ACK and FIN or RST there, SYN-ACK and more back.
fn carries(count: u64, payload: u64) -> String {
    let (least, most) = (payload + 40 * count, payload + (count + 1) * HEADERS);
    let (there, back, many) = (2 * count, count, 20 * (count + 1));
    format!(
        "bin={least}..{most} bout={least}..{most} .packets_in={there}..{many} .packets_out={back}..{many}"
    )
}

/// Connects for too short a time for a second SYN (after 1 s, RFC 6298 section 2.1).
fn dial(client: &Host, vip: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = vip.parse().expect("an address");
    let dial = || TcpStream::connect_timeout(&to, Duration::from_millis(300));
    client.enter(dial).expect("in the host")
}

/// A connection that nobody takes.
fn one_syn(client: &Host, vip: &str) {
    dial(client, vip).expect_err("nobody is to take it");
}

/// Connections that are echoed, connections that are reset, and one that stays.
fn ends_well(client: &Host) -> TcpStream {
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = connect(client, VIP).expect("a connection");
        stream.write_all(&[7; BYTES]).expect("sent");
        stream.read_exact(&mut [0; BYTES]).expect("echoed");
    }
    for _ in 0..CLIENT_RESETS {
        let (stream, _) = connect(client, VIP).expect("a connection");
        reset(stream);
    }
    connect(client, VIP).expect("a connection").0
}

/// Ends a connection with a reset.
fn reset(stream: TcpStream) {
    let socket = SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).expect("set");
}

/// A port that is listened at, where nobody answers any more: its queue is full.
fn silent(host: &Host, at: &str) -> (Socket, TcpStream) {
    let at: SocketAddr = at.parse().expect("an address");
    let full = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SockAddr::from(at)).expect("bound");
        socket.listen(0).expect("listening");
        let only = TcpStream::connect(at).expect("the one that there is room for");
        (socket, only)
    };
    host.enter(full).expect("in the host")
}

/// Connects until a connection came to the silent server first; how many there were.
fn goes_elsewhere(client: &Host, vip: &str) -> u64 {
    for opened in 1..=200 {
        let began = Instant::now();
        connect(client, vip).expect("the other one takes it");
        if began.elapsed() > Duration::from_millis(900) {
            return opened;
        }
    }
    panic!("none of 200 connections came to the silent server");
}

/// Accepts so many connections and resets each as soon as something came.
fn resetting(host: &Host, at: &str) -> thread::JoinHandle<()> {
    let listener = host.enter(|| TcpListener::bind(at)).expect("in the host");
    let listener = listener.expect("listening");
    thread::spawn(move || {
        for _ in 0..BACKEND_RESETS {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.read_exact(&mut [0]).expect("something");
            reset(stream);
        }
    })
}

fn is_reset(client: &Host, vip: &str) {
    let to: SocketAddr = vip.parse().expect("an address");
    let mut stream = client
        .enter(|| TcpStream::connect_timeout(&to, PATIENCE))
        .expect("in the host")
        .expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(&[1]).expect("sent");
    stream.read_exact(&mut [0]).expect_err("it is reset");
}

/// One flow of datagrams that are echoed.
fn datagrams(client: &Host, vip: &str) {
    let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0"));
    let socket = socket.expect("in the host").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    for _ in 0..DATAGRAMS {
        socket.send_to(&[7; DATAGRAM], vip).expect("sent");
        socket.recv_from(&mut [0; DATAGRAM]).expect("echoed");
    }
}

/// Sends segments that end after 10 of the 20 bytes of their header.
fn cut_short(client: &Host, addr: &str) {
    const SENDER: &str = "import socket, struct, sys\n\
                          s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)\n\
                          for n in range(int(sys.argv[2])):\n \
                          s.sendto(struct.pack('!HHIH', 40000 + n, 80, 0, 0), (sys.argv[1], 0))\n";
    let sent = client.run(&["python3", "-c", SENDER, addr, &CUT.to_string()]);
    sent.and_then(|sent| sent.ok()).expect("sent");
}

/// Processes of the node itself: connections that end well, and one that nobody takes.
fn local(node: &Host) {
    let shell = |script: &str| node.run(&["bash", "-c", script]).expect("bash runs").ok();
    for _ in 0..LOCAL {
        shell(
            "exec 3<>/dev/tcp/10.99.0.8/80; head -c 2 <&3 >/dev/null; \
             printf %05d 1 >&3; head -c 5 <&3 >/dev/null",
        )
        .expect("an answer");
    }
    shell("exec 3<>/dev/tcp/10.99.0.9/80").expect_err("nobody listens there");
}

#[test]
fn known_traffic_is_counted_alike_everywhere() {
    let mut stage = Stage::up(SERVICES, &[]);
    let echo = |host: &Host, at: &str| {
        let at = at.parse().expect("an address");
        Server::tcp_echo(host, at, host.name()).expect("a server")
    };
    let (first, second) = (
        echo(&stage.servers[0], "10.77.0.11:85"),
        echo(&stage.servers[1], "10.77.0.12:82"),
    );
    stage.echoes.extend([first, second]);
    let at = "10.77.0.11:5353".parse().expect("an address");
    let _datagrams = Server::udp_echo(&stage.servers[0], at, "").expect("a server");
    let _silent = silent(&stage.servers[2], "10.77.0.13:82");
    let resetting = resetting(&stage.servers[2], "10.77.0.13:83");
    let [one, other] = [&stage.clients[0], &stage.clients[1]];

    // Rates are taken each second while somebody looks.
    page(&stage, "/;csv");
    let _open = ends_well(one);
    (0..REFUSED).for_each(|_| one_syn(one, "10.99.0.2:80"));
    let (_held, _) = connect(one, "10.99.0.3:80").expect("a connection");
    one_syn(one, "10.99.0.3:80");
    (0..DENIED).for_each(|_| one_syn(other, "10.99.0.3:80"));
    let moved = goes_elsewhere(one, "10.99.0.4:80");
    (0..BACKEND_RESETS).for_each(|_| is_reset(one, "10.99.0.5:80"));
    resetting.join().expect("it accepted all");
    datagrams(one, "10.99.0.6:53");
    cut_short(one, "10.99.0.7");
    local(&stage.node);
    (0..REFUSED).for_each(|_| one_syn(other, "10.99.0.10:80"));

    let all = CONNECTIONS + CLIENT_RESETS + 1;
    let (ended, moving) = (all - 1, moved + 1);
    // A second may be a short one.
    let many = 2 * all;
    let payload = CONNECTIONS * BYTES as u64;
    let carried = DATAGRAMS * (DATAGRAM as u64 + 28);
    let (there, back) = (5 * LOCAL, 7 * LOCAL);
    let refused = REFUSED * HEADERS;
    let unopened = DENIED + 1;
    // Segments of each, counted at its end: handshake, payload and end.
    let segments = format!("{}..{}", 3 * LOCAL, 9 * LOCAL);
    let table = [
        format!(
            "10.99.0.1_80 scur=1 smax=1..{all} stot={all} rate_max=1..{many} cli_abrt={CLIENT_RESETS} \
             .closed={ended} {} {}",
            accepted(all),
            carries(all, payload)
        ),
        format!(
            "10.99.0.2_80 smax=0..{REFUSED} stot={REFUSED} econ={REFUSED} .resets={REFUSED} .refused={REFUSED} \
             .closed=0..{REFUSED} bin=1..{refused} bout=0..{refused} .packets_in={REFUSED} .packets_out=0..{REFUSED}"
        ),
        format!(
            "10.99.0.3_80 scur=1 smax=1 stot=1 dreq={DENIED} dcon=1 .unopened={unopened} {} {}",
            accepted(1),
            carries(1, 0)
        ),
        format!(
            "10.99.0.4_80 smax=0..{moving} stot={moving} wretr=1 wredis=1 .closed={moved}..{moving} {} {}",
            accepted(moved),
            carries(moved, 0)
        ),
        format!(
            "10.99.0.5_80 smax=0..{BACKEND_RESETS} stot={BACKEND_RESETS} eresp={BACKEND_RESETS} \
             .resets={BACKEND_RESETS} .closed={BACKEND_RESETS} {} {}",
            accepted(BACKEND_RESETS),
            carries(BACKEND_RESETS, 0)
        ),
        format!(
            "10.99.0.6_53_udp scur=1 smax=1 stot=1 bin={carried} bout={carried} .packets_in={DATAGRAMS} \
             .packets_out={DATAGRAMS}"
        ),
        format!("10.99.0.7_80 ereq={CUT}"),
        format!(
            "10.99.0.8_80 smax=0..{LOCAL} stot={LOCAL} .closed={LOCAL} bin={there} bout={back} \
             .packets_in={segments} .packets_out={segments} {}",
            accepted(LOCAL)
        ),
        "10.99.0.9_80 smax=0..1 stot=0..1 econ=1 .failed=1 .closed=0..1 bin=0..1 bout=0 .packets_in=0..1 .packets_out=0..1"
            .to_owned(),
        format!("10.99.0.10_80 .unserved={REFUSED} .unopened={REFUSED} econ={REFUSED} S:econ=0"),
    ];
    surfaces::expect(&stage, &table.join("\n"));
}

#[test]
fn a_flow_that_no_port_is_left_for_is_counted_as_lost() {
    let stage = Stage::up(&services(""), &["--snat-ports", "61001-61001"]);
    // Each of the two backends has one flow at most.
    let (mut held, mut lost) = (Vec::new(), 0);
    while held.len() < 2 || lost == 0 {
        match dial(&stage.clients[0], VIP) {
            Ok(stream) => held.push(stream),
            Err(_) => lost += 1,
        }
        assert!(lost < 100, "the other backend takes none: {held:?}");
    }
    let line = format!(
        "{PROXY} scur=2 smax=2 stot=2 eint={lost} S:eint=0 .unopened={lost} {} {}",
        accepted(2),
        carries(2, 0)
    );
    surfaces::expect(&stage, &line);
}

#[test]
fn a_service_that_loses_its_last_backend_is_down_on_every_surface() {
    let stage = admin::stage("");
    let iid = rows(&page(&stage, "/;csv"))["BACKEND"]["iid"].clone();
    let none = "services:\n- {address: 10.99.0.1, port: 80, backends: []}\n";
    stage.write(none, |status| {
        status["services"][0]["backends"] == serde_json::json!([])
    });
    let shown = |expected: &str| {
        let mut csv = String::new();
        let seen = wait_until("it is shown", PATIENCE, || {
            csv = page(&stage, "/;csv");
            let rows = rows(&csv);
            rows.get("BACKEND")
                .is_some_and(|row| row["status"] == expected)
        });
        seen.unwrap_or_else(|why| panic!("{why}: not {expected}: {csv}"));
        rows(&csv)
    };
    let empty = shown("DOWN");
    let names: Vec<_> = empty.keys().map(String::as_str).collect();
    assert_eq!(names, ["BACKEND", "FRONTEND"]);
    assert_eq!(
        (&empty["BACKEND"]["iid"], &*empty["BACKEND"]["act"]),
        (&iid, "0")
    );
    assert_eq!(rows(&ask(&stage, "show stat"))["BACKEND"]["status"], "DOWN");
    assert_eq!(json(&stage, "/v1/stats")["services"][0]["status"], "DOWN");
    let metrics = page(&stage, "/metrics");
    for (state, value) in [("DOWN", 1), ("UP", 0)] {
        let line =
            format!("haproxy_backend_status{{proxy=\"{PROXY}\",state=\"{state}\"}} {value}\n");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let vips = json(&stage, "/v1/vips");
    let vip = serde_json::json!([{"vip": VIP, "protocol": "tcp", "backend": []}]);
    assert_eq!(vips, vip);
    assert!(page(&stage, "/").contains(PROXY));
    connect(&stage.clients[0], VIP).expect_err("nobody is there");
    // It can be stopped, and stays so when a backend comes.
    assert_eq!(ask(&stage, &format!("disable frontend {PROXY}")), "\n");
    stage.write(&services(""), |status| {
        status["services"][0]["backends"][1].is_object()
    });
    let back = shown("UP");
    assert_eq!(
        (&back["BACKEND"]["iid"], &*back["FRONTEND"]["status"]),
        (&iid, "STOP")
    );
}
