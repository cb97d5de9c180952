//! Backends at peers, and backends that peers may name.

use lb_common::Peer;

use super::*;

const VIP: &str = "11.0.0.1:80";
const A: &str = "10.0.0.1:8080";
const B: &str = "10.0.0.2:8080";

fn here() -> WantedBackend {
    WantedBackend {
        reach: Reach::Host,
        ..backend(A, 1)
    }
}

fn at_peer(next_hop: u16) -> WantedBackend {
    let peer = Peer {
        addr: Endpoint::wide("10.0.0.2".parse().unwrap()),
        ifindex: 2,
        next_hop,
        family: 4,
        pad: 0,
    };
    WantedBackend {
        peer,
        ..backend(B, 1)
    }
}

/// The texts of a plan, which is then carried out.
fn texts(have: &mut KernelState, want: &Wanted) -> Vec<String> {
    let plan = plan(have, want, &ROOMY);
    assert_eq!(plan.problems, [""; 0]);
    let texts = plan.ops.iter().map(ToString::to_string).collect();
    for op in plan.ops {
        have.record(op);
    }
    texts
}

fn of_peers(texts: &[String]) -> Vec<&str> {
    let words = ["host", "peer", "local"];
    let about = |text: &&str| text.split(' ').any(|word| words.contains(&word));
    texts.iter().map(String::as_str).filter(about).collect()
}

#[test]
fn a_backends_host_comes_before_the_table_that_names_it_and_goes_with_it() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    serve(&mut want, VIP, &[at_peer(3)]);
    let made = texts(&mut have, &want);
    let place = |what: &str| made.iter().position(|text| text.starts_with(what)).unwrap();
    assert!(place("put host 1 peer via 3") < place("put table"));
    serve(&mut want, VIP, &[at_peer(4)]);
    assert_eq!(texts(&mut have, &want), ["put host 1 peer via 4"]);
    serve(&mut want, VIP, &[backend(B, 1)]);
    assert_eq!(texts(&mut have, &want), ["put host 1 none"]);
    serve(&mut want, VIP, &[at_peer(4)]);
    texts(&mut have, &want);
    let gone = texts(&mut have, &Wanted::default());
    assert_eq!(of_peers(&gone), ["put host 1 none"]);
    assert!(have.hosts.is_empty());
}

#[test]
fn only_backends_of_this_node_are_named_and_only_to_peers() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    serve(&mut want, VIP, &[here(), at_peer(3)]);
    let made = texts(&mut have, &want);
    assert_eq!(
        of_peers(&made),
        [
            "put backend 1 10.0.0.1:8080/tcp active host generation 1",
            "put host 2 peer via 3"
        ]
    );
    want.peers.insert("10.0.0.2".parse().unwrap());
    let added = ["put local 1 10.0.0.1:8080 1", "put peer 10.0.0.2"];
    assert_eq!(texts(&mut have, &want), added);
    assert_eq!(texts(&mut have, &want), [""; 0]);
    serve(&mut want, VIP, &[at_peer(3)]);
    let removed = texts(&mut have, &want);
    assert_eq!(of_peers(&removed), ["delete local 1 10.0.0.1:8080"]);
    want.peers.clear();
    assert_eq!(texts(&mut have, &want), ["delete peer 10.0.0.2"]);
}

#[test]
fn a_service_at_a_port_of_the_node_is_none_that_peers_may_name() {
    let (mut have, mut want) = (KernelState::default(), Wanted::default());
    want.peers.insert("10.0.0.2".parse().unwrap());
    serve(&mut want, VIP, &[here()]);
    want.vips.clear();
    texts(&mut have, &want);
    assert!(have.locals.is_empty());
}

#[test]
fn what_does_not_fit_is_said() {
    let mut want = Wanted::default();
    want.peers.insert("10.0.0.2".parse().unwrap());
    serve(&mut want, VIP, &[here()]);
    let limits = Limits { locals: 0, ..ROOMY };
    let plan = plan(&KernelState::default(), &want, &limits);
    assert!(
        plan.problems[0].contains("peers cannot send to backend 10.0.0.1:8080/tcp"),
        "{:?}",
        plan.problems
    );
}
