//! Services and tasks of a whole Swarm.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{
        engine::Seat,
        swarm::{Answers, Swarm},
    },
    *,
};

mod broken;
mod lost;
mod zones;

/// As an engine of 20.10 says it, less what nobody reads.
fn service(name: &str, labels: Value, container: Value) -> Value {
    json!({
        "ID": format!("id-{name}"),
        "Version": {"Index": 11},
        "UpdatedAt": "2026-01-01T00:00:00Z",
        "Spec": {
            "Name": name,
            "Labels": labels,
            "TaskTemplate": {"ContainerSpec": container},
            "Mode": {"Replicated": {"Replicas": 2}},
        },
        "Endpoint": {"Spec": {}},
    })
}

/// A task of that service; `slot` 0: there is one on each node.
fn task(service: &str, slot: u64, node: &str, states: [&str; 2]) -> Value {
    let [desired, state] = states;
    let mut task = json!({
        "ID": format!("t{slot}{node}"),
        "ServiceID": format!("id-{service}"),
        "NodeID": node,
        "CreatedAt": "2026-01-02T00:00:00Z",
        "DesiredState": desired,
        "Status": {
            "State": state,
            "ContainerStatus": {"ContainerID": format!("c{slot}"), "PID": 20835, "ExitCode": 0},
            "PortStatus": {},
        },
        "Spec": {"ContainerSpec": {"Image": "web:1"}},
        "NetworksAttachments": [],
    });
    if slot > 0 {
        task["Slot"] = slot.into();
    }
    task
}

/// With a port of its own at its node.
fn published(mut task: Value, port: u16) -> Value {
    let one =
        json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": port, "PublishMode": "host"});
    task["Status"]["PortStatus"] = json!({"Ports": [one, one]});
    task
}

fn attached(mut task: Value, name: &str, driver: &str, addresses: Value) -> Value {
    task["NetworksAttachments"] = json!([
        {"Network": {"Spec": {"Name": "ingress", "Ingress": true}, "DriverState": {"Name": "overlay"}}, "Addresses": ["10.0.0.9/24"]},
        {"Network": {"Spec": {"Name": name}, "DriverState": {"Name": driver}}, "Addresses": addresses},
    ]);
    task
}

fn node(id: &str, name: &str, addr: &str, state: &str) -> Value {
    json!({"ID": id, "Description": {"Hostname": name}, "Status": {"State": state, "Addr": addr}})
}

fn nodes() -> Vec<Value> {
    vec![
        node("n1", "one", "192.0.2.1", "ready"),
        node("n2", "two", "192.0.2.2", "ready"),
    ]
}

/// A manager on node `n1` with these containers.
fn manager(
    containers: impl IntoIterator<Item = Container>,
    services: Vec<Value>,
    tasks: Vec<Value>,
) -> Engine {
    let mut engine = engine(containers);
    see(&mut engine, services, tasks, nodes());
    engine
}

fn see(engine: &mut Engine, services: Vec<Value>, tasks: Vec<Value>, nodes: Vec<Value>) {
    let answers = Answers {
        services,
        nodes,
        tasks,
    };
    engine.saw_swarm(Ok(Seat::Manager(Swarm::read("n1", answers))));
}

/// A container of node `n1` that is task `t<slot>n1` of that service.
fn own(service: &str, slot: u64, addr: &str) -> Container {
    let labels = [
        ("com.docker.swarm.service.name", service),
        ("com.docker.swarm.service.id", &format!("id-{service}")),
        ("com.docker.swarm.task.id", &format!("t{slot}n1")),
        (
            "com.docker.swarm.task.name",
            &format!("{service}.{slot}.t{slot}n1"),
        ),
    ];
    let mut one = container(&format!("c{slot}"), addr, &labels);
    one.name = format!("{service}.{slot}.t{slot}n1").into();
    one
}

const RUNNING: [&str; 2] = ["running", "running"];

fn vip() -> Value {
    json!({"lb.vip": "www:80"})
}

fn shown(engine: &Engine) -> Vec<String> {
    lines(&build(engine, &config()))
}

