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
