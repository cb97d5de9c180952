//! What the operator's bounds do to declarations.

use super::*;

#[test]
fn an_ip_vip_is_taken_only_where_the_operator_allows() {
    let declared = [
        pool("/in", "192.0.2.1", 80, &[backend("10.0.0.1:80")]),
        pool("/out", "198.51.100.1", 80, &[backend("10.0.0.1:80")]),
        pool("/six", "fd01:c::1234", 80, &[backend("[fd00::1]:80")]),
    ];
    let refused = resolve(&declared);
    assert_eq!(lines(&refused), [""; 0]);
    assert_eq!(problems(&refused, NoticeKind::Refused).len(), 3);
    assert_eq!(refused.addresses, BTreeSet::new());

    let policy = ip_vips(&["192.0.2.0/24", "fd01:c::/64"]);
    let desired = catalog([read("a", &declared)]).resolve(&policy, &mut allocator());
    assert_eq!(
        lines(&desired),
        [
            "192.0.2.1:80/tcp -> 10.0.0.1:80",
            "[fd01:c::1234]:80/tcp -> [fd00::1]:80"
        ]
    );
    assert_eq!(desired.names, BTreeMap::new());
    assert_eq!(desired.addresses.len(), 2);
    assert!(
        desired
            .services
            .values()
            .all(|service| service.fqdn().is_none())
    );
}

#[test]
fn an_ip_vip_is_nobodys_address_behind_another_service() {
    let policy = ip_vips(&["10.0.0.0/24", "192.0.2.0/24"]);
    let mut far = backend("172.17.0.2:80");
    far.host = Some("10.0.0.2".into());
    let declared = [
        pool("/web", "/web", 80, &[backend("10.0.0.1:80"), far]),
        pool("/task", "10.0.0.1", 80, &[backend("10.0.0.9:80")]),
        pool("/host", "10.0.0.2", 80, &[backend("10.0.0.9:80")]),
        pool("/free", "10.0.0.3", 80, &[backend("10.0.0.9:80")]),
        // It calls itself, which is the backend's fault.
        pool(
            "/self",
            "192.0.2.1",
            80,
            &[backend("192.0.2.1:80"), backend("10.0.0.9:80")],
        ),
    ];
    // What people write is no proof of who is there: one service of a file may lead to the VIP of another.
    let mut written = read(
        "a",
        &[pool("/chain", "/chain", 80, &[backend("10.0.0.3:80")])],
    );
    written.provider = ProviderId::new("file", "/etc/services.yaml");
    let all = catalog([read("a", &declared), written]);
    let desired = all.resolve(&policy, &mut allocator());
    let served: Vec<_> = desired.services.keys().map(ToString::to_string).collect();
    assert_eq!(served.len(), 4, "{served:?}");
    assert!(served.contains(&"10.0.0.3:80/tcp".to_owned()));
    assert!(served.contains(&"192.0.2.1:80/tcp".to_owned()));
    let refused = problems(&desired, NoticeKind::Refused);
    for expected in [
        "/task of test:a: IP VIP 10.0.0.1 is the address of a backend or of its host",
        "/host of test:a: IP VIP 10.0.0.2 is the address of a backend or of its host",
    ] {
        assert!(refused.iter().any(|said| said == expected), "{refused:?}");
    }
}

#[test]
fn an_ip_vip_takes_backends_of_its_own_family_only() {
    let policy = ip_vips(&["192.0.2.0/24", "fd01:c::/64"]);
    let both = [backend("10.0.0.1:80"), backend("[fd00::1]:80")];
    let declared = [
        pool("/four", "192.0.2.1", 80, &both),
        pool("/six", "fd01:c::1", 80, &both[..1]),
    ];
    let desired = catalog([read("a", &declared)]).resolve(&policy, &mut allocator());
    assert_eq!(lines(&desired), ["192.0.2.1:80/tcp -> 10.0.0.1:80"]);
    assert_eq!(
        problems(&desired, NoticeKind::Refused),
        ["/six of test:a: IP VIP fd01:c::1: none of its backends has an IPv6 address"]
    );
    assert_eq!(
        desired.addresses.len(),
        2,
        "its clients are refused at once"
    );
}

