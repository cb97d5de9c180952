//! Properties of services: limits, tiers, lists of sources.

use std::sync::Arc;

use lb_common::{algorithm, backend_state, service_flag, service_mode, source_rule};

use super::{ROOMY, backend, carry_out, in_state, serve, tcp};
use crate::plan::{BackendState, KernelState, Limits, Wanted, WantedBackend, WantedService, plan};

const VIP: &str = "11.0.0.1:80";
const A: &str = "10.0.0.1:8080";
const B: &str = "10.0.0.2:8080";

fn change(want: &mut Wanted, vip: &str, with: impl FnOnce(&mut WantedService)) {
    with(Arc::make_mut(want.services.get_mut(&tcp(vip)).unwrap()));
}

fn listing(service: &mut WantedService, entries: &[(&str, u32)]) {
    let entries = entries
        .iter()
        .map(|(net, rule)| (net.parse().unwrap(), *rule));
    service.lists = Arc::new(entries.collect());
}

fn lines(have: &mut KernelState, want: &Wanted) -> Vec<String> {
    let plan = carry_out(have, want);
    assert!(carry_out(have, want).is_empty(), "not settled");
    plan.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn a_service_with_everything_comes_with_its_limits_and_lists_and_leaves_nothing_behind() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    let limited = WantedBackend {
        max_flows: 50,
        ..backend(B, 3)
    };
    serve(&mut want, VIP, &[backend(A, 1), limited]);
    change(&mut want, VIP, |service| {
        service.shape.algorithm = algorithm::LEAST_CONN;
        service.shape.mode = service_mode::DSR_L2;
        service.shape.flags = service_flag::ALLOW_LISTED | service_flag::FAIL_OPEN;
        service.shape.affinity = 60;
        service.shape.max_flows = 100;
        service.shape.rate = 10;
        service.shape.source_rate = 2;
        service.shape.idle_tcp = 300;
        listing(
            service,
            &[
                ("10.0.0.0/8", source_rule::ALLOW),
                ("10.9.0.0/16", source_rule::DENY),
            ],
        );
    });
    assert_eq!(
        lines(&mut have, &want),
        [
            "put backend 1 10.0.0.1:8080/tcp active net generation 1",
            "put backend 2 10.0.0.2:8080/tcp active net generation 1",
            "put limit 1 flows 0 weight 1",
            "put limit 2 flows 50 weight 3",
            "put list of 1 allow 10.0.0.0/8",
            "put list of 1 deny 10.9.0.0/16",
            "put table 1/1021 1:255 2:766 #f303cbea",
            "put service 11.0.0.1:80/tcp id 1 slots 1021 allow-listed least-conn dsr-l2 affinity 60 \
             max-flows 100 rate 10 source-rate 2 idle-tcp 300",
            "put address 11.0.0.1 vip",
        ]
    );
    assert_eq!(
        lines(&mut have, &Wanted::default()),
        [
            "delete service 11.0.0.1:80/tcp",
            "delete address 11.0.0.1",
            "delete from list of 1 10.0.0.0/8",
            "delete from list of 1 10.9.0.0/16",
            "grace",
            "forget service 1",
            "delete table 1/1021",
            "free backend 1 generation 1",
            "free backend 2 generation 1",
            "put limit 1 flows 0 weight 0",
            "put limit 2 flows 0 weight 0",
        ]
    );
    assert_eq!((have.limits.len(), have.lists.len()), (0, 0));
}

#[test]
fn a_list_grows_before_its_service_says_so_and_shrinks_after() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    serve(&mut want, VIP, &[backend(A, 1)]);
    carry_out(&mut have, &want);
    change(&mut want, VIP, |service| {
        service.shape.flags = service_flag::DENY_LISTED;
        listing(service, &[("10.0.0.0/8", source_rule::DENY)]);
    });
    assert_eq!(
        lines(&mut have, &want),
        [
            "put list of 1 deny 10.0.0.0/8",
            "put service 11.0.0.1:80/tcp id 1 slots 1021 deny-listed",
        ]
    );
    change(&mut want, VIP, |service| {
        service.shape.flags = 0;
        listing(service, &[]);
    });
    assert_eq!(
        lines(&mut have, &want),
        [
            "put service 11.0.0.1:80/tcp id 1 slots 1021",
            "delete from list of 1 10.0.0.0/8",
        ]
    );
}

