//! What users of dockercloud/haproxy wrote for it.

use super::*;
use crate::provider::docker::compat::Balancer;

#[test]
fn ports_come_from_what_haproxy_users_wrote() {
    let served = |env: &[&str]| {
        let mut one = with_env(container("web", "172.17.0.2", &[]), env);
        one.exposed = ["80/tcp", "8080/tcp", "53/udp"]
            .iter()
            .filter_map(|port| target(port))
            .collect();
        lines(&snapshot([one]))
    };
    let backend = |vip: &str, port: u16| format!("web:{vip} 172.17.0.2:{port} x1");
    assert_eq!(
        served(&["VIRTUAL_HOST=a.example", "EXCLUDE_PORTS=80,53"]),
        [
            "a.example:80/tcp 172.17.0.2:8080 x1".to_owned(),
            backend("80/tcp", 8080),
            backend("8080/tcp", 8080)
        ],
        "the only port stands at 80, too"
    );
    assert_eq!(
        served(&["SERVICE_PORTS=80, 8080"]),
        [backend("80/tcp", 80), backend("8080/tcp", 8080)]
    );
    assert_eq!(
        served(&["TCP_PORTS=9000, 22/ssl", "EXCLUDE_PORTS=80,8080,53"]),
        [backend("22/tcp", 22), backend("9000/tcp", 9000)],
        "a TCP port does not"
    );
}

#[test]
fn domains_lead_to_the_one_port_of_all_services_that_name_them() {
    let one = |name, addr, host: &str| {
        let env = format!("VIRTUAL_HOST={host}");
        with_env(container(name, addr, &[]), &[&env])
    };
    let all = snapshot([
        one(
            "blue",
            "172.17.0.2",
            "https://www.shop.example, *.shop.example",
        ),
        one("green", "172.17.0.3", "https://www.shop.example"),
        one("other", "172.17.0.4", "https://www.shop.example/api"),
    ]);
    let mut of_domains = lines(&all);
    of_domains.retain(|line| line.contains("shop.example"));
    assert_eq!(
        of_domains,
        [
            "any--name.shop.example:80/tcp 172.17.0.2:80 x1",
            "www.shop.example:443/tcp 172.17.0.2:80 x1",
            "www.shop.example:443/tcp 172.17.0.3:80 x1",
        ]
    );
    let told = reasons(&all).join("\n");
    assert!(told.contains("served for / already"), "{told}");

    let mut two = one("web", "172.17.0.2", "a.example");
    two.exposed.extend(target("81/tcp"));
    let all = snapshot([two]);
    assert_eq!(lines(&all).len(), 2, "under its own name alone");
    assert!(
        reasons(&all)[0].contains("exactly one port"),
        "{:?}",
        reasons(&all)
    );
}

#[test]
fn settings_of_haproxy_have_their_equivalents() {
    let env = [
        "TCP_PORTS=80",
        "HTTP_CHECK=GET /up",
        "HEALTH_CHECK=check inter 500",
        "BALANCE=leastconn",
        "FAILOVER=yes",
        "COOKIE=SRV insert indirect nocache",
        "EXTRA_ROUTE_SETTINGS=weight 7 maxconn 50 send-proxy",
        "SSL_CERT=-----BEGIN PRIVATE KEY-----",
        "PASSWORD=secret",
    ];
    let one = with_env(container("web", "172.17.0.2", &[]), &env);
    assert_eq!(
        one.env.get("SSL_CERT").map(String::as_str),
        Some(""),
        "no secret is kept"
    );
    assert!(!one.env.contains_key("PASSWORD"));
    let all = snapshot([one]);
    let pool = &all.pools[0];
    let properties = pool.properties.as_ref().expect("some");
    assert_eq!(
        (properties.balance, properties.affinity),
        (Balance::LeastConn, 3_600)
    );
    let check = properties.check.as_deref().expect("a check");
    assert_eq!(
        (check.to_string(), check.interval.as_millis()),
        ("http GET /up".to_owned(), 500)
    );
    let backend = &pool.backends[0];
    assert_eq!(
        (backend.weight.get(), backend.max_flows, backend.backup),
        (7, 50, true)
    );
    let told = reasons(&all).join("\n");
    for word in ["COOKIE", "send-proxy", "SSL_CERT"] {
        assert!(told.contains(word), "{word} in {told}");
    }
}

#[test]
fn a_check_that_haproxy_made_is_none_of_udp_and_none_against_a_label() {
    let env = ["VIRTUAL_HOST=a.example", "HEALTH_CHECK=check"];
    let checked = |labels: &[(&str, &str)]| -> Vec<bool> {
        let mut one = with_env(container("dns", "172.17.0.2", labels), &env);
        let ports = ["53/tcp", "53/udp"].iter();
        one.exposed = ports.filter_map(|port| target(port)).collect();
        let pools = snapshot([one]).pools.into_iter();
        let properties = pools.map(|pool| pool.properties.unwrap_or_default());
        properties.map(|one| one.check.is_some()).collect()
    };
    // That of the domain, 53/tcp, 53/udp, 80/tcp.
    assert_eq!(checked(&[]), [true, true, false, true]);
    assert_eq!(checked(&[("lb.check", "none")]), [false; 4]);
}

