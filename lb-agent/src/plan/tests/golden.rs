//! Plans as text.

use std::sync::Arc;

use lb_common::{Addr4, NodeConfig, SLOTS_MEDIUM};

use super::{backend, carry_out, in_state, serve, tcp};
use crate::plan::{BackendState, KernelState, Reach, Wanted, WantedBackend};

const VIP: &str = "11.0.0.1:80";
const A: &str = "10.0.0.1:8080";
const B: &str = "10.0.0.2:8080";

/// A kernel that carries a service with these backends.
fn serving(backends: &[WantedBackend]) -> (KernelState, Wanted) {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    serve(&mut want, VIP, backends);
    carry_out(&mut have, &want);
    (have, want)
}

fn assert_plan(have: &mut KernelState, want: &Wanted, text: &str) {
    let plan = carry_out(have, want);
    assert_eq!(plan.to_string(), text, "\n{plan}");
    let again = carry_out(have, want);
    assert!(again.is_empty(), "not settled:\n{again}");
}

#[test]
fn a_first_start_writes_backends_before_tables_before_services_before_vips() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    let host = WantedBackend {
        reach: Reach::Host,
        ..backend(A, 1)
    };
    let link = WantedBackend {
        reach: Reach::Link { ifindex: 7 },
        ..backend(B, 2)
    };
    serve(&mut want, VIP, &[host, link]);
    serve(&mut want, "[fd01:c::1]:80", &[backend("[fd00::1]:8080", 1)]);
    want.node_addresses.insert("10.0.0.1".parse().unwrap());
    want.sources.insert("10.0.0.0/8".parse().unwrap());
    want.node = NodeConfig {
        snat4: Addr4::from(std::net::Ipv4Addr::new(10, 0, 0, 1)),
        snat_port_min: 61_000,
        snat_ports: 4_000,
        ..NodeConfig::default()
    };
    assert_plan(
        &mut have,
        &want,
        "put backend 1 10.0.0.1:8080/tcp active host generation 1\n\
         put backend 2 10.0.0.2:8080/tcp active link 7 generation 1\n\
         put backend 3 [fd00::1]:8080/tcp active net generation 1\n\
         put source 10.0.0.0/8\n\
         put address 10.0.0.1 node\n\
         put node snat 10.0.0.1 :: ports 61000+4000\n\
         put table 1/1021 1:340 2:681 #26f0073c\n\
         put table 2/1021 3:1021 #65e2da8c\n\
         put service 11.0.0.1:80/tcp id 1 slots 1021\n\
         put service [fd01:c::1]:80/tcp id 2 slots 1021\n\
         put address 11.0.0.1 vip\n\
         put address fd01:c::1 vip\n",
    );
}

#[test]
fn another_next_hop_is_one_write() {
    let (mut have, mut want) = serving(&[backend(A, 1), backend(B, 1)]);
    for next_hop in [4, 5] {
        let reach = Reach::Net {
            ifindex: 2,
            next_hop,
        };
        let moved = WantedBackend {
            reach,
            ..backend(B, 1)
        };
        serve(&mut want, VIP, &[backend(A, 1), moved]);
        let text = format!("put backend 2 {B}/tcp active net via {next_hop} generation 1\n");
        assert_plan(&mut have, &want, &text);
    }
}

#[test]
fn a_new_route_epoch_is_one_write() {
    let (mut have, mut want) = serving(&[backend(A, 1)]);
    want.node.route_epoch = 7;
    assert_plan(
        &mut have,
        &want,
        "put node snat 0.0.0.0 :: ports 0+0 epoch 7\n",
    );
}

#[test]
fn scaling_up_adds_the_backend_then_swaps_the_table() {
    let (mut have, mut want) = serving(&[backend(A, 1)]);
    serve(&mut want, VIP, &[backend(A, 1), backend(B, 1)]);
    assert_plan(
        &mut have,
        &want,
        "put backend 2 10.0.0.2:8080/tcp active net generation 1\n\
         put table 1/1021 1:511 2:510 #eecb47b1\n",
    );
}

#[test]
fn scaling_down_swaps_the_table_which_is_a_grace_period_and_frees_the_backend() {
    let (mut have, mut want) = serving(&[backend(A, 1), backend(B, 1)]);
    serve(&mut want, VIP, &[backend(A, 1)]);
    assert_plan(
        &mut have,
        &want,
        "put table 1/1021 1:1021 #b14bc362\n\
         free backend 2 generation 1\n",
    );
}

#[test]
fn draining_by_weight_writes_the_state_first() {
    let (mut have, mut want) = serving(&[backend(A, 1), backend(B, 1)]);
    serve(&mut want, VIP, &[backend(A, 1), backend(B, 0)]);
    assert_plan(
        &mut have,
        &want,
        "put backend 2 10.0.0.2:8080/tcp draining net generation 1\n\
         put table 1/1021 1:1021 #b14bc362\n",
    );
}

#[test]
fn a_change_of_state_is_one_write() {
    let (mut have, mut want) = serving(&[backend(A, 1), backend(B, 1)]);
    for (state, word) in [
        (BackendState::Down, "down"),
        (BackendState::Draining, "draining"),
        (BackendState::Up, "active"),
    ] {
        serve(&mut want, VIP, &[backend(A, 1), in_state(state, B, 1)]);
        let text = format!("put backend 2 {B}/tcp {word} net generation 1\n");
        assert_plan(&mut have, &want, &text);
    }
}

