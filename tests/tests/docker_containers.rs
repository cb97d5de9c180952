//! A real Docker Engine: containers with a label are served, scaled, stopped and restarted without a lost connection.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    lab::wait_until,
    stage::PATIENCE,
    steady::{ask, during, failures, shares},
    yard::{LABEL, Yard},
};

/// It is told of when it is started, and must not be asked before it listens.
const CHECKED: [&str; 6] = [
    "--label",
    "lb.vip=web:80",
    "--health-cmd",
    "wget -q -O /dev/null http://127.0.0.1/index.html",
    "--health-interval",
    "500ms",
];
#[test]
fn containers_come_and_go_without_a_failed_connection() {
    let yard = Yard::up("scale", &[]);
    let client = &yard.stage.clients[0];
    for n in 1..=2 {
        yard.run(&format!("web-{n}"), &CHECKED);
    }
    let vip = yard.expect("web", 2);
    assert_eq!(shares(client, vip, 40).len(), 2, "both answer");

    let answers = during(client, vip, || {
        for n in 3..=8 {
            yard.run(&format!("web-{n}"), &CHECKED);
        }
        yard.expect("web", 8);
        for n in 2..=8 {
            yard.docker(&["stop", "--time", "1", &format!("web-{n}")]);
        }
        yard.expect("web", 1);
    });
    assert!(answers.len() > 100, "{} connections", answers.len());
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert_eq!(shares(client, vip, 10), [("web-1".to_owned(), 10)].into());
}

#[test]
fn eight_containers_have_even_shares() {
    let yard = Yard::up("even", &[]);
    for n in 1..=8 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 8);
    let shares = shares(&yard.stage.clients[0], vip, 800);
    let chi: f64 = shares
        .values()
        .map(|share| (f64::from(*share) - 100.0).powi(2) / 100.0)
        .sum();
    // Seven degrees of freedom, p = 1e-6.
    assert!(
        shares.len() == 8 && chi < 40.5,
        "chi-square {chi}: {shares:?}"
    );
}

#[test]
fn a_container_that_is_told_to_stop_gets_no_new_connection_and_ends_those_it_has() {
    let yard = Yard::up("drain", &[]);
    let client = &yard.stage.clients[0];
    for n in 1..=2 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 2);
    let mut told = None;
    // Busybox ignores the signal as the first process, so the container lives on for three seconds.
    let answers = during(client, vip, || {
        thread::sleep(Duration::from_millis(300));
        told = Some(Instant::now());
        yard.docker(&["stop", "--time", "3", "web-1"]);
        thread::sleep(Duration::from_millis(300));
    });
    let told = told.expect("it was told");
    let first = |(began, answer): &&(Instant, Result<String, String>)| {
        answer.as_deref() == Ok("web-1") && *began > told
    };
    let last = answers
        .iter()
        .filter(first)
        .map(|(began, _)| *began - told)
        .max();
    let last = last.unwrap_or_default();
    // The client's command itself takes most of that time.
    assert!(
        last < Duration::from_millis(400),
        "the last new connection came {last:?} after the command"
    );
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert!(
        answers
            .iter()
            .any(|(began, answer)| *began < told && answer.as_deref() == Ok("web-1"))
    );
}

/// The least that a client must have asked in the time that is looked at.
const ENOUGH: usize = 10;

