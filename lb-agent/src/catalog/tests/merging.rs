//! Pools of one VIP become one service, and nothing is lost or harmed on the way.

use proptest::prelude::*;

use super::*;

#[test]
fn pools_of_one_vip_merge_across_apps_and_providers() {
    let catalog = catalog([
        read(
            "a",
            &[
                pool("/blue", "/redis", 6379, &[backend("10.0.0.2:7000")]),
                pool("/blue", "redis", 6380, &[backend("10.0.0.2:7001")]),
            ],
        ),
        read(
            "b",
            &[pool("/green", "/Redis", 6379, &[backend("10.0.0.1:7000")])],
        ),
    ]);
    let desired = catalog.resolve(&Policy::default(), &mut allocator());
    assert_eq!(
        lines(&desired),
        [
            "11.202.66.36:6379/tcp -> 10.0.0.1:7000 10.0.0.2:7000",
            "11.202.66.36:6380/tcp -> 10.0.0.2:7001",
        ]
    );
    assert_eq!(problems(&desired, NoticeKind::Merged), [""; 0]);
    let service = desired.services.values().next().expect("a service");
    assert_eq!(
        service.fqdn().as_deref(),
        Some("redis.marathon.l4lb.thisdcos.directory")
    );
    assert_eq!(service.backends[0].app.as_ref(), "/green");
    assert_eq!(service.backends[0].provider, provider("b"));
}

#[test]
fn each_family_is_a_service_of_its_own() {
    let desired = resolve(&[pool(
        "/redis",
        "/redis",
        80,
        &[
            backend("[fd00::1]:80"),
            backend("10.0.0.1:80"),
            backend("[::ffff:10.0.0.2]:80"),
        ],
    )]);
    assert_eq!(
        lines(&desired),
        [
            "11.202.66.36:80/tcp -> 10.0.0.1:80 10.0.0.2:80",
            "[fd01:c::da94:49ac:1e87:4a07]:80/tcp -> [fd00::1]:80",
        ]
    );
    let addresses = desired.names[&name("redis.marathon")];
    assert_eq!(addresses.v4, Some([11, 202, 66, 36].into()));
    assert_eq!(
        addresses.v6.map(|a| a.to_string()).as_deref(),
        Some("fd01:c::da94:49ac:1e87:4a07")
    );
}

#[test]
fn one_address_is_one_backend_with_the_higher_weight() {
    let desired = resolve(&[
        pool("/a", "/redis", 80, &[drained("10.0.0.1:80")]),
        pool(
            "/b",
            "/redis",
            80,
            &[backend("10.0.0.1:80"), drained("10.0.0.3:80")],
        ),
        pool("/c", "/redis", 80, &[drained("10.0.0.1:80")]),
    ]);
    assert_eq!(
        lines(&desired),
        ["11.202.66.36:80/tcp -> 10.0.0.1:80 10.0.0.3:80=0"]
    );
    let backends = &desired
        .services
        .values()
        .next()
        .expect("a service")
        .backends;
    assert_eq!(backends[0].draining, None);
    assert_eq!(backends[1].draining, Some(Drain::unfit("unhealthy")));
}

#[test]
fn the_first_that_says_what_a_port_is_like_decides_and_another_word_is_a_conflict() {
    let one = |app, port, addr| pool(app, "/redis", port, &[backend(addr)]);
    let catalog = catalog([
        read(
            "a",
            &[
                one("/quiet", 80, "10.0.0.1:1"),
                shaped(one("/second", 80, "10.0.0.2:1"), 7),
                shaped(one("/second", 81, "10.0.0.2:2"), 8),
            ],
        ),
        read(
            "b",
            &[
                shaped(one("/third", 80, "10.0.0.3:1"), 9),
                shaped(one("/third", 81, "10.0.0.3:2"), 8),
            ],
        ),
    ]);
    let desired = catalog.resolve(&Policy::default(), &mut allocator());
    assert_eq!(
        lines(&desired),
        [
            "11.202.66.36:80/tcp -> 10.0.0.1:1 10.0.0.2:1",
            "11.202.66.36:81/tcp -> 10.0.0.2:2 10.0.0.3:2",
        ]
    );
    let rates: Vec<_> = desired
        .services
        .values()
        .map(|s| s.properties.rate)
        .collect();
    assert_eq!(rates, [7, 8]);
    assert_eq!(
        problems(&desired, NoticeKind::Refused),
        [
            "/third of test:b: VIP redis.marathon:80/tcp has another rate from app /second of test:a, which \
             comes first; left out"
        ]
    );
}