#[test]
fn the_last_backend_to_go_down_finds_its_service_failing_open_and_the_first_to_come_back_ends_it() {
    let (mut have, mut want) = serving(&[in_state(BackendState::Down, A, 1), backend(B, 1)]);
    let (a, b) = (
        in_state(BackendState::Down, A, 1),
        in_state(BackendState::Down, B, 1),
    );
    serve(&mut want, VIP, &[a, b]);
    assert_plan(
        &mut have,
        &want,
        "put service 11.0.0.1:80/tcp id 1 slots 1021 fail-open\n\
         put backend 2 10.0.0.2:8080/tcp down net generation 1\n",
    );
    serve(&mut want, VIP, &[a, backend(B, 1)]);
    assert_plan(
        &mut have,
        &want,
        "put backend 2 10.0.0.2:8080/tcp active net generation 1\n\
         put service 11.0.0.1:80/tcp id 1 slots 1021\n",
    );
}

#[test]
fn a_service_that_must_not_fail_open_does_not() {
    let (mut have, mut want) = serving(&[backend(A, 1)]);
    serve(&mut want, VIP, &[in_state(BackendState::Down, A, 1)]);
    Arc::make_mut(want.services.get_mut(&tcp(VIP)).unwrap()).fail_open = false;
    let text = "put backend 1 10.0.0.1:8080/tcp down net generation 1\n";
    assert_plan(&mut have, &want, text);
}

#[test]
fn weight_zero_is_never_failed_open() {
    let (mut have, mut want) = serving(&[backend(A, 1), backend(B, 1)]);
    let down = in_state(BackendState::Down, A, 1);
    serve(&mut want, VIP, &[down, in_state(BackendState::Down, B, 0)]);
    assert_plan(
        &mut have,
        &want,
        "put service 11.0.0.1:80/tcp id 1 slots 1021 fail-open\n\
         put backend 1 10.0.0.1:8080/tcp down net generation 1\n\
         put backend 2 10.0.0.2:8080/tcp draining net generation 1\n\
         put table 1/1021 1:1021 #b14bc362\n",
    );
}

#[test]
fn a_service_without_backends_stays_and_refuses() {
    let (mut have, mut want) = serving(&[backend(A, 1)]);
    serve(&mut want, VIP, &[]);
    assert_plan(
        &mut have,
        &want,
        "put service 11.0.0.1:80/tcp id 1 slots 0\n\
         grace\n\
         delete table 1/1021\n\
         free backend 1 generation 1\n",
    );
}

#[test]
fn a_service_whose_backends_all_drain_by_weight_stays_and_keeps_them() {
    let (mut have, mut want) = serving(&[backend(A, 1)]);
    serve(&mut want, VIP, &[backend(A, 0)]);
    assert_plan(
        &mut have,
        &want,
        "put backend 1 10.0.0.1:8080/tcp draining net generation 1\n\
         put service 11.0.0.1:80/tcp id 1 slots 0\n\
         grace\n\
         delete table 1/1021\n",
    );
}

#[test]
fn a_service_that_moves_to_another_vip_keeps_its_backends() {
    let (mut have, mut want) = serving(&[backend(A, 1)]);
    want = Wanted {
        services: Default::default(),
        vips: Default::default(),
        ..want
    };
    serve(&mut want, "11.0.0.2:80", &[backend(A, 1)]);
    assert_plan(
        &mut have,
        &want,
        "put table 2/1021 1:1021 #b14bc362\n\
         put service 11.0.0.2:80/tcp id 2 slots 1021\n\
         put address 11.0.0.2 vip\n\
         delete service 11.0.0.1:80/tcp\n\
         delete address 11.0.0.1\n\
         grace\n\
         forget service 1\n\
         delete table 1/1021\n",
    );
}

#[test]
fn a_deleted_service_goes_before_what_it_named() {
    let (mut have, _) = serving(&[backend(A, 1), backend(B, 1)]);
    assert_plan(
        &mut have,
        &Wanted::default(),
        "delete service 11.0.0.1:80/tcp\n\
         delete address 11.0.0.1\n\
         grace\n\
         forget service 1\n\
         delete table 1/1021\n\
         free backend 1 generation 1\n\
         free backend 2 generation 1\n",
    );
}

#[test]
fn a_freed_id_comes_back_a_generation_later_and_only_after_the_unused_ones() {
    let (mut have, mut want) = serving(&[backend(A, 1)]);
    serve(&mut want, VIP, &[backend(B, 1)]);
    carry_out(&mut have, &want);
    let b = have.backends[&2];
    assert_eq!((b.generation, have.backends[&1].generation), (1, 1));
    have.backends
        .extend((3..100).map(|id| (id, crate::plan::Op::freed(5))));
    serve(&mut want, VIP, &[backend(A, 1), backend(B, 1)]);
    carry_out(&mut have, &want);
    assert_eq!(have.backends[&1].generation, 2);
}

#[test]
fn more_backends_than_the_small_table_serves_well_change_its_size() {
    let many: Vec<String> = (1..=11).map(|i| format!("10.0.1.{i}:80")).collect();
    let many: Vec<WantedBackend> = many.iter().map(|addr| backend(addr, 1)).collect();
    let (mut have, mut want) = serving(&many[..10]);
    serve(&mut want, VIP, &many);
    let plan = carry_out(&mut have, &want).to_string();
    let lines: Vec<&str> = plan.lines().collect();
    assert!(lines[0].starts_with("put backend 11 "), "{plan}");
    assert!(lines[1].starts_with("put table 1/16381 1:1489 "), "{plan}");
    assert_eq!(
        lines[2],
        format!("put service {VIP}/tcp id 1 slots {SLOTS_MEDIUM}")
    );
    assert_eq!(lines[3..], ["grace", "delete table 1/1021"]);
}

#[test]
fn a_restart_with_the_same_wishes_does_nothing() {
    let (have, want) = serving(&[backend(A, 1), backend(B, 3)]);
    assert_plan(&mut have.clone(), &want, "");
}
