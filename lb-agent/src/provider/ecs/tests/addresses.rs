//! Where backends are.

use super::*;

#[test]
fn a_bridge_task_is_at_its_hosts_address_and_the_bound_port() {
    let mut known = tutorial();
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    known.tasks.insert(arn("b"), bridge(SERVICE, 32769));
    let snapshot = built(&known);
    assert_eq!(names(&snapshot), [VIP, OWN]);
    for name in [VIP, OWN] {
        assert_eq!(
            behind(&snapshot, name),
            ["10.77.0.11:32768=1", "10.77.0.11:32769=1"]
        );
    }
    assert_eq!(reasons(&snapshot), [""; 0]);
    let first = &snapshot.pools[0];
    assert_eq!(&*first.app, "/hello-world-cluster/hello-world-test");
    assert_eq!(&*first.backends[0].task, "a");
}

#[test]
fn only_the_container_and_port_that_are_named_count() {
    let mut known = tutorial();
    let mut task = bridge(SERVICE, 32768);
    bind(&mut task, "hello-world", 9000, 32769, Protocol::Tcp);
    bind(&mut task, "hello-world", 80, 32770, Protocol::Udp);
    bind(&mut task, "sidecar", 80, 32771, Protocol::Tcp);
    known.tasks.insert(arn("a"), task);
    assert_eq!(behind(&built(&known), VIP), ["10.77.0.11:32768=1"]);
}

#[test]
fn an_awsvpc_task_is_at_its_own_addresses_and_the_containers_port() {
    let mut known = tutorial();
    let mut own = bridge(SERVICE, 32768);
    let container = own.containers.get_mut("hello-world").unwrap();
    container.addresses = ["10.77.0.101", "fd00::101"]
        .map(|a| a.parse().unwrap())
        .into();
    known.tasks.insert(arn("a"), own);
    let mut attached = task(SERVICE);
    attached.instance = None;
    attached.addresses = ["10.77.0.102".parse().unwrap()].into();
    known.tasks.insert(arn("b"), attached);
    assert_eq!(
        behind(&built(&known), VIP),
        ["10.77.0.101:80=1", "10.77.0.102:80=1", "[fd00::101]:80=1"]
    );
}

#[test]
fn in_the_hosts_network_an_unbound_port_is_the_hosts_own() {
    let mut known = tutorial();
    known.tasks.insert(arn("a"), task(SERVICE));
    assert_eq!(
        behind(&built(&known), VIP),
        [""; 0],
        "bridge: not bound yet"
    );
    known.definitions.get_mut(DEFINITION).unwrap().host_network = true;
    assert_eq!(behind(&built(&known), VIP), ["10.77.0.11:80=1"]);
}

#[test]
fn a_task_on_a_host_without_an_address_is_left_out_and_said() {
    let mut known = tutorial();
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    let mut lost = bridge(SERVICE, 32768);
    lost.instance = Some("arn:other".into());
    known.tasks.insert(arn("b"), lost);
    let why = "mi-0123 is no EC2 instance; say its address (--ecs-hosts mi-0123=ADDRESS)";
    known
        .hosts
        .insert("arn:other".into(), Asked::Refused(why.to_owned()));
    let snapshot = built(&known);
    assert_eq!(behind(&snapshot, VIP), ["10.77.0.11:32768=1"]);
    assert_eq!(only_reason(&snapshot), format!("task b is left out: {why}"));
}

#[test]
fn a_udp_mapping_is_served_by_udp() {
    let mut known = tutorial();
    let arn_ = group_arn("dns-tg");
    let service = Service {
        entries: vec![entry(Front::Group(arn_.clone()), "dns", 53)],
        ..Service::default()
    };
    known.services = [("dns".into(), service)].into();
    let listening = group("dns-tg", &[("dns-nlb", 53, "TCP_UDP", None)]);
    known.groups.insert(arn_, Asked::Is(listening));
    let mut task = task("dns");
    bind(&mut task, "dns", 53, 32768, Protocol::Tcp);
    bind(&mut task, "dns", 53, 32769, Protocol::Udp);
    known.tasks.insert(arn("a"), task);
    let snapshot = built(&known);
    assert_eq!(
        behind(&snapshot, "dns-nlb.ecs:53/tcp"),
        ["10.77.0.11:32768=1"]
    );
    assert_eq!(
        behind(&snapshot, "dns-nlb.ecs:53/udp"),
        ["10.77.0.11:32769=1"]
    );
}

#[test]
fn a_stand_alone_task_is_nobodys() {
    let mut known = tutorial();
    let mut alone = bridge(SERVICE, 32768);
    alone.service = None;
    known.tasks.insert(arn("a"), alone);
    let snapshot = built(&known);
    assert_eq!(names(&snapshot), [VIP, OWN]);
    assert_eq!(behind(&snapshot, VIP), [""; 0]);
}
