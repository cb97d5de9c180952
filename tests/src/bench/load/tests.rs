//! The generator against its server, on loopback.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    time::Duration,
};

use super::{
    client::{Kind, Load},
    server,
};

fn load(kind: Kind) -> Load {
    // A port that is free now; nobody else takes ephemeral ports by number.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = port.local_addr().unwrap();
    drop(port);
    server::start(&[at], 1).unwrap();
    Load {
        to: vec![at],
        kind,
        threads: 2,
        places: 3,
        warm_up: Duration::from_millis(20),
        measure: Duration::from_millis(100),
    }
}

#[test]
fn short_connections_are_all_answered_and_know_who_they_are() {
    let outcome = load(Kind::Short).carry_out().unwrap();
    assert!(outcome.connections > 10, "{outcome:?}");
    assert_eq!(outcome.failures, 0, "{outcome:?}");
    let seen: Vec<_> = outcome.seen_as.keys().copied().collect();
    assert_eq!(seen, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    assert!(outcome.connect_us[0] > 0.0 && outcome.request_us[1] >= outcome.request_us[0]);
}

#[test]
fn a_bulk_load_goes_on_until_its_time_is_up() {
    let outcome = load(Kind::Bulk).carry_out().unwrap();
    assert!(outcome.bytes > 1 << 20, "{outcome:?}");
    assert_eq!(outcome.failures, 0, "{outcome:?}");
    assert!(outcome.busy > 0.0 && outcome.seconds >= 0.1, "{outcome:?}");
}

#[test]
fn a_load_that_nobody_answers_is_an_error_and_no_figure() {
    let mut load = load(Kind::Short);
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    load.to = vec![closed.local_addr().unwrap()];
    drop(closed);
    let error = load.carry_out().unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}
