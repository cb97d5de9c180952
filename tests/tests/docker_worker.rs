//! A real Docker Engine that is a worker of a Swarm: it knows its own containers, and becomes a manager.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    docker::{Docker, IMAGE},
    lab::wait_until,
    stage::PATIENCE,
    steady::shares,
    yard::Yard,
};

/// A service with a task on each node, which is told of when it listens.
const CREATE: [&str; 10] = [
    "service",
    "create",
    "--detach",
    "--no-resolve-image",
    "--mode",
    "global",
    "--health-cmd",
    "wget -q -O /dev/null http://127.0.0.1/index.html",
    "--health-interval",
    "500ms",
];

fn create(manager: &Docker, name: &str, label: [&str; 2]) {
    let own = ["--name", name, IMAGE];
    let created = manager.docker(&[&CREATE[..], &label, &own].concat());
    created.expect("created");
}

/// What the engine says of its part in the Swarm; nothing while it does not answer.
fn told(engine: &Docker, what: &str) -> String {
    let told = engine.docker(&["info", "--format", what]);
    told.unwrap_or_default().trim().to_owned()
}

/// Has the agent read everything now.
fn ask_again(yard: &Yard) {
    let asked = yard.stage.run(&["resync"]);
    assert!(asked.status.success(), "{}", asked.stderr);
}

#[test]
fn an_agent_on_a_worker_serves_its_own_tasks_by_their_labels_and_all_once_it_is_a_manager() {
    let (yard, manager) = Yard::worker("worker", &[]);
    // It may have been read before it joined, which no event tells.
    ask_again(&yard);
    let said = || yard.stage.agent.stderr().contains("is a worker of a Swarm");
    wait_until("it is said", PATIENCE, said).expect("it is a worker");

    create(&manager, "web", ["--container-label", "lb.vip=web:80"]);
    create(&manager, "shop", ["--label", "lb.vip=shop:80"]);
    let vip = yard.expect("web", 1);
    let own = ["ps", "--quiet", "--filter", "label=lb.vip=web:80"];
    let own = yard.docker.docker(&own).expect("containers");
    // A container is called by its id.
    let only = [(own.trim().to_owned(), 20)].into();
    assert_eq!(shares(&yard.stage.clients[0], vip, 20), only);

    // The other service has a task here as well, which was looked at before what came later.
    let label = "label=com.docker.swarm.service.name=shop";
    let here = ["ps", "--quiet", "--filter", label];
    wait_until("its task runs", PATIENCE, || {
        let tasks = yard.docker.docker(&here);
        tasks.is_ok_and(|tasks| !tasks.trim().is_empty())
    })
    .expect("it does");
    yard.run("later", &["--label", "lb.vip=later:80"]);
    yard.expect("later", 1);
    assert!(
        yard.service("shop").is_null(),
        "only managers know its label"
    );

    let node = told(&yard.docker, "{{.Swarm.NodeID}}");
    let promoted = manager.docker(&["node", "promote", &node]);
    promoted.expect("promoted");
    wait_until("it is a manager", PATIENCE, || {
        told(&yard.docker, "{{.Swarm.ControlAvailable}}") == "true"
    })
    .expect("it is");
    ask_again(&yard);
    // That of the other node is not reached from here: it publishes no port.
    let vip = yard.expect("shop", 1);
    assert_eq!(shares(&yard.stage.clients[0], vip, 20).len(), 1);
}