/// Fifty stops of containers that ignore them, so that only the agent can keep new connections away.
#[test]
fn new_connections_leave_a_stopping_container_within_100_ms() {
    const CONTAINERS: usize = 10;
    let yard = Yard::up("stops", &[]);
    let client = &yard.stage.clients[0];
    let names: Vec<String> = (1..=CONTAINERS).map(|n| format!("web-{n}")).collect();
    for name in names.iter().map(String::as_str).chain(["web-0"]) {
        yard.run(name, &LABEL);
    }
    let vip = yard.expect("web", CONTAINERS + 1);
    let signals = yard.docker.signals().expect("events");
    let mut told = Vec::new();
    let answers = during(client, vip, || {
        for _ in 0..5 {
            for name in &names {
                let path = format!("/containers/{name}/kill?signal=SIGTERM");
                yard.docker.post(&path).expect("it is told");
                let (heard, from) = signals.recv_timeout(PATIENCE).expect("an event");
                assert_eq!(heard, *name);
                thread::sleep(Duration::from_millis(250));
                told.push((name.clone(), from, Instant::now()));
            }
            yard.expect("web", 1);
            let restart = [
                &["restart", "--time", "0"][..],
                &names.iter().map(String::as_str).collect::<Vec<_>>(),
            ];
            yard.docker(&restart.concat());
            yard.expect("web", CONTAINERS + 1);
            // A restart sends signals, too.
            while signals.try_recv().is_ok() {}
        }
    });
    let mut delays: Vec<Duration> = told
        .iter()
        .map(|(name, from, to)| {
            let within = |(began, _): &&(Instant, _)| began > from && began < to;
            let meanwhile: Vec<_> = answers.iter().filter(within).collect();
            assert!(meanwhile.len() >= ENOUGH, "{} connections", meanwhile.len());
            let late = meanwhile
                .iter()
                .filter(|(_, answer)| answer.as_ref() == Ok(name));
            let last = late.map(|(began, _)| *began - *from).max();
            last.unwrap_or_default()
        })
        .collect();
    delays.sort();
    let (median, p99) = (percentile(&delays, 50), percentile(&delays, 99));
    eprintln!(
        "the last new connection after the event of a stop: median {median:?}, 99th percentile of {} {p99:?}",
        delays.len()
    );
    assert!(p99 < Duration::from_millis(100), "{delays:?}");
    // Between the rounds a container may be told of before it listens.
    let in_a_stop = |began: &Instant| told.iter().any(|(_, from, to)| began > from && began < to);
    let failed = answers
        .iter()
        .filter(|(began, answer)| answer.is_err() && in_a_stop(began))
        .count();
    assert_eq!(failed, 0, "{:?}", failures(&answers));
}

/// The least that so many of a hundred do not exceed; `sorted`: ascending.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[test]
fn the_names_below_a_service_drop_a_container_within_a_second_of_its_stop() {
    let yard = Yard::up("names", &[]);
    yard.run("web-1", &LABEL);
    yard.run("web-2", &LABEL);
    let vip = yard.expect("web", 2).ip().to_string();
    let resolved = |name: &str| {
        let answer = yard.stage.ask(&["resolve", name]);
        let addrs = answer["addrs"].as_array().cloned().unwrap_or_default();
        let addrs = addrs
            .iter()
            .filter_map(|addr| addr.as_str().map(str::to_owned));
        addrs.collect::<BTreeSet<String>>()
    };
    let first = resolved("web-1.web.docker");
    let second = resolved("web-2.web.docker");
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(resolved("tasks.web.docker"), &first | &second);
    let path = "/containers/web-1/kill?signal=SIGTERM";
    yard.docker.post(path).expect("it is told");
    let told = Instant::now();
    wait_until("it is dropped", Duration::from_secs(1), || {
        resolved("tasks.web.docker") == second
    })
    .expect("the one that goes on alone");
    println!("dropped {:?} after the signal", told.elapsed());
    assert_eq!(resolved("web-1.web.docker"), first, "while it drains");
    assert_eq!(resolved("web.docker"), [vip].into());
    yard.docker(&["rm", "--force", "web-1"]);
    wait_until("it is gone", PATIENCE, || {
        resolved("web-1.web.docker").is_empty()
    })
    .expect("gone");
}

#[test]
fn a_domain_is_resolved_and_leads_to_all_services_that_name_it() {
    let dns = ["--dns-listen", "127.0.0.1:53", "--dns-domain"];
    let yard = Yard::up("domain", &[&dns[..], &["shop.example"]].concat());
    for name in ["blue", "green"] {
        let env = "VIRTUAL_HOST=https://www.shop.example";
        yard.run(name, &["--expose", "80", "--env", env]);
    }
    let vip = yard.expect("www.shop.example", 2);
    let found = yard.stage.ask(&["resolve", "www.shop.example"]);
    assert_eq!(found["addrs"][0], vip.ip().to_string(), "{found}");
    let port = SocketAddr::new(vip.ip(), 443);
    let shares = shares(&yard.stage.clients[0], port, 40);
    let answered: Vec<_> = shares.keys().map(String::as_str).collect();
    assert_eq!(answered, ["blue", "green"]);
}

#[test]
fn a_killed_container_costs_a_client_outside_one_syn_at_most() {
    let yard = Yard::up("kill", &[]);
    let client = &yard.stage.clients[0];
    for n in 1..=4 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 4);
    let answers = during(client, vip, || {
        for name in ["web-1", "web-2", "web-3"] {
            yard.docker(&["kill", name]);
            thread::sleep(Duration::from_millis(1_500));
        }
    });
    // A connection that was open dies with the container; none may be refused.
    let refused: Vec<&String> = failures(&answers)
        .into_iter()
        .filter(|why| why.starts_with("cannot connect"))
        .collect();
    assert_eq!(refused, [""; 0], "of {}", answers.len());
    assert!(failures(&answers).len() <= 3, "{:?}", failures(&answers));
    let longest = answers.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
    // A SYN is sent again after 1 s, RFC 6298 section 2.1.
    assert!(
        longest.is_some_and(|longest| longest < Duration::from_millis(2_500)),
        "{longest:?}"
    );
    assert_eq!(shares(client, vip, 5), [("web-4".to_owned(), 5)].into());
}