#[test]
fn an_ip_vip_is_shaped_likewise() {
    let one = |app| pool(app, "11.0.0.7", 80, &[backend("10.0.0.1:1")]);
    let pools = [shaped(one("/a"), 1), shaped(one("/b"), 2)];
    let desired = catalog([read("a", &pools)]).resolve(&ip_vips(&["11.0.0.0/8"]), &mut allocator());
    let service = desired.services.values().next().expect("a service");
    assert_eq!(service.properties.rate, 1);
    let refused = problems(&desired, NoticeKind::Refused);
    assert_eq!(
        refused,
        [
            "/b of test:a: VIP 11.0.0.7:80/tcp has another rate from app /a of test:a, which comes first; left out"
        ]
    );
}

#[test]
fn a_pool_of_draining_backends_keeps_its_name() {
    let desired = resolve(&[pool("/redis", "/redis", 80, &[drained("10.0.0.1:80")])]);
    assert!(desired.names.contains_key(&name("redis.marathon")));
    assert_eq!(lines(&desired), ["11.202.66.36:80/tcp -> 10.0.0.1:80=0"]);
}

#[test]
fn an_empty_pool_loses_its_name_and_keeps_its_address_and_is_still_known() {
    let mut catalog = catalog([read(
        "a",
        &[pool("/redis", "/redis", 80, &[backend("10.0.0.1:80")])],
    )]);
    let mut allocator = allocator();
    let before = catalog.resolve(&Policy::default(), &mut allocator);
    catalog.apply(read("a", &[pool("/redis", "/redis", 80, &[])]));
    let empty = catalog.resolve(&Policy::default(), &mut allocator);
    assert_eq!(empty.services, BTreeMap::new());
    assert_eq!(empty.names, BTreeMap::new());
    assert_eq!(empty.addresses, before.addresses);
    assert_eq!(
        empty.addresses,
        BTreeSet::from(["11.202.66.36".parse().expect("an address")])
    );
    let known = |desired: &Desired| -> Vec<String> {
        let empty = desired.empty.iter();
        empty
            .map(|(key, service)| format!("{key} {:?}", service.fqdn()))
            .collect()
    };
    assert_eq!(known(&before), [""; 0]);
    assert_eq!(
        known(&empty),
        ["11.202.66.36:80/tcp Some(\"redis.marathon.l4lb.thisdcos.directory\")"]
    );
    assert_eq!(empty.declared().count(), 1);
    catalog.apply(read("a", &[]));
    let gone = catalog.resolve(&Policy::default(), &mut allocator);
    assert_eq!(known(&gone), [""; 0]);
}

#[test]
fn a_vip_is_empty_only_where_no_family_and_nobody_serves_it() {
    let six = [backend("[fd00::1]:80")];
    let mut allocator = allocator();
    let mut catalog = catalog([read(
        "a",
        &[pool(
            "/a",
            "/redis",
            80,
            &[backend("10.0.0.1:80"), six[0].clone()],
        )],
    )]);
    catalog.resolve(&Policy::default(), &mut allocator);
    catalog.apply(read(
        "a",
        &[
            pool("/a", "/redis", 80, &six),
            pool("/b", "/redis", 80, &[]),
            pool("/b", "/redis", 81, &[]),
            pool("/c", "/new", 80, &[]),
            pool("/d", "11.0.0.7", 80, &[]),
        ],
    ));
    let desired = catalog.resolve(&ip_vips(&["11.0.0.0/24"]), &mut allocator);
    let known: Vec<_> = desired.empty.keys().map(ToString::to_string).collect();
    assert_eq!(
        known,
        [
            "11.0.0.7:80/tcp",
            "11.202.66.36:81/tcp",
            "[fd01:c::da94:49ac:1e87:4a07]:81/tcp"
        ]
    );
}

#[test]
fn a_bad_declaration_harms_no_other() {
    let desired = resolve(&[
        pool("/bad/name", "/%%", 80, &[backend("10.0.0.9:80")]),
        pool(
            "/bad/backends",
            "/redis",
            80,
            &[
                backend("10.0.0.8:0"),
                backend("0.0.0.0:80"),
                backend("224.0.0.1:80"),
                backend("11.202.66.36:80"),
            ],
        ),
        pool("/good", "/redis", 80, &[backend("10.0.0.1:80")]),
    ]);
    assert_eq!(lines(&desired), ["11.202.66.36:80/tcp -> 10.0.0.1:80"]);
    let refused = problems(&desired, NoticeKind::Refused);
    assert_eq!(refused.len(), 5, "{refused:#?}");
    assert_eq!(
        refused[4],
        "/bad/name of test:a: VIP name \"/%%\": nothing of \"/%%\" can be part of a DNS name: \
         it has no ASCII letter or digit"
    );
}

