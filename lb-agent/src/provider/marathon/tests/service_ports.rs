//! Labels of Marathon-LB: service ports, groups, and what has no effect.

mod kept;
mod long;
mod own;

use super::*;
use crate::catalog::{Balance, Properties, Source};

/// An agent of the group `external`.
fn external() -> Edge {
    Edge {
        groups: ["external".to_owned()].into(),
        ..Edge::default()
    }
}

/// `/web` in the group `external`: two service ports, one task.
fn web(labels: Value) -> Value {
    let mut app = json!({
        "id": "/web", "instances": 1, "labels": {"HAPROXY_GROUP": "external"},
        "portDefinitions": [
            {"port": 10000, "protocol": "tcp"}, {"port": 10001, "protocol": "udp"}
        ],
        "tasks": [task("t1", &[31000, 31001])]
    });
    for (name, value) in labels.as_object().unwrap() {
        app["labels"][name] = value.clone();
    }
    app
}

fn served_by(edge: &Edge, list: Value) -> Snapshot {
    let apps = json!({ "apps": list });
    build_at(&apps, &json!([]), &Versions::default(), None, edge)
}

fn served(labels: Value) -> Snapshot {
    served_by(&external(), json!([web(labels)]))
}

/// The lines of the pools that have ports of the node.
fn at_node(snapshot: &Snapshot) -> Vec<String> {
    let pools = snapshot.pools.iter();
    let ports = |pool: &&Pool| {
        let properties = pool.properties.as_ref();
        properties.is_some_and(|properties| properties.external == [pool.port].into())
    };
    pools.filter(ports).map(line).collect()
}

fn properties(snapshot: &Snapshot, pool: usize) -> Properties {
    let properties = snapshot.pools[pool].properties.as_ref();
    Properties::clone(properties.unwrap())
}

const ZERO: &str = "/web.marathon:10000/tcp /web = 10.0.0.1:31000 w1";
const ONE: &str = "/web.marathon:10001/udp /web = 10.0.0.1:31001 w1";

#[test]
fn every_service_port_of_an_app_in_the_group_stands_at_the_node_by_its_protocol() {
    let snapshot = served(json!({}));
    assert_eq!(lines(&snapshot), [ZERO, ONE]);
    assert_eq!(at_node(&snapshot), [ZERO, ONE]);
    assert_eq!(reasons(&snapshot), [""; 0]);
}

#[test]
fn groups_are_compared_as_written_and_that_of_a_port_wins() {
    let edge = |groups: &[&str]| Edge {
        groups: groups.iter().map(ToString::to_string).collect(),
        ..Edge::default()
    };
    for (agent, labels, expected) in [
        (vec![], json!({}), vec![]),
        (vec!["internal"], json!({}), vec![]),
        (vec!["internal", "external"], json!({}), vec![ZERO, ONE]),
        (vec!["*"], json!({"HAPROXY_GROUP": null}), vec![ZERO, ONE]),
        (vec!["external"], json!({"HAPROXY_GROUP": null}), vec![]),
        (vec!["b"], json!({"HAPROXY_GROUP": "a,b"}), vec![ZERO, ONE]),
        (vec!["b"], json!({"HAPROXY_GROUP": "a, b"}), vec![]),
        (vec!["External"], json!({}), vec![]),
        (vec!["b"], json!({"HAPROXY_1_GROUP": "b"}), vec![ONE]),
        (
            vec!["external"],
            json!({"HAPROXY_1_GROUP": "b"}),
            vec![ZERO],
        ),
    ] {
        let mut app = web(labels.clone());
        app["labels"]
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        let snapshot = served_by(&edge(&agent), json!([app]));
        assert_eq!(lines(&snapshot), expected, "{agent:?} {labels}");
    }
}

#[test]
fn a_port_is_enabled_by_its_label_and_strict_mode_wants_one() {
    let strict = Edge {
        strict: true,
        ..external()
    };
    for yes in ["true", "True", "t", "YES", "y"] {
        let labels = json!({"HAPROXY_0_ENABLED": yes});
        assert_eq!(lines(&served(labels.clone())), [ZERO, ONE], "{yes}");
        assert_eq!(
            lines(&served_by(&strict, json!([web(labels)]))),
            [ZERO],
            "{yes}"
        );
    }
    for no in ["false", "", "1", "on"] {
        let labels = json!({"HAPROXY_0_ENABLED": no});
        assert_eq!(lines(&served(labels)), [ONE], "{no}");
    }
}

#[test]
fn an_app_that_is_skipped_has_no_service_port() {
    let edge = Edge {
        skipped: ["/web".to_owned()].into(),
        ..external()
    };
    assert_eq!(lines(&served_by(&edge, json!([web(json!({}))]))), [""; 0]);
}

