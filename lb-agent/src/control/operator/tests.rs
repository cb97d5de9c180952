//! Whom a word is about, which of several holds, and what is left of it on disk.

use std::sync::Arc;

use super::*;
use crate::{admin::orders::Forced, vip::VipName};

mod own;

fn key(port: u16) -> ServiceKey {
    ServiceKey::tcp(&format!("11.0.0.1:{port}"))
}

fn backend(addr: &str, task: &str) -> CatalogBackend {
    CatalogBackend {
        task: task.into(),
        ..CatalogBackend::plain(addr)
    }
}

/// Two services with two backends each, of which one is shared.
fn desired() -> Desired {
    let service = |backends| Service {
        name: Some(VipName::mangle("/shop/cart", "file").unwrap()),
        properties: Arc::default(),
        backends,
    };
    let shared = || backend("10.0.0.1:80", "a");
    let services = [
        (
            key(80),
            service(vec![shared(), backend("10.0.0.2:80", "b")]),
        ),
        (
            key(81),
            service(vec![shared(), backend("10.0.0.2:81", "b")]),
        ),
    ];
    Desired {
        services: services.into(),
        ..Desired::default()
    }
}

const NOW: Timestamp = Timestamp(1_000_000);

fn operator(dir: &tempfile::TempDir) -> Operator {
    Operator::load(dir.path()).unwrap()
}

fn order(act: Act, backend: &str, service: Option<&str>) -> Order {
    Order {
        act,
        which: Which {
            backend: (!backend.is_empty()).then(|| backend.parse().unwrap()),
            service: service.map(str::to_owned),
        },
        deadline: None,
    }
}

/// What holds for every backend of both services.
fn all(operator: &Operator, desired: &Desired) -> Vec<String> {
    let of = |(key, service): (&ServiceKey, &Service)| {
        let said = service.backends.iter();
        let said = said.map(|one| operator.says(key, service, one).in_words());
        said.collect::<Vec<_>>()
    };
    desired.services.iter().flat_map(of).collect()
}

const NOTHING: &str = "as its orchestrator says";

#[test]
fn a_word_is_about_an_address_a_host_or_a_task_in_all_services_or_in_one() {
    for (backend, service, concerned) in [
        ("10.0.0.1:80", None, [true, false, true, false]),
        ("10.0.0.2", None, [false, true, false, true]),
        ("b", None, [false, true, false, true]),
        (
            "10.0.0.1:80",
            Some("shopcart.file:81"),
            [false, false, true, false],
        ),
        (
            "10.0.0.1:80",
            Some("11.0.0.1:80/tcp"),
            [true, false, false, false],
        ),
        (
            "10.0.0.1:80",
            Some("shopcart.file"),
            [true, false, true, false],
        ),
        (
            "b",
            Some("shopcart.file.l4lb.thisdcos.directory:80"),
            [false, true, false, false],
        ),
    ] {
        let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
        let mut operator = operator(&dir);
        let order = order(Act::Drain, backend, service);
        let lines = operator.obey(&order, &desired, NOW).unwrap();
        assert_eq!(lines.len(), concerned.iter().filter(|one| **one).count());
        let drains = all(&operator, &desired);
        let drains: Vec<_> = drains.iter().map(|said| said == "draining").collect();
        assert_eq!(drains, concerned, "{backend} {service:?}");
    }
}

#[test]
fn who_is_not_there_cannot_be_drained_and_nothing_is_written() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    for (backend, service) in [("10.0.0.9:80", None), ("10.0.0.1:80", Some("other"))] {
        let refused = operator.obey(&order(Act::Drain, backend, service), &desired, NOW);
        assert!(refused.unwrap_err().starts_with("there is no backend"));
    }
    assert!(!dir.path().join(FILE).exists());
}