#[test]
fn a_service_whose_list_does_not_fit_is_left_out_and_harms_no_other() {
    let (have, mut want) = (KernelState::default(), Wanted::default());
    let small = Limits { listed: 2, ..ROOMY };
    for (vip, nets) in [("11.0.0.1:80", 1), ("11.0.0.2:80", 2), ("11.0.0.3:80", 1)] {
        serve(&mut want, vip, &[backend(A, 1)]);
        let nets: Vec<String> = (0..nets).map(|n| format!("10.{n}.0.0/16")).collect();
        let entries: Vec<_> = nets
            .iter()
            .map(|net| (net.as_str(), source_rule::DENY))
            .collect();
        change(&mut want, vip, |service| listing(service, &entries));
    }
    let plan = plan(&have, &want, &small);
    let problem = "service 11.0.0.2:80/tcp is left out: the map of its sources is full (2)";
    assert_eq!(plan.problems, [problem]);
    let text = plan.to_string();
    assert!(!text.contains("put service 11.0.0.2"), "{text}");
    assert!(text.contains("put service 11.0.0.3"), "{text}");
}

#[test]
fn a_backend_of_two_services_has_the_stricter_limit() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    for (vip, max_flows) in [("11.0.0.1:80", 0), ("11.0.0.2:80", 9), ("11.0.0.3:80", 7)] {
        let limited = WantedBackend {
            max_flows,
            ..backend(A, 1)
        };
        serve(&mut want, vip, &[limited]);
    }
    carry_out(&mut have, &want);
    assert_eq!(have.limits[&1].max_flows, 7);
}

#[test]
fn the_lowest_tier_with_a_backend_that_takes_flows_is_used() {
    let at = |state, addr, tier| WantedBackend {
        tier,
        ..in_state(state, addr, 1)
    };
    let (up, down) = (BackendState::Up, BackendState::Down);
    for (first, second, third, used) in [
        (up, up, up, "1:1021"),
        (down, up, up, "2:1021"),
        (down, down, up, "3:1021"),
        // All fail open together.
        (down, down, down, "1:341 2:340 3:340"),
        (BackendState::Draining, up, up, "2:1021"),
    ] {
        let (mut have, mut want) = (KernelState::default(), Wanted::default());
        let third = at(third, "10.0.0.3:8080", 2);
        serve(&mut want, VIP, &[at(first, A, 0), at(second, B, 1), third]);
        let plan = carry_out(&mut have, &want).to_string();
        assert!(
            plan.contains(&format!("put table 1/1021 {used} ")),
            "{plan}"
        );
        let active = plan.matches(" active ").count();
        assert!(
            active <= 1,
            "a backend that stands by keeps its flows alone: {plan}"
        );
    }
}

#[test]
fn a_primary_of_weight_zero_makes_way_for_the_backup() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    let backup = WantedBackend {
        tier: 2,
        ..backend(B, 1)
    };
    serve(&mut want, VIP, &[backend(A, 1), backup]);
    carry_out(&mut have, &want);
    serve(&mut want, VIP, &[backend(A, 0), backup]);
    let lines = lines(&mut have, &want);
    assert_eq!(
        lines[..2],
        [
            "put backend 1 10.0.0.1:8080/tcp draining net generation 1",
            "put backend 2 10.0.0.2:8080/tcp active net generation 1",
        ]
    );
    assert!(
        lines[2].starts_with("put table 1/1021 2:1021 "),
        "{lines:?}"
    );
}

#[test]
fn a_backend_that_is_kept_is_neither_freed_nor_given_away_until_it_is_not() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    let limited = WantedBackend {
        max_flows: 5,
        ..backend(A, 0)
    };
    serve(&mut want, VIP, &[limited, backend(B, 1)]);
    carry_out(&mut have, &want);
    serve(&mut want, VIP, &[backend(B, 1)]);
    want.kept = [1].into();
    assert_eq!(lines(&mut have, &want), [""; 0]);
    want.kept.clear();
    assert_eq!(
        lines(&mut have, &want),
        [
            "grace",
            "free backend 1 generation 1",
            "put limit 1 flows 0 weight 0",
        ]
    );
}

#[test]
fn who_is_off_by_order_is_down_and_never_failed_open() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    let table = |have: &KernelState| {
        let shares = have.tables.values().flat_map(|table| table.shares());
        let ids: std::collections::BTreeSet<u32> = shares.map(|(id, _)| *id).collect();
        let service = have.services[&tcp(VIP)];
        let states = [1, 2].map(|id| have.backends[&id].state);
        let fails_open = service.flags & service_flag::FAIL_OPEN != 0;
        (ids, states, fails_open)
    };
    let (up, down) = (backend_state::ACTIVE, backend_state::DOWN);
    for (second, expected) in [
        (BackendState::Up, ([2].into(), [down, up], false)),
        // Those that are merely down decide, and are used all the same.
        (BackendState::Down, ([2].into(), [down, down], true)),
        (BackendState::Off, ([].into(), [down, down], false)),
    ] {
        let first = in_state(BackendState::Off, A, 0);
        serve(&mut want, VIP, &[first, in_state(second, B, 1)]);
        carry_out(&mut have, &want);
        assert_eq!(table(&have), expected, "{second:?}");
        assert!(carry_out(&mut have, &want).is_empty(), "not settled");
    }
}