#[test]
fn a_label_moves_a_service_port_and_a_wrong_one_costs_that_port_alone() {
    let moved = served(json!({"HAPROXY_0_PORT": "10080"}));
    assert_eq!(
        at_node(&moved),
        [ONE, "/web.marathon:10080/tcp /web = 10.0.0.1:31000 w1"]
    );
    for (name, value, why) in [
        ("PORT", json!("0"), "\"0\" is not a port (1-65535)"),
        ("PORT", json!("70000"), "\"70000\" is not a port (1-65535)"),
        ("PORT", json!("http"), "\"http\" is not a port (1-65535)"),
        ("PORT", json!(10000), "the value 10000 is not a string"),
        ("PORT", json!(["1"]), "the value is a list, not a string"),
        (
            "PORT",
            json!("1".repeat(10 << 20)),
            "the value has more than 4096 bytes",
        ),
        (
            "BIND_ADDR",
            json!("eth0"),
            "\"eth0\" is neither an IP address nor *",
        ),
        (
            "BALANCE",
            json!("fastest"),
            "\"fastest\" is not one of roundrobin, static-rr, leastconn, source",
        ),
        (
            "BACKEND_NETWORK_ALLOWED_ACL",
            json!("10.0.0.0/8 everybody"),
            "\"everybody\" is neither an address nor a prefix such as 10.0.0.0/8",
        ),
        (
            "BACKEND_NETWORK_ALLOWED_ACL",
            json!(" "),
            "it is empty; leave the label out to allow everybody",
        ),
        (
            "BACKEND_HEALTHCHECK_PORT_INDEX",
            json!("-1"),
            "\"-1\" is not the index of a port",
        ),
    ] {
        let label = format!("HAPROXY_0_{name}");
        let snapshot = served(json!({ &label: value }));
        assert_eq!(lines(&snapshot), [ONE], "{label}");
        let said = format!("/web: service port 0 is not served: label {label}: {why}");
        assert_eq!(reasons(&snapshot), [said]);
    }
}

#[test]
fn a_service_port_that_is_none_is_said() {
    for number in [0, 70_000] {
        let mut app = web(json!({}));
        app["portDefinitions"][0]["port"] = json!(number);
        let snapshot = served_by(&external(), json!([app]));
        assert_eq!(lines(&snapshot), [ONE]);
        let said = format!(
            "/web: service port 0 is not served: {number} is not a port (1-65535); HAPROXY_0_PORT can name another"
        );
        assert_eq!(reasons(&snapshot), [said]);
    }
}

#[test]
fn two_service_ports_with_one_number_are_those_of_the_first() {
    let mut app = web(json!({"HAPROXY_1_PORT": "10000"}));
    assert_eq!(
        at_node(&served_by(&external(), json!([app.clone()]))),
        [ZERO, "/web.marathon:10000/udp /web = 10.0.0.1:31001 w1"],
        "one is tcp, the other udp"
    );
    app["portDefinitions"][1]["protocol"] = json!("tcp");
    let snapshot = served_by(&external(), json!([app]));
    assert_eq!(lines(&snapshot), [ZERO]);
    assert_eq!(
        reasons(&snapshot),
        [
            "/web: service port 1 is not served: its port 10000 is that of service port 0 already, which comes first"
        ]
    );
}

#[test]
fn an_address_to_bind_takes_the_place_of_the_nodes() {
    let bound = served(json!({"HAPROXY_0_BIND_ADDR": "10.9.8.7", "HAPROXY_1_BIND_ADDR": "*"}));
    let at = "[10.9.8.7]:10000/tcp /web = 10.0.0.1:31000 w1";
    assert_eq!(lines(&bound), [ONE, at]);
    assert_eq!(at_node(&bound), [ONE]);
    for any in ["*", "", "0.0.0.0", "::"] {
        let bound = served(json!({"HAPROXY_0_BIND_ADDR": any}));
        assert_eq!(at_node(&bound), [ZERO, ONE], "{any}");
    }
}

