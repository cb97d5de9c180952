//! What people have UDP for: names and logs, over a VIP.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use lb_tests::{
    lab::{Host, wait_until},
    stage::{PATIENCE, Stage},
    upstream::{self, WWW, WWW_ADDRESS},
};

const LOG: &str = "10.99.0.1:514";
/// Sent at a time.
const LINES: usize = 50;

fn services(log: &str) -> String {
    format!(
        "services:\n- {{address: 10.99.0.1, port: 514, protocol: udp, backends: [{log}]}}\n\
         - {{address: 10.99.0.2, port: 53, protocol: [tcp, udp], backends: ['10.77.0.11:53', '10.77.0.12:53']}}\n"
    )
}

/// Takes lines and answers none; how many came.
fn log(host: &Host) -> Arc<AtomicUsize> {
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 514));
    let socket = host.enter(bind).expect("in the host").expect("a socket");
    let lines = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&lines);
    thread::spawn(move || {
        while socket.recv(&mut [0; 512]).is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    lines
}

fn sender(client: &Host) -> UdpSocket {
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    client.enter(bind).expect("in the host").expect("a socket")
}

fn send(socket: &UdpSocket) {
    let to: SocketAddr = LOG.parse().expect("an address");
    for _ in 0..LINES {
        socket.send_to(b"<13>all is well", to).expect("sent");
    }
}

#[test]
fn lines_of_a_log_stay_with_a_backend_until_it_goes() {
    let both = ["10.77.0.11:514", "10.77.0.12:514"];
    let stage = Stage::up(&services(&format!("'{}', '{}'", both[0], both[1])), &[]);
    let logs = [0, 1].map(|server: usize| log(&stage.servers[server]));
    let counts = || [0, 1].map(|server: usize| logs[server].load(Ordering::Relaxed));
    let arrived = |number| {
        wait_until("all arrive", PATIENCE, || {
            counts().iter().sum::<usize>() == number
        })
    };
    let socket = sender(&stage.clients[0]);
    send(&socket);
    send(&socket);
    arrived(2 * LINES).expect("none is lost");
    let [first, second] = counts();
    assert!(
        first == 0 || second == 0,
        "{first} and {second} of one client"
    );

    let (there, left) = if second == 0 { (0, 1) } else { (1, 0) };
    stage.write(&services(&format!("'{}'", both[left])), |status| {
        status["services"][0]["backends"][1].is_null()
    });
    send(&socket);
    arrived(3 * LINES).expect("none is lost");
    assert_eq!((counts()[there], counts()[left]), (2 * LINES, LINES));
}

#[test]
fn names_are_asked_for_over_a_vip_with_udp_and_tcp() {
    let stage = Stage::up(&services("'10.77.0.11:514'"), &[]);
    for server in &stage.servers[..2] {
        upstream::serve(server, (Ipv4Addr::UNSPECIFIED, 53)).expect("a name server");
    }
    for client in [&stage.clients[0], &stage.node] {
        for how in ["+notcp", "+tcp"] {
            for _ in 0..10 {
                let argv = [
                    "dig",
                    "+short",
                    "+time=2",
                    "+tries=1",
                    how,
                    "@10.99.0.2",
                    WWW,
                ];
                let answer = client.run(&argv).and_then(|dig| dig.ok()).expect("dig");
                assert_eq!(answer.trim(), WWW_ADDRESS.to_string(), "{how}");
            }
        }
    }
}
