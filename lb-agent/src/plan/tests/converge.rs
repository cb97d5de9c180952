//! Through a kernel that fails at random, the plan still reaches what is wanted, and on the way no
//! promise is broken (the fake kernel panics if one is).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::backend_state;
use proptest::prelude::*;

use super::{
    ROOMY, backend, carry_out,
    fake::{Fake, Fate},
    serve, tcp,
};
use crate::plan::{
    BackendState, Endpoint, KernelState, Limits, Op, Planner, Reach, Wanted, WantedBackend,
    WantedService, plan, reconcile,
};

const TIGHT: Limits = Limits {
    services: 4,
    backends: 9,
    tables: [4, 1, 1],
    addresses: 4,
    sources: 2,
    listed: 2,
    locals: 2,
};

pub(super) fn backends() -> impl Strategy<Value = Vec<WantedBackend>> {
    let one = (0_u8..8, 0_usize..4, 0_u8..4, 0_u8..3).prop_map(|(who, weight, state, reach)| {
        WantedBackend {
            state: match state {
                0 => BackendState::Down,
                1 => BackendState::Draining,
                _ => BackendState::Up,
            },
            reach: match reach {
                0 => Reach::Net {
                    ifindex: 2,
                    next_hop: 0,
                },
                1 => Reach::Host,
                _ => Reach::Link { ifindex: 3 },
            },
            tier: who % 3,
            max_flows: [0, 0, 7, 9][weight],
            ..backend(&format!("10.0.0.{who}:80"), [0, 1, 2, 256][weight])
        }
    });
    // Now and then enough of them for a table of the middle size.
    let many = (10_u8..14).prop_map(|count| {
        let addr = |i| format!("10.0.1.{i}:80");
        (0..count).map(|i| backend(&addr(i), 1)).collect()
    });
    prop_oneof![7 => proptest::collection::vec(one, 0..6), 1 => many]
}

/// Properties, and what a list says of a prefix.
pub(super) fn service() -> impl Strategy<Value = WantedService> {
    let listed = proptest::collection::btree_map(1_u8..4, 1_u32..3, 0..3);
    (backends(), any::<bool>(), 0_u8..4, 0_u32..2, listed).prop_map(
        |(backends, fail_open, algorithm, max_flows, listed)| {
            let mut service = WantedService {
                fail_open,
                backends,
                ..WantedService::default()
            };
            service.shape.algorithm = algorithm;
            service.shape.max_flows = max_flows;
            let net = |n: u8| format!("10.{n}.0.0/16").parse().unwrap();
            let listed = listed.into_iter().map(|(n, rule)| (net(n), rule));
            service.lists = Arc::new(listed.collect());
            service
        },
    )
}

prop_compose! {
    fn wanted()(
        services in proptest::collection::btree_map((1_u8..4, 80_u16..82), service(), 0..5),
        nodes in proptest::collection::btree_set(1_u8..4, 0..3),
        sources in proptest::collection::btree_set(8_u8..12, 0..3),
    ) -> Wanted {
        let mut want = Wanted::default();
        for ((vip, port), service) in services {
            let key = tcp(&format!("11.0.0.{vip}:{port}"));
            want.vips.insert(key.addr);
            want.services.insert(key, Arc::new(service));
        }
        want.node_addresses = nodes.into_iter().map(|n| IpAddr::from([10, 0, 0, n])).collect();
        want.node.snat_ports = want.vips.len() as u16;
        want.sources = sources.into_iter().map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        want
    }
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        3 => Just(Fate::Done),
        1 => Just(Fate::Failed),
        1 => Just(Fate::DoneWithError),
    ];
    proptest::collection::vec(fate, 0..60)
}