#[test]
fn balance_affinity_and_clients_are_those_of_the_labels() {
    for (word, balance) in [
        ("roundrobin", Balance::RoundRobin),
        ("static-rr", Balance::RoundRobin),
        ("leastconn", Balance::LeastConn),
        ("source", Balance::Source),
    ] {
        let snapshot = served(json!({"HAPROXY_0_BALANCE": word}));
        assert_eq!(properties(&snapshot, 0).balance, balance);
        assert_eq!(properties(&snapshot, 1).balance, Balance::Maglev);
        assert_eq!(reasons(&snapshot), [""; 0]);
    }
    for word in ["uri", "hdr(Host)", "url_param userid", "random(2)"] {
        let snapshot = served(json!({"HAPROXY_0_BALANCE": word}));
        assert_eq!(lines(&snapshot), [ZERO, ONE]);
        let said = "/web: label HAPROXY_0_BALANCE: needs a request to choose by; maglev is used";
        assert_eq!(reasons(&snapshot), [said]);
    }
    let snapshot = served(json!({
        "HAPROXY_0_STICKY": "True", "HAPROXY_1_STICKY": "false",
        "HAPROXY_0_BACKEND_NETWORK_ALLOWED_ACL": "10.1.2.3/8 192.0.2.1  fd00::/8"
    }));
    let of_zero = properties(&snapshot, 0);
    assert_eq!(of_zero.affinity, 3600);
    let nets = ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"];
    let expected = nets.map(|net| (net.parse().unwrap(), Source::Allow));
    assert_eq!(of_zero.sources, expected.into());
    assert_eq!(properties(&snapshot, 1).affinity, 0);
    assert!(properties(&snapshot, 1).sources.is_empty());
    assert_eq!(
        reasons(&snapshot),
        [
            "/web: label HAPROXY_0_STICKY: is taken as affinity by the client's address, for an hour, in place of a cookie"
        ]
    );
}

#[test]
fn a_check_of_another_port_counts_for_the_task() {
    let mut app = web(json!({"HAPROXY_0_BACKEND_HEALTHCHECK_PORT_INDEX": "1"}));
    app["healthChecks"] = json!([{"protocol": "TCP", "portIndex": 1}]);
    app["tasks"][0]["healthCheckResults"] = json!([{"alive": false}]);
    let snapshot = served_by(&external(), json!([app.clone()]));
    let down = "/web.marathon:10000/tcp /web = 10.0.0.1:31000 w0 (unhealthy)";
    assert_eq!(lines(&snapshot)[0], down);
    let well = |snapshot: &Snapshot| {
        let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
        backends.map(|one| one.healthy).collect::<Vec<_>>()
    };
    assert_eq!(well(&snapshot), [false, false]);
    app["tasks"][0]["healthCheckResults"] = json!([{"alive": true}]);
    app["labels"]["HAPROXY_0_BACKEND_HEALTHCHECK_PORT_INDEX"] = json!("7");
    let snapshot = served_by(&external(), json!([app.clone()]));
    assert_eq!(lines(&snapshot), [ZERO, ONE]);
    assert_eq!(well(&snapshot), [true, true]);
    app["healthChecks"] = json!([]);
    app["tasks"][0]["healthCheckResults"] = json!([]);
    let snapshot = served_by(&external(), json!([app]));
    assert_eq!(well(&snapshot), [false, false], "nobody judges it");
}

#[test]
fn host_names_in_the_zone_are_names_of_the_vip_and_others_are_named() {
    let hosts =
        "Shop.marathon.l4lb.thisdcos.directory,shop.example.com,shop.other.l4lb.thisdcos.directory";
    let snapshot = served(json!({"HAPROXY_0_VHOST": hosts}));
    let shop = "shop.marathon:10000/tcp /web = 10.0.0.1:31000 w1";
    assert_eq!(lines(&snapshot), [ZERO, ONE, shop]);
    assert_eq!(
        at_node(&snapshot),
        [ZERO, ONE],
        "the node's port is one VIP's"
    );
    assert_eq!(
        reasons(&snapshot),
        [
            "/web: label HAPROXY_0_VHOST: requests are not told apart by host, so shop.example.com, \
          shop.other.l4lb.thisdcos.directory has no effect; connections are served at port 10000 of the nodes, where that \
          name may point to"
        ]
    );
}

#[test]
fn host_names_in_a_domain_that_dns_serves_are_names_of_the_vip() {
    let edge = Edge {
        domains: ["shop.example".to_owned()].into(),
        ..external()
    };
    let hosts = "WWW.shop.example,shop.example,notshop.example,_x.shop.example";
    let snapshot = served_by(&edge, json!([web(json!({"HAPROXY_0_VHOST": hosts}))]));
    let mut found = lines(&snapshot);
    found.sort();
    let backend = "10000/tcp /web = 10.0.0.1:31000 w1";
    let names = ["shop.example.docker", "www.shop.example.docker"];
    let names = names.map(|name| format!("{name}:{backend}"));
    let mut expected = [&[ZERO.to_owned(), ONE.to_owned()], &names[..]].concat();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(at_node(&snapshot), [ZERO, ONE]);
    let said = reasons(&snapshot);
    assert_eq!(said.len(), 1, "{said:?}");
    let left = "so notshop.example, _x.shop.example has no effect";
    assert!(said[0].contains(left), "{said:?}");
}

