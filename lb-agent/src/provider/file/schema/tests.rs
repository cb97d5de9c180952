//! What a services file says, right and wrong.

use super::*;
use crate::catalog::{Balance, Idle, Mode, Port, Source};

fn read(text: &str) -> Result<(Vec<String>, Vec<String>), String> {
    let snapshot = parse(text, Path::new("s.yaml"))?;
    let pools = snapshot.pools.iter().map(|pool| {
        let host = match &pool.host {
            VipHost::Named { name, framework } => format!("{name}.{framework}"),
            VipHost::Addr(addr) => format!("[{addr}]"),
        };
        let backends = pool.backends.iter();
        let backends = backends.map(|b| format!(" {} w{} {}", b.addr, b.weight, b.task));
        format!(
            "{host}:{}/{}{}",
            pool.port,
            pool.protocol,
            backends.collect::<String>()
        )
    });
    let problems = snapshot.problems.iter();
    let problems = problems
        .map(|p| format!("{} | {}", p.subject, p.reason))
        .collect();
    Ok((pools.collect(), problems))
}

#[test]
fn names_addresses_protocols_and_both_forms_of_backends() {
    let (pools, problems) = read(
        r#"
services:
  - name: /dcos-101/app2
    framework: marathon
    port: 10000
    backends:
      - 10.0.1.5:28543
      - { address: "[fd01:b::2]:8080", weight: 0, name: task-1 }
  - name: dns
    port: 53
    protocol: [udp, tcp]
    backends: ["[fd01:b::2]:53"]
  - address: 10.1.2.3
    port: 5000
    protocol: udp
  - address: fd01:c::1
    port: 0080
"#,
    )
    .unwrap();
    assert_eq!(problems, [""; 0]);
    assert_eq!(
        pools,
        [
            "/dcos-101/app2.marathon:10000/tcp 10.0.1.5:28543 w1 10.0.1.5:28543 [fd01:b::2]:8080 w0 task-1",
            "[10.1.2.3]:5000/udp",
            "dns.file:53/tcp [fd01:b::2]:53 w1 [fd01:b::2]:53",
            "dns.file:53/udp [fd01:b::2]:53 w1 [fd01:b::2]:53",
            "[fd01:c::1]:80/tcp",
        ]
    );
}

#[test]
fn a_wrong_value_costs_its_service_alone() {
    for (service, expected) in [
        (
            "{name: /a, port: 0}",
            "s.yaml:2:20: key port: \"0\" is not a port (1-65535)",
        ),
        ("{name: /a, port: 65536}", "2:20: key port"),
        ("{name: /a, port: -1}", "2:20: key port"),
        ("{name: /a, port: http}", "2:20: key port"),
        ("{name: /a}", "2:3: key port is missing"),
        ("{name: '', port: 1}", "2:10: key name is empty"),
        ("{port: 1}", "2:3: key name (or address) is missing"),
        (
            "{name: /a, address: 10.0.0.1, port: 1}",
            "2:23: keys name and address exclude",
        ),
        (
            "{address: 10.0.0.256, port: 1}",
            "2:13: key address: \"10.0.0.256\" is not",
        ),
        (
            "{address: 10.0.0.1, framework: x, port: 1}",
            "2:3: key framework has no meaning",
        ),
        (
            "{name: /a, port: 1, protocol: sctp}",
            "2:33: key protocol: \"sctp\" is neither",
        ),
        (
            "{name: /a, port: 1, protocol: []}",
            "2:33: key protocol: the list is empty",
        ),
    ] {
        let text = format!("services:\n- {service}\n- {{name: /b, port: 2}}\n");
        let (pools, problems) = read(&text).unwrap();
        assert_eq!(pools, ["/b.file:2/tcp"], "{service}");
        assert_eq!(problems.len(), 1, "{service}");
        assert!(problems[0].contains(expected), "{service}: {problems:?}");
    }
}