#[test]
fn what_was_said_outlives_the_agent_and_ready_takes_it_back() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut first = operator(&dir);
    let deadline = Order {
        deadline: Some(60),
        ..order(Act::Maintenance, "10.0.0.1:80", None)
    };
    first.obey(&deadline, &desired, NOW).unwrap();
    first
        .obey(&order(Act::Weight(7), "10.0.0.1:80", None), &desired, NOW)
        .unwrap();
    let mut next = operator(&dir);
    let said = [
        "maintenance, weight 7",
        NOTHING,
        "maintenance, weight 7",
        NOTHING,
    ];
    assert_eq!(all(&next, &desired), said);
    assert_eq!(next.next_deadline(NOW), Some(Timestamp(1_060_000)));
    assert_eq!(next.next_deadline(Timestamp(1_060_000)), None);
    next.obey(&order(Act::Ready, "10.0.0.1:80", None), &desired, NOW)
        .unwrap();
    assert_eq!(all(&next, &desired), [NOTHING; 4]);
    assert!(operator(&dir).words.is_empty());
    fs::write(dir.path().join(FILE), "{").unwrap();
    let damaged = Operator::load(dir.path()).unwrap_err();
    assert!(
        damaged
            .to_string()
            .contains("operator.json is damaged; remove it")
    );
}

#[test]
fn ready_takes_back_narrower_words_and_says_what_still_holds() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    let mut obey = |act, backend: &str, service| {
        let order = order(act, backend, service);
        operator.obey(&order, &desired, NOW).unwrap()
    };
    obey(Act::Drain, "a", Some("11.0.0.1:80"));
    assert_eq!(
        obey(Act::Ready, "10.0.0.1:80", None),
        [
            "10.0.0.1:80 of shopcart.file:80/tcp: as its orchestrator says",
            "10.0.0.1:80 of shopcart.file:81/tcp: as its orchestrator says"
        ]
    );
    obey(Act::Drain, "10.0.0.1:80", None);
    assert_eq!(
        obey(Act::Ready, "10.0.0.1:80", Some("11.0.0.1:80")),
        ["10.0.0.1:80 of shopcart.file:80/tcp: draining"]
    );
}

#[test]
fn of_several_words_the_strongest_and_the_closest_hold() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    for (act, backend, service) in [
        (Act::Weight(5), "10.0.0.1:80", Some("11.0.0.1:80")),
        (Act::Weight(3), "10.0.0.1", None),
        (Act::Weight(4), "10.0.0.1:80", None),
        (Act::Maintenance, "10.0.0.1", None),
        (Act::Drain, "10.0.0.1:80", None),
    ] {
        operator
            .obey(&order(act, backend, service), &desired, NOW)
            .unwrap();
    }
    let said = all(&operator, &desired);
    assert_eq!(said[0], "maintenance, weight 5");
    assert_eq!(said[2], "maintenance, weight 4");
}

#[test]
fn the_node_is_whatever_is_on_it() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    operator
        .obey(&order(Act::Drain, "", None), &desired, NOW)
        .unwrap();
    assert_eq!(all(&operator, &desired), [NOTHING; 4]);
    operator.know_locals(["10.0.0.2".parse().unwrap()].into());
    assert_eq!(
        all(&operator, &desired),
        [NOTHING, "draining", NOTHING, "draining"]
    );
    operator
        .obey(&order(Act::Ready, "", None), &desired, NOW)
        .unwrap();
    assert_eq!(all(&operator, &desired), [NOTHING; 4]);
}

#[test]
fn a_word_about_nobody_is_forgotten_after_a_day() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    operator
        .obey(&order(Act::Drain, "b", None), &desired, NOW)
        .unwrap();
    let (nobody, day) = (Desired::default(), 86_400_000);
    let at = |ms| Timestamp(NOW.0 + ms);
    operator.turn_over(&nobody, at(0)).unwrap();
    operator.turn_over(&nobody, at(day - 1)).unwrap();
    assert_eq!(operator.report()[0].unused_since, Some(NOW));
    // Who comes back is still meant.
    operator.turn_over(&desired, at(day)).unwrap();
    assert_eq!(operator.report()[0].unused_since, None);
    operator.turn_over(&nobody, at(2 * day)).unwrap();
    operator.turn_over(&nobody, at(3 * day)).unwrap();
    assert_eq!(operator.report(), []);
    assert!(Operator::load(dir.path()).unwrap().words.is_empty());
}

