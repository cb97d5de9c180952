//! Answers as a pure function of a table.

use proptest::prelude::*;

use super::*;

fn table() -> Table {
    let zones = Zones::new(Some("ybndrfg8ejkmcpqxot1uwisza345h769"), &[]).expect("zones");
    let name = |canonical: &str| VipName::from_canonical(canonical).expect("a name");
    let four = NameAddresses {
        v4: Some([11, 0, 0, 1].into()),
        v6: None,
    };
    let both = NameAddresses {
        v6: Some("fd01:c::1".parse().expect("an address")),
        ..four
    };
    let names = BTreeMap::from([
        (name("app.marathon"), four),
        (name("dispatcher.spark.marathon"), both),
    ]);
    Table::new(&zones, &names, HashMap::new())
}

fn ask(name: &str, record_type: RecordType) -> Option<Answer> {
    let mut name = Name::from_ascii(name).expect("a DNS name");
    name.set_fqdn(true);
    answer(&table(), &name, record_type, DNSClass::IN)
}

/// `NOERROR app.example. 5 IN A 11.0.0.1`
fn said(name: &str, record_type: RecordType) -> String {
    let answer = ask(name, record_type).expect("a name of ours");
    assert!(answer.authoritative);
    let mut line = format!("{:?}", answer.code);
    for record in answer.answers.iter().chain(&answer.authority) {
        line += &format!(" | {record}");
    }
    line
}

fn soa(apex: &str) -> String {
    format!("{apex} 5 IN SOA ns.spartan. support.mesosphere.com. 1 60 180 86400 1")
}

#[test]
fn a_name_has_its_addresses_for_five_seconds() {
    assert_eq!(
        said("app.marathon.l4lb.thisdcos.directory", RecordType::A),
        "NoError | app.marathon.l4lb.thisdcos.directory. 5 IN A 11.0.0.1"
    );
    assert_eq!(
        said(
            "dispatcher.spark.marathon.l4lb.thisdcos.directory",
            RecordType::AAAA
        ),
        "NoError | dispatcher.spark.marathon.l4lb.thisdcos.directory. 5 IN AAAA fd01:c::1"
    );
}

#[test]
fn every_alias_answers_under_the_name_and_spelling_that_was_asked() {
    for suffix in [
        "l4lb.thisdcos.directory",
        "L4LB.ThisDCOS.Global",
        "dclb.thisdcos.directory",
        "dclb.thisdcos.GLOBAL",
        "l4lb.YbndRfg8ejkmcpqxot1uwisza345h769.dcos.directory",
    ] {
        assert_eq!(
            said(&format!("ApP.marathon.{suffix}"), RecordType::A),
            format!("NoError | ApP.marathon.{suffix}. 5 IN A 11.0.0.1")
        );
        let negative = said(&format!("x.{suffix}"), RecordType::A);
        assert_eq!(
            negative,
            format!("NXDomain | {}", soa(&format!("{suffix}.")))
        );
    }
}

#[test]
fn a_missing_type_is_no_missing_name() {
    let no_data = format!("NoError | {}", soa("l4lb.thisdcos.directory."));
    for (name, record_type) in [
        ("app.marathon.l4lb.thisdcos.directory", RecordType::AAAA),
        ("app.marathon.l4lb.thisdcos.directory", RecordType::SRV),
        ("marathon.l4lb.thisdcos.directory", RecordType::A),
        ("spark.marathon.l4lb.thisdcos.directory", RecordType::A),
        ("l4lb.thisdcos.directory", RecordType::A),
    ] {
        assert_eq!(said(name, record_type), no_data, "{name} {record_type}");
    }
}

#[test]
fn a_missing_name_comes_with_the_soa() {
    let missing = format!("NXDomain | {}", soa("l4lb.thisdcos.directory."));
    for name in [
        "other.marathon.l4lb.thisdcos.directory",
        "below.app.marathon.l4lb.thisdcos.directory",
        r"app\.marathon.l4lb.thisdcos.directory",
        r"app\.marathon.marathon.l4lb.thisdcos.directory",
    ] {
        assert_eq!(said(name, RecordType::A), missing, "{name}");
    }
}