#[test]
fn a_wrong_backend_costs_itself_alone() {
    for (backend, expected) in [
        ("10.0.0.1", "is not IPV4:PORT"),
        ("host:80", "is not IPV4:PORT"),
        ("10.0.0.1:0", "has port 0"),
        ("0.0.0.0:80", "is not the address of one host"),
        ("'[ff02::1]:80'", "is not the address of one host"),
        ("255.255.255.255:80", "is not the address of one host"),
        (
            "{address: '10.0.0.1:80', weight: 300}",
            "2:67: key weight: \"300\" is not a weight",
        ),
        ("{address: '10.0.0.1:80', weight: x}", "key weight"),
        (
            "{address: '10.0.0.1:80', max-flows: 0}",
            "key max-flows: \"0\" is not a number from 1",
        ),
        (
            "{address: '10.0.0.1:80', backup: perhaps}",
            "2:67: key backup: \"perhaps\" is neither true nor false",
        ),
        (
            "{address: '10.0.0.1:80', zone: 'a b'}",
            "key zone: \"a b\" is not a word",
        ),
    ] {
        let text =
            format!("services:\n- {{name: /a, port: 1, backends: [{backend}, 10.0.0.2:80]}}\n");
        let (pools, problems) = read(&text).unwrap();
        assert_eq!(
            pools,
            ["/a.file:1/tcp 10.0.0.2:80 w1 10.0.0.2:80"],
            "{backend}"
        );
        assert!(problems[0].starts_with("/a | s.yaml:2:"), "{problems:?}");
        assert!(problems[0].contains(expected), "{backend}: {problems:?}");
    }
    let (pools, problems) =
        read("services: [{address: 10.1.1.1, port: 1, backends: ['[fd01::1]:1']}]").unwrap();
    assert_eq!(pools, ["[10.1.1.1]:1/tcp"]);
    assert!(problems[0].contains("not of the VIP's address family"));
}

/// Most flows, whether it is a backup, and its zone.
type More = (u32, bool, Option<String>);

/// The properties of the first pool, and what its backends have beyond addresses.
fn shape(text: &str) -> (Option<Properties>, Vec<More>) {
    let snapshot = parse(text, Path::new("s.yaml")).unwrap();
    assert_eq!(snapshot.problems, []);
    let pool = &snapshot.pools[0];
    let backends = pool.backends.iter();
    let more = backends.map(|b| (b.max_flows, b.backup, b.zone.as_deref().map(str::to_owned)));
    (pool.properties.as_deref().cloned(), more.collect())
}

#[test]
fn every_property_of_a_service_can_be_written() {
    let (properties, backends) = shape(
        r#"
services:
  - name: /a
    port: 80
    mode: dsr-l2
    balance: least-conn
    affinity: 10m
    max-flows: 1000
    rate: 50
    source-rate: 5
    idle: {tcp: 5m, udp: 10s, udp-two-way: 1h30m}
    allow: [10.0.0.0/8, "fd00::/8"]
    deny:
      - 10.9.0.7
    denied: refuse
    external: [10001, 10000]
    group: [inner, edge]
    backends:
      - {address: "10.0.0.1:80", max-flows: 20, zone: a}
      - {address: "10.0.0.2:80", backup: true}
      - {address: "10.0.0.3:80", backup: false}
"#,
    );
    let net = |text: &str| text.parse().unwrap();
    let expected = Properties {
        called: None,
        check: None,
        fail_closed: false,
        refuses: true,
        slow_start: 0,
        drain: None,
        groups: ["edge", "inner"].map(Into::into).into(),
        mode: Mode::DsrL2,
        balance: Balance::LeastConn,
        affinity: 600,
        max_flows: 1_000,
        rate: 50,
        source_rate: 5,
        idle: Idle {
            tcp: 300,
            udp: 10,
            udp_two_way: 5_400,
        },
        sources: [
            (net("10.0.0.0/8"), Source::Allow),
            (net("fd00::/8"), Source::Allow),
            (net("10.9.0.7/32"), Source::Deny),
        ]
        .into(),
        external: [10_000, 10_001].map(|port| Port::new(port).unwrap()).into(),
    };
    assert_eq!(properties, Some(expected));
    let zone = Some("a".to_owned());
    assert_eq!(
        backends,
        [(20, false, zone), (0, true, None), (0, false, None)]
    );
}

#[test]
fn a_service_that_says_nothing_of_itself_has_no_properties() {
    let (properties, backends) = shape("services: [{name: /a, port: 1, backends: ['10.0.0.1:1']}]");
    assert_eq!((properties, backends), (None, vec![(0, false, None)]));
    let (properties, _) = shape("services: [{name: /a, port: 1, deny: []}]");
    assert_eq!(properties, Some(Properties::default()));
}

#[test]
fn one_port_of_the_node_needs_no_list() {
    for text in ["10000", "'10000'", "[10000]"] {
        let (properties, _) = shape(&format!(
            "services: [{{name: /a, port: 1, external: {text}}}]"
        ));
        let ports = properties.unwrap().external;
        assert_eq!(ports, [Port::new(10_000).unwrap()].into(), "{text}");
    }
}

