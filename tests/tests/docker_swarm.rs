//! A real Docker Engine that manages a Swarm: services are scaled and rolled over without a lost connection.
//!
//! The Swarm has one node, and its services no network of their own: their tasks are on the engine's bridge, since an
//! overlay network is not reached from its own node either.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    docker::IMAGE,
    lab::wait_until,
    stage::PATIENCE,
    steady::{ask, during, failures, goes_on, half_asked, shares},
    yard::Yard,
};

/// A service that is told of when it listens, and whose containers ignore their stop signal for a while.
const CREATE: [&str; 13] = [
    "service",
    "create",
    "--detach",
    "--no-resolve-image",
    "--stop-grace-period",
    "3s",
    "--update-monitor",
    "1s",
    "--health-cmd",
    "wget -q -O /dev/null http://127.0.0.1/index.html",
    "--health-interval",
    "500ms",
    "--name",
];

/// Creates a service with these options besides.
fn create(yard: &Yard, name: &str, options: &[&str]) {
    yard.docker(&[&CREATE, &[name][..], options, &[IMAGE]].concat());
}

#[test]
fn a_service_is_scaled_and_rolled_over_without_a_failed_connection() {
    let yard = Yard::swarm("swarm", &[]);
    // Only the service has the label.
    create(&yard, "web", &["--label", "lb.vip=web:80"]);
    let vip = yard.expect("web", 1);
    let client = &yard.stage.clients[0];
    let answers = during(client, vip, || {
        yard.docker(&["service", "scale", "--detach", "web=3"]);
        yard.expect("web", 3);
        assert_eq!(shares(client, vip, 60).len(), 3, "all answer");

        let change = [
            "--detach",
            "--no-resolve-image",
            "--env-add",
            "GENERATION=2",
        ];
        yard.docker(&[&["service", "update"], &change[..], &["web"]].concat());
        wait_until("it is rolled over", 3 * PATIENCE, || {
            let state = [
                "service",
                "inspect",
                "--format",
                "{{.UpdateStatus.State}}",
                "web",
            ];
            let state = yard.docker.docker(&state);
            state.is_ok_and(|state| state.trim() == "completed")
        })
        .expect("completed");
        yard.expect("web", 3);

        yard.docker(&["service", "scale", "--detach", "web=1"]);
        // The Swarm says so ("its task is to stop") before it tells the containers, which live on for three seconds then.
        wait_until("two are to stop", PATIENCE, || {
            let backends = yard.service("web")["backends"].to_string();
            backends.matches(" to stop\"").count() == 2
        })
        .expect("they drain");
        yard.expect("web", 1);
        wait_until("they are gone", PATIENCE, || {
            let backends = yard.service("web")["backends"].as_array().map(Vec::len);
            backends == Some(1)
        })
        .expect("gone");
    });
    assert!(answers.len() > 100, "{} connections", answers.len());
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert_eq!(shares(client, vip, 10).len(), 1);
}

#[test]
fn the_vip_of_a_running_service_is_renamed_and_its_connections_go_on() {
    let yard = Yard::swarm("renamed", &[]);
    create(&yard, "app", &["--label", "lb.vip=web:80"]);
    let old = yard.expect("web", 1);
    let client = &yard.stage.clients[0];
    let under_way = half_asked(client, old);
    let started = ["ps", "--format", "{{.ID}}"];
    let started = || yard.docker.docker(&started).expect("containers");
    let before = started();
    let rename = ["--label-add", "lb.vip=www:80"];
    yard.docker(&[&["service", "update", "--detach"], &rename[..], &["app"]].concat());
    let new = yard.expect("www", 1);
    assert!(new != old && ask(client, new).is_ok());
    wait_until("the old name is gone", PATIENCE, || {
        yard.stage.ask(&["resolve", "web.docker"])["code"] == "NXDOMAIN"
    })
    .expect("gone");
    assert!(goes_on(&under_way), "what it had goes on");
    assert_eq!(started(), before, "nothing was started anew");
}

#[test]
fn services_of_a_stack_and_global_ones_have_their_names() {
    let yard = Yard::swarm("stack", &[]);
    let stack = "com.docker.stack.namespace=shop";
    let ports = ["--env", "SERVICE_PORTS=80"];
    let labels = ["--label", stack, "--container-label", stack];
    create(&yard, "shop_web", &[&labels[..], &ports].concat());
    create(
        &yard,
        "every",
        &[&["--mode", "global"], &ports[..]].concat(),
    );
    let node = yard
        .docker
        .docker(&["node", "ls", "--format", "{{.Hostname}}"]);
    let node = node.expect("a node").trim().to_lowercase();
    yard.expect("web.shop", 1);
    yard.expect("every", 1);
    for name in [
        "web-1.web.shop.docker",
        &format!("every-{node}.every.docker"),
    ] {
        let answer = yard.stage.ask(&["resolve", name]);
        let addrs = answer["addrs"].as_array().map(Vec::len);
        assert_eq!(addrs, Some(1), "{name}: {answer}");
    }
    // The only stack that has it: it is found without the stack, too.
    let addrs = |name: &str| yard.stage.ask(&["resolve", name])["addrs"].clone();
    let short = addrs("web.docker");
    assert_eq!(short.as_array().map(Vec::len), Some(1), "{short}");
    assert_eq!(short, addrs("web.shop.docker"));
    // Without a task it keeps its name, as long as it is there.
    yard.docker(&["service", "scale", "--detach", "shop_web=0"]);
    wait_until("nobody is behind it", PATIENCE, || {
        let backends = yard.service("web.shop")["backends"]
            .as_array()
            .map(Vec::len);
        backends == Some(0)
    })
    .expect("gone");
    assert_eq!(addrs("web.shop.docker"), short);
    yard.docker(&["service", "rm", "shop_web"]);
    wait_until("its name is gone", PATIENCE, || {
        yard.stage.ask(&["resolve", "web.shop.docker"])["code"] == "NXDOMAIN"
    })
    .expect("gone");
}
