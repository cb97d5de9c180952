//! Leases in every order, and what other nodes say of them.

use proptest::prelude::*;

use super::*;

fn name(canonical: &str) -> VipName {
    VipName::from_canonical(canonical).expect("a canonical name")
}

fn wanted(names: &[&str]) -> BTreeSet<(Family, VipName)> {
    names.iter().map(|n| (Family::V4, name(n))).collect()
}

fn pool(min: &str, max: &str) -> Pools {
    let bound = |text: &str| text.parse().expect("an address");
    Pools {
        v4: Some(AddressPool::new(bound(min), bound(max)).expect("a pool")),
        v6: Some(AddressPool::DEFAULT_V6),
    }
}

fn fresh(pools: Pools) -> Allocator {
    Allocator::new(pools, Leases::default())
}

fn address(allocator: &Allocator, canonical: &str) -> String {
    match allocator.address(&name(canonical), Family::V4) {
        Some(addr) => addr.to_string(),
        None => "none".to_owned(),
    }
}

const NONE: BTreeSet<IpAddr> = BTreeSet::new();

#[test]
fn names_allocated_together_collide_in_ascending_order() {
    let mut allocator = fresh(Pools::default());
    allocator.allocate(&wanted(&["svc4703.marathon", "svc1265.marathon"]), &NONE);
    assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.66");
    assert_eq!(address(&allocator, "svc4703.marathon"), "11.29.210.67");
}

#[test]
fn the_name_allocated_first_keeps_its_address() {
    let mut allocator = fresh(Pools::default());
    allocator.allocate(&wanted(&["svc4703.marathon"]), &NONE);
    allocator.allocate(&wanted(&["svc1265.marathon"]), &NONE);
    assert_eq!(address(&allocator, "svc4703.marathon"), "11.29.210.66");
    assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.67");
}

#[test]
fn both_sides_of_a_collision_are_not_agreed_across_nodes() {
    let mut allocator = fresh(Pools::default());
    allocator.allocate(
        &wanted(&["redis.marathon", "svc1265.marathon", "svc4703.marathon"]),
        &NONE,
    );
    let expected = BTreeSet::from([name("svc1265.marathon"), name("svc4703.marathon")]);
    assert_eq!(*allocator.contested(), expected);
    let restarted = Allocator::new(Pools::default(), allocator.leases().clone());
    assert_eq!(*restarted.contested(), expected);
}

#[test]
fn a_reserved_address_is_skipped() {
    let mut allocator = fresh(Pools::default());
    let reserved = BTreeSet::from(["11.202.66.36".parse().expect("an address")]);
    allocator.allocate(&wanted(&["redis.marathon"]), &reserved);
    assert_eq!(address(&allocator, "redis.marathon"), "11.202.66.37");
}

#[test]
fn an_exhausted_pool_fails_only_the_names_that_came_too_late() {
    let mut allocator = fresh(pool("11.0.0.0", "11.0.0.1"));
    let failed = allocator.allocate(&wanted(&["a.m", "b.m", "c.m"]), &NONE);
    let late: Vec<_> = failed.keys().map(|(_, name)| name.as_str()).collect();
    assert_eq!(late, ["c.m"]);
    assert_ne!(address(&allocator, "a.m"), "none");
    assert_ne!(address(&allocator, "b.m"), "none");
    assert!(allocator.release(&name("a.m")));
    assert_eq!(
        allocator.allocate(&wanted(&["b.m", "c.m"]), &NONE),
        BTreeMap::new()
    );
}

#[test]
fn a_family_without_a_pool_says_so() {
    let mut allocator = fresh(Pools {
        v6: None,
        ..Pools::default()
    });
    let failed = allocator.allocate(&BTreeSet::from([(Family::V6, name("a.m"))]), &NONE);
    let errors: Vec<_> = failed.values().map(AllocError::to_string).collect();
    assert_eq!(
        errors,
        ["there is no IPv6 pool, so names have no IPv6 address"]
    );
}

#[test]
fn changed_bounds_move_only_the_leases_outside() {
    let mut allocator = fresh(pool("11.0.0.0", "11.0.0.254"));
    allocator.allocate(&wanted(&["foo.bar", "baz.qux"]), &NONE);
    let leases = allocator.leases().clone();
    let mut narrower = Allocator::new(pool("11.0.0.38", "11.0.0.254"), leases);
    assert_eq!(address(&narrower, "foo.bar"), "none");
    narrower.allocate(&NONE_WANTED, &NONE);
    assert_eq!(address(&narrower, "baz.qux"), "11.0.0.39");
    let moved = narrower
        .address(&name("foo.bar"), Family::V4)
        .expect("an address");
    let v4 = narrower.pools().v4.expect("a pool");
    assert_eq!(moved, v4.candidate(&name("foo.bar")));
    assert!(narrower.unsaved());
    assert!(
        narrower.contested().contains(&name("baz.qux")),
        "its candidate moved with Q"
    );
}