#[test]
fn names_and_ip_vips_stay_off_each_others_addresses() {
    let policy = ip_vips(&["11.0.0.0/8"]);
    let redis = pool("/redis", "/redis", 80, &[backend("10.0.0.1:80")]);
    let literal = pool("/ip", "11.202.66.36", 80, &[backend("10.0.0.2:80")]);

    let together = catalog([read("a", &[redis.clone(), literal.clone()])]);
    let desired = together.resolve(&policy, &mut allocator());
    assert_eq!(
        lines(&desired),
        [
            "11.202.66.36:80/tcp -> 10.0.0.2:80",
            "11.202.66.37:80/tcp -> 10.0.0.1:80"
        ]
    );
    assert_eq!(desired.contested, BTreeSet::from([name("redis.marathon")]));

    let mut allocator = allocator();
    catalog([read("a", &[redis])]).resolve(&policy, &mut allocator);
    let later = catalog([read("a", &[literal])]).resolve(&policy, &mut allocator);
    assert_eq!(lines(&later), [""; 0]);
    assert_eq!(
        problems(&later, NoticeKind::Refused),
        ["/ip of test:a: IP VIP 11.202.66.36 is the address of the VIP redis.marathon"]
    );
}

#[test]
fn no_name_takes_over_a_forbidden_address() {
    let redis = [pool("/redis", "/redis", 80, &[backend("10.0.0.1:80")])];
    let forbidden = "11.202.66.36".parse().expect("an address");
    let policy = Policy {
        forbidden: BTreeSet::from([forbidden]),
        ..Policy::default()
    };
    let desired = catalog([read("a", &redis)]).resolve(&policy, &mut allocator());
    assert_eq!(lines(&desired), ["11.202.66.37:80/tcp -> 10.0.0.1:80"]);

    let mut allocator = allocator();
    catalog([read("a", &redis)]).resolve(&Policy::default(), &mut allocator);
    let desired = catalog([read("a", &redis)]).resolve(&policy, &mut allocator);
    assert_eq!(lines(&desired), [""; 0]);
    assert_eq!(desired.names, BTreeMap::new());
    assert!(!desired.addresses.contains(&forbidden));
    assert_eq!(problems(&desired, NoticeKind::Refused).len(), 1);
}

#[test]
fn names_that_mangling_confuses_are_merged_and_told_once_per_pair() {
    let desired = resolve(&[
        pool("/a/b", "/a/b", 80, &[backend("10.0.0.1:80")]),
        pool("/ab", "ab", 80, &[backend("10.0.0.2:80")]),
        pool("/ab", "/AB", 80, &[backend("10.0.0.3:80")]),
    ]);
    assert_eq!(desired.services.len(), 1);
    assert_eq!(
        problems(&desired, NoticeKind::Merged),
        ["/ab of test:a: VIP name /AB merges with /a/b of app /a/b: both are ab.marathon in DNS"]
    );
}

#[test]
fn a_new_owner_in_anothers_pool_is_an_event() {
    let blue = pool("/blue/app", "/blue/app", 80, &[backend("10.0.0.1:80")]);
    let green = pool("/green/app", "/blue/app", 80, &[backend("10.0.0.2:80")]);
    let mut allocator = allocator();
    let before = catalog([read("a", std::slice::from_ref(&blue))])
        .resolve(&Policy::default(), &mut allocator);
    assert_eq!(problems(&before, NoticeKind::Joined), [""; 0]);
    let catalog = catalog([read("a", &[blue, green])]);
    let after = catalog.resolve(&Policy::default(), &mut allocator);
    let told: Vec<_> = after
        .new_problems(&before)
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        ["/green/app of test:a: it joins the VIP blueapp.marathon of blue of test:a"]
    );
    let again = catalog.resolve(&Policy::default(), &mut allocator);
    assert_eq!(again.new_problems(&after).count(), 0);
}

