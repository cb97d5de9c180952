//! Names below that of a VIP.

use super::*;
use crate::{catalog::Protocol, dns::Instance};

const ZONE: &str = "l4lb.thisdcos.directory";

fn instance(name: &str, addr: &str, port: u16, weight: u16) -> Instance {
    let addr: SocketAddr = addr.parse().expect("an address");
    Instance {
        addr,
        port,
        protocol: if port == 53 {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
        weight,
        ready: weight > 0,
        label: Instance::label(Some(name), addr.ip()),
    }
}

/// `web.docker` at ports 80 and 53, and `empty.docker`.
fn web() -> Table {
    let addresses = NameAddresses {
        v4: Some([11, 0, 0, 1].into()),
        v6: None,
    };
    let names = [
        "web.docker",
        "empty.docker",
        "tasks.own.docker",
        "own.docker",
    ];
    let names = names.map(|name| (VipName::from_canonical(name).expect("a name"), addresses));
    let behind = vec![
        instance("web-1", "10.0.0.1:8080", 80, 1),
        instance("web-1", "[fd00::1]:8080", 80, 1),
        instance("web-2", "10.0.0.2:8080", 80, 7),
        instance("web-3", "10.0.0.3:8080", 80, 0),
        instance("web-1", "10.0.0.1:5353", 53, 1),
    ];
    let zones = Zones::new(None, &[]).expect("zones");
    let instances = HashMap::from([("web.docker".into(), behind)]);
    Table::new(&zones, &names.into(), instances)
}

/// What is said of a name in the zone `suffix`: the data alone, sorted.
fn said(asked: &str, record_type: RecordType, suffix: &str) -> (ResponseCode, Vec<String>) {
    let name = name(&format!("{asked}.{suffix}."));
    let answer = crate::dns::answer(&web(), &name, record_type, DNSClass::IN).expect("ours");
    assert!(
        answer
            .answers
            .iter()
            .all(|record| record.name == name && record.ttl <= 5)
    );
    let data = answer.answers.iter().map(|record| record.data.to_string());
    let mut data: Vec<String> = data.collect();
    data.sort();
    (answer.code, data)
}

#[test]
fn tasks_are_all_that_take_connections_and_an_instance_is_one_whatever_its_state() {
    use RecordType::{A, AAAA, ANY};
    let ok = |asked, record_type, expected: &[&str]| {
        let (code, data) = said(asked, record_type, ZONE);
        assert_eq!(code, ResponseCode::NoError, "{asked}");
        assert_eq!(data, expected, "{asked} {record_type}");
    };
    ok("tasks.web.docker", A, &["10.0.0.1", "10.0.0.2"]);
    ok("tasks.web.docker", AAAA, &["fd00::1"]);
    ok(
        "TASKS.Web.docker",
        ANY,
        &["10.0.0.1", "10.0.0.2", "fd00::1"],
    );
    ok("web-1.web.docker", A, &["10.0.0.1"]);
    ok("web-3.web.docker", A, &["10.0.0.3"]);
    ok("web-3.web.docker", AAAA, &[]);
    ok("tasks.empty.docker", A, &[]);
    // A VIP of that very name comes first.
    ok("tasks.own.docker", A, &["11.0.0.1"]);
    for missing in [
        "web-4.web.docker",
        "x.web-1.web.docker",
        "tasks.no.docker",
        "a.empty.docker",
    ] {
        assert_eq!(
            said(missing, A, ZONE).0,
            ResponseCode::NXDomain,
            "{missing}"
        );
    }
}

#[test]
fn services_of_a_port_name_their_instances_under_the_zone_that_was_asked() {
    let srv = |asked, suffix| said(asked, RecordType::SRV, suffix);
    assert_eq!(
        srv("_80._tcp.tasks.web.docker", "dclb.thisdcos.global").1,
        [
            "0 1 8080 web-1.web.docker.dclb.thisdcos.global.",
            "0 7 8080 web-2.web.docker.dclb.thisdcos.global.",
        ]
    );
    let udp = srv("_53._udp.tasks.web.docker", ZONE).1;
    assert_eq!(udp, [format!("0 1 5353 web-1.web.docker.{ZONE}.")]);
    let nothing = (ResponseCode::NoError, Vec::new());
    assert_eq!(
        said("_80._tcp.tasks.web.docker", RecordType::A, ZONE),
        nothing
    );
    assert_eq!(srv("_tcp.tasks.web.docker", ZONE), nothing);
    assert_eq!(srv("tasks.web.docker", ZONE), nothing);
    for missing in [
        "_53._tcp.tasks.web.docker",
        "_81._tcp.tasks.web.docker",
        "_80._tcp.web.docker",
    ] {
        assert_eq!(srv(missing, ZONE).0, ResponseCode::NXDomain, "{missing}");
    }
}

#[test]
fn people_may_leave_out_the_zone_there_too() {
    let crate::dns::Lookup::Found(found) = crate::dns::lookup(&web(), "web-2.web.docker") else {
        panic!("it is there");
    };
    assert_eq!(found.fqdn, format!("web-2.web.docker.{ZONE}"));
    assert_eq!(
        found.addrs,
        ["10.0.0.2".parse::<IpAddr>().expect("an address")]
    );
}

#[tokio::test]
async fn a_thousand_tasks_are_answered_over_tcp() {
    let dns = Dns::start(config(&[])).await;
    let of = |n: u16| instance("x", &format!("10.0.{}.{}:80", n / 256, n % 256), 80, 1);
    let label = |n: u16| Instance {
        label: format!("{n:a>60}").into(),
        ..of(n)
    };
    let instances = HashMap::from([("app.marathon".into(), (0..1_000).map(label).collect())]);
    let addresses = NameAddresses {
        v4: Some([11, 0, 0, 1].into()),
        v6: None,
    };
    let app = VipName::from_canonical("app.marathon").expect("a name");
    let zones = Zones::new(None, &[]).expect("zones");
    dns.table.store(Arc::new(Table::new(
        &zones,
        &[(app, addresses)].into(),
        instances,
    )));
    for (asked, record_type) in [
        ("tasks.app.marathon", RecordType::A),
        ("_80._tcp.tasks.app.marathon", RecordType::SRV),
    ] {
        let query = query(&format!("{asked}.{ZONE}."), record_type);
        let reply = dns.udp(&query).await;
        assert!(
            reply.metadata.truncation && reply.answers.is_empty(),
            "{reply}"
        );
        let reply = dns.tcp(&[query]).await.remove(0);
        assert!(!reply.metadata.truncation);
        assert_eq!(reply.answers.len(), 200, "{asked}");
    }
}

#[test]
fn a_further_name_answers_as_the_vips_own() {
    let alias = |alias, of| {
        let name = |text| VipName::from_canonical(text).expect("a name");
        (name(alias), name(of))
    };
    let aliases = [
        alias("short.docker", "web.docker"),
        // A name of its own, and one of nobody.
        alias("own.docker", "web.docker"),
        alias("gone.docker", "no.docker"),
    ];
    let table = web().with_aliases(&aliases.into());
    let found = |asked: &str| match crate::dns::lookup(&table, asked) {
        crate::dns::Lookup::Found(found) => found.addrs.len(),
        _ => 0,
    };
    for below in ["", "tasks.", "web-1."] {
        let [short, long] = ["short", "web"].map(|name| found(&format!("{below}{name}.docker")));
        assert!(short > 0 && short == long, "{below}: {short} {long}");
    }
    assert_eq!((found("gone.docker"), found("own.docker")), (0, 1));
    assert_eq!(
        (found("tasks.short.docker"), found("tasks.own.docker")),
        (3, 1)
    );
}
