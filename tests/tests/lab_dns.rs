//! What `dig` shows, from a node, a container and outside.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    fixed::{Fixed, HOST, on_switch},
    lab::Host,
    topology::{LINK_ADDRESS, Wishes, ZONE},
    upstream::{self, BIG, BIG_ADDRESSES, WWW, WWW_ADDRESS},
};

fn fixed() -> Fixed {
    Fixed::up(Wishes::default()).expect("a topology")
}

/// The client's number on the switch; a name server is there that the agents forward to.
const UPSTREAM: u8 = 100;

fn fixed_with_upstream() -> Fixed {
    let std::net::IpAddr::V4(at) = on_switch(UPSTREAM, false) else {
        panic!("not IPv4")
    };
    let fixed = Fixed::up(Wishes {
        agent_flags: vec!["--dns-upstream".into(), at.to_string()],
        ..Wishes::default()
    })
    .expect("a topology");
    upstream::serve(&fixed.topology.client, (at, 53)).expect("an upstream");
    fixed
}

fn dig(host: &Host, arguments: &[&str]) -> String {
    let argv = [&["dig", "+time=2", "+tries=2"], arguments].concat();
    host.run(&argv).expect("dig").ok().expect("an answer")
}

#[test]
fn a_name_has_an_address_of_each_family_with_a_ttl_of_five_seconds() {
    let fixed = fixed();
    let name = format!("{}.{ZONE}.", HOST.0);
    for (kind, ipv6) in [("A", false), ("AAAA", true)] {
        let vip = fixed.vip(HOST, ipv6).expect("a VIP").ip();
        for transport in ["+notcp", "+tcp"] {
            let answer = dig(
                fixed.topology.master(),
                &[transport, "+noall", "+answer", kind, &name],
            );
            let fields: Vec<_> = answer.split_whitespace().collect();
            assert_eq!(
                fields,
                [&name, "5", "IN", kind, &vip.to_string()],
                "{transport}"
            );
        }
    }
}

#[test]
fn a_name_that_is_not_there_is_denied_with_the_soa() {
    let fixed = fixed();
    let answer = dig(fixed.topology.master(), &[&format!("nobody.{ZONE}")]);
    assert!(
        answer.contains("status: NXDOMAIN") && answer.contains("flags: qr aa"),
        "{answer}"
    );
    let soa = answer
        .lines()
        .find(|line| line.contains("SOA"))
        .expect("an SOA");
    let fields: Vec<_> = soa.split_whitespace().collect();
    let expected = [
        "l4lb.thisdcos.directory.",
        "1",
        "IN",
        "SOA",
        "ns.spartan.",
        "support.mesosphere.com.",
        "1",
        "60",
        "180",
        "86400",
        "1",
    ];
    // The TTL is that of the negative answer or of the record: 1 or 5.
    assert_eq!(
        [&fields[..1], &fields[2..]].concat(),
        [&expected[..1], &expected[2..]].concat()
    );
}

#[test]
fn a_name_without_that_type_is_there_but_empty() {
    let fixed = fixed();
    let answer = dig(
        fixed.topology.master(),
        &["TXT", &format!("{}.{ZONE}", HOST.0)],
    );
    assert!(
        answer.contains("status: NOERROR") && answer.contains("ANSWER: 0"),
        "{answer}"
    );
    assert!(answer.contains("SOA"), "{answer}");
}

#[test]
fn containers_and_clients_outside_get_the_same_answer() {
    let fixed = fixed();
    let vip = fixed.vip(HOST, false).expect("a VIP").ip().to_string();
    let name = format!("{}.{ZONE}", HOST.0);
    let at = format!("@{LINK_ADDRESS}");
    assert_eq!(
        dig(&fixed.topology.container, &["+short", &at, &name]).trim(),
        vip
    );
    assert_eq!(
        dig(&fixed.topology.client, &["+short", "@10.77.0.1", &name]).trim(),
        vip
    );
}

#[test]
fn letter_case_is_kept_and_does_not_matter() {
    let fixed = fixed();
    let name = format!("{}.{ZONE}.", HOST.0.to_uppercase());
    let answer = dig(fixed.topology.master(), &["+noall", "+answer", &name]);
    assert!(answer.starts_with(&name), "{answer}");
}

#[test]
fn a_name_has_the_same_address_under_every_alias_of_the_zone() {
    let fixed = Fixed::up(Wishes {
        agent_flags: vec!["--dns-cluster-key".into(), "ybndrfg8".into()],
        ..Wishes::default()
    })
    .expect("a topology");
    let vip = fixed.vip(HOST, false).expect("a VIP").ip().to_string();
    for zone in [
        "l4lb.thisdcos.global",
        "dclb.thisdcos.directory",
        "dclb.thisdcos.global",
        "l4lb.ybndrfg8.dcos.directory",
    ] {
        let name = format!("{}.marathon.{zone}.", HOST.0);
        let answer = dig(
            fixed.topology.master(),
            &["+noall", "+answer", "+comments", &name],
        );
        assert!(answer.contains("flags: qr aa"), "{answer}");
        let record = answer.lines().find(|line| line.starts_with(&name));
        let fields: Vec<_> = record.expect("a record").split_whitespace().collect();
        assert_eq!(fields, [&name, "5", "IN", "A", &vip]);
    }
}

#[test]
fn other_names_are_answered_by_the_upstream() {
    let fixed = fixed_with_upstream();
    for client in [
        fixed.topology.master(),
        &fixed.topology.nodes[1],
        &fixed.topology.container,
    ] {
        let answer = dig(client, &[WWW]);
        assert!(answer.contains("status: NOERROR"), "{answer}");
        assert!(answer.contains(&WWW_ADDRESS.to_string()), "{answer}");
        // Not our own word, but we ask on behalf of the client.
        assert!(answer.contains("flags: qr rd ra;"), "{answer}");
    }
    let missing = dig(fixed.topology.master(), &["nobody.example.test"]);
    assert!(missing.contains("status: NXDOMAIN"), "{missing}");
    let reverse = dig(fixed.topology.master(), &["-x", "192.0.2.80"]);
    assert!(reverse.contains("status: NXDOMAIN"), "{reverse}");
}

#[test]
fn an_answer_that_does_not_fit_is_cut_off_over_udp_and_whole_over_tcp() {
    let fixed = fixed_with_upstream();
    let master = fixed.topology.master();
    for size in ["+noedns", "+bufsize=1232", "+bufsize=65000"] {
        let cut = dig(master, &["+ignore", size, BIG]);
        assert!(cut.contains("flags: qr tc rd ra;"), "{size}: {cut}");
        assert!(
            !cut.contains("malformed") && !cut.contains("extra bytes"),
            "{cut}"
        );
        let whole = dig(master, &["+noall", "+answer", size, BIG]);
        let records = whole.lines().filter(|line| line.starts_with(BIG)).count();
        assert_eq!(records, BIG_ADDRESSES, "{size}: dig asks again over TCP");
    }
}