#[test]
fn a_wrong_property_costs_its_service_alone_and_is_named_with_its_place() {
    for (keys, expected) in [
        (
            "mode: dsr",
            "2:29: key mode: \"dsr\" is not one of auto, nat, dsr-geneve, dsr-ipip, dsr-l2; service",
        ),
        (
            "balance: random",
            "2:32: key balance: \"random\" is not one of maglev, least-conn,",
        ),
        (
            "external: 0",
            "2:33: key external: \"0\" is not a port (1-65535)",
        ),
        ("external: -1", "key external: \"-1\" is not a port"),
        ("external: 1.5", "key external: "),
        (
            "external: [10000, http]",
            "key external: \"http\" is not a port",
        ),
        ("external: []", "key external: the list is empty"),
        (
            "affinity: 60",
            "2:33: key affinity: \"60\" is not a duration such as",
        ),
        (
            "affinity: 0s",
            "key affinity: \"0s\" is not between 1s and 30d",
        ),
        (
            "affinity: 31d",
            "key affinity: \"31d\" is not between 1s and 30d",
        ),
        (
            "max-flows: 0",
            "2:34: key max-flows: \"0\" is not a number from 1 to 4294967295",
        ),
        ("rate: -1", "2:29: key rate: \"-1\" is not a number"),
        (
            "source-rate: lots",
            "2:36: key source-rate: \"lots\" is not a number",
        ),
        (
            "idle: {tcp: 9s}",
            "2:35: key idle.tcp: \"9s\" is not between 10s and 30d",
        ),
        (
            "idle: {udp: 1s}",
            "key idle.udp: \"1s\" is not between 2s and 30d",
        ),
        (
            "idle: {udp-two-way: never}",
            "2:43: key idle.udp-two-way: \"never\" is not a duration",
        ),
        ("allow: []", "2:30: key allow: the list is empty"),
        (
            "allow: [10.0.0.1/8]",
            "2:31: key allow: \"10.0.0.1/8\" has bits set after its prefix",
        ),
        (
            "deny: [10.0.0.0/33]",
            "2:30: key deny: \"10.0.0.0/33\" is not a prefix",
        ),
        (
            "group: []",
            "2:30: key group: the list is empty; leave the key",
        ),
        (
            "group: [edge, 'in ner']",
            "2:30: key group: \"in ner\" is not a word of 1 to 64 bytes",
        ),
        (
            "allow: [10.0.0.0/8], deny: [10.0.0.0/8]",
            "2:51: key deny: 10.0.0.0/8 is in allow, too",
        ),
    ] {
        let text = format!("services:\n- {{name: /a, port: 1, {keys}}}\n- {{name: /b, port: 2}}\n");
        let (pools, problems) = read(&text).unwrap();
        assert_eq!(pools, ["/b.file:2/tcp"], "{keys}");
        assert_eq!(problems.len(), 1, "{keys}");
        assert!(problems[0].contains(expected), "{keys}: {problems:?}");
    }
}

#[test]
fn of_two_entries_for_one_vip_the_first_one_shapes_it() {
    let entry = |keys: &str, backend: &str| {
        format!("- {{name: /a, port: 1, {keys} backends: ['{backend}']}}\n")
    };
    let both = |one: &str, other: &str| {
        let entries = entry(one, "10.0.0.1:1") + &entry(other, "10.0.0.2:1");
        read(&format!("services:\n{entries}")).unwrap()
    };
    for (one, other) in [("rate: 5,", ""), ("", "rate: 5,"), ("rate: 5,", "rate: 5,")] {
        let (pools, problems) = both(one, other);
        assert_eq!(problems, [""; 0]);
        assert!(pools[0].ends_with("10.0.0.2:1 w1 10.0.0.2:1"), "{pools:?}");
    }
    let (pools, problems) = both("rate: 5,", "rate: 6, mode: nat,");
    assert_eq!(pools, ["/a.file:1/tcp 10.0.0.1:1 w1 10.0.0.1:1"]);
    let told = "/a | s.yaml:3:3: an entry before has another mode, rate for the same VIP; service left out";
    assert_eq!(problems, [told]);
}

#[test]
fn entries_for_other_groups_of_agents_are_services_of_their_own() {
    let text = "services:\n- {name: /a, port: 1, backends: ['10.0.0.1:1']}\n\
                - {name: /a, port: 1, group: east, rate: 5, backends: ['10.0.0.2:1']}\n\
                - {name: /a, port: 1, group: [west], rate: 6, backends: ['10.0.0.3:1']}\n\
                - {name: /a, port: 1, group: east, rate: 7, backends: ['10.0.0.4:1']}\n";
    let (pools, problems) = read(text).unwrap();
    let expected = [1, 2, 3].map(|n| format!("/a.file:1/tcp 10.0.0.{n}:1 w1 10.0.0.{n}:1"));
    assert_eq!(pools, expected);
    let told =
        "/a | s.yaml:5:3: an entry before has another rate for the same VIP; service left out";
    assert_eq!(problems, [told]);
}