#[test]
fn an_exhausted_pool_fails_only_the_vip_that_came_too_late() {
    let bound = |text: &str| text.parse().expect("an address");
    let tiny = crate::vip::AddressPool::new(bound("11.0.0.0"), bound("11.0.0.1"));
    let pools = Pools {
        v4: Some(tiny.expect("a pool")),
        v6: None,
    };
    let vips = ["a", "b", "c"].map(|n| pool(&format!("/{n}"), n, 80, &[backend("10.0.0.1:80")]));
    let mut allocator = Allocator::new(pools, Leases::default());
    let desired = catalog([read("a", &vips)]).resolve(&Policy::default(), &mut allocator);
    assert_eq!(desired.services.len(), 2);
    let told = problems(&desired, NoticeKind::NoAddress);
    assert_eq!(
        told,
        [
            "/c of test:a: VIP c.marathon: the IPv4 pool 11.0.0.0-11.0.0.1 has no free address left; widen it"
        ]
    );
}

#[test]
fn without_an_ipv6_pool_only_a_vip_that_needs_it_complains() {
    let pools = Pools {
        v6: None,
        ..Pools::default()
    };
    let mut allocator = Allocator::new(pools, Leases::default());
    let both = [backend("10.0.0.1:80"), backend("[fd00::1]:80")];
    let desired = catalog([read(
        "a",
        &[
            pool("/both", "/both", 80, &both),
            pool("/six", "/six", 80, &both[1..]),
        ],
    )])
    .resolve(&Policy::default(), &mut allocator);
    assert_eq!(
        problems(&desired, NoticeKind::NoAddress),
        ["/six of test:a: VIP six.marathon: there is no IPv6 pool, so names have no IPv6 address"]
    );
}

#[test]
fn a_failed_reading_keeps_the_last_good_state() {
    let mut catalog = catalog([read(
        "a",
        &[pool("/redis", "/redis", 80, &[backend("10.0.0.1:80")])],
    )]);
    let mut allocator = allocator();
    let before = catalog.resolve(&Policy::default(), &mut allocator);
    assert!(!catalog.apply(failed("a", 5)));
    assert_eq!(catalog.resolve(&Policy::default(), &mut allocator), before);
    let (_, reading) = catalog.readings().next().expect("a provider");
    assert_eq!(reading.last_success, Some(SystemTime::UNIX_EPOCH));
    let failure = reading.failing().expect("it fails");
    assert_eq!(failure.reason, "connection refused");
}

#[test]
fn only_another_state_calls_for_a_new_resolution() {
    let mut catalog = Catalog::new([provider("a")]);
    assert!(catalog.apply(read("a", &[])), "it is no longer unknown");
    assert!(!catalog.apply(read("a", &[])));
    let redis = pool("/redis", "/redis", 80, &[]);
    assert!(catalog.apply(read("a", &[redis])));
}

#[test]
fn before_its_first_snapshot_a_provider_keeps_its_names() {
    let redis = pool("/redis", "/redis", 80, &[backend("10.0.0.1:80")]);
    let mut allocator = allocator();
    let before = catalog([read("a", &[redis])]).resolve(&Policy::default(), &mut allocator);

    let mut restarted = Catalog::new([provider("a"), provider("b")]);
    restarted.apply(read("b", &[]));
    restarted.apply(failed("a", 1));
    let waiting = restarted.resolve(&Policy::default(), &mut allocator);
    assert_eq!(waiting.waiting, BTreeSet::from([provider("a")]));
    assert_eq!(waiting.names, before.names);
    assert_eq!(waiting.addresses, before.addresses);

    restarted.apply(read("a", &[]));
    let known = restarted.resolve(&Policy::default(), &mut allocator);
    assert_eq!(known.waiting, BTreeSet::new());
    assert_eq!(known.names, BTreeMap::new());
}

#[test]
fn what_a_provider_left_out_is_told() {
    let snapshot = Snapshot {
        problems: vec![Problem {
            subject: "/app".into(),
            reason: "label VIP_0: no port".to_owned(),
        }],
        ..Snapshot::default()
    };
    let update = Update {
        outcome: Ok(Arc::new(snapshot)),
        ..read("a", &[])
    };
    let desired = catalog([update]).resolve(&Policy::default(), &mut allocator());
    assert_eq!(
        problems(&desired, NoticeKind::LeftOut),
        ["/app of test:a: label VIP_0: no port"]
    );
}