#[test]
fn tasks_of_all_nodes_are_behind_the_vip_of_their_service_each_once() {
    let engine = manager(
        [own("web", 1, "172.17.0.2")],
        vec![service("web", vip(), json!({}))],
        vec![
            published(task("web", 1, "n1", RUNNING), 30_001),
            published(task("web", 2, "n2", RUNNING), 30_002),
        ],
    );
    assert_eq!(
        shown(&engine),
        [
            "web:80/tcp 172.17.0.2:80 x1 192.0.2.2:30002 x1",
            "www:80/tcp 172.17.0.2:80 x1 192.0.2.2:30002 x1",
        ]
    );
    let all = build(&engine, &config());
    let names: Vec<_> = all.pools[0]
        .backends
        .iter()
        .map(|one| (one.instance.as_deref().unwrap_or_default(), &*one.task))
        .collect();
    assert_eq!(
        names,
        [("web-1", "web.1.t1n1"), ("web-2", "web.2.t2n2")],
        "by their slots"
    );
    assert_eq!(reasons(&all), [""; 0]);
    assert!(!all.partial);
}

#[test]
fn who_is_told_to_go_takes_no_new_flows_before_its_container_hears_of_it() {
    let line = |states| {
        let engine = manager(
            [own("web", 1, "172.17.0.2")],
            vec![service("web", vip(), json!({}))],
            vec![
                task("web", 1, "n1", states),
                published(task("web", 2, "n2", states), 30_002),
            ],
        );
        shown(&engine).remove(0)
    };
    let both = |how: &str| format!("web:80/tcp 172.17.0.2:80 {how} 192.0.2.2:30002 {how}");
    assert_eq!(line(RUNNING), both("x1"));
    for desired in ["shutdown", "remove"] {
        let drains = both("x0 (its task is to stop)");
        assert_eq!(line([desired, "running"]), drains, "{desired}");
    }
    let own_alone = "web:80/tcp 172.17.0.2:80 x1";
    for state in [
        "new",
        "pending",
        "assigned",
        "preparing",
        "ready",
        "starting",
        "shutdown",
        "complete",
        "failed",
        "rejected",
        "orphaned",
        "remove",
        "unheard of",
    ] {
        // Of its own containers the engine knows more than that.
        assert_eq!(line(["running", state]), own_alone, "{state}");
    }
}

#[test]
fn labels_of_a_service_win_over_those_of_its_containers() {
    let spec = json!({
        "Labels": {"lb.vip": "old:80", "lb.weight": "3", "com.docker.stack.namespace": "shop", "secret": "s"},
        "Env": ["SERVICE_PORTS=8080", "PASSWORD=secret"],
    });
    let mut two = task("shop_web", 2, "n2", RUNNING);
    two["Spec"]["ContainerSpec"] = spec.clone();
    two["Status"]["PortStatus"] = json!({"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 81, "PublishMode": "host"}]});
    let all = |labels: Value| {
        shown(&manager(
            [],
            vec![service("shop_web", labels, spec.clone())],
            vec![two.clone()],
        ))
    };
    assert_eq!(
        all(json!({"lb.vip": "new:80"})),
        [
            "new:80/tcp 192.0.2.2:81 x3",
            "web.shop:80/tcp 192.0.2.2:81 x3"
        ]
    );
    assert_eq!(
        all(Value::Null)[0],
        "old:80/tcp 192.0.2.2:81 x3",
        "without any"
    );
    for off in [
        json!({"lb.enable": "false"}),
        json!({"com.docker.dockercloud.haproxy.deactivate": "TRUE"}),
    ] {
        assert_eq!(all(off), [""; 0]);
    }
}

#[test]
fn ports_are_those_that_the_environment_says_or_the_service_publishes() {
    let all = |env: Value, labels: Value| {
        let mut one = service("web", labels, json!({"Env": env}));
        let ports = json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]);
        one["Endpoint"] = json!({"Ports": ports});
        let mut two = attached(
            task("web", 2, "n2", RUNNING),
            "proxy",
            "overlay",
            json!(["10.0.1.3/24"]),
        );
        two["Spec"]["ContainerSpec"]["Env"] = env;
        let engine = manager([], vec![one], vec![two]);
        let config = DockerConfig {
            overlay_reachable: true,
            expose_all: true,
            ..config()
        };
        lines(&build(&engine, &config))
    };
    assert_eq!(
        all(json!(["SERVICE_PORTS=81, 82"]), Value::Null),
        ["web:81/tcp 10.0.1.3:81 x1", "web:82/tcp 10.0.1.3:82 x1"]
    );
    assert_eq!(
        all(Value::Null, Value::Null),
        ["web:80/tcp 10.0.1.3:80 x1"],
        "what the mesh publishes"
    );
}