#[test]
fn text_that_cannot_be_trusted_is_an_error_with_its_place() {
    for (text, expected) in [
        (
            "services:\n  - name: /a\n    prot: 80\n",
            "s.yaml:3:5: unknown key prot; did you mean port?",
        ),
        ("services: [", "s.yaml:1:11: unclosed bracket '['"),
        (
            "services: 7",
            "s.yaml:1:11: key services: a list belongs here",
        ),
        (
            "foo: 1\n",
            "s.yaml:1:1: unknown key foo; there are services",
        ),
        (
            "services: []\nservices: []\n",
            "s.yaml:2:1: duplicate mapping key: services",
        ),
        (
            "services:\n- name: /a\n  port: [1]\n",
            "s.yaml:3:9: key port: one value belongs here, not a list",
        ),
        (
            "services:\n- backends: [{address: '1.2.3.4:5', wait: 1}]\n",
            "s.yaml:2:37: unknown key wait; did you mean weight?",
        ),
        (
            "services:\n- backends: [[7]]\n",
            "s.yaml:2:14: key backends: a backend is ADDRESS:PORT, or a map",
        ),
        (
            "services:\n- max_flows: 1\n",
            "s.yaml:2:3: unknown key max_flows; did you mean max-flows?",
        ),
        (
            "services: [{prot: 1, nmae: 2, wieght: 3}]",
            "s.yaml:1:13: unknown key prot; did you mean port? (and 2 more; `lb-agent check` tells all)",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(expected), "{text:?}: {error}");
        assert!(
            !error.contains('\n') && !error.contains("at line"),
            "{error}"
        );
    }
}

#[test]
fn words_stay_as_they_are_written() {
    let text = "services:\n- name: 0x10\n  framework: 1.10\n  port: 0080\n  backends:\n  \
                - {address: '10.0.0.1:80', name: yes}\n  - &a {address: '10.0.0.2:80', name: 1e3}\n";
    let (pools, problems) = read(text).unwrap();
    assert_eq!(problems, [""; 0]);
    assert_eq!(
        pools,
        ["0x10.1.10:80/tcp 10.0.0.1:80 w1 yes 10.0.0.2:80 w1 1e3"]
    );
}

#[test]
fn anchors_and_merges_are_resolved() {
    let text = "services:\n- &base\n  name: /a\n  port: 1\n  rate: 5\n- <<: *base\n  port: 2\n  rate: x\n\
                - {name: /c, port: &p 0123, external: [*p]}\n";
    let (pools, problems) = read(text).unwrap();
    assert_eq!(pools, ["/a.file:1/tcp", "/c.file:123/tcp"]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("s.yaml:8:9: key rate"), "{problems:?}");
}

#[test]
fn no_services_are_no_error() {
    for text in ["", "# nothing\n", "services:\n", "services: []\n", "---\n"] {
        assert_eq!(read(text), Ok((vec![], vec![])), "{text:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("services: {}", "[".repeat(100_000));
    assert!(read(&deep).is_err());
}

#[test]
fn values_of_any_length_cost_their_service_alone_and_are_said_in_short() {
    let long = "x".repeat(2 << 20);
    let wrong = [
        (
            format!("name: {long}, port: 1"),
            "key name: it has more than 4096 bytes; service left out",
        ),
        (
            format!("name: /a, framework: {long}, port: 1"),
            "key framework: it has more than 4096 bytes",
        ),
        (
            format!("name: /a, port: {long}"),
            "\" is not a port (1-65535); service left out",
        ),
        (
            format!("name: /a, port: 1, balance: {long}"),
            "\" is not one of maglev, least-conn",
        ),
        (
            format!("address: {long}, port: 1"),
            "\" is not an IP address; service left out",
        ),
    ];
    let mut text = "services:\n- {name: /b, port: 2}\n".to_owned();
    for (keys, _) in &wrong {
        text.push_str(&format!("- {{{keys}}}\n"));
    }
    let (pools, problems) = read(&text).unwrap();
    assert_eq!(pools, ["/b.file:2/tcp"]);
    assert_eq!(problems.len(), wrong.len());
    for (_, expected) in &wrong {
        assert!(
            problems.iter().any(|one| one.contains(expected)),
            "{expected}"
        );
    }
    assert!(problems.iter().all(|one| one.len() < 1_000));
    let error = read(&format!("services: [{{? {long} : 1}}]")).unwrap_err();
    assert!(error.len() < 1_000, "{}", error.len());
}