#[test]
fn labels_that_need_requests_are_named_once_with_what_there_is_instead() {
    let snapshot = served(json!({
        "HAPROXY_0_PATH": "/a", "HAPROXY_1_PATH": "/b", "HAPROXY_0_HTTP_BACKEND_PROXYPASS_PATH": "/c",
        "HAPROXY_0_REDIRECT_TO_HTTPS": "true", "HAPROXY_0_USE_HSTS": "true", "HAPROXY_0_SSL_CERT": "/x.pem",
        "HAPROXY_0_BIND_OPTIONS": "ssl", "HAPROXY_0_AUTH": "realm:user:pw", "HAPROXY_0_BACKEND_WEIGHT": "5",
        "HAPROXY_0_MODE": "http", "HAPROXY_0_BACKEND_HEAD": "backend {backend}", "HAPROXY_HTTP_FRONTEND_HEAD": "x",
        "HAPROXY_0_HTTP_BACKEND_REDIR": "/d", "HAPROXY_7_PATH": "there is no port 7",
        "HAPROXY_DEPLOYMENT_ALT_PORT": "10005", "HAPROXY_APP_ID": "x", "HAPROXY_DEPLOYMENT_COLOUR": "blue"
    }));
    assert_eq!(lines(&snapshot), [ZERO, ONE]);
    assert_eq!(
        reasons(&snapshot),
        [
            "/web: label HAPROXY_0_AUTH: no effect: requests are not asked for a password; which clients may connect is \
             said by HAPROXY_{n}_BACKEND_NETWORK_ALLOWED_ACL or lb.allow",
            "/web: label HAPROXY_0_BACKEND_WEIGHT: no effect: with Marathon-LB it orders rules and is no share of \
             connections; for a share set lb.weight",
            "/web: label HAPROXY_0_MODE: connections are balanced as they are, also those that carry HTTP",
            "/web: labels HAPROXY_0_BACKEND_HEAD, HAPROXY_HTTP_FRONTEND_HEAD: no effect: there is no HAProxy that its text \
             could configure",
            "/web: labels HAPROXY_0_BIND_OPTIONS, HAPROXY_0_SSL_CERT: no effect: TLS goes through to the task, which needs \
             the certificate",
            "/web: labels HAPROXY_0_HTTP_BACKEND_PROXYPASS_PATH, HAPROXY_0_PATH, HAPROXY_1_PATH: no effect: paths of \
             requests are not looked at: the port serves all of them",
            "/web: labels HAPROXY_0_HTTP_BACKEND_REDIR, HAPROXY_0_REDIRECT_TO_HTTPS, HAPROXY_0_USE_HSTS: no effect: \
             requests are not answered here: let the app redirect and add headers",
        ]
    );
    let unserved = served_by(
        &Edge::default(),
        json!([web(json!({"HAPROXY_0_PATH": "/a"}))]),
    );
    assert_eq!(
        reasons(&unserved),
        [""; 0],
        "an app that is not served here"
    );
}

#[test]
fn a_vip_label_of_the_same_name_on_the_same_port_is_the_same_vip() {
    let mut app = web(json!({}));
    app["portDefinitions"][0]["labels"] = json!({"VIP_0": "/web:10000", "VIP_1": "/other:80"});
    let snapshot = served_by(&external(), json!([app.clone()]));
    let other = "/other.marathon:80/tcp /web = 10.0.0.1:31000 w1";
    assert_eq!(lines(&snapshot), [other, ZERO, ONE]);
    assert_eq!(at_node(&snapshot), [ZERO, ONE]);

    app["portDefinitions"][0]["labels"] = json!({});
    app["portDefinitions"][1] =
        json!({"port": 10001, "protocol": "tcp", "labels": {"VIP_0": "/web:10000"}});
    let snapshot = served_by(&external(), json!([app]));
    assert_eq!(
        lines(&snapshot),
        [
            "/web.marathon:10000/tcp /web = 10.0.0.1:31001 w1",
            "/web.marathon:10001/tcp /web = 10.0.0.1:31001 w1"
        ],
        "the backends of two ports are never mixed"
    );
    assert_eq!(
        reasons(&snapshot),
        [
            "/web: service port 0 is not served under every name: a label on another port of the app names the VIP of its \
          port 10000"
        ]
    );
}

