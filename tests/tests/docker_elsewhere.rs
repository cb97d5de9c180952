//! A real Docker Engine on another node, read over TCP.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    lab::wait_until,
    stage::PATIENCE,
    steady::{during, failures, shares},
    yard::{LABEL, Yard},
};

#[test]
fn containers_on_another_node_are_reached_at_their_published_ports() {
    let yard = Yard::elsewhere("elsewhere", &[]);
    let client = &yard.stage.clients[0];
    let published = [&LABEL[..], &["--publish", "80"]].concat();
    yard.run("web-1", &published);
    yard.run("web-2", &published);
    yard.run("web-3", &LABEL);
    let vip = yard.expect("web", 2);
    let backends = yard.service("web")["backends"].clone();
    for backend in backends.as_array().expect("backends") {
        let addr = backend["addr"].as_str().expect("an address");
        // The node's own server stands at port 80.
        let at_node = addr.starts_with("10.77.0.11:") && addr != "10.77.0.11:80";
        assert!(at_node, "{addr}");
    }
    wait_until("the one without a port is told of", PATIENCE, || {
        let status = yard.stage.status().to_string();
        status.contains("on another node, are not reached at port 80/tcp")
    })
    .expect("told");
    let answered: Vec<String> = shares(client, vip, 40).into_keys().collect();
    assert_eq!(answered, ["web-1", "web-2"]);
    let answers = during(client, vip, || {
        yard.docker(&["stop", "--time", "2", "web-1"]);
        yard.expect("web", 1);
    });
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert_eq!(shares(client, vip, 5), [("web-2".to_owned(), 5)].into());
}