#[test]
fn a_service_without_tasks_has_its_vip_and_none_that_is_gone() {
    let mut engine = manager([], vec![service("web", vip(), json!({}))], vec![]);
    assert_eq!(shown(&engine), ["web:80/tcp", "www:80/tcp"]);
    see(&mut engine, vec![], vec![], nodes());
    assert_eq!(shown(&engine), [""; 0]);
}

#[test]
fn tasks_of_a_removed_service_end_in_peace() {
    let mut engine = manager(
        [own("web", 1, "172.17.0.2")],
        vec![service("web", vip(), json!({}))],
        vec![
            task("web", 1, "n1", RUNNING),
            published(task("web", 2, "n2", RUNNING), 30_002),
        ],
    );
    let to_stop = ["remove", "running"];
    let left = vec![
        task("web", 1, "n1", to_stop),
        published(task("web", 2, "n2", to_stop), 30_002),
    ];
    let drains = "www:80/tcp 172.17.0.2:80 x0 (its task is to stop) 192.0.2.2:30002 x0 (its task is to stop)";
    for _ in 0..2 {
        see(&mut engine, vec![], left.clone(), nodes());
        assert_eq!(shown(&engine)[1], drains);
    }
    engine.looked(&"c1".into(), None);
    see(&mut engine, vec![], vec![], nodes());
    assert_eq!(shown(&engine), [""; 0]);
}

