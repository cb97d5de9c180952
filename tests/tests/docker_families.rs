//! A real Docker Engine whose containers have IPv6 addresses besides those of IPv4.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{collections::BTreeSet, net::SocketAddr};

use lb_tests::yard::{LABEL, Yard};

#[test]
fn containers_are_behind_the_vip_of_each_family_that_they_have_an_address_of() {
    let yard = Yard::dual("dual", &["--dns-listen", "127.0.0.1:53"]);
    let names = ["web-1", "web-2"];
    for name in names {
        yard.run(name, &LABEL);
    }
    // Each is there twice.
    yard.expect("web", 2 * names.len());
    let service = yard.service("web");
    let addr = |value: &serde_json::Value| value.as_str().expect("an address").to_owned();
    let addrs = service["addrs"].as_array().expect("addresses");
    let addrs: Vec<String> = addrs.iter().map(addr).collect();
    let [v4, v6] = &addrs[..] else {
        panic!("not one of each family: {addrs:?}");
    };
    assert!(!v4.contains(':') && v6.contains(':'), "{addrs:?}");

    let backends = service["backends"].as_array().expect("backends");
    let backends: BTreeSet<String> = backends
        .iter()
        .map(|backend| addr(&backend["addr"]))
        .map(|at| at.parse::<SocketAddr>().expect("with a port"))
        .map(|at| at.ip().to_string())
        .collect();
    let dig = |kind: &str, name: &str| {
        let name = format!("{name}.docker.l4lb.thisdcos.directory");
        let argv = ["dig", "+short", "@127.0.0.1", kind, &name];
        let answer = yard.stage.node.run(&argv).expect("it runs").stdout;
        answer.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(dig("A", "web"), [v4.clone()].into());
    assert_eq!(dig("AAAA", "web"), [v6.clone()].into());
    let (tasks4, tasks6) = (dig("A", "tasks.web"), dig("AAAA", "tasks.web"));
    assert_eq!((tasks4.len(), tasks6.len()), (2, 2));
    assert_eq!(&tasks4 | &tasks6, backends);

    for host in [v4.clone(), format!("[{v6}]")] {
        let script = format!(
            "for i in $(busybox seq 40); do busybox wget -q -O - http://{host}/index.html || exit 1; done"
        );
        let said = yard.stage.node.run(&["busybox", "sh", "-c", &script]);
        let on_the_node = said.and_then(|done| done.ok()).expect("on the node");
        let inside = ["exec", "web-1", "sh", "-c", &script];
        let inside = yard.docker.docker(&inside).expect("in a container");
        for said in [on_the_node, inside] {
            let answered: BTreeSet<&str> = said.lines().collect();
            assert_eq!(answered, names.into(), "at {host}");
        }
    }
}
