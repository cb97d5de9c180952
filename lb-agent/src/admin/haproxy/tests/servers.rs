//! Servers that are added, moved and removed, in the words of HAProxy.

use std::sync::Arc;

use super::*;
use crate::{
    admin::{
        report::{BackendReport, BackendState, OperatorReport, Timestamp, Traffic},
        stats::tests::{backend, service},
    },
    catalog::{Check, Probe},
    provider::OPERATOR,
};

/// A server of the operator's own.
fn own(addr: &str, name: &str, state: BackendState, flows_active: u64) -> BackendReport {
    BackendReport {
        provider: OPERATOR.into(),
        called: Some(name.into()),
        traffic: Traffic {
            flows_active,
            ..Traffic::default()
        },
        ..backend(addr, state, None)
    }
}

/// `web.x_80` as always, and `own.x_80`, which is checked, with three servers of the operator's own.
fn desk() -> Desk {
    let mut report = report();
    let maintenance = BackendState::Maintenance;
    let mut checked = service(
        Some("own.x"),
        8,
        vec![
            own("10.0.1.1:80", "idle", maintenance, 0),
            own("10.0.1.2:80", "busy", maintenance, 2),
            own("10.0.1.3:80", "used", BackendState::Active, 0),
        ],
    );
    checked.probe = Some(Arc::new(Check::new(Probe::Tcp)));
    Arc::make_mut(&mut report.services).push(checked);
    report.operator.push(OperatorReport {
        which: "10.0.2.1:80 of gone.x:80/tcp".into(),
        says: "server gone.x_80/left added".into(),
        since: Timestamp(1),
        deadline: None,
        unused_since: Some(Timestamp(2)),
        server: Some("gone.x_80/left".into()),
    });
    Desk::over(Level::Admin, report)
}

#[test]
fn servers_are_added_moved_and_removed_in_haproxys_words() {
    let desk = desk();
    let of = "own.x:80/tcp";
    for (command, answer, ordered) in [
        (
            "add server own.x_80/new 10.0.1.9:8080",
            "New server registered.",
            format!("add own.x_80/new weight 1 10.0.1.9:8080 of {of}"),
        ),
        (
            "add server own.x_80/new [::ffff:10.0.1.9]:80 weight 7 maxconn 5 check port 81 backup enabled",
            "New server registered.",
            format!(
                "add own.x_80/new weight 7 limit 5 check port 81 backup enabled 10.0.1.9:80 of {of}"
            ),
        ),
        (
            "add server own.x_80/new 10.0.1.9:80 enabled disabled",
            "New server registered.",
            format!("add own.x_80/new weight 1 10.0.1.9:80 of {of}"),
        ),
        (
            "del server own.x_80/idle",
            "Server deleted.",
            format!("delete own.x_80/idle 10.0.1.1:80 of {of}"),
        ),
        // Its service is not there.
        (
            "del server gone.x_80/left",
            "Server deleted.",
            "delete gone.x_80/left left of gone.x_80".to_owned(),
        ),
        (
            "set server own.x_80/idle addr 10.0.1.8",
            "IP changed from '10.0.1.1' to '10.0.1.8' by 'stats socket command'",
            format!("move own.x_80/idle to 10.0.1.8:80 10.0.1.1:80 of {of}"),
        ),
        (
            "set server own.x_80/idle addr 10.0.1.8 port 81",
            "IP changed from '10.0.1.1' to '10.0.1.8', port changed from '80' to '81' by 'stats socket command'",
            format!("move own.x_80/idle to 10.0.1.8:81 10.0.1.1:80 of {of}"),
        ),
        (
            "set server own.x_80/idle addr 10.0.1.8 port 80",
            "IP changed from '10.0.1.1' to '10.0.1.8', no need to change the port by 'stats socket command'",
            format!("move own.x_80/idle to 10.0.1.8:80 10.0.1.1:80 of {of}"),
        ),
        (
            "set server own.x_80/idle addr 10.0.1.1 port 81",
            "no need to change the addr, port changed from '80' to '81' by 'stats socket command'",
            format!("move own.x_80/idle to 10.0.1.1:81 10.0.1.1:80 of {of}"),
        ),
        (
            "set server own.x_80/idle check-port 8081",
            "health check port updated.",
            format!("check port 8081 10.0.1.1:80 of {of}"),
        ),
        (
            "set server own.x_80/idle check-port 0",
            "health check port updated.",
            format!("check port 0 10.0.1.1:80 of {of}"),
        ),
    ] {
        assert_eq!(desk.ask(command), format!("{answer}\n\n"), "{command}");
        assert_eq!(desk.ordered(), [ordered], "{command}");
    }
    let unmoved = desk.ask("set server own.x_80/idle addr 10.0.1.1");
    assert_eq!(
        unmoved,
        "no need to change the addr by 'stats socket command'\n\n"
    );
    assert_eq!(desk.ordered(), [""; 0]);
}