#[test]
fn every_network_mode_and_generation_has_service_ports() {
    let base = json!({"id": "/web", "labels": {"HAPROXY_GROUP": "external"}});
    let with = |more: Value| {
        let mut app = base.clone();
        for (key, value) in more.as_object().unwrap() {
            app[key] = value.clone();
        }
        lines(&served_by(&external(), json!([app])))
    };
    let tasks = json!([task("t1", &[31000])]);
    assert_eq!(with(json!({"ports": [10000], "tasks": tasks})), [ZERO]);
    let mapping = json!([{"containerPort": 80, "hostPort": 0, "servicePort": 10000}]);
    let docker = json!({"docker": {"network": "BRIDGE", "portMappings": mapping}});
    assert_eq!(with(json!({"container": docker, "tasks": tasks})), [ZERO]);
    let own = json!([{
        "id": "t1", "host": "10.0.0.1", "state": "TASK_RUNNING", "ports": [31005],
        "ipAddresses": [{"ipAddress": "9.0.0.1", "protocol": "IPv4"}]
    }]);
    let container = json!({"portMappings": [
        {"containerPort": 90}, {"containerPort": 70, "hostPort": 0, "servicePort": 10001},
        {"containerPort": 80, "servicePort": 10000}
    ]});
    let networks = json!([{"mode": "container"}]);
    let of_container = with(json!({"networks": networks, "container": container, "tasks": own}));
    let expected = [
        "/web.marathon:10000/tcp /web = 9.0.0.1:80 w1",
        "/web.marathon:10001/tcp /web = 10.0.0.1:31005 w1",
    ];
    assert_eq!(of_container, expected);
}

#[test]
fn labels_of_ours_shape_every_vip_of_the_app() {
    let mut app = web(json!({
        "lb.weight": "5", "lb.balance": "source", "lb.deny": "10.6.0.0/16", "lb.maxflows-backend": "7",
        "lb.vip": "no:80", "HAPROXY_0_BACKEND_NETWORK_ALLOWED_ACL": "10.6.0.0/16 10.7.0.0/16"
    }));
    app["portDefinitions"][0]["labels"] = json!({"VIP_0": "/other:80"});
    let snapshot = served_by(&external(), json!([app.clone()]));
    let other = "/other.marathon:80/tcp /web = 10.0.0.1:31000 w5";
    assert_eq!(lines(&snapshot)[0], other);
    for pool in 0..3 {
        assert_eq!(properties(&snapshot, pool).balance, Balance::Source);
        assert_eq!(snapshot.pools[pool].backends[0].max_flows, 7);
    }
    let net = |text: &str| text.parse().unwrap();
    let rules = [
        (net("10.6.0.0/16"), Source::Deny),
        (net("10.7.0.0/16"), Source::Allow),
    ];
    assert_eq!(
        properties(&snapshot, 1).sources,
        rules.into(),
        "who is kept out stays out"
    );
    assert_eq!(
        reasons(&snapshot),
        ["/web: label lb.vip is none that lb-agent reads of an app, and has no effect"]
    );
    app["labels"]["lb.allow"] = json!("somebody");
    let snapshot = served_by(&external(), json!([app]));
    assert_eq!(lines(&snapshot), [""; 0]);
    assert!(reasons(&snapshot)[0].contains("label lb.allow: \"somebody\" is not a prefix"));
    assert!(reasons(&snapshot)[0].ends_with("the app is left out"));
}

#[test]
fn a_task_of_an_older_version_serves_the_service_port_by_its_own_ports() {
    let mut app = web(json!({"HAPROXY_0_PORT": "10080"}));
    app["versionInfo"] = json!({"lastConfigChangeAt": "2024-03-05T09:00:00Z"});
    app["tasks"][0]["version"] = json!("2024-03-05T08:00:00Z");
    let old = json!({"id": "/web", "container": {"portMappings": [
        {"containerPort": 80, "hostPort": 0, "servicePort": 10000}
    ]}, "networks": [{"mode": "container/bridge"}]});
    let key = super::super::version::VersionKey {
        id: "/web".into(),
        version: "2024-03-05T08:00:00Z".into(),
    };
    let mut versions = Versions::default();
    let definition = serde_json::from_value(old).unwrap();
    let found = super::super::version::Lookup::Found(std::sync::Arc::new(definition));
    versions.apps.insert(key, found);
    let apps = json!({ "apps": [app] });
    let snapshot = build_at(&apps, &json!([]), &versions, None, &external());
    let expected = [
        "/web.marathon:10001/udp /web = ",
        "/web.marathon:10080/tcp /web = 10.0.0.1:31000 w1",
    ];
    assert_eq!(lines(&snapshot), expected, "the old version has one port");
}
