//! From containers to pools.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    DockerConfig,
    build::build,
    compat,
    container::{Container, Health, Network, Phase, target},
    engine::Engine,
    signal,
};
use crate::{
    catalog::{Balance, Mode, Source},
    provider::{Pool, Snapshot, VipHost},
};

/// One that runs on network `bridge`; its id is its name.
fn container(name: &str, addr: &str, labels: &[(&str, &str)]) -> Container {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let addr = addr.parse().expect("an address");
    Container {
        id: name.into(),
        name: name.into(),
        labels: labels.iter().map(own).collect(),
        env: BTreeMap::new(),
        exposed: target("80/tcp").into_iter().collect(),
        phase: Phase::Running,
        health: None,
        network: Network::Own([("bridge".to_owned(), vec![addr])].into()),
        published: BTreeMap::new(),
        stop_signal: signal::TERM,
        started: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn with_env(mut container: Container, lines: &[&str]) -> Container {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    container.env = compat::keep(&lines);
    container
}

fn compose(service: &str) -> [(&str, &str); 2] {
    [
        ("com.docker.compose.project", "shop"),
        ("com.docker.compose.service", service),
    ]
}

fn engine(containers: impl IntoIterator<Item = Container>) -> Engine {
    let mut engine = Engine::default();
    for container in containers {
        let id = Arc::clone(&container.id);
        engine.looked(&id, Some(container));
    }
    engine
}

fn config() -> DockerConfig {
    DockerConfig::new("unix:///run/docker.sock")
}

fn snapshot(containers: impl IntoIterator<Item = Container>) -> Snapshot {
    build(&engine(containers), &config())
}

/// `web.shop:80/tcp 172.17.0.2:80 x1`, and why a backend takes no flows.
fn lines(snapshot: &Snapshot) -> Vec<String> {
    let line = |pool: &Pool| {
        let host = match &pool.host {
            VipHost::Named { name, framework } => {
                assert_eq!(&**framework, "docker");
                name.to_string()
            }
            VipHost::Addr(addr) => addr.to_string(),
        };
        let mut line = format!("{host}:{}/{}", pool.port, pool.protocol);
        for backend in &pool.backends {
            line += &format!(" {} x{}", backend.addr, backend.weight);
            if let Some(why) = &backend.draining {
                line += &format!(" ({why})");
            }
        }
        line
    };
    snapshot.pools.iter().map(line).collect()
}

fn reasons(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .problems
        .iter()
        .map(|problem| problem.reason.as_str())
        .collect()
}

mod events;
mod haproxy;
mod labels;
mod names;
mod reach;
mod swarm;
mod transport;
mod watching;

#[test]
fn a_service_of_compose_has_its_own_name_and_the_one_it_chose() {
    let labels = [&compose("web")[..], &[("lb.vip", "www:80=8080")]].concat();
    let all = snapshot([
        container("shop-web-1", "172.17.0.2", &labels),
        container("shop-web-2", "172.17.0.3", &labels),
    ]);
    assert_eq!(
        lines(&all),
        [
            "web.shop:80/tcp 172.17.0.2:8080 x1 172.17.0.3:8080 x1",
            "www:80/tcp 172.17.0.2:8080 x1 172.17.0.3:8080 x1",
        ]
    );
    assert_eq!(&*all.pools[0].app, "/shop/web");
    assert_eq!(reasons(&all), [""; 0]);
}

#[test]
fn containers_without_compose_are_one_service_by_their_names() {
    let vip = [("lb.vip", "www:80")];
    let all = snapshot([
        container("web-1", "172.17.0.2", &vip),
        container("web_2", "172.17.0.3", &vip),
        container("web", "172.17.0.4", &vip),
        container(
            "7",
            "172.17.0.5",
            &[("lb.vip", "www:80"), ("lb.service", "web")],
        ),
    ]);
    assert!(
        lines(&all).contains(
            &"web:80/tcp 172.17.0.2:80 x1 172.17.0.3:80 x1 172.17.0.4:80 x1 172.17.0.5:80 x1"
                .to_owned()
        )
    );
}

#[test]
fn who_asks_for_nothing_has_no_vip_unless_the_operator_says_so() {
    let quiet = || [container("web", "172.17.0.2", &compose("web"))];
    assert_eq!(snapshot(quiet()), Snapshot::default());
    let engine = engine(quiet());
    for named in ["web", "shop:web"] {
        let mut config = config();
        config.services.insert(named.to_owned());
        assert_eq!(
            lines(&build(&engine, &config)),
            ["web.shop:80/tcp 172.17.0.2:80 x1"]
        );
    }
    let mut config = config();
    config.services.insert("other:web".to_owned());
    assert_eq!(lines(&build(&engine, &config)), [""; 0]);
    config.expose_all = true;
    assert_eq!(
        lines(&build(&engine, &config)),
        ["web.shop:80/tcp 172.17.0.2:80 x1"]
    );
}

#[test]
fn a_label_turns_a_container_off() {
    for off in [
        ("lb.enable", "false"),
        ("com.docker.dockercloud.haproxy.deactivate", "TRUE"),
        ("com.docker.compose.oneoff", "True"),
    ] {
        let labels = [&compose("web")[..], &[("lb.vip", "www:80"), off]].concat();
        assert_eq!(
            snapshot([container("web", "172.17.0.2", &labels)]),
            Snapshot::default(),
            "{off:?}"
        );
    }
}

#[test]
fn a_container_is_called_by_its_number_below_the_name_of_its_service() {
    let swarm = |task| {
        let name = ("com.docker.swarm.service.name", "shop_web");
        let stack = ("com.docker.stack.namespace", "shop");
        [
            name,
            stack,
            ("com.docker.swarm.task.name", task),
            ("lb.vip", "web:80"),
        ]
    };
    let number = ("com.docker.compose.container-number", "2");
    let compose = [&compose("web")[..], &[number, ("lb.vip", "web:80")]].concat();
    for (labels, expected) in [
        (&compose[..], "web-2"),
        (&swarm("shop_web.3.r4nd0m"), "web-3"),
        (&swarm("shop_web.n0de.r4nd0m"), "web-n0de"),
        (&[("lb.vip", "web:80")], "shop-web-9"),
    ] {
        let all = snapshot([container("shop-web-9", "172.17.0.2", labels)]);
        let instance = all.pools[0].backends[0].instance.as_deref();
        assert_eq!(instance, Some(expected), "{labels:?}");
    }
}

#[test]
fn labels_say_what_a_service_is_like() {
    let labels = [
        ("lb.vip", "dns:53/udp,dns:53"),
        ("lb.mode", "nat"),
        ("lb.balance", "source"),
        ("lb.affinity", "10m"),
        ("lb.weight", "200"),
        ("lb.maxflows", "1000"),
        ("lb.allow", "10.0.0.0/8 fd00::/8"),
        ("lb.deny", "10.1.0.0/16"),
        ("lb.idle", "1h"),
        ("lb.drain", "2m"),
        ("lb.address", "node"),
    ];
    let all = snapshot([container("dns", "172.17.0.2", &labels)]);
    assert_eq!(
        lines(&all),
        [
            "dns:53/tcp 172.17.0.2:53 x200",
            "dns:53/udp 172.17.0.2:53 x200"
        ]
    );
    let properties = all.pools[1].properties.as_ref().expect("some");
    assert_eq!(
        (properties.mode, properties.balance),
        (Mode::Nat, Balance::Source)
    );
    assert_eq!((properties.affinity, properties.max_flows), (600, 1_000));
    assert_eq!(properties.drain, Some(120));
    assert_eq!((properties.idle.tcp, properties.idle.udp), (3_600, 3_600));
    let rules: Vec<_> = properties.sources.values().collect();
    assert_eq!(rules, [&Source::Allow, &Source::Deny, &Source::Allow]);
    assert_eq!(
        properties
            .external
            .iter()
            .map(|port| port.get())
            .collect::<Vec<_>>(),
        [53]
    );
}

#[test]
fn a_fixed_address_is_an_ip_vip() {
    let labels = [("lb.vip", "www:80"), ("lb.address", "10.9.9.9")];
    let all = snapshot([container("web", "172.17.0.2", &labels)]);
    assert_eq!(
        lines(&all),
        [
            "web:80/tcp 172.17.0.2:80 x1",
            "10.9.9.9:80/tcp 172.17.0.2:80 x1"
        ]
    );
}

#[test]
fn a_bad_label_costs_its_container_alone() {
    let long = "x".repeat(10 << 20);
    for (name, value, word) in [
        ("lb.vip", "www", "has no port"),
        ("lb.vip", "www:0", "not a port"),
        ("lb.vip", "www:70000", "not a port"),
        ("lb.vip", ":80", "no name"),
        ("lb.vip", "www:80/sctp", "neither tcp nor udp"),
        ("lb.vip", "www:80=x", "not a port"),
        ("lb.vip", " ", "empty"),
        ("lb.vip", &long, "more than 4096 bytes"),
        ("VIP_0", "/web", "has no port"),
        ("lb.weight", "257", "not a weight"),
        ("lb.balance", "random", "not one of"),
        ("lb.mode", "dsr", "not one of"),
        ("lb.allow", "everybody", "everybody"),
        ("lb.allow", "", "empty"),
        ("lb.address", "no.de", "neither an IP address nor `node`"),
        ("lb.idle", "5", "not a duration"),
        ("lb.drain", "-2", "-1 resets what is left at once"),
        ("lb.enable", "perhaps", "neither true nor false"),
    ] {
        let bad = [&compose("web")[..], &[("lb.vip", "www:80"), (name, value)]].concat();
        let good = [&compose("web")[..], &[("lb.vip", "www:80")]].concat();
        let all = snapshot([
            container("bad", "172.17.0.2", &bad),
            container("good", "172.17.0.3", &good),
        ]);
        assert_eq!(lines(&all)[0], "web.shop:80/tcp 172.17.0.3:80 x1", "{name}");
        let [problem] = &all.problems[..] else {
            panic!("{name}: {:?}", all.problems.len());
        };
        assert_eq!(&*problem.subject, "bad");
        assert!(
            problem.reason.contains(word) && problem.reason.len() < 400,
            "{}",
            problem.reason
        );
    }
}

#[test]
fn an_unknown_label_of_ours_is_named_and_harms_nobody() {
    let all = snapshot([container(
        "web",
        "172.17.0.2",
        &[("lb.vip", "web:80"), ("lb.wieght", "3")],
    )]);
    assert_eq!(lines(&all), ["web:80/tcp 172.17.0.2:80 x1"]);
    assert_eq!(
        reasons(&all),
        ["label lb.wieght is none of lb-agent's and has no effect"]
    );
}

#[test]
fn the_newest_container_says_what_its_service_is_like() {
    let old = container(
        "web-1",
        "172.17.0.2",
        &[("lb.vip", "web:80"), ("lb.balance", "source")],
    );
    let mut new = container(
        "web-2",
        "172.17.0.3",
        &[("lb.vip", "web:80"), ("lb.balance", "least-conn")],
    );
    new.started = "2026-01-02T00:00:00Z".to_owned();
    let all = snapshot([old, new]);
    assert_eq!(
        lines(&all),
        ["web:80/tcp 172.17.0.2:80 x1 172.17.0.3:80 x1"]
    );
    assert_eq!(
        all.pools[0].properties.as_ref().expect("some").balance,
        Balance::LeastConn
    );
    assert_eq!(reasons(&all), [""; 0]);
}

#[test]
fn a_newest_container_without_settings_ends_those_of_the_older_ones() {
    let labels = [("lb.vip", "web:80"), ("lb.balance", "source")];
    let old = container("web-1", "172.17.0.2", &labels);
    let mut new = container("web-2", "172.17.0.3", &labels[..1]);
    new.started = "2026-01-02T00:00:00Z".to_owned();
    assert_eq!(snapshot([old, new]).pools[0].properties, None);
}

#[test]
fn a_container_that_is_not_well_keeps_its_flows_and_takes_no_new_ones() {
    let line = |change: &dyn Fn(&mut Container)| {
        let mut one = container("web", "172.17.0.2", &[("lb.vip", "web:80")]);
        change(&mut one);
        lines(&snapshot([one])).remove(0)
    };
    for (health, shown) in [
        (Health::Starting, "x0 (no health result yet)"),
        (Health::Unhealthy, "x0 (unhealthy)"),
        (Health::Healthy, "x1"),
    ] {
        assert!(
            line(&|one| one.health = Some(health)).ends_with(shown),
            "{health:?}"
        );
    }
    assert!(line(&|one| one.phase = Phase::Paused).ends_with("x0 (paused)"));
    assert_eq!(line(&|one| one.phase = Phase::Absent), "web:80/tcp");
}
