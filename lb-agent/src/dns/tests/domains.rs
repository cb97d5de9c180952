//! Names of VIPs in domains that are not ours.

use super::*;

/// `www.shop.example` and all below `*.cdn.shop.example`, and a name of the zone.
fn table() -> Table {
    let addresses = NameAddresses {
        v4: Some([11, 0, 0, 1].into()),
        v6: None,
    };
    let names = [
        "www.shop.example.docker",
        "any--name.cdn.shop.example.docker",
        "www.other.example.docker",
    ];
    let names = names.map(|name| (VipName::from_canonical(name).expect("a name"), addresses));
    let zones = Zones::new(None, &["shop.example".to_owned()]).expect("zones");
    Table::new(&zones, &names.into(), HashMap::new())
}

/// The addresses; `None`: it is forwarded.
fn said(asked: &str, record_type: RecordType) -> Option<Vec<String>> {
    let name = name(&format!("{asked}."));
    let answer = crate::dns::answer(&table(), &name, record_type, DNSClass::IN)?;
    assert_eq!(answer.code, ResponseCode::NoError);
    let mut data = Vec::new();
    for record in &answer.answers {
        assert_eq!((&record.name, record.ttl), (&name, 5));
        data.push(record.data.to_string());
    }
    Some(data)
}

#[test]
fn a_name_in_a_domain_is_answered_where_a_vip_has_it_and_forwarded_elsewhere() {
    let address = || Some(vec!["11.0.0.1".to_owned()]);
    for ours in [
        "www.shop.example",
        "WWW.Shop.Example",
        "a.cdn.shop.example",
        "b.a.cdn.shop.example",
    ] {
        assert_eq!(said(ours, RecordType::A), address(), "{ours}");
        // It has no other records, which somebody else would not know either.
        assert_eq!(said(ours, RecordType::AAAA), Some(Vec::new()), "{ours}");
    }
    for theirs in [
        "shop.example",
        "mail.shop.example",
        "cdn.shop.example",
        "www.other.example",
        "www.shop.example.org",
        "example",
    ] {
        assert_eq!(said(theirs, RecordType::A), None, "{theirs}");
    }
}

#[test]
fn resolve_finds_what_dns_answers_in_a_domain() {
    let found = |asked: &str| match crate::dns::lookup(&table(), asked) {
        Lookup::Found(found) => Some((found.fqdn, found.addrs.len())),
        Lookup::Missing(_) | Lookup::Outside => None,
    };
    let www = Some(("www.shop.example".to_owned(), 1));
    assert_eq!(found("www.shop.example"), www);
    assert_eq!(found("mail.shop.example"), None);
}

#[test]
fn names_in_domains_are_those_of_two_name_spaces() {
    let addresses = NameAddresses {
        v4: Some([11, 0, 0, 1].into()),
        v6: None,
    };
    let names = [
        "www.shop.example.east",
        "api.shop.example.docker",
        "old.shop.example.west",
    ];
    let names = names.map(|name| (VipName::from_canonical(name).expect("a name"), addresses));
    let zones = Zones::new(None, &["shop.example".to_owned()]).expect("zones");
    let table = Table::new(&zones.with_space("east"), &names.into(), HashMap::new());
    let is_ours = |asked: &str| {
        let answer = crate::dns::answer(&table, &name(asked), RecordType::A, DNSClass::IN);
        answer.is_some()
    };
    assert!(is_ours("www.shop.example."));
    assert!(is_ours("api.shop.example."), "of Marathon's virtual hosts");
    assert!(!is_ours("old.shop.example."));
}