fn any_pool() -> impl Strategy<Value = Pool> {
    let host = prop_oneof!["/?[abAB]{1,2}(/[ab])?", Just("11.0.0.7".to_owned())];
    let backends = prop::collection::vec((0u8..6, 0u16..4, any::<bool>()), 0..4);
    ("/[xy]/[pq]", host, 1u16..3, backends).prop_map(|(app, host, port, backends)| {
        let backends = backends.into_iter().map(|(ip, weight, six)| Backend {
            weight: Weight::new(weight).expect("a weight"),
            ..backend(&match six {
                true => format!("[fd00::{ip}]:80"),
                false => format!("10.0.0.{ip}:80"),
            })
        });
        pool(&app, &host, port, &backends.collect::<Vec<_>>())
    })
}

proptest! {
    #[test]
    fn the_order_of_declarations_makes_no_difference(
        pools in prop::collection::vec(any_pool(), 0..12),
        policy in prop_oneof![Just("any"), Just("app-path"), Just("owner")],
    ) {
        let policy = Policy {
            name_policy: policy.parse().expect("a policy"),
            ..ip_vips(&["11.0.0.0/24"])
        };
        let reversed: Vec<_> = pools.iter().rev().cloned().collect();
        let one = catalog([read("a", &pools)]).resolve(&policy, &mut allocator());
        let other = catalog([read("a", &reversed)]).resolve(&policy, &mut allocator());
        prop_assert_eq!(&one, &other);
        for (key, service) in &one.services {
            prop_assert!(one.addresses.contains(&key.addr));
            prop_assert!(!service.backends.is_empty());
            prop_assert!(!one.empty.contains_key(key));
            prop_assert!(service.backends.is_sorted_by(|a, b| a.addr < b.addr));
            prop_assert!(service.backends.iter().all(|b| b.addr.is_ipv4() == key.addr.is_ipv4()));
        }
    }
}

#[test]
fn what_was_read_in_part_is_served_and_nothing_else_of_it_counts_as_gone() {
    let pools = vec![pool("/a", "/a", 80, &[backend("10.0.0.1:80")])];
    let whole = read("a", &pools);
    let part = Update {
        outcome: Ok(Arc::new(Snapshot {
            pools,
            partial: true,
            ..Snapshot::default()
        })),
        ..whole.clone()
    };
    let policy = Policy::default();
    let in_part = catalog([part.clone()]).resolve(&policy, &mut allocator());
    assert_eq!(lines(&in_part).len(), 1);
    assert_eq!(in_part.waiting, BTreeSet::from([provider("a")]));
    let mut later = catalog([part]);
    assert!(later.apply(whole), "what was held may go now");
    let in_whole = later.resolve(&policy, &mut allocator());
    assert_eq!(in_whole.waiting, BTreeSet::new());
    assert_eq!(lines(&in_whole), lines(&in_part));
}

#[test]
fn a_further_name_leads_to_its_vip_unless_somebody_declares_it() {
    let alias = |name: &str, of: &str| Alias {
        app: "/shop/web".into(),
        name: name.into(),
        of: of.into(),
        framework: "marathon".into(),
    };
    let read = |pools: &[Pool]| {
        let snapshot = Snapshot {
            pools: pools.to_vec(),
            aliases: vec![alias("web", "web.shop"), alias("db", "db.shop")],
            ..Snapshot::default()
        };
        let update = Update {
            provider: provider("a"),
            at: SystemTime::UNIX_EPOCH,
            outcome: Ok(Arc::new(snapshot)),
        };
        catalog([update]).resolve(&Policy::default(), &mut allocator())
    };
    let one = pool("/shop/web", "web.shop", 80, &[backend("10.0.0.1:80")]);
    let desired = read(std::slice::from_ref(&one));
    let expected = [(name("web.marathon"), name("web.shop.marathon"))];
    assert_eq!(desired.aliases, expected.into());
    assert!(
        !desired.names.contains_key(&name("web.marathon")),
        "it has no address of its own"
    );
    let other = pool("/other", "web", 80, &[backend("10.0.0.2:80")]);
    let desired = read(&[one, other]);
    assert_eq!(desired.aliases, BTreeMap::new());
    assert!(desired.names.contains_key(&name("web.marathon")));
}