/// What a client may rely on, said without the plan's own words.
fn assert_served(have: &KernelState, want: &Wanted) {
    assert!(have.services.keys().eq(want.services.keys()));
    let mut named = BTreeSet::new();
    for (key, service) in &want.services {
        let in_kernel = have.services[key];
        let table = have
            .tables
            .iter()
            .find(|(table, _)| (table.service, table.slots) == (in_kernel.id, in_kernel.slots));
        let in_table: BTreeSet<Endpoint> = table
            .into_iter()
            .flat_map(|(_, content)| content.ids())
            .map(|id| Endpoint::of(&have.backends[&id]).unwrap())
            .collect();
        let takes_flows = |addr| {
            let same = || service.backends.iter().filter(move |b| b.addr == addr);
            same().any(|b| b.weight.get() > 0) && same().any(|b| b.state == BackendState::Up)
        };
        let taking = service.backends.iter().filter(|b| takes_flows(b.addr));
        let first = taking.map(|b| b.tier).min();
        for backend in &service.backends {
            let endpoint = Endpoint::new(backend.addr, key.proto);
            named.insert(endpoint);
            if first.is_some_and(|tier| takes_flows(backend.addr) && backend.tier == tier) {
                assert!(in_table.contains(&endpoint), "{key} lacks {endpoint}");
            }
        }
        let takes_none = |endpoint: &Endpoint| {
            let own = |b: &&WantedBackend| Endpoint::new(b.addr, key.proto) == *endpoint;
            service
                .backends
                .iter()
                .filter(own)
                .all(|b| b.weight.get() == 0)
        };
        assert!(
            !in_table.iter().any(takes_none),
            "{key} has a stranger or a drained backend"
        );
    }
    let in_use: Vec<Endpoint> = have
        .backends
        .values()
        .filter(|backend| backend.state != backend_state::FREE)
        .map(|backend| Endpoint::of(backend).unwrap())
        .collect();
    assert_eq!(in_use.len(), named.len(), "each backend once");
    assert!(in_use.into_iter().all(|endpoint| named.contains(&endpoint)));
    assert_eq!(have.node, want.node);
    assert_eq!(have.sources, want.sources);
    for id in have.limits.keys() {
        assert_ne!(
            have.backends[id].state,
            backend_state::FREE,
            "limit of {id}"
        );
    }
    let listed = want.services.iter().flat_map(|(key, service)| {
        let id = have.services[key].id;
        service
            .lists
            .iter()
            .map(move |(net, rule)| ((id, *net), *rule))
    });
    let listed: BTreeMap<_, _> = listed.collect();
    let in_kernel = have.lists.iter();
    let in_kernel = in_kernel.map(|(listed, rule)| ((listed.service, listed.net), *rule));
    assert!(in_kernel.eq(listed));
    assert!(
        want.vips
            .union(&want.node_addresses)
            .eq(have.addresses.keys())
    );
    assert!(have.tables.len() <= have.services.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn through_random_failures_every_wish_comes_true(
        steps in proptest::collection::vec((wanted(), fates(), 1_usize..4), 1..5),
    ) {
        let mut kernel = Fake::default();
        let mut planner = Planner::default();
        for (want, fates, tries) in &steps {
            kernel.fates.clone_from(fates);
            for _ in 0..*tries {
                reconcile(&mut kernel, want, &ROOMY, &mut planner).unwrap();
            }
        }
        let want = &steps.last().unwrap().0;
        kernel.fates.clear();
        let report = reconcile(&mut kernel, want, &ROOMY, &mut planner).unwrap();
        prop_assert_eq!((report.failed.len(), report.problems.len()), (0, 0));
        assert_served(&kernel.state, want);
        let rest = plan(&kernel.state, want, &ROOMY);
        prop_assert!(rest.is_empty(), "not settled:\n{}", rest);
    }

    #[test]
    fn in_tight_maps_a_plan_settles_too_and_names_what_it_left_out(
        steps in proptest::collection::vec((wanted(), fates()), 1..5),
    ) {
        let mut kernel = Fake::default();
        let mut planner = Planner::default();
        for (want, fates) in &steps {
            kernel.fates.clone_from(fates);
            reconcile(&mut kernel, want, &TIGHT, &mut planner).unwrap();
        }
        let want = &steps.last().unwrap().0;
        kernel.fates.clear();
        for _ in 0..3 {
            reconcile(&mut kernel, want, &TIGHT, &mut planner).unwrap();
        }
        let rest = plan(&kernel.state, want, &TIGHT);
        prop_assert!(rest.is_empty(), "not settled:\n{}", rest);
        let all_there = kernel.state.services.len() == want.services.len();
        prop_assert!(all_there || !rest.problems.is_empty());
    }
}

#[test]
fn a_backend_that_cannot_be_written_holds_up_only_its_own_service() {
    let mut want = Wanted::default();
    serve(&mut want, "11.0.0.1:80", &[backend("10.0.0.1:80", 1)]);
    serve(&mut want, "11.0.0.2:80", &[backend("10.0.0.2:80", 1)]);
    let mut kernel = Fake::default();
    kernel.fates = vec![Fate::Failed];
    let report = reconcile(&mut kernel, &want, &ROOMY, &mut Planner::default()).unwrap();
    let failed: Vec<String> = report
        .failed
        .iter()
        .map(|(op, error)| format!("{}: {error}", &op[..13]))
        .collect();
    assert_eq!(
        failed,
        [
            "put backend 1: out of luck",
            "put table 1/1: held back: backend 1 is not there",
            "put service 1: held back: table 1/1021 is not there",
        ]
    );
    assert!(kernel.state.services.contains_key(&tcp("11.0.0.2:80")));
}

#[test]
fn without_its_grace_period_nothing_is_freed() {
    let mut kernel = Fake::default();
    let mut want = Wanted::default();
    serve(&mut want, "11.0.0.1:80", &[backend("10.0.0.1:80", 1)]);
    carry_out(&mut kernel.state, &want);
    // In order: delete service, delete address, grace. Then come state, table and backend.
    kernel.fates = vec![Fate::Failed, Fate::Done, Fate::Done];
    let report = reconcile(
        &mut kernel,
        &Wanted::default(),
        &ROOMY,
        &mut Planner::default(),
    )
    .unwrap();
    assert_eq!(report.applied, 2);
    assert_eq!(report.failed.len(), 4);
    assert_eq!(kernel.state.tables.len(), 1);
}

#[test]
fn what_an_earlier_life_left_half_done_is_finished() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    serve(&mut want, "11.0.0.1:80", &[backend("10.0.0.1:80", 1)]);
    let whole = carry_out(&mut have.clone(), &want);
    for op in whole.ops {
        let mut revived = have.clone();
        carry_out(&mut revived, &want);
        assert_served(&revived, &want);
        assert!(plan(&revived, &want, &ROOMY).is_empty());
        have.record(op);
    }
    // Died between grace period and deletion: tables and backends that nobody names.
    want.services.clear();
    have.services.clear();
    let rest = plan(&have, &want, &ROOMY);
    assert_eq!(
        rest.to_string(),
        "grace\nforget service 1\ndelete table 1/1021\nfree backend 1 generation 1\n"
    );
    assert!(matches!(rest.ops[0], Op::Grace));
}