const NONE_WANTED: BTreeSet<(Family, VipName)> = BTreeSet::new();

#[test]
fn a_pool_that_is_away_for_a_while_keeps_its_leases() {
    let mut allocator = fresh(Pools::default());
    allocator.allocate(&wanted(&["svc4703.marathon"]), &NONE);
    let without = Pools {
        v4: None,
        ..Pools::default()
    };
    let mut allocator = Allocator::new(without, allocator.leases().clone());
    allocator.allocate(&wanted(&["svc1265.marathon"]), &NONE);
    assert_eq!(address(&allocator, "svc4703.marathon"), "none");
    assert_eq!(allocator.addresses().count(), 0);
    let back = Allocator::new(Pools::default(), allocator.leases().clone());
    assert_eq!(address(&back, "svc4703.marathon"), "11.29.210.66");
}

#[test]
fn only_a_change_asks_to_be_saved() {
    let mut allocator = fresh(Pools::default());
    allocator.allocate(&wanted(&["redis.marathon"]), &NONE);
    assert!(allocator.unsaved());
    allocator.mark_saved();
    allocator.allocate(&wanted(&["redis.marathon"]), &NONE);
    allocator.allocate(&NONE_WANTED, &NONE);
    assert!(!allocator.unsaved());
    assert_eq!(address(&allocator, "redis.marathon"), "11.202.66.36");
}

fn shared(pairs: &[(&str, &str)]) -> Arc<Shared> {
    let mut shared = Shared::default();
    for (canonical, addr) in pairs {
        assert!(shared.add(name(canonical), addr.parse().expect("an address")));
    }
    Arc::new(shared)
}

#[test]
fn what_all_nodes_agreed_on_wins_over_own_leases() {
    let mut allocator = fresh(Pools::default());
    allocator.allocate(&wanted(&["svc1265.marathon", "svc4703.marathon"]), &NONE);
    assert_eq!(allocator.contested().len(), 2);
    // Another node met them in the other order.
    let agreed = shared(&[
        ("svc4703.marathon", "11.29.210.66"),
        ("svc1265.marathon", "11.29.210.67"),
    ]);
    let moved = allocator.agree(&agreed);
    assert_eq!(moved.len(), 2);
    assert_eq!(address(&allocator, "svc4703.marathon"), "11.29.210.66");
    assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.67");
    assert!(
        allocator.contested().is_empty(),
        "{:?}",
        allocator.contested()
    );
    assert!(allocator.unsaved());
    assert!(allocator.agree(&agreed).is_empty(), "nothing is new");
}

#[test]
fn who_loses_an_address_to_another_probes_on() {
    let mut allocator = fresh(Pools::default());
    let both = wanted(&["svc1265.marathon", "redis.marathon"]);
    allocator.allocate(&both, &NONE);
    // Of a name that this node does not know.
    let agreed = shared(&[("svc4703.marathon", "11.29.210.66")]);
    assert_eq!(allocator.agree(&agreed), [name("svc1265.marathon")].into());
    assert_eq!(address(&allocator, "svc1265.marathon"), "none");
    allocator.allocate(&both, &NONE);
    assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.67");
    assert_eq!(address(&allocator, "redis.marathon"), "11.202.66.36");
    allocator.allocate(&wanted(&["svc4703.marathon"]), &NONE);
    assert_eq!(address(&allocator, "svc4703.marathon"), "11.29.210.66");
    let contested: Vec<_> = allocator.contested().iter().map(VipName::as_str).collect();
    assert_eq!(contested, ["svc1265.marathon"], "it is not claimed yet");
}

fn with_store(pools: Pools) -> Allocator {
    let mut allocator = fresh(pools);
    allocator.share();
    allocator
}

/// The names that wait, and for what.
fn pending(allocator: &Allocator) -> Vec<String> {
    let each = allocator.pending().iter();
    each.map(|((name, _), addr)| format!("{name} {addr}"))
        .collect()
}

