//! Backends that do not answer: whoever connects next goes elsewhere, from outside and from the node itself.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::time::Instant;

use lb_tests::{
    admin::json,
    lab::{Host, servers::Server, wait_until},
    stage::{PATIENCE, Stage, connect},
};

/// Nobody listens at port 81 of the first server.
const SERVICES: &str = "services:
- {address: 10.99.0.1, port: 80, backends: [10.77.0.11:81, 10.77.0.12:80]}
";
const VIP: &str = "10.99.0.1:80";

/// How each of so many connections in a row ended, and the longest time that one took.
fn connections(client: &Host, count: usize) -> (Vec<Result<(), String>>, u128) {
    let mut longest = 0;
    let ended = (0..count)
        .map(|_| {
            let began = Instant::now();
            let ended = connect(client, VIP);
            longest = longest.max(began.elapsed().as_millis());
            ended.map(drop).map_err(|why| why.to_string())
        })
        .collect();
    (ended, longest)
}

#[test]
fn a_client_outside_never_hears_a_refusal_that_another_backend_can_make_up_for() {
    let stage = Stage::up(SERVICES, &[]);
    let (ended, longest) = connections(&stage.clients[0], 40);
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    // A SYN is sent again after 1 s, RFC 6298 section 2.1.
    assert!(longest < 2_500, "{longest} ms");
}

#[test]
fn whom_the_kernel_suspects_and_clears_is_an_event_with_its_reason() {
    let stage = Stage::up(SERVICES, &[]);
    let told = |what: &str, reason: &str| {
        wait_until(what, PATIENCE, || {
            // Whoever is not suspect yet is only found by connecting, and so is who answers again.
            connect(&stage.clients[0], VIP).expect("a connection");
            let events = json(&stage, "/v1/events")["events"].clone();
            events.as_array().into_iter().flatten().any(|event| {
                event["what"] == what
                    && event["backend"] == "10.77.0.11:81"
                    && event["reason"]
                        .as_str()
                        .is_some_and(|why| why.starts_with(reason))
            })
        })
        .expect("it is told");
    };
    told("backend suspect", "it refused a connection");
    let at = "0.0.0.0:81".parse().expect("an address");
    let _again = Server::tcp_echo(&stage.servers[0], at, "s1").expect("a server");
    told("backend not suspect any more", "it answered");
}

#[test]
fn a_local_client_is_refused_at_once_and_its_next_connection_goes_elsewhere() {
    let stage = Stage::up(SERVICES, &[]);
    // Processes of the node's own cgroup.
    let script = "for n in {1..40}; do
        (exec 3<>/dev/tcp/10.99.0.1/80) 2>/dev/null && echo ok || echo refused
    done";
    let began = Instant::now();
    let done = stage.node.run(&["bash", "-c", script]).expect("bash runs");
    let done = done.ok().expect("it ends well");
    let took = began.elapsed();
    let ended: Vec<&str> = done.lines().collect();
    assert_eq!(ended.len(), 40, "{done}");
    let refused = ended.iter().filter(|ended| **ended == "refused").count();
    // Half of the draws lead there; from the first refusal on it is left alone, for 1 s, 2 s and so on.
    let most = 2 + took.as_secs() as usize;
    assert!(
        (1..=most).contains(&refused),
        "{refused} in {took:?}: {ended:?}"
    );
    let again = ["refused", "refused"];
    assert!(ended.windows(2).all(|pair| pair != again), "{ended:?}");
    assert!(took.as_secs() < 10, "each is told at once: {took:?}");
}
