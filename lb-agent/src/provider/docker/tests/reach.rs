//! Where containers are reached.

use super::*;

#[test]
fn a_container_is_reached_where_its_network_is() {
    let vip = [("lb.vip", "web:80")];
    let net = |name: &str, addrs: &[&str]| {
        let parse = |addr: &&str| addr.parse().expect("an address");
        (name.to_owned(), addrs.iter().map(parse).collect::<Vec<_>>())
    };
    let mut two = container("web-1", "172.17.0.2", &vip);
    two.network = Network::Own(
        [
            net("back", &["10.1.0.2", "fd00::2"]),
            net("front", &["10.2.0.2"]),
        ]
        .into(),
    );
    let mut host = container("web-2", "172.17.0.2", &vip);
    host.network = Network::Host;
    let mut guest = container("web-3", "172.17.0.2", &vip);
    guest.network = Network::Of("owner".to_owned());
    let owner = container("owner", "172.17.0.9", &[]);
    let mut lost = container("web-4", "172.17.0.2", &vip);
    lost.network = Network::Own(BTreeMap::new());
    let engine = engine([two, host, guest, owner, lost]);
    let mut config = config();
    config.node = vec!["192.0.2.1".parse().expect("an address")];
    let all = build(&engine, &config);
    assert_eq!(
        lines(&all),
        ["web:80/tcp 10.1.0.2:80 x1 172.17.0.9:80 x1 192.0.2.1:80 x1 [fd00::2]:80 x1"]
    );
    assert_eq!(
        reasons(&all),
        ["it has no address on any network that counts; it serves nobody"]
    );
    config.networks = vec!["front".to_owned(), "back".to_owned()];
    assert_eq!(
        lines(&build(&engine, &config)),
        ["web:80/tcp 10.2.0.2:80 x1 192.0.2.1:80 x1"]
    );
}

#[test]
fn nobody_is_reached_on_the_network_of_the_swarms_own_mesh() {
    let networks = ["ingress", "proxy"].map(|name| {
        let addr = if name == "proxy" {
            "10.0.1.3"
        } else {
            "10.0.0.7"
        };
        (name.to_owned(), vec![addr.parse().expect("an address")])
    });
    let mut one = container("web", "172.17.0.2", &[("lb.vip", "web:80")]);
    one.network = Network::Own(networks.into());
    let engine = engine([one]);
    assert_eq!(
        lines(&build(&engine, &config())),
        ["web:80/tcp 10.0.1.3:80 x1"]
    );
    let mut config = config();
    config.networks = vec!["ingress".to_owned()];
    assert_eq!(
        lines(&build(&engine, &config)),
        ["web:80/tcp 10.0.0.7:80 x1"],
        "the operator's word counts"
    );
}

#[test]
fn a_drain_of_the_operators_holds_where_no_label_says_otherwise() {
    let drain = |labels: &[(&str, &str)], drain| {
        let all = [&[("lb.vip", "web:80")], labels].concat();
        let engine = engine([container("web", "172.17.0.2", &all)]);
        let config = DockerConfig { drain, ..config() };
        let pool = build(&engine, &config).pools.remove(0);
        pool.properties.and_then(|properties| properties.drain)
    };
    assert_eq!(drain(&[], None), None);
    assert_eq!(drain(&[], Some(7)), Some(7));
    assert_eq!(drain(&[("lb.drain", "3")], Some(7)), Some(3));
    assert_eq!(drain(&[("lb.drain", "-1")], Some(7)), Some(0));
    assert_eq!(drain(&[("lb.drain", "0")], Some(7)), None);
}

#[test]
fn of_an_engine_on_another_node_published_ports_are_reached_at_the_node() {
    let bound = |all: &[&str]| -> Vec<std::net::SocketAddr> {
        let all = all.iter().map(|at| at.parse().expect("an address"));
        all.collect()
    };
    let one = |name: &str, published: &[&str]| {
        let mut one = container(name, "172.17.0.2", &[("lb.vip", "web:80")]);
        let target = target("80/tcp").expect("a port");
        one.published = [(target, bound(published))].into();
        one
    };
    let everywhere = one("web-1", &["0.0.0.0:49162", "[::]:49163"]);
    let mut guest = one("web-2", &[]);
    guest.network = Network::Of("web-1".to_owned());
    let mut host = one("web-3", &[]);
    host.network = Network::Host;
    let chosen = one("web-4", &["127.0.0.1:7000", "10.9.9.9:7001"]);
    let mut silent = one("web-5", &["127.0.0.1:7002"]);
    silent.network = Network::Own([("back".to_owned(), vec![[10, 1, 0, 5].into()])].into());
    let mut engine = engine([everywhere, guest, host, chosen, silent]);
    let here = lines(&build(&engine, &config()));
    assert_eq!(here, ["web:80/tcp 10.1.0.5:80 x1 172.17.0.2:80 x1"]);

    let node = ["192.0.2.7", "fd00::7"].map(|addr| addr.parse().expect("an address"));
    engine.stands_at(Some(node.to_vec()));
    let at_node =
        "10.9.9.9:7001 x1 192.0.2.7:80 x1 192.0.2.7:49162 x1 [fd00::7]:80 x1 [fd00::7]:49163 x1";
    let all = build(&engine, &config());
    assert_eq!(lines(&all), [format!("web:80/tcp {at_node}")]);
    let told = reasons(&all);
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = "its containers, on another node, are not reached at port 80/tcp: publish it";
    assert!(told[0].starts_with(expected), "{told:?}");

    let routed = DockerConfig {
        overlay_reachable: true,
        ..config()
    };
    let all = build(&engine, &routed);
    let with_route = at_node.replace("10.9.9.9:7001 x1", "10.1.0.5:80 x1 10.9.9.9:7001 x1");
    assert_eq!(lines(&all), [format!("web:80/tcp {with_route}")]);
    assert_eq!(reasons(&all), [""; 0]);
}

#[test]
fn what_an_engine_says_of_published_ports_is_read() {
    let read = |ports: &str| {
        let answer =
            format!(r#"{{"Id": "a", "Name": "/web", "NetworkSettings": {{"Ports": {ports}}}}}"#);
        let answer = serde_json::from_str(&answer).expect("an answer");
        Container::read(answer).expect("a container").published
    };
    let all = read(
        r#"{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49162"}, {"HostIp": "::", "HostPort": "49163"},
            {"HostIp": "", "HostPort": "7"}, {"HostIp": "x", "HostPort": "8"}, {"HostIp": "::1", "HostPort": ""}],
            "53/udp": null, "9/sctp": []}"#,
    );
    let (web, dns) = (
        target("80/tcp").expect("a port"),
        target("53/udp").expect("a port"),
    );
    let places: Vec<String> = all[&web].iter().map(ToString::to_string).collect();
    assert_eq!(places, ["0.0.0.0:49162", "[::]:49163", "0.0.0.0:7"]);
    assert_eq!(all[&dns], []);
    assert_eq!(read("null"), BTreeMap::new());
}
