//! What a services file says, right and wrong.

use super::*;

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

#[test]
fn text_that_cannot_be_trusted_is_an_error_with_its_place() {
    for (text, expected) in [
        (
            "services:\n  - name: /a\n    prot: 80\n",
            "s.yaml:3:5: unknown field `prot`, expected one of name,",
        ),
        ("services: [", "s.yaml:1:11: unclosed bracket '['"),
        ("services: 7", "s.yaml:1:11: "),
        ("foo: 1\n", "s.yaml:1:1: unknown field `foo`"),
        (
            "services: []\nservices: []\n",
            "s.yaml:2:1: duplicate mapping key: services",
        ),
        ("services:\n- name: /a\n  port: [1]\n", "s.yaml:3:9: "),
        (
            "services:\n- backends: [{address: '1.2.3.4:5', wait: 1}]\n",
            "s.yaml:2:37: unknown field `wait`",
        ),
        ("services:\n- backends: [[7]]\n", "s.yaml:2:14: "),
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
