//! Names of services that are stopped.

use super::*;

/// What Docker says.
fn docker(pools: &[Pool]) -> Update {
    Update {
        provider: ProviderId::new("docker", "/run/docker.sock"),
        ..read("a", pools)
    }
}

#[test]
fn a_name_of_docker_stays_at_its_addresses_while_nothing_is_behind_it() {
    let both = [backend("10.0.0.1:80"), backend("[fd00::1]:80")];
    let web = |backends: &[Backend]| docker(&[pool("/web", "web", 80, backends)]);
    let (policy, mut allocator) = (Policy::default(), allocator());
    let mut catalog = catalog([web(&both)]);
    let before = catalog.resolve(&policy, &mut allocator).names;
    catalog.apply(web(&[]));
    let stopped = catalog.resolve(&policy, &mut allocator);
    assert_eq!(stopped.services, BTreeMap::new());
    assert_eq!(stopped.names, before);
    assert_eq!(stopped.empty.len(), 2, "it is shown in both families");
    catalog.apply(web(&both[..1]));
    let (name, back) = (
        name("web.marathon"),
        catalog.resolve(&policy, &mut allocator),
    );
    let (before, back) = (before[&name], back.names[&name]);
    assert!(before.v4.is_some() && before.v6.is_some());
    assert_eq!((back.v4, back.v6), (before.v4, None));
    catalog.apply(docker(&[]));
    let removed = catalog.resolve(&policy, &mut allocator);
    assert_eq!(removed.names, BTreeMap::new());
}

#[test]
fn a_name_that_nothing_was_behind_yet_has_no_address() {
    let created = docker(&[pool("/web", "web", 80, &[])]);
    let desired = catalog([created]).resolve(&Policy::default(), &mut allocator());
    let names = BTreeMap::from([(name("web.marathon"), NameAddresses::default())]);
    assert_eq!(desired.names, names);
    assert_eq!(desired.addresses, BTreeSet::new());
}

#[test]
fn what_nobody_is_behind_gives_way_to_what_somebody_is() {
    let running = [backend("10.0.0.1:80")];
    let both = |first: &[Backend]| {
        docker(&[
            shaped(pool("/blue", "web", 80, first), 1),
            shaped(pool("/green", "web", 80, &running), 2),
        ])
    };
    let rate = |desired: &Desired| {
        let service = desired.services.values().next();
        service.map(|service| service.properties.rate)
    };
    let (policy, mut allocator) = (Policy::default(), allocator());
    let mut catalog = catalog([both(&[backend("10.0.0.2:80")])]);
    assert_eq!(rate(&catalog.resolve(&policy, &mut allocator)), Some(1));
    catalog.apply(both(&[]));
    let desired = catalog.resolve(&policy, &mut allocator);
    assert_eq!(rate(&desired), Some(2));
    let refused = problems(&desired, NoticeKind::Refused);
    assert!(
        refused.len() == 1 && refused[0].starts_with("/blue of docker:"),
        "{refused:?}"
    );
}
