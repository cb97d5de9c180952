//! Two real Docker Engines in one Swarm: the manager's agent serves the tasks of both nodes.
//!
//! Swarm's own VIPs, which want IPVS of the kernel, are not used: tasks publish their port at their own node (mode
//! `host`), or are on an overlay network that has none.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    net::TcpStream,
    time::{Duration, Instant},
};

use lb_tests::{
    docker::{Docker, IMAGE, place},
    lab::wait_until,
    stage::PATIENCE,
    steady::{Answers, during, failures, goes_on, half_asked, shares},
    yard::Yard,
};

const MANAGER: &str = "10.77.0.1";
const WORKER: &str = "10.77.0.11";

/// A service that is told of when it listens, and whose containers ignore their stop signal for a while.
const CREATE: [&str; 16] = [
    "service",
    "create",
    "--detach",
    "--no-resolve-image",
    "--stop-grace-period",
    "3s",
    "--health-cmd",
    "wget -q -O /dev/null http://127.0.0.1/index.html",
    "--health-interval",
    "500ms",
    "--label",
    "lb.vip=web:80",
    "--replicas",
    "4",
    "--name",
    "web",
];
const AT_ITS_NODE: [&str; 2] = ["--publish", "mode=host,target=80"];

/// A Swarm of two nodes: the manager, with an agent, and a worker. Each has a part of the four tasks then.
fn with_service(
    name: &str,
    flags: &[&str],
    prepare: &[&[&str]],
    options: &[&str],
) -> (Yard, Docker) {
    let yard = Yard::manager(name, flags, MANAGER);
    for words in prepare {
        yard.docker(words);
    }
    let dir = place(&format!("{name}-2")).expect("a folder");
    let manager = (&yard.docker, MANAGER);
    let worker = Docker::start_worker(&yard.stage.servers[0], dir, WORKER, manager);
    let worker = worker.expect("a worker");
    yard.docker(&[&CREATE[..], options, &[IMAGE]].concat());
    (yard, worker)
}

/// Where those are that take new connections: on the worker, and elsewhere.
fn places(yard: &Yard) -> (Vec<String>, Vec<String>) {
    let backends = yard.service("web")["backends"].clone();
    let ready = backends.as_array().into_iter().flatten();
    let ready = ready.filter(|one| one["weight"] != 0);
    ready
        .filter_map(|one| Some(one["addr"].as_str()?.to_owned()))
        .partition(|addr| addr.starts_with(&format!("{WORKER}:")))
}

#[test]
fn tasks_of_both_nodes_are_behind_the_vip_while_the_service_is_scaled() {
    let (yard, _worker) = with_service("nodes", &[], &[], &AT_ITS_NODE);
    let vip = yard.expect("web", 4);
    let (there, here) = places(&yard);
    // The Swarm spreads them.
    assert!(!there.is_empty() && !here.is_empty(), "{there:?} {here:?}");
    let client = &yard.stage.clients[0];
    assert_eq!(shares(client, vip, 80).len(), 4, "all answer");
    let answers = during(client, vip, || {
        yard.docker(&["service", "scale", "--detach", "web=8"]);
        yard.expect("web", 8);
        yard.docker(&["service", "scale", "--detach", "web=2"]);
        yard.expect("web", 2);
    });
    assert!(answers.len() > 100, "{} connections", answers.len());
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert_eq!(shares(client, vip, 40).len(), 2);
}