#[test]
fn a_global_service_has_an_instance_of_each_nodes_name() {
    let mut mine = own("web", 0, "172.17.0.2");
    mine.labels.insert(
        "com.docker.swarm.task.name".to_owned(),
        "web.n1.t0n1".to_owned(),
    );
    let mut engine = manager(
        [mine],
        vec![service("web", vip(), json!({}))],
        vec![
            task("web", 0, "n1", RUNNING),
            published(task("web", 0, "n2", RUNNING), 81),
        ],
    );
    let instances = |engine: &Engine| {
        let backends = build(engine, &config()).pools.remove(0).backends;
        let names = backends.into_iter().filter_map(|one| one.instance);
        names.map(|name| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(instances(&engine), ["web-one", "web-two"]);
    let nodes = vec![
        node("n1", "one", "192.0.2.1", "ready"),
        node("n2", "two.example.org", "192.0.2.2", "ready"),
    ];
    let tasks = vec![published(task("web", 0, "n2", RUNNING), 81)];
    see(
        &mut engine,
        vec![service("web", vip(), json!({}))],
        tasks,
        nodes,
    );
    // Its container is healthy before the Swarm says that its task runs.
    assert_eq!(instances(&engine), ["web-one", "web-two-example-org"]);
}

#[test]
fn a_task_elsewhere_is_reached_at_its_node_or_over_a_network_that_is_routed() {
    let overlay = |task| {
        attached(
            task,
            "proxy",
            "overlay",
            json!(["10.0.1.3/24", "10.0.1.4/24", "fd00::3/64"]),
        )
    };
    let all = |task: Value, change: &dyn Fn(&mut DockerConfig)| {
        let engine = manager([], vec![service("web", vip(), json!({}))], vec![task]);
        let mut config = config();
        change(&mut config);
        let all = build(&engine, &config);
        (lines(&all).remove(0), reasons(&all).join("\n"))
    };
    let plain = || task("web", 2, "n2", RUNNING);
    let routed = |config: &mut DockerConfig| config.overlay_reachable = true;
    let (line, why) = all(overlay(plain()), &|_| {});
    assert_eq!(line, "web:80/tcp");
    for word in ["mode=host,target=80", "--docker-overlay-reachable"] {
        assert!(why.contains(word), "{why}");
    }
    let reached = |line: &str| (line.to_owned(), String::new());
    assert_eq!(
        all(overlay(plain()), &routed),
        reached("web:80/tcp 10.0.1.3:80 x1 [fd00::3]:80 x1"),
        "one of each family, and not on the mesh"
    );
    assert_eq!(
        all(published(overlay(plain()), 32_768), &routed),
        reached("web:80/tcp 192.0.2.2:32768 x1"),
        "a published port is the nearer way"
    );
    let host = attached(plain(), "host", "host", Value::Null);
    assert_eq!(all(host, &|_| {}), reached("web:80/tcp 192.0.2.2:80 x1"));
    let (line, _) = all(overlay(plain()), &|config| {
        routed(config);
        config.networks = vec!["back".to_owned()];
    });
    assert_eq!(line, "web:80/tcp", "not on a network that counts");
    let mut mesh = overlay(plain());
    mesh["Status"]["PortStatus"] = json!({"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]});
    assert_eq!(all(mesh, &|_| {}).0, "web:80/tcp", "it leads to any task");
}

#[test]
fn a_task_here_on_an_overlay_alone_is_reached_at_its_published_port() {
    let mut mine = own("web", 1, "10.0.1.2");
    let addr: std::net::IpAddr = "10.0.1.2".parse().expect("an address");
    mine.network = Network::Own([("proxy".to_owned(), vec![addr])].into());
    let known = |task| {
        manager(
            [mine.clone()],
            vec![service("web", vip(), json!({}))],
            vec![task],
        )
    };
    let plain = attached(
        task("web", 1, "n1", RUNNING),
        "proxy",
        "overlay",
        json!(["10.0.1.2/24"]),
    );
    let mut config = config();
    config.node = vec!["198.51.100.1".parse().expect("an address")];
    let line = |engine: &Engine| lines(&build(engine, &config)).remove(0);
    assert_eq!(
        line(&known(published(plain.clone(), 32_768))),
        "web:80/tcp 198.51.100.1:32768 x1"
    );
    assert_eq!(line(&known(plain)), "web:80/tcp 10.0.1.2:80 x1");
}

#[test]
fn a_node_is_where_its_manager_is_if_it_does_not_know_its_address() {
    let at = |node: Value| {
        let mut engine = engine([]);
        let tasks = vec![published(task("web", 2, "n2", RUNNING), 81)];
        see(
            &mut engine,
            vec![service("web", vip(), json!({}))],
            tasks,
            vec![node],
        );
        shown(&engine).remove(0)
    };
    let mut one = node("n2", "two", "0.0.0.0", "ready");
    assert_eq!(at(one.clone()), "web:80/tcp", "nobody knows");
    one["ManagerStatus"] = json!({"Addr": "192.0.2.7:2377", "Leader": true});
    assert_eq!(at(one), "web:80/tcp 192.0.2.7:81 x1");
    for bad in ["127.0.0.1", "nonsense", "::", "239.0.0.1"] {
        assert_eq!(at(node("n2", "two", bad, "ready")), "web:80/tcp", "{bad}");
    }
    assert_eq!(
        at(node("n2", "two", "192.0.2.2", "down")),
        "web:80/tcp 192.0.2.2:81 x0 (its node is down)"
    );
}

#[test]
fn a_swarm_that_cannot_be_read_stays_as_it_was() {
    let mut engine = manager(
        [],
        vec![service("web", vip(), json!({}))],
        vec![published(task("web", 2, "n2", RUNNING), 81)],
    );
    let before = shown(&engine);
    engine.saw_swarm(Err("The swarm does not have a leader".to_owned()));
    let all = build(&engine, &config());
    assert_eq!(lines(&all), before);
    assert!(reasons(&all)[0].contains("does not have a leader"));
    assert!(!all.partial);
    // It is no manager any more: its own containers count, as on every worker.
    engine.saw_swarm(Ok(Seat::Worker));
    assert_eq!(build(&engine, &config()), Snapshot::default());
    // One that was never read hides what may be there.
    let mut fresh = super::engine([container("web", "172.17.0.2", &[("lb.vip", "web:80")])]);
    fresh.saw_swarm(Err("no answer within 5 s".to_owned()));
    let all = build(&fresh, &config());
    assert_eq!(lines(&all), ["web:80/tcp 172.17.0.2:80 x1"]);
    assert!(all.partial);
}

#[test]
fn tasks_are_asked_for_more_often_while_a_service_is_rolled_over() {
    let patience = |state: Value, poll| {
        let mut one = service("web", vip(), json!({}));
        one["UpdateStatus"] = json!({"State": state});
        let answers = Answers {
            services: vec![one],
            ..Answers::default()
        };
        Swarm::read("n1", answers).patience(Duration::from_secs(poll))
    };
    for rolling in ["updating", "rollback_started"] {
        assert_eq!(patience(json!(rolling), 5), Duration::from_secs(1));
    }
    for still in [json!("completed"), json!("paused"), Value::Null] {
        assert_eq!(patience(still, 5), Duration::from_secs(5));
    }
}