#[test]
fn haproxys_ready_leaves_weight_limit_and_checks_alone() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    let (at, of) = ("10.0.0.1:80", Some("11.0.0.1:80"));
    for act in [
        Act::Maintenance,
        Act::Health(Forced::Down),
        Act::Weight(5),
        Act::Limit(9),
        Act::Checks(false),
    ] {
        operator.obey(&order(act, at, of), &desired, NOW).unwrap();
    }
    let all_of_it = "maintenance, health down, weight 5, checks stopped, at most 9 flows";
    assert_eq!(
        all(&operator, &desired),
        [all_of_it, NOTHING, NOTHING, NOTHING]
    );
    let mut operator = Operator::load(dir.path()).unwrap();
    let enable = order(Act::Enable, at, of);
    let told = operator.obey(&enable, &desired, NOW).unwrap();
    let left = "10.0.0.1:80 of shopcart.file:80/tcp: weight 5, checks stopped, at most 9 flows";
    assert_eq!(told, [left]);
    for act in [Act::Checks(true), Act::Limit(0)] {
        operator.obey(&order(act, at, of), &desired, NOW).unwrap();
    }
    assert_eq!(all(&operator, &desired)[0], "weight 5");
    operator
        .obey(&order(Act::Drain, "10.0.0.2:80", None), &desired, NOW)
        .unwrap();
    let enable = order(Act::Enable, "10.0.0.2:80", None);
    operator.obey(&enable, &desired, NOW).unwrap();
    // A word that says nothing any more is none.
    assert_eq!(operator.report().len(), 1);
}

#[test]
fn a_service_is_stopped_and_limited_as_a_whole() {
    let (dir, desired) = (tempfile::tempdir().unwrap(), desired());
    let mut operator = operator(&dir);
    let front = |operator: &Operator, port| {
        let service = &desired.services[&key(port)];
        operator.says_of_service(&key(port), service)
    };
    let of = Some("shopcart.file:80/tcp");
    for (act, told) in [
        (Act::Open(false), "no new flows"),
        (Act::Limit(7), "no new flows, at most 7 flows"),
    ] {
        let lines = operator.obey(&order(act, "", of), &desired, NOW).unwrap();
        assert_eq!(lines, [format!("shopcart.file:80/tcp: {told}")]);
    }
    let mut operator = Operator::load(dir.path()).unwrap();
    let (stopped, limit) = (true, Some(7));
    assert_eq!(front(&operator, 80), Front { stopped, limit });
    assert_eq!(front(&operator, 81), Front::default());
    // Its backends are not meant, and what is said of them does not touch it.
    assert_eq!(all(&operator, &desired), [NOTHING; 4]);
    operator
        .obey(&order(Act::Ready, "10.0.0.1", None), &desired, NOW)
        .unwrap();
    assert_eq!(operator.report()[0].says, "no new flows, at most 7 flows");
    let day = Timestamp(NOW.0 + 86_400_000);
    operator.turn_over(&desired, NOW).unwrap();
    operator.turn_over(&desired, day).unwrap();
    for act in [Act::Open(true), Act::Limit(0)] {
        operator.obey(&order(act, "", of), &desired, NOW).unwrap();
    }
    assert_eq!(operator.report(), []);
    for (act, of, expected) in [
        (Act::Open(false), "other", "there is no service other"),
        (Act::Drain, "shopcart.file", "drain has no meaning for"),
    ] {
        let refused = operator.obey(&order(act, "", Some(of)), &desired, NOW);
        assert!(refused.unwrap_err().starts_with(expected));
    }
    let refused = operator.obey(&order(Act::Open(false), "b", None), &desired, NOW);
    assert!(
        refused
            .unwrap_err()
            .starts_with("stop has no meaning for b")
    );
    assert_eq!(operator.report(), []);
}

#[test]
fn a_file_of_an_agent_before_this_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let old = r#"[{"which":{"backend":"10.0.0.1:80","service":null},
                   "out":{"maintenance":true,"deadline":null},"weight":null,"since":5}]"#;
    fs::write(dir.path().join(FILE), old).unwrap();
    let said = all(&operator(&dir), &desired());
    assert_eq!(said, ["maintenance", NOTHING, "maintenance", NOTHING]);
}
