//! Servers that are there, or where they are, by the operator's word.

use super::*;
use crate::{admin::orders::NewServer, provider::ProviderId};

const OF: &str = "shopcart.file:80/tcp";

fn new(server: &str) -> Act {
    Act::Add(NewServer {
        server: server.to_owned(),
        weight: 9,
        backup: false,
        max_flows: 0,
        check_port: None,
        enabled: false,
    })
}

fn shift(server: &str, to: &str) -> Act {
    Act::Move {
        server: server.to_owned(),
        to: to.parse().unwrap(),
    }
}

fn delete(server: &str) -> Act {
    Act::Delete {
        server: server.to_owned(),
    }
}

/// The services of [`desired`], the backends of which are in a services file.
fn in_a_file() -> Desired {
    let mut desired = desired();
    let services = desired.services.values_mut();
    for backend in services.flat_map(|service| &mut service.backends) {
        backend.provider = ProviderId::new("file", "/etc/services.yaml");
    }
    desired
}

/// Addresses, names and what the operator says of the first service's backends; the second is as it was.
fn first(operator: &Operator, mut desired: Desired) -> Vec<String> {
    let second = desired.services[&key(81)].clone();
    operator.place_servers(&mut desired);
    assert_eq!(desired.services[&key(81)], second);
    let service = &desired.services[&key(80)];
    let line = |one: &CatalogBackend| {
        let called = one.called.as_deref().unwrap_or("-");
        let said = operator.says(&key(80), service, one).in_words();
        format!("{} {called} {said}", one.addr)
    };
    service.backends.iter().map(line).collect()
}

#[test]
fn a_server_that_is_added_is_in_maintenance_and_outlives_the_agent_and_ready() {
    let dir = tempfile::tempdir().unwrap();
    let mut first_agent = operator(&dir);
    let add = order(new("web_80/new"), "10.0.0.0:80", Some(OF));
    first_agent.obey(&add, &desired(), NOW).unwrap();
    let mut operator = operator(&dir);
    let others = |of_new: &str| {
        let of_new = format!("10.0.0.0:80 new {of_new}");
        [
            of_new,
            format!("10.0.0.1:80 - {NOTHING}"),
            format!("10.0.0.2:80 - {NOTHING}"),
        ]
    };
    assert_eq!(first(&operator, desired()), others("maintenance"));
    let mut placed = desired();
    operator.place_servers(&mut placed);
    let ready = order(Act::Ready, "10.0.0.0:80", Some(OF));
    operator.obey(&ready, &placed, NOW).unwrap();
    assert_eq!(first(&operator, desired()), others(NOTHING));
    assert_eq!(operator.report()[0].says, "server web_80/new added");
    assert_eq!(operator.report()[0].server.as_deref(), Some("web_80/new"));
    let reported = |operator: &Operator| operator.report().len();
    // Of a service that is gone it is said for ever that it waits.
    operator.turn_over(&Desired::default(), NOW).unwrap();
    let year = Timestamp(NOW.0 + 365 * 86_400_000);
    operator.turn_over(&Desired::default(), year).unwrap();
    assert_eq!(operator.report()[0].unused_since, Some(NOW));
    operator
        .obey(
            &order(delete("web_80/new"), "new", None),
            &Desired::default(),
            NOW,
        )
        .unwrap();
    assert_eq!(reported(&operator), 0);
    assert_eq!(reported(&super::operator(&dir)), 0);
    let again = operator.obey(&order(delete("web_80/new"), "new", None), &desired(), NOW);
    assert_eq!(again.unwrap_err(), "No such server.");
}

#[test]
fn what_an_orchestrator_has_at_the_same_address_comes_before_the_operators() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = operator(&dir);
    let add = order(new("web_80/new"), "10.0.0.3:80", Some(OF));
    operator.obey(&add, &desired(), NOW).unwrap();
    let mut declared = desired();
    let service = declared.services.get_mut(&key(80)).unwrap();
    service.backends.push(backend("10.0.0.3:80", "c"));
    operator.place_servers(&mut declared);
    let backends = &declared.services[&key(80)].backends;
    assert_eq!(backends.len(), 3);
    assert_eq!(&*backends[2].task, "c");
}