#[test]
fn under_the_owner_policy_the_first_keeps_the_name() {
    let policy = Policy {
        name_policy: NamePolicy::Owner,
        ..Policy::default()
    };
    let theirs = pool("/theirs/app", "/vip", 80, &[backend("10.0.0.1:80")]);
    let mine = pool("/mine/app", "/vip", 80, &[backend("10.0.0.2:80")]);
    let more = pool("/theirs/more", "/vip", 80, &[backend("10.0.0.3:80")]);
    let mut allocator = allocator();
    catalog([read("a", std::slice::from_ref(&theirs))]).resolve(&policy, &mut allocator);
    let desired =
        catalog([read("a", &[mine.clone(), theirs, more])]).resolve(&policy, &mut allocator);
    let addr = allocator
        .address(&name("vip.marathon"), crate::vip::Family::V4)
        .expect("an address");
    assert_eq!(
        lines(&desired),
        [format!("{addr}:80/tcp -> 10.0.0.1:80 10.0.0.3:80")]
    );
    let alone = catalog([read("a", std::slice::from_ref(&mine))]).resolve(&policy, &mut allocator);
    assert_eq!(
        lines(&alone),
        [""; 0],
        "the owner's absence changes nothing"
    );
    assert_eq!(
        problems(&alone, NoticeKind::Refused),
        ["/mine/app of test:a: VIP name /vip belongs to theirs of test:a (--name-policy owner)"]
    );
    assert!(allocator.release(&name("vip.marathon")));
    let released = catalog([read("a", &[mine])]).resolve(&policy, &mut allocator);
    assert_eq!(lines(&released).len(), 1);
}

#[test]
fn under_the_app_path_policy_names_follow_the_path_and_mangling_takes_nothing_over() {
    let policy = Policy {
        name_policy: NamePolicy::AppPath,
        ..Policy::default()
    };
    let honest = pool("/team/a/pp", "/team/a/pp", 80, &[backend("10.0.0.1:80")]);
    let foreign = pool("/other/x", "/team/a/pp", 80, &[backend("10.0.0.2:80")]);
    let sly = pool("/team/ap/x", "/team/ap/p", 80, &[backend("10.0.0.3:80")]);
    let mut allocator = allocator();
    let desired = catalog([read("a", &[sly, foreign, honest])]).resolve(&policy, &mut allocator);
    assert_eq!(desired.services.len(), 1);
    assert!(lines(&desired)[0].ends_with("-> 10.0.0.1:80"));
    let refused = problems(&desired, NoticeKind::Refused);
    assert_eq!(refused.len(), 2, "{refused:#?}");
    assert!(refused[0].contains("neither with the app's id nor with its group"));
    assert!(refused[1].contains("same DNS name as team/a/pp"));
}

#[test]
fn what_is_for_other_groups_of_agents_is_not_served_and_claims_no_name() {
    let of = |app: &str, groups: &[&str]| {
        let properties = Properties {
            groups: groups.iter().map(|&group| group.into()).collect(),
            ..Properties::default()
        };
        Pool {
            properties: Some(Arc::new(properties)),
            ..pool(app, app, 80, &[backend("10.0.0.1:80")])
        }
    };
    let pools = [
        of("/all", &[]),
        of("/edge", &["edge"]),
        of("/both", &["inner", "edge"]),
    ];
    let served = |groups: &[&str]| {
        let policy = Policy {
            groups: groups.iter().map(|&group| group.into()).collect(),
            ..Policy::default()
        };
        let desired = catalog([read("a", &pools)]).resolve(&policy, &mut allocator());
        assert_eq!(desired.problems, []);
        let names = desired.names.keys().map(ToString::to_string);
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(served(&[]), "all.marathon");
    assert_eq!(
        served(&["edge"]),
        "all.marathon both.marathon edge.marathon"
    );
    assert_eq!(served(&["inner", "x"]), "all.marathon both.marathon");
    assert_eq!(served(&["*"]), "all.marathon both.marathon edge.marathon");
}