#[test]
fn the_tasks_of_a_node_that_is_lost_leave_and_no_new_connection_fails() {
    // The Swarm gives a node up after three of these.
    let sooner = ["swarm", "update", "--dispatcher-heartbeat", "1s"];
    let (yard, _worker) = with_service("lost", &[], &[&sooner], &AT_ITS_NODE);
    let vip = yard.expect("web", 4);
    let (there, here) = places(&yard);
    assert!(!there.is_empty() && !here.is_empty(), "{there:?} {here:?}");
    let client = &yard.stage.clients[0];
    assert_eq!(shares(client, vip, 80).len(), 4, "all answer");
    let streams: Vec<TcpStream> = (0..12).map(|_| half_asked(client, vip)).collect();
    let (mut lost, mut left) = (None, None);
    let answers = during(client, vip, || {
        yard.stage.servers[0].lose().expect("lost");
        lost = Some(Instant::now());
        wait_until("its tasks leave", 3 * PATIENCE, || {
            let (there, here) = places(&yard);
            there.is_empty() && !here.is_empty()
        })
        .expect("they do");
        left = Some(Instant::now());
        // They are started anew where there is a node.
        yard.expect("web", 4);
        wait_until("the lost ones are gone", PATIENCE, || {
            let backends = yard.service("web")["backends"].as_array().map(Vec::len);
            backends == Some(4)
        })
        .expect("they are");
    });
    let (on, over): (Vec<&TcpStream>, Vec<_>) = streams.iter().partition(|stream| goes_on(stream));
    assert!(!on.is_empty(), "those that are not on the lost node go on");
    assert!(!over.is_empty(), "its own are over, and say so");
    let since = |event: Option<Instant>| -> Answers {
        let event = event.expect("it happened");
        let later = answers.iter().filter(|(began, _)| *began > event);
        later.cloned().collect()
    };
    // One that had come to it before is lost with it, and a SYN that was sent to it afterwards is sent again.
    let (since_lost, since_left) = (since(lost), since(left));
    assert_eq!(failures(&since_lost), [""; 0], "of {}", since_lost.len());
    let longest = since_left.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let longest = longest.max().unwrap_or_default();
    eprintln!(
        "{} connections since it was lost, {} since its tasks had left; of these {longest:?} at most",
        since_lost.len(),
        since_left.len()
    );
    // Nobody is sent there any more: a SYN is sent again after 1 s, RFC 6298 section 2.1.
    assert!(since_left.len() > 100 && longest < Duration::from_secs(1));
    let (there, _) = places(&yard);
    assert_eq!(there, [""; 0]);
    assert_eq!(shares(client, vip, 80).len(), 4, "all answer");
}

#[test]
fn containers_on_an_overlay_network_reach_the_tasks_of_both_nodes_there() {
    let network = [
        "network",
        "create",
        "--driver",
        "overlay",
        "--attachable",
        "back",
    ];
    let (yard, worker) = with_service(
        "overlay",
        &["--docker-overlay-reachable"],
        &[&network],
        &["--network", "back", "--endpoint-mode", "dnsrr"],
    );
    let vip = yard.expect("web", 4);
    let own = ["ps", "--quiet", "--filter", "name=web"];
    let on = |engine: &Docker| -> BTreeSet<String> {
        let ids = engine.docker(&own).expect("containers");
        ids.lines().map(str::to_owned).collect()
    };
    let (here, there) = (on(&yard.docker), on(&worker));
    assert!(!there.is_empty() && !here.is_empty(), "{there:?} {here:?}");

    yard.run("client", &["--network", "back"]);
    let get = format!("busybox wget -q -O - http://{vip}/index.html");
    let all = format!("for i in $(busybox seq 80); do {get} || exit 1; done");
    let task = here.first().expect("a task").as_str();
    // A task calls a service that it is one of.
    for container in ["client", task] {
        let printed = yard.docker.docker(&["exec", container, "sh", "-c", &all]);
        let answered: BTreeSet<String> = printed
            .expect(container)
            .lines()
            .map(str::to_owned)
            .collect();
        // A container is called by its id.
        assert_eq!(answered, &here | &there, "in {container}");
    }

    let steady = format!(
        "until test -e /tmp/enough; do {get} || echo failed; done >/tmp/said 2>&1; touch /tmp/over"
    );
    yard.docker(&["exec", "--detach", "client", "sh", "-c", &steady]);
    for tasks in [8, 2] {
        let scale = format!("web={tasks}");
        yard.docker(&["service", "scale", "--detach", &scale]);
        yard.expect("web", tasks);
    }
    yard.docker(&["exec", "client", "touch", "/tmp/enough"]);
    let over = ["exec", "client", "test", "-e", "/tmp/over"];
    wait_until("it is over", PATIENCE, || yard.docker.docker(&over).is_ok()).expect("it is");
    let said = ["exec", "client", "busybox", "cat", "/tmp/said"];
    let said = yard.docker.docker(&said).expect("what it said");
    let is_id = |line: &&str| line.len() == 12 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (answers, failed): (Vec<&str>, Vec<_>) = said.lines().partition(is_id);
    assert_eq!(failed, [""; 0], "of {}", answers.len());
    assert!(answers.len() > 100, "{} connections", answers.len());
}