#[test]
fn a_server_of_a_services_file_is_moved_with_what_was_said_of_it_and_back() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), in_a_file());
    let mut operator = operator(&dir);
    let at = |at| order(Act::Weight(5), at, Some(OF));
    operator.obey(&at("10.0.0.1:80"), &desired, NOW).unwrap();
    let mut step = |from: &str, to: &str| {
        let mut placed = desired.clone();
        operator.place_servers(&mut placed);
        let order = order(shift("web_80/a", to), from, Some(OF));
        operator.obey(&order, &placed, NOW).unwrap();
        (
            operator.report()[0].says.clone(),
            first(&operator, desired.clone()),
        )
    };
    let other = format!("10.0.0.2:80 - {NOTHING}");
    for (from, to, says) in [
        (
            "10.0.0.1:80",
            "10.0.0.8:80",
            "server web_80/a moved from 10.0.0.1:80, weight 5",
        ),
        (
            "10.0.0.8:80",
            "10.0.0.9:81",
            "server web_80/a moved from 10.0.0.1:80, weight 5",
        ),
    ] {
        let moved = format!("{to} a weight 5");
        assert_eq!(
            step(from, to),
            (says.to_owned(), vec![other.clone(), moved])
        );
    }
    let home = step("10.0.0.9:81", "10.0.0.1:80");
    let all = vec!["10.0.0.1:80 - weight 5".to_owned(), other];
    assert_eq!(home, ("weight 5".to_owned(), all));
}

#[test]
fn a_server_that_cannot_be_is_refused_with_the_reason_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = operator(&dir);
    for (act, at, of, expected) in [
        (
            new("web_80/new"),
            "10.0.0.1:80",
            OF,
            "10.0.0.1:80 is a server of this backend already, of test:a",
        ),
        (
            new("web_80/new"),
            "10.0.0.3:0",
            OF,
            "10.0.0.3:0 cannot be a server: it has port 0",
        ),
        (
            new("web_80/new"),
            "11.0.0.1:80",
            OF,
            "11.0.0.1:80 cannot be a server: it is the VIP itself",
        ),
        (
            new("web_80/new"),
            "[fd00::1]:80",
            OF,
            "shopcart.file:80/tcp has no IPv6 address",
        ),
        (
            new("web_80/new"),
            "10.0.0.3:80",
            "other:80/tcp",
            "other:80/tcp has no IPv4 address",
        ),
        (
            shift("web_80/a", "10.0.0.8:80"),
            "10.0.0.1:80",
            OF,
            "web_80/a is where test:a says that it is",
        ),
        (
            shift("web_80/a", "10.0.0.8:80"),
            "10.0.0.7:80",
            OF,
            "there is no backend 10.0.0.7:80",
        ),
        (delete("web_80/a"), "a", OF, "No such server."),
    ] {
        let refused = operator
            .obey(&order(act, at, Some(of)), &desired(), NOW)
            .unwrap_err();
        assert!(refused.starts_with(expected), "{expected}: {refused}");
    }
    let file = in_a_file();
    for (to, expected) in [
        (
            "10.0.0.2:80",
            "10.0.0.2:80 is a server of this backend already",
        ),
        ("[fd00::1]:80", "[fd00::1]:80 is not of the family"),
        (
            "0.0.0.0:80",
            "0.0.0.0:80 cannot be a server: its address is unspecified",
        ),
    ] {
        let shift = order(shift("web_80/a", to), "10.0.0.1:80", Some(OF));
        let refused = operator.obey(&shift, &file, NOW).unwrap_err();
        assert!(refused.starts_with(expected), "{expected}: {refused}");
    }
    assert!(!dir.path().join(FILE).exists());
    operator
        .obey(
            &order(new("web_80/new"), "10.0.0.3:80", Some(OF)),
            &desired(),
            NOW,
        )
        .unwrap();
    for (server, at, expected) in [
        (
            "web_80/new",
            "10.0.0.4:80",
            "Already exists a server with the same name in backend.",
        ),
        (
            "web_80/other",
            "10.0.0.3:80",
            "10.0.0.3:80 is the server web_80/new already",
        ),
    ] {
        let refused = operator.obey(&order(new(server), at, Some(OF)), &desired(), NOW);
        assert_eq!(refused.unwrap_err(), expected);
    }
}

#[test]
fn a_check_is_asked_at_the_operators_port_until_that_is_taken_back() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    let at = ("10.0.0.1:80", Some(OF));
    operator
        .obey(&order(Act::CheckPort(81), at.0, at.1), &desired, NOW)
        .unwrap();
    let mut operator = super::operator(&dir);
    assert_eq!(
        all(&operator, &desired),
        ["checked at port 81", NOTHING, NOTHING, NOTHING]
    );
    operator
        .obey(&order(Act::CheckPort(0), at.0, at.1), &desired, NOW)
        .unwrap();
    assert_eq!(all(&operator, &desired), [NOTHING; 4]);
    assert_eq!(operator.report(), []);
}
