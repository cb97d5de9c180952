//! A real Docker Engine whose containers answer over UDP.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{net::UdpSocket, path::Path, sync::atomic::AtomicBool, thread, time::Duration};

use lb_tests::{
    docker::IMAGE,
    lab::{Host, programs::program, wait_until},
    probe::{Mode, Outcome, Plan},
    stage::PATIENCE,
    task::sentence,
    yard::Yard,
};

/// Where they listen.
const PORT: u16 = 5140;
/// Questions of one round.
const MANY: u64 = 40;
/// As long as a container that ignores its signal lives on, in seconds; and more questions than can be asked meanwhile.
const GRACE: &str = "10";
const STEADY: u64 = 2_500;

/// Starts a container that says its name to whoever sends it something. It outlives its stop signal, which nobody in it
/// takes, until it is killed.
fn run(yard: &Yard, name: &str) {
    let server = program("task-server").expect("the server");
    let (label, port) = (format!("lb.vip=log:514/udp={PORT}"), PORT.to_string());
    // What it is linked with is where this machine has it.
    let libraries = ["/lib", "/lib64", "/usr/lib"];
    let libraries = libraries.iter().filter(|dir| Path::new(dir).is_dir());
    let volumes: Vec<String> = libraries.map(|dir| format!("{dir}:{dir}:ro")).collect();
    let server = format!("{server}:/task-server:ro");
    let mut argv = vec!["run", "--detach", "--name", name, "--stop-signal", "SIGHUP"];
    argv.extend(["--label", &label, "--volume", &server]);
    for volume in &volumes {
        argv.extend(["--volume", volume]);
    }
    argv.extend([IMAGE, "/task-server", "--node", name, "--port", &port]);
    argv.extend(["--bind", "0.0.0.0"]);
    yard.docker(&argv);
}

/// Questions of a client outside, each a flow of its own, from this port on.
fn ask(client: &Host, vip: &str, count: u64, first_port: u16) -> Outcome {
    let plan = Plan {
        to: vip.to_owned(),
        ipv6: false,
        mode: Mode::UdpUnconnected,
        count: Some(count),
        pause: Duration::from_millis(5),
        within: Duration::from_secs(3),
        first_port,
    };
    let asked = client.enter(|| plan.carry_out(&AtomicBool::new(false)));
    asked.expect("in the host")
}

/// Questions of a process of this host, whose cgroup has hooks.
fn probed(host: &Host, vip: &str, mode: &str) -> Outcome {
    let (probe, count) = (program("probe").expect("the probe"), MANY.to_string());
    let argv = [probe.as_str(), vip, "--mode", mode, "--count", &count];
    let done = host.run(&argv).and_then(|done| done.ok());
    serde_json::from_str(&done.expect("it runs")).expect("JSON")
}

/// Who answers on this socket.
fn answer(socket: &UdpSocket) -> Option<String> {
    socket.send(b"marco").ok()?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    text.lines().next().map(str::to_owned)
}

#[test]
fn datagrams_come_to_containers_and_a_client_stays_with_one_until_it_is_gone() {
    let yard = Yard::up("udp", &[]);
    let names = ["log-1", "log-2"];
    for name in names {
        run(&yard, name);
    }
    let vip = format!("{}:514", yard.expect("log", 2).ip());
    let client = &yard.stage.clients[0];
    let said = names.map(|name| sentence(name, PORT));
    let all = |outcome: &Outcome| {
        let answered = said.iter().all(|one| outcome.by_answer.contains_key(one));
        outcome.failed == 0 && answered
    };
    // They listen a moment after they run. Each round has ports of its own.
    let mut first_port = 10_000;
    let both = wait_until("both answer", 2 * PATIENCE, || {
        first_port += 100;
        all(&ask(client, &vip, MANY, first_port))
    });
    both.unwrap_or_else(|why| panic!("{why:#}: {:#}", yard.stage.status()));
    for mode in ["udp", "udp-unconnected"] {
        let outcome = probed(&yard.stage.node, &vip, mode);
        assert!(all(&outcome), "on the node, {mode}: {outcome:?}");
        // Who is asked is who answers.
        assert_eq!(outcome.by_peer, [(vip.clone(), MANY)].into(), "{mode}");
    }

    let socket = client.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:9999")?;
        socket.connect(&vip)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        std::io::Result::Ok(socket)
    });
    let socket = socket.expect("in the host").expect("a socket");
    let mine = answer(&socket).expect("an answer");
    let (own, other) = match said.iter().position(|one| *one == mine) {
        Some(0) => (names[0], said[1].clone()),
        Some(_) => (names[1], said[0].clone()),
        None => panic!("{mine} is none of {said:?}"),
    };

    // Who is told to stop gets no new client and keeps those that it has; nobody waits in vain, then or when it is gone.
    let (steady, drained, kept, in_time) = thread::scope(|scope| {
        let steady = scope.spawn(|| ask(client, &vip, STEADY, 20_000));
        let stopping = scope.spawn(|| yard.docker(&["stop", "--time", GRACE, own]));
        yard.expect("log", 1);
        let (drained, kept) = (ask(client, &vip, MANY, 30_000), answer(&socket));
        let in_time = !stopping.is_finished();
        (steady.join().expect("no panic"), drained, kept, in_time)
    });
    assert!(in_time, "it was gone before anybody asked");
    assert_eq!(kept, Some(mine));
    assert_eq!(drained.by_answer, [(other.clone(), MANY)].into());
    assert_eq!((steady.answered, steady.failed), (STEADY, 0), "{steady:?}");
    wait_until("its client is answered by the other", PATIENCE, || {
        answer(&socket).as_ref() == Some(&other)
    })
    .expect("it is");
}
