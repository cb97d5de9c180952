//! The tutorial, played in the lab: who answers a VIP's name while its app scales 1 -> 2 -> 1.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::ASCII_HORIZONTAL_ONLY};
use lb_tests::{
    apps::{APP2, app2, in_container, on_host},
    asking::{ask, named},
    lab::{Host, retry},
    probe::Outcome,
    topology::{MASTER, Topology, Wishes},
};
use serde_json::{Value, json};

/// How often each client asks in each step.
const QUESTIONS: u32 = 40;

/// How long a change may take to reach every node.
const WITHIN: Duration = Duration::from_secs(10);

/// One round of the tutorial.
struct Round {
    title: &'static str,
    id: &'static str,
    app: Value,
    name: &'static str,
    port: u16,
    flags: &'static [&'static str],
}

fn main() -> ExitCode {
    let start = Instant::now();
    match play() {
        Ok((table, failures)) => {
            println!("{table}");
            println!("{:.0} s; the lab is gone.", start.elapsed().as_secs_f64());
            for failure in &failures {
                eprintln!("not as expected: {failure}");
            }
            if failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("the demo broke off: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn rounds() -> [Round; 3] {
    [
        Round {
            title: "TCP, IPv4",
            id: APP2,
            app: app2(),
            name: "dcos-101app2",
            port: 10000,
            flags: &[],
        },
        Round {
            title: "TCP, IPv6",
            id: "/dcos-101/six",
            app: in_container("dcos-101/six", "tcp", 8080, 1),
            name: "dcos-101six",
            port: 8080,
            flags: &["--ipv6"],
        },
        Round {
            title: "UDP, IPv4",
            id: "/dcos-101/udp",
            app: on_host("dcos-101/udp", "udp", 5000, 1),
            name: "dcos-101udp",
            port: 5000,
            flags: &["--mode", "udp"],
        },
    ]
}

/// Returns the table, and what was not as expected. The lab is gone when this returns.
fn play() -> Result<(Table, Vec<String>)> {
    say(
        "one master, three workers, a container and an outside client: a switch of network namespaces",
    );
    let topology = Topology::up(Wishes::default())?;
    let (mut table, mut failures) = (Table::new(), Vec::new());
    table.load_style(ASCII_HORIZONTAL_ONLY).set_header([
        "",
        "instances",
        "client",
        "asked",
        "failed",
        "who answered",
    ]);
    for round in rounds() {
        let to = named(round.name, round.port);
        say(&format!(
            "{}: add {}, whose VIP is {to}",
            round.title, round.id
        ));
        topology.put_app(round.id, &round.app)?;
        let vip = topology.agreed_vip(round.name, round.flags.contains(&"--ipv6"))?;
        say(&format!("  every node says that it is {vip}"));
        curl(&topology, &round, &to)?;
        for instances in [1, 2, 1] {
            say(&format!("  {instances} instance(s)"));
            topology.put_app(round.id, &json!({"instances": instances}))?;
            for client in [topology.master(), &topology.container, &topology.client] {
                let outcome = settled(client, &to, &round, instances)?;
                let who = who(&outcome);
                table.add_row([
                    round.title.to_owned(),
                    instances.to_string(),
                    label(client.name()).to_owned(),
                    (outcome.answered + outcome.failed).to_string(),
                    outcome.failed.to_string(),
                    who.join("\n"),
                ]);
                if outcome.failed > 0 || who.len() != instances {
                    failures.push(format!(
                        "{}, {instances} instance(s), {}: {outcome:?}",
                        round.title,
                        client.name()
                    ));
                }
            }
        }
    }
    Ok((table, failures))
}

/// The tutorial's own command, on the master node.
fn curl(topology: &Topology, round: &Round, to: &str) -> Result<()> {
    if round.flags.contains(&"udp") {
        return Ok(());
    }
    let family = if round.flags.contains(&"--ipv6") {
        "-6"
    } else {
        "-4"
    };
    let url = format!("http://{to}/");
    let page = retry("curl on the master node", WITHIN, || {
        topology.nodes[MASTER]
            .run(&["curl", "-sS", "-m", "2", family, &url])?
            .ok()
    })?;
    say(&format!(
        "  $ curl {family} {to}\n  {}",
        page.lines().next().unwrap_or_default()
    ));
    Ok(())
}

/// Asks until as many answer as run, and returns that reading, or the last one when time is up.
fn settled(client: &Host, to: &str, round: &Round, instances: usize) -> Result<Outcome> {
    let end = Instant::now() + WITHIN;
    loop {
        let outcome = ask(client, to, QUESTIONS, round.flags)
            .with_context(|| format!("{} asks {to}", client.name()))?;
        // A failure is one whenever it happens; only who answers may take a moment.
        if outcome.failed > 0 || outcome.by_answer.len() == instances || Instant::now() > end {
            return Ok(outcome);
        }
    }
}

/// `worker1:31244 x 23`
fn who(outcome: &Outcome) -> Vec<String> {
    let line = |(answer, count): (&String, &u64)| {
        let words: Vec<&str> = answer.split('\'').collect();
        match words.as_slice() {
            [_, node, _, port, _] => format!("{node}:{port} x {count}"),
            _ => format!("{answer:?} x {count}"),
        }
    };
    outcome.by_answer.iter().map(line).collect()
}

fn label(host: &str) -> &str {
    match host {
        "master" => "master node",
        "box" => "container on worker3",
        "client" => "outside, by way of the master",
        other => other,
    }
}

fn say(what: &str) {
    eprintln!("{what}");
}
