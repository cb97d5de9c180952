//! A real Docker Engine: services that come, share a VIP, or are for other agents.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_tests::{
    admin::page,
    lab::{wait_for, wait_until},
    stage::PATIENCE,
    steady::{ask, during, failures, shares},
    yard::{LABEL, Yard},
};
use serde_json::Value;

#[test]
fn a_new_service_is_reached_within_a_second_of_its_first_container() {
    let yard = Yard::up("soon", &[]);
    yard.run("web-1", &LABEL);
    yard.expect("web", 1);
    for name in ["red", "green", "blue"] {
        yard.run(name, &["--label", &format!("lb.vip={name}:80")]);
        let ready = Instant::now();
        let answer = wait_for("it is reached", Duration::from_secs(1), || {
            let found = yard.stage.ask(&["resolve", &format!("{name}.docker")]);
            let addr: IpAddr = found["addrs"][0].as_str()?.parse().ok()?;
            ask(&yard.stage.clients[0], SocketAddr::new(addr, 80)).ok()
        });
        assert_eq!(answer.expect("in time"), name);
        println!("{name} is reached {:?} after its start", ready.elapsed());
    }
}

#[test]
fn five_services_are_behind_one_vip() {
    let yard = Yard::up("five", &["--dns-listen", "127.0.0.1:53"]);
    let client = &yard.stage.clients[0];
    let apps = ["black", "blue", "green", "red", "white"];
    for app in apps {
        yard.run(app, &LABEL);
    }
    let vip = yard.expect("web", apps.len());
    let answered: Vec<String> = shares(client, vip, 100).into_keys().collect();
    assert_eq!(answered, apps);
    let dig = |name: &str| {
        let name = format!("{name}.docker.l4lb.thisdcos.directory");
        let argv = ["dig", "+short", "@127.0.0.1", "A", &name];
        let answer = yard.stage.node.run(&argv).expect("it runs").stdout;
        answer.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(dig("web"), [vip.ip().to_string()].into());
    let backends = yard.service("web")["backends"].clone();
    let addr = |backend: &Value| {
        let addr: SocketAddr = backend["addr"].as_str()?.parse().ok()?;
        Some(addr.ip().to_string())
    };
    let addrs = backends.as_array().into_iter().flatten().filter_map(addr);
    let addrs: BTreeSet<String> = addrs.collect();
    assert_eq!(dig("tasks.web"), addrs);
    assert_eq!(nslookup(&yard, "tasks.web"), addrs);
    let own = yard.expect("red", 1);
    assert_ne!(own, vip);
    assert_eq!(shares(client, own, 5), [("red".to_owned(), 5)].into());
    let answers = during(client, vip, || {
        yard.docker(&["stop", "--time", "1", "red"]);
        yard.expect("web", apps.len() - 1);
    });
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert!(!shares(client, vip, 40).contains_key("red"));
}

/// As users of Tutum looked for all containers of a service.
fn nslookup(yard: &Yard, name: &str) -> BTreeSet<String> {
    let name = format!("{name}.docker.l4lb.thisdcos.directory");
    let argv = ["nslookup", &name, "127.0.0.1"];
    let answer = yard.stage.node.run(&argv).expect("it runs").stdout;
    // The server's own has its port behind it.
    let addrs = answer
        .lines()
        .filter_map(|line| line.strip_prefix("Address:"));
    addrs
        .map(|addr| addr.trim().to_owned())
        .filter(|addr| !addr.contains('#'))
        .collect()
}

#[test]
fn containers_their_siblings_and_their_node_reach_the_vip_that_they_are_behind() {
    let yard = Yard::up("hairpin", &[]);
    yard.run("web-1", &LABEL);
    yard.run("sibling", &[]);
    let vip = yard.expect("web", 1);
    let client = &yard.stage.clients[0];
    let serve = |containers| {
        let answered = || (0..20).filter_map(|_| ask(client, vip).ok());
        let all = || answered().collect::<BTreeSet<_>>().len() == containers;
        wait_until("they listen", PATIENCE, all).expect("they do");
    };
    serve(1);
    let get = format!("busybox wget -q -O - http://{vip}/index.html");
    let script =
        format!("for i in $(busybox seq 100); do {get} || {{ echo at $i >&2; exit 1; }}; done");
    let answered = |printed: String| {
        let names: Vec<String> = printed.lines().map(str::to_owned).collect();
        let distinct: BTreeSet<String> = names.iter().cloned().collect();
        (names.len(), distinct)
    };
    let within = |container: &str| {
        let printed = yard
            .docker
            .docker(&["exec", container, "sh", "-c", &script]);
        answered(printed.expect(container))
    };
    // There is nobody but itself.
    let alone = (100, ["web-1".to_owned()].into());
    assert_eq!(within("web-1"), alone, "of itself");
    yard.run("web-2", &LABEL);
    yard.expect("web", 2);
    serve(2);
    let both = (100, ["web-1", "web-2"].map(str::to_owned).into());
    for container in ["web-1", "web-2", "sibling"] {
        assert_eq!(within(container), both, "in {container}");
    }
    let printed = yard.stage.node.run(&["busybox", "sh", "-c", &script]);
    let printed = printed.and_then(|done| done.ok()).expect("on the node");
    assert_eq!(answered(printed), both, "on the node");
}

#[test]
fn a_service_is_served_by_the_agents_of_its_groups_alone() {
    let yard = Yard::up("groups", &["--group", "edge"]);
    let labelled = |name: &str, more: &[&str]| {
        let vip = format!("lb.vip={name}:80");
        yard.run(name, &[&["--label", vip.as_str()], more].concat());
    };
    labelled("inner", &["--label", "lb.group=inner"]);
    labelled("edge", &["--label", "lb.group=other, edge"]);
    labelled("all", &[]);
    for name in ["edge", "all"] {
        let vip = yard.expect(name, 1);
        assert_eq!(ask(&yard.stage.clients[0], vip), Ok(name.to_owned()));
    }
    // It was told of before the others.
    assert!(yard.service("inner").is_null());
    let found = yard.stage.ask(&["resolve", "inner.docker"]);
    assert_eq!(found["code"], "NXDOMAIN", "{found}");
}

#[test]
fn what_is_refused_is_counted_and_named_and_the_first_keeps_what_two_want() {
    let yard = Yard::up("refused", &["--name-policy", "owner"]);
    let run = |name: &str, labels: &[&str]| {
        let labels = labels.iter().flat_map(|label| ["--label", *label]);
        yard.run(name, &labels.collect::<Vec<_>>());
    };
    let in_project = |project: &str| format!("com.docker.compose.project={project}");
    let service = "com.docker.compose.service=web";
    let shared = "lb.vip=shared:80";
    run(
        "first",
        &[&in_project("one"), service, shared, "lb.balance=least-conn"],
    );
    let vip = yard.expect("shared", 1);
    // Of another project: the name is not its own.
    run("thief", &[&in_project("two"), service, shared]);
    // Of the same one, with other settings.
    let other = "com.docker.compose.service=zoo";
    run(
        "odd",
        &[&in_project("one"), other, shared, "lb.balance=source"],
    );
    run("wide", &["lb.vip=wide:70000"]);
    run("zero", &["lb.vip=zero:0"]);
    run("long", &[&format!("lb.vip=long:80{}", " ".repeat(100_000))]);
    let words = [
        "belongs to",
        "(--name-policy owner)",
        "another balance from app /one/web",
        "\"70000\" is not a port",
        "\"0\" is not a port",
        "label lb.vip has more than 4096 bytes",
    ];
    let shown = wait_until("each is named with its reason", PATIENCE, || {
        let status = yard.stage.status();
        let all = [&status["warnings"], &status["providers"]].map(|part| {
            let text = part.to_string();
            text.replace("\\\"", "\"")
        });
        words
            .iter()
            .all(|word| all.iter().any(|part| part.contains(word)))
    });
    assert!(shown.is_ok(), "{:#}", yard.stage.status());
    let client = &yard.stage.clients[0];
    assert_eq!(shares(client, vip, 20), [("first".to_owned(), 20)].into());
    assert_eq!(
        ask(client, yard.expect("web.two", 1)),
        Ok("thief".to_owned())
    );
    wait_until("they are counted", PATIENCE, || {
        let metrics = page(&yard.stage, "/metrics");
        let counted = |line: &str| {
            let of_docker = line.strip_prefix("lb_agent_provider_problems{provider=\"docker:")?;
            of_docker.rsplit(' ').next()?.parse::<u64>().ok()
        };
        metrics.lines().find_map(counted) >= Some(5)
    })
    .expect("all five");
}