#[test]
fn what_cannot_be_added_moved_or_removed_is_refused_and_nothing_is_ordered() {
    let desk = desk();
    let taken = "Already exists a server with the same name in backend.";
    let usage = "set server <b>/<s> addr requires an address and optionally a port.";
    let unchecked = "health checks are not enabled on this server.";
    for (command, expected) in [
        ("add server", "Require 'backend/server'."),
        ("add server own.x_80", "Require 'backend/server'."),
        ("add server own.x_80/", "Require 'backend/server'."),
        ("add server other/new 10.0.1.9:80", "No such backend."),
        ("add server own.x_80/idle 10.0.1.9:80", taken),
        ("add server web.x_80/10_0_0_1_80 10.0.1.9:80", taken),
        (
            "add server own.x_80/a,b 10.0.1.9:80",
            "character ',' is not permitted in server name.",
        ),
        (
            "add server own.x_80/BACKEND 10.0.1.9:80",
            "'BACKEND' cannot be the name of a server.",
        ),
        (
            "add server own.x_80/new",
            "'server' expects <name> and <addr>[:<port>] as arguments.",
        ),
        (
            "add server own.x_80/new 10.0.1.9",
            "'server new' : '10.0.1.9' is no address with a port, as 10.0.0.1:80 or [fd00::1]:80",
        ),
        (
            "add server own.x_80/new 10.0.1.9:80 weight",
            "'server new' : 'weight' expects a number.",
        ),
        (
            "add server own.x_80/new 10.0.1.9:80 weight 257",
            "'server new' : 'weight' is a number from 0 to 256, not '257'.",
        ),
        (
            "add server own.x_80/new 10.0.1.9:80 maxconn -1",
            "'server new' : 'maxconn' is a number from 0 to 4294967295, not '-1'.",
        ),
        (
            "add server own.x_80/new 10.0.1.9:80 ssl",
            "'server new' unknown keyword 'ssl'. Here are weight, maxconn, backup, check, port, enabled and disabled; \
             all else is as the service says.",
        ),
        (
            "add server web.x_80/new 10.0.1.9:80 check",
            "'server new' : 'check' has no meaning: the servers of this backend are not checked. Give the service a \
             check where it is declared.",
        ),
        ("del server", "Require 'backend/server'."),
        ("del server other/x", "No such backend."),
        ("del server gone.x_80/x", "No such backend."),
        ("del server own.x_80/x", "No such server."),
        (
            "del server web.x_80/10_0_0_1_80",
            "This server cannot be removed at runtime due to other configuration elements pointing to it: file:/etc/a \
             declares it. Remove it there, or take it out with 'disable server'.",
        ),
        (
            "del server own.x_80/used",
            "Only servers in maintenance mode can be deleted.",
        ),
        (
            "del server own.x_80/busy",
            "Server still has connections attached to it, cannot remove it.",
        ),
        ("set server own.x_80/x addr 10.0.1.9", "No such server."),
        ("set server own.x_80/idle addr", usage),
        ("set server own.x_80/idle addr 10.0.1.9 port", usage),
        ("set server own.x_80/idle addr here", "Invalid addr 'here'"),
        (
            "set server own.x_80/idle addr 10.0.1.9 port x",
            "problem converting string 'x' to int",
        ),
        ("set server web.x_80/10_0_0_1_80 check-port 81", unchecked),
        (
            "set server own.x_80/idle check-port x",
            "'set server <srv> check-port' expects an integer as argument.",
        ),
        (
            "set server own.x_80/idle check-port 65536",
            "provided port is not valid.",
        ),
    ] {
        assert_eq!(desk.ask(command), format!("{expected}\n\n"), "{command}");
    }
    assert_eq!(desk.ordered(), [""; 0]);
}

#[test]
fn a_server_of_the_operators_own_is_shown_by_its_name() {
    let desk = desk();
    let stat = desk.ask("show stat 8 4 -1");
    let names = stat
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(1));
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    assert_eq!(names, ["busy", "idle", "used"]);
}