#[test]
fn services_with_the_same_port_keep_each_its_own_policy() {
    let one = |name, addr, balance: &str| {
        let balance = format!("BALANCE={balance}");
        let mut one = with_env(container(name, addr, &[]), &["TCP_PORTS=9000", &balance]);
        one.exposed.clear();
        one
    };
    // haproxy took that of any of them for the port.
    let all = snapshot([
        one("api", "172.17.0.2", "leastconn"),
        one("web", "172.17.0.3", "source"),
        one("zoo", "172.17.0.4", "roundrobin"),
    ]);
    assert_eq!(
        lines(&all),
        [
            "api:9000/tcp 172.17.0.2:9000 x1",
            "web:9000/tcp 172.17.0.3:9000 x1",
            "zoo:9000/tcp 172.17.0.4:9000 x1"
        ]
    );
    let balance = |pool: &Pool| pool.properties.as_ref().map(|one| one.balance);
    let balances: Vec<_> = all.pools.iter().filter_map(balance).collect();
    assert_eq!(
        balances,
        [Balance::LeastConn, Balance::Source, Balance::RoundRobin]
    );
    assert_eq!(reasons(&all), [""; 0]);
}

/// What the VIP of a container with this environment is like, and what is told, below a balancer with these settings.
fn shaped(balancer: &[&str], env: &[&str]) -> (crate::catalog::Properties, Vec<String>) {
    let pairs: Vec<String> = balancer.iter().map(|pair| (*pair).to_owned()).collect();
    let mut config = config();
    config.compat = Balancer::read(&pairs, &mut Vec::new()).expect("settings");
    let mut one = with_env(container("web", "172.17.0.2", &[]), env);
    one.env.insert("TCP_PORTS".to_owned(), "80".to_owned());
    let mut all = build(&engine([one]), &config);
    let told = reasons(&all).iter().map(|&why| why.to_owned()).collect();
    (
        all.pools
            .remove(0)
            .properties
            .map_or_else(Default::default, |one| (*one).clone()),
        told,
    )
}

#[test]
fn what_was_set_on_the_balancer_holds_for_containers_that_say_nothing_else() {
    let balancer = [
        "BALANCE=source",
        "MAXCONN=100",
        "TIMEOUT=client 30s, server 50000",
        "HEALTH_CHECK=check inter 5s send-proxy",
        "OPTION=httplog",
    ];
    let (preset, told) = shaped(&balancer, &[]);
    assert_eq!(
        (preset.balance, preset.max_flows, preset.idle.tcp),
        (Balance::Source, 100, 50)
    );
    let check = preset.check.expect("a check");
    assert_eq!(
        (check.to_string(), check.interval.as_secs()),
        ("tcp".to_owned(), 5)
    );
    assert_eq!(told, Vec::<String>::new(), "it was told at the start");
    let env = [
        "BALANCE=leastconn",
        "HTTP_CHECK=GET /up",
        "EXTRA_SETTINGS=maxconn 7",
    ];
    let (own, _) = shaped(&balancer, &env);
    assert_eq!(
        (own.balance, own.max_flows, own.idle.tcp),
        (Balance::LeastConn, 7, 50)
    );
    let check = own.check.expect("a check");
    assert_eq!(
        (check.to_string(), check.interval.as_secs()),
        ("http GET /up".to_owned(), 5)
    );
}

#[test]
fn what_happens_anyway_is_not_told_and_a_secret_is_not_kept() {
    let (_, told) = shaped(&[], &["OPTION=redispatch"]);
    assert_eq!(told, Vec::<String>::new());
    let (_, told) = shaped(&[], &["OPTION=redispatch, httplog, forwardfor"]);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("httplog, forwardfor in OPTION has no effect"),
        "{told:?}"
    );
    let secret = "EXTRA_SETTINGS=http-request auth unless { http_auth(s3cret) }, balance source";
    let one = with_env(container("web", "172.17.0.2", &[]), &[secret]);
    let kept = one.env.get("EXTRA_SETTINGS").map(String::as_str);
    assert_eq!(kept, Some("http-request,balance source"));
    let (shape, told) = shaped(&[], &[secret]);
    assert_eq!(shape.balance, Balance::Source);
    assert!(
        told[0].starts_with("http-request in EXTRA_SETTINGS has no effect"),
        "{told:?}"
    );
}

#[test]
fn a_bad_variable_costs_its_container_alone() {
    for (line, why) in [
        ("SERVICE_PORTS=0", "\"0\" is not a port"),
        ("SERVICE_PORTS=80,70000", "\"70000\" is not a port"),
        ("TCP_PORTS=x/ssl", "\"x\" is not a port"),
        ("EXCLUDE_PORTS=-1", "\"-1\" is not a port"),
        ("BALANCE=random", "random"),
        ("EXTRA_ROUTE_SETTINGS=weight 257", "\"257\" is not a weight"),
        ("EXTRA_ROUTE_SETTINGS=maxconn", "maxconn without a value"),
    ] {
        let (name, _) = line.split_once('=').expect("a variable");
        let bad = container("bad", "172.17.0.2", &[("lb.vip", "www:80")]);
        let good = container("good", "172.17.0.3", &[("lb.vip", "www:80")]);
        let all = snapshot([with_env(bad, &[line]), good]);
        let expected = [
            "good:80/tcp 172.17.0.3:80 x1",
            "www:80/tcp 172.17.0.3:80 x1",
        ];
        assert_eq!(lines(&all), expected, "{line}");
        let [problem] = &all.problems[..] else {
            panic!("{line}: {:?}", all.problems);
        };
        assert_eq!(&*problem.subject, "bad");
        let reason = &problem.reason;
        let begins = format!("{name} of the environment: ");
        assert!(
            reason.starts_with(&begins) && reason.contains(why),
            "{line}: {reason}"
        );
    }
}
