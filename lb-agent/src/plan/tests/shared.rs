//! Backends that several services name, not always with one opinion.

use lb_common::{backend_state, service_flag};

use super::{backend, carry_out, in_state, serve, tcp};
use crate::plan::{BackendState, KernelState, TableId, Wanted, WantedBackend};

const ONE: &str = "11.0.0.1:80";
const TWO: &str = "11.0.0.2:80";
const A: &str = "10.0.0.1:8080";
const B: &str = "10.0.0.2:8080";

/// The kernel's state after both services were carried out.
fn both(one: &[WantedBackend], two: &[WantedBackend]) -> KernelState {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    serve(&mut want, ONE, one);
    serve(&mut want, TWO, two);
    let plan = carry_out(&mut have, &want);
    assert_eq!(plan.problems, [""; 0]);
    have
}

/// Slots of each of the backends 1 and 2 in a service's table.
fn slots(have: &KernelState, vip: &str) -> [usize; 2] {
    let service = have.services[&tcp(vip)];
    let table = TableId {
        service: service.id,
        slots: service.slots,
    };
    let count = |id| {
        let shares = have.tables[&table].shares();
        let share = shares.iter().find(|(holder, _)| *holder == id);
        share.map_or(0, |(_, slots)| *slots as usize)
    };
    [count(1), count(2)]
}

#[test]
fn a_backend_of_two_services_has_one_id_and_its_weight_in_each_table() {
    let have = both(
        &[backend(A, 1), backend(B, 1)],
        &[backend(A, 1), backend(B, 3)],
    );
    assert_eq!(have.backends.len(), 2);
    assert_eq!(slots(&have, ONE), [511, 510]);
    assert_eq!(slots(&have, TWO), [255, 766]);
}

#[test]
fn a_backend_that_one_service_drains_stays_active_for_the_other() {
    let have = both(
        &[backend(A, 1), backend(B, 0)],
        &[backend(A, 1), backend(B, 1)],
    );
    assert_eq!(have.backends[&2].state, backend_state::ACTIVE);
    assert_eq!(slots(&have, ONE), [1021, 0]);
    assert_eq!(slots(&have, TWO), [511, 510]);
}

#[test]
fn a_backend_that_all_services_drain_is_draining() {
    let drained = in_state(BackendState::Draining, B, 1);
    let have = both(&[backend(A, 1), backend(B, 0)], &[backend(A, 1), drained]);
    assert_eq!(have.backends[&2].state, backend_state::DRAINING);
    assert_eq!(slots(&have, TWO), [511, 510]);
}

#[test]
fn a_service_that_finds_a_backend_down_keeps_it_out_while_another_uses_it() {
    let down = in_state(BackendState::Down, B, 1);
    let have = both(&[backend(A, 1), down], &[backend(B, 1)]);
    assert_eq!(have.backends[&2].state, backend_state::ACTIVE);
    assert_eq!(slots(&have, ONE), [1021, 0]);
}

#[test]
fn a_backend_drained_on_purpose_is_not_failed_open_because_another_service_finds_it_down() {
    let down = |addr| in_state(BackendState::Down, addr, 1);
    let drained = in_state(BackendState::Draining, B, 1);
    let have = both(&[down(A), drained], &[down(B)]);
    assert_eq!(have.backends[&2].state, backend_state::DOWN);
    assert_eq!(have.services[&tcp(ONE)].flags, service_flag::FAIL_OPEN);
    assert_eq!(slots(&have, ONE), [1021, 0]);
}

#[test]
fn a_backend_given_twice_counts_once_with_the_larger_weight_and_the_better_state() {
    let twice = [
        in_state(BackendState::Down, A, 1),
        backend(A, 3),
        backend(B, 1),
    ];
    let have = both(&twice, &[]);
    assert_eq!(have.backends[&1].state, backend_state::ACTIVE);
    assert_eq!(slots(&have, ONE), [766, 255]);
}

#[test]
fn backends_that_are_down_leave_the_table_where_they_would_have_most_of_it() {
    let of = |up: usize, down: usize| {
        let state = |n: usize| match n < up {
            true => BackendState::Up,
            false => BackendState::Down,
        };
        let addr = |n: usize| format!("10.0.0.{}:8080", n + 1);
        let backends: Vec<_> = (0..up + down)
            .map(|n| in_state(state(n), &addr(n), 1))
            .collect();
        let (mut have, mut want) = (KernelState::default(), Wanted::default());
        serve(&mut want, ONE, &backends);
        carry_out(&mut have, &want);
        // And back, and down again: no opinion of an earlier plan stays.
        for backend in [backend(A, 1), backends[0]] {
            let mut next = backends.clone();
            next[0] = backend;
            serve(&mut want, ONE, &next);
            carry_out(&mut have, &want);
        }
        let service = have.services[&tcp(ONE)];
        let table = TableId {
            service: service.id,
            slots: service.slots,
        };
        (have.tables[&table].ids().count(), have.backends.len())
    };
    assert_eq!(of(20, 0), (20, 20));
    assert_eq!(of(10, 10), (20, 20));
    assert_eq!(of(9, 11), (9, 20));
    assert_eq!(of(1, 19), (1, 20));
    assert_eq!(of(0, 20), (20, 20));
}