#[test]
fn with_a_store_a_name_that_must_probe_waits_until_its_address_is_agreed_on() {
    let mut allocator = with_store(Pools::default());
    let both = wanted(&["svc1265.marathon", "svc4703.marathon"]);
    let failed = allocator.allocate(&both, &NONE);
    assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.66");
    assert_eq!(address(&allocator, "svc4703.marathon"), "none");
    assert_eq!(pending(&allocator), ["svc4703.marathon 11.29.210.67"]);
    let reasons: Vec<_> = failed.values().map(AllocError::to_string).collect();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].contains("11.29.210.67"), "{reasons:?}");
    let contested: Vec<_> = allocator.contested().iter().map(VipName::as_str).collect();
    assert_eq!(contested, ["svc1265.marathon"], "its address was met");

    allocator.agree(&shared(&[("svc4703.marathon", "11.29.210.67")]));
    assert_eq!(allocator.allocate(&both, &NONE), BTreeMap::new());
    assert_eq!(address(&allocator, "svc4703.marathon"), "11.29.210.67");
    assert_eq!(pending(&allocator), [""; 0]);
}

#[test]
fn an_address_that_was_probed_for_before_there_was_a_store_goes_on_serving() {
    let mut allocator = fresh(Pools::default());
    let both = wanted(&["svc1265.marathon", "svc4703.marathon"]);
    allocator.allocate(&both, &NONE);
    let mut restarted = Allocator::new(Pools::default(), allocator.leases().clone());
    restarted.share();
    assert_eq!(restarted.allocate(&both, &NONE), BTreeMap::new());
    assert_eq!(address(&restarted, "svc4703.marathon"), "11.29.210.67");
    assert_eq!(pending(&restarted), [""; 0]);
}

#[test]
fn who_must_probe_takes_nobodys_first_address_and_no_two_wait_for_one() {
    // Every name's first address is one of two, so all but two of them must probe.
    let mut allocator = with_store(pool("11.0.0.0", "11.0.0.2"));
    allocator.allocate(&wanted(&["a.m", "b.m", "c.m"]), &NONE);
    let v4 = allocator.pools().v4.expect("a pool");
    for (addr, name) in allocator.addresses() {
        assert_eq!(v4.candidate(name), addr, "{name}");
    }
    let held: BTreeSet<IpAddr> = allocator.addresses().map(|(addr, _)| addr).collect();
    let waiting: BTreeSet<IpAddr> = allocator.pending().values().copied().collect();
    assert_eq!(waiting.len(), allocator.pending().len());
    assert!(held.is_disjoint(&waiting));
    assert_eq!(held.len() + waiting.len(), 3);
    // Whoever is not in use any more waits for nothing.
    allocator.allocate(&NONE_WANTED, &NONE);
    assert_eq!(pending(&allocator), [""; 0]);
}

#[test]
fn an_agreement_outside_the_pool_or_on_a_reserved_address_is_not_taken() {
    let mut allocator = fresh(Pools::default());
    let reserved = BTreeSet::from(["11.1.1.1".parse().expect("an address")]);
    let agreed = shared(&[
        ("redis.marathon", "11.1.1.1"),
        ("svc1265.marathon", "10.0.0.1"),
    ]);
    allocator.agree(&agreed);
    allocator.allocate(&wanted(&["redis.marathon", "svc1265.marathon"]), &reserved);
    assert_eq!(address(&allocator, "redis.marathon"), "11.202.66.36");
    assert_eq!(address(&allocator, "svc1265.marathon"), "11.29.210.66");
}

fn batches() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..8)
}

fn batch(numbers: &[u8]) -> BTreeSet<(Family, VipName)> {
    let names: Vec<String> = numbers.iter().map(|n| format!("svc{n}.m")).collect();
    wanted(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn a_lease_never_moves_and_no_two_names_share_one(batches in batches()) {
        let mut allocator = fresh(pool("11.0.0.0", "11.0.0.63"));
        let mut seen: BTreeMap<VipName, IpAddr> = BTreeMap::new();
        for numbers in &batches {
            let wanted = batch(numbers);
            let failed = allocator.allocate(&wanted, &NONE);
            prop_assert!(failed.is_empty() || seen.len() + wanted.len() > 64);
            for (addr, name) in allocator.addresses() {
                let first = *seen.entry(name.clone()).or_insert(addr);
                prop_assert_eq!(first, addr);
            }
        }
        let distinct: BTreeSet<_> = seen.values().collect();
        prop_assert_eq!(distinct.len(), seen.len());
    }

    #[test]
    fn a_name_that_is_not_contested_has_one_address_in_any_order(batches in batches()) {
        let mut one = fresh(pool("11.0.0.0", "11.0.3.255"));
        let mut other = one.clone();
        for numbers in &batches {
            one.allocate(&batch(numbers), &NONE);
        }
        for numbers in batches.iter().rev() {
            other.allocate(&batch(numbers), &NONE);
        }
        for (addr, name) in one.addresses() {
            if !one.contested().contains(name) {
                prop_assert_eq!(other.address(name, Family::V4), Some(addr));
            }
        }
    }
}