#[test]
fn the_apex_has_soa_and_ns() {
    let ns = "l4lb.thisdcos.directory. 3600 IN NS ns.spartan.";
    let soa = soa("l4lb.thisdcos.directory.");
    let apex = "l4lb.thisdcos.directory";
    assert_eq!(said(apex, RecordType::SOA), format!("NoError | {soa}"));
    assert_eq!(said(apex, RecordType::NS), format!("NoError | {ns}"));
    assert_eq!(
        said(apex, RecordType::ANY),
        format!("NoError | {soa} | {ns}")
    );
}

#[test]
fn any_gives_every_address() {
    let name = "dispatcher.spark.marathon.l4lb.thisdcos.directory";
    assert_eq!(
        said(name, RecordType::ANY),
        format!("NoError | {name}. 5 IN A 11.0.0.1 | {name}. 5 IN AAAA fd01:c::1")
    );
}

#[test]
fn other_names_are_not_ours() {
    for name in [
        ".",
        "directory",
        "thisdcos.directory",
        "app.marathon.l4lb.thisdcos.directory.example.com",
        "xl4lb.thisdcos.directory",
        "app.marathon.l4lb.otherkey.dcos.directory",
        "leader.mesos",
    ] {
        assert_eq!(ask(name, RecordType::A), None, "{name}");
    }
}

#[test]
fn another_class_is_refused() {
    let name = Name::from_ascii("app.marathon.l4lb.thisdcos.directory.").expect("a name");
    let refused = answer(&table(), &name, RecordType::A, DNSClass::CH).expect("ours");
    assert_eq!(refused, Answer::error(ResponseCode::Refused));
}

#[test]
fn people_may_leave_out_the_zone() {
    for name in [
        "App.marathon",
        "app.marathon.l4lb.thisdcos.directory",
        "app.marathon.dclb.thisdcos.global.",
    ] {
        let Lookup::Found(found) = lookup(&table(), name) else {
            panic!("{name} exists");
        };
        assert_eq!(found.fqdn, "app.marathon.l4lb.thisdcos.directory");
        assert_eq!(found.addrs, [IpAddr::from([11, 0, 0, 1])]);
    }
    for (name, fqdn) in [
        ("marathon", "marathon.l4lb.thisdcos.directory"),
        ("no.Marathon", "no.Marathon.l4lb.thisdcos.directory"),
        (
            "no.marathon.dclb.thisdcos.global.",
            "no.marathon.dclb.thisdcos.global",
        ),
        ("l4lb.thisdcos.directory", "l4lb.thisdcos.directory"),
        ("a..b", "a..b"),
    ] {
        assert_eq!(lookup(&table(), name), Lookup::Missing(fqdn.to_owned()));
    }
}

#[test]
fn a_name_of_somebody_else_is_not_called_missing() {
    for name in ["", "example.com", "app.marathon.example.com.", "localhost"] {
        assert_eq!(lookup(&table(), name), Lookup::Outside, "{name}");
    }
}

#[test]
fn a_cluster_key_is_one_label() {
    for key in ["", "a.b", "a b", &"a".repeat(64)] {
        let error = Zones::new(Some(key), &[]).expect_err("no key").to_string();
        assert!(error.contains("cluster key"), "{error}");
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_in_the_zone_gets_an_answer_or_the_soa(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
        record_type in any::<u16>(),
    ) {
        let suffix: [&[u8]; 3] = [b"l4lb", b"ThisDCOS", b"directory"];
        let labels = labels.iter().map(Vec::as_slice).chain(suffix);
        let name = Name::from_labels(labels).expect("a name");
        let answer = answer(&table(), &name, record_type.into(), DNSClass::IN).expect("ours");
        prop_assert!(answer.authoritative);
        prop_assert_eq!(answer.answers.is_empty(), answer.authority.len() == 1);
        prop_assert!(answer.answers.iter().all(|record| record.name.eq_case(&name)));
    }
}
