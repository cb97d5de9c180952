//! Known traffic, and what every surface says of it.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::io::{Read as _, Write as _};

use lb_tests::{
    admin::{self, PROXY, VIP, ask, json, page, rows, services},
    lab::wait_until,
    stage::{PATIENCE, Stage, connect, connect_from},
};
use socket2::SockRef;

/// Connections that end well, each with so many bytes there and back.
const CONNECTIONS: u64 = 10;
const BYTES: usize = 1_000;
/// Connections that clients reset.
const RESETS: u64 = 4;
/// Connections that nobody takes.
const REFUSED: u64 = 3;

#[test]
fn known_traffic_is_counted_alike_everywhere() {
    let mut stage = Stage::up(&services(""), &[]);
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = connect(&stage.clients[0], VIP).expect("a connection");
        stream.write_all(&[7; BYTES]).expect("sent");
        stream.read_exact(&mut [0; BYTES]).expect("echoed");
    }
    for _ in 0..RESETS {
        let (stream, _) = connect(&stage.clients[0], VIP).expect("a connection");
        SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("set");
    }
    // One that stays.
    let (_open, _) = connect(&stage.clients[0], VIP).expect("a connection");
    // Nobody listens any more: each try is refused by a backend.
    stage.echoes.clear();
    for _ in 0..REFUSED {
        connect_from(&stage.clients[1], 0, VIP).expect_err("nobody listens");
    }
    let total = |field: &str| {
        let rows = rows(&page(&stage, "/;csv"));
        rows["BACKEND"][field].parse::<u64>().unwrap_or(u64::MAX)
    };
    let opened = CONNECTIONS + RESETS + 1;
    let settled = wait_until("all is counted", PATIENCE, || {
        total("scur") == 1 && total("cli_abrt") == RESETS && total("econ") >= REFUSED
    });
    let csv = page(&stage, "/;csv");
    settled.unwrap_or_else(|why| panic!("{why}: {csv}"));
    let table = rows(&csv);
    let number = |server: &str, field: &str| table[server][field].parse::<u64>().expect(field);
    let servers: Vec<_> = table
        .keys()
        .filter(|name| name.starts_with("10_"))
        .cloned()
        .collect();
    let sum = |field: &str| {
        servers
            .iter()
            .map(|server| number(server, field))
            .sum::<u64>()
    };
    assert_eq!(sum("connect"), opened, "{csv}");
    assert_eq!(number("BACKEND", "connect"), opened);
    assert_eq!(sum("cli_abrt"), RESETS);
    assert_eq!(number("BACKEND", "srv_abrt"), 0);
    assert_eq!(number("FRONTEND", "stot"), number("BACKEND", "stot"));
    assert_eq!(sum("lbtot"), number("FRONTEND", "stot"));
    // Payload and headers: 20 bytes of IP, 20 and more of TCP for each packet, few of them for each connection.
    let payload = CONNECTIONS * BYTES as u64;
    for field in ["bin", "bout"] {
        let bytes = number("FRONTEND", field);
        assert!(
            (payload..payload + 1_000 * (opened + 4 * REFUSED)).contains(&bytes),
            "{field}: {csv}"
        );
        assert_eq!(sum(field), bytes, "{field}");
    }
    let stats = json(&stage, "/v1/stats");
    let status = stage.status();
    let metrics = page(&stage, "/metrics");
    let socket = rows(&ask(&stage, "show stat"));
    let haproxy = json(&stage, "/haproxy?stats;json");
    let service = &stats["services"][0];
    assert_eq!(service["pxname"], PROXY);
    let metric = |name: &str| {
        let start = format!("{name}{{proxy=\"{PROXY}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start}: {metrics}"))
            .parse::<u64>()
            .expect("a number")
    };
    for (field, own, metric_name) in [
        ("stot", "flows_new", "haproxy_frontend_sessions_total"),
        ("scur", "flows_active", "haproxy_frontend_current_sessions"),
        ("bin", "bytes_in", "haproxy_frontend_bytes_in_total"),
        ("bout", "bytes_out", "haproxy_frontend_bytes_out_total"),
    ] {
        let expected = number("FRONTEND", field);
        assert_eq!(service["traffic"][own], expected, "{own} of /v1/stats");
        assert_eq!(
            status["services"][0]["traffic"][own], expected,
            "{own} of /v1/status"
        );
        assert_eq!(metric(metric_name), expected, "{metric_name}");
        assert_eq!(
            socket["FRONTEND"][field],
            expected.to_string(),
            "{field} of the socket"
        );
        let cells = haproxy[0].as_array().expect("a list");
        let cell = cells
            .iter()
            .find(|cell| cell["field"]["name"] == field)
            .expect(field);
        assert_eq!(cell["value"]["value"], expected, "{field} of ;json");
    }
    for (field, own, metric_name) in [
        ("econ", "failed", "haproxy_backend_connection_errors_total"),
        (
            "cli_abrt",
            "client_resets",
            "haproxy_backend_client_aborts_total",
        ),
        (
            "srv_abrt",
            "backend_resets",
            "haproxy_backend_server_aborts_total",
        ),
    ] {
        let expected = number("BACKEND", field);
        assert_eq!(service[own], expected, "{own} of /v1/stats");
        assert_eq!(metric(metric_name), expected, "{metric_name}");
        assert_eq!(
            socket["BACKEND"][field],
            expected.to_string(),
            "{field} of the socket"
        );
    }
}