#[test]
fn what_happens_to_containers_is_followed() {
    let yard = Yard::up("follow", &[]);
    let client = &yard.stage.clients[0];
    yard.docker(&["network", "create", "back"]);
    let check = [
        "--health-cmd",
        "test ! -e /tmp/bad",
        "--health-interval",
        "1s",
        "--health-retries",
        "1",
    ];
    yard.run("web-1", &LABEL);
    yard.run("web-2", &[&LABEL[..], &check].concat());
    let vip = yard.expect("web", 2);

    yard.docker(&["pause", "web-1"]);
    yard.expect("web", 1);
    yard.docker(&["unpause", "web-1"]);
    yard.expect("web", 2);

    yard.docker(&["exec", "web-2", "touch", "/tmp/bad"]);
    yard.expect("web", 1);
    let backends = yard.service("web")["backends"].to_string();
    assert!(backends.contains("unhealthy"), "{backends}");
    yard.docker(&["exec", "web-2", "busybox", "rm", "/tmp/bad"]);
    yard.expect("web", 2);

    yard.docker(&["kill", "--signal", "HUP", "web-1"]);
    yard.docker(&["rename", "web-1", "web-9"]);
    yard.docker(&["network", "connect", "back", "web-9"]);
    yard.docker(&["network", "disconnect", "bridge", "web-9"]);
    yard.expect("web", 2);
    assert_eq!(
        shares(client, vip, 40).len(),
        2,
        "reached on its other network"
    );

    yard.docker(&["restart", "--time", "0", "web-2"]);
    yard.expect("web", 2);
    // It comes back with another address, since its own was taken.
    let addr = [
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        "web-2",
    ];
    let addr = || yard.docker.docker(&addr).expect("an address");
    let before = addr();
    yard.docker(&["stop", "--time", "0", "web-2"]);
    yard.expect("web", 1);
    yard.run("taker", &[]);
    yard.docker(&["start", "web-2"]);
    yard.expect("web", 2);
    assert_ne!(addr(), before);
    let answered: Vec<String> = shares(client, vip, 40).into_keys().collect();
    assert_eq!(answered, ["web-1", "web-2"]);
    yard.docker(&["rm", "-f", "web-2"]);
    yard.expect("web", 1);
    assert_eq!(shares(client, vip, 5), [("web-1".to_owned(), 5)].into());
}

#[test]
fn connections_go_on_while_the_engine_is_away() {
    let mut yard = Yard::up("away", &[]);
    for n in 1..=2 {
        yard.run(&format!("web-{n}"), &LABEL);
    }
    let vip = yard.expect("web", 2);
    let Yard { docker, stage } = &mut yard;
    let answers = during(&stage.clients[0], vip, || {
        docker.restart(&stage.node).expect("it comes back");
    });
    assert_eq!(failures(&answers), [""; 0], "of {}", answers.len());
    assert!(answers.len() > 20);
    // What happens since is known. (Nothing new is run: the new engine has mounts of its own, does not see the networks of
    // the containers before it, and would give their addresses away again.)
    yard.docker(&["stop", "--time", "0", "web-2"]);
    yard.expect("web", 1);
    assert_eq!(
        shares(&yard.stage.clients[0], vip, 5),
        [("web-1".to_owned(), 5)].into()
    );
}

#[test]
fn a_label_beyond_the_operators_bounds_is_refused_and_others_are_served() {
    let yard = Yard::up("bounds", &["--node-ports", "10000-10100"]);
    yard.run(
        "greedy",
        &[
            "--label",
            "lb.vip=greedy:80",
            "--label",
            "lb.address=8.8.8.8",
        ],
    );
    yard.run(
        "near",
        &["--label", "lb.vip=near:22", "--label", "lb.address=node"],
    );
    yard.run("broken", &["--label", "lb.vip=nonsense"]);
    yard.run("web", &LABEL);
    let vip = yard.expect("web", 1);
    assert_eq!(ask(&yard.stage.clients[0], vip), Ok("web".to_owned()));
    let shown = wait_until("each is named with its reason", PATIENCE, || {
        let status = yard.stage.status().to_string();
        ["8.8.8.8", "--node-ports", "has no port"]
            .iter()
            .all(|reason| status.contains(reason))
    });
    assert!(shown.is_ok(), "{:#}", yard.stage.status());
}