#[test]
fn who_may_not_use_a_service_and_who_is_too_many_is_counted_apart() {
    let stage = Stage::up(&services("deny: [10.77.0.101/32], max-flows: 1,"), &[]);
    let (_one, _) = connect(&stage.clients[0], VIP).expect("a connection");
    connect(&stage.clients[0], VIP).expect_err("one too many");
    connect(&stage.clients[1], VIP).expect_err("not allowed");
    let mut csv = String::new();
    let counted = wait_until("both are counted", PATIENCE, || {
        csv = page(&stage, "/;csv");
        let rows = rows(&csv);
        let count = |field: &str| rows["FRONTEND"][field].parse::<u64>().unwrap_or(0);
        count("dreq") >= 1 && count("dcon") >= 1 && rows["BACKEND"]["econ"] == "0"
    });
    counted.unwrap_or_else(|why| panic!("{why}: {csv}"));
}

#[test]
fn a_service_that_loses_its_last_backend_is_down_on_every_surface() {
    let stage = admin::stage("");
    let iid = rows(&page(&stage, "/;csv"))["BACKEND"]["iid"].clone();
    let none = "services:\n- {address: 10.99.0.1, port: 80, backends: []}\n";
    stage.write(none, |status| {
        status["services"][0]["backends"] == serde_json::json!([])
    });
    let shown = |expected: &str| {
        let mut csv = String::new();
        let seen = wait_until("it is shown", PATIENCE, || {
            csv = page(&stage, "/;csv");
            let rows = rows(&csv);
            rows.get("BACKEND")
                .is_some_and(|row| row["status"] == expected)
        });
        seen.unwrap_or_else(|why| panic!("{why}: not {expected}: {csv}"));
        rows(&csv)
    };
    let empty = shown("DOWN");
    let names: Vec<_> = empty.keys().map(String::as_str).collect();
    assert_eq!(names, ["BACKEND", "FRONTEND"]);
    assert_eq!(
        (&empty["BACKEND"]["iid"], &*empty["BACKEND"]["act"]),
        (&iid, "0")
    );
    assert_eq!(rows(&ask(&stage, "show stat"))["BACKEND"]["status"], "DOWN");
    assert_eq!(json(&stage, "/v1/stats")["services"][0]["status"], "DOWN");
    let metrics = page(&stage, "/metrics");
    for (state, value) in [("DOWN", 1), ("UP", 0)] {
        let line =
            format!("haproxy_backend_status{{proxy=\"{PROXY}\",state=\"{state}\"}} {value}\n");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let vips = json(&stage, "/v1/vips");
    let vip = serde_json::json!([{"vip": VIP, "protocol": "tcp", "backend": []}]);
    assert_eq!(vips, vip);
    assert!(page(&stage, "/").contains(PROXY));
    connect(&stage.clients[0], VIP).expect_err("nobody is there");
    // It can be stopped, and stays so when a backend comes.
    assert_eq!(ask(&stage, &format!("disable frontend {PROXY}")), "\n");
    stage.write(&services(""), |status| {
        status["services"][0]["backends"][1].is_object()
    });
    let back = shown("UP");
    assert_eq!(
        (&back["BACKEND"]["iid"], &*back["FRONTEND"]["status"]),
        (&iid, "STOP")
    );
}
