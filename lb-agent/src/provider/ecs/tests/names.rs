//! Which VIPs a service has, and what they are like.

use super::*;
use crate::catalog::Balance;

/// The tutorial with one task, its load balancer's listeners replaced.
fn behind_classic(listeners: Asked<Classic>) -> Snapshot {
    let mut known = tutorial();
    known.classics.insert(ELB.into(), listeners);
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    built(&known)
}

/// The names that are a load balancer's.
fn of_balancers(snapshot: &Snapshot) -> Vec<String> {
    let names = names(snapshot);
    names
        .into_iter()
        .filter(|name| !name.starts_with("hello-world-test."))
        .collect()
}

#[test]
fn a_listener_leads_by_the_containers_port_or_one_of_the_hosts() {
    let all = [(80, 80, "TCP"), (8080, 32768, "HTTP"), (9000, 9000, "TCP")];
    let snapshot = behind_classic(classic(&all));
    assert_eq!(
        of_balancers(&snapshot),
        ["hello-world-elb.ecs:80/tcp", "hello-world-elb.ecs:8080/tcp"]
    );
    assert_eq!(reasons(&snapshot), [""; 0]);
}

#[test]
fn the_only_listener_counts_wherever_it_leads() {
    let snapshot = behind_classic(classic(&[(81, 9000, "TCP")]));
    assert_eq!(of_balancers(&snapshot), ["hello-world-elb.ecs:81/tcp"]);
    assert_eq!(
        behind(&snapshot, "hello-world-elb.ecs:81/tcp"),
        ["10.77.0.11:32768=1"]
    );
}

#[test]
fn without_a_listener_that_leads_there_it_stands_at_the_containers_port() {
    let elsewhere = classic(&[(81, 9000, "TCP"), (82, 9001, "TCP")]);
    let gone = Asked::Refused("DescribeLoadBalancers: LoadBalancerNotFound".to_owned());
    for (listeners, why) in [
        (elsewhere, "no listener of"),
        (gone, "LoadBalancerNotFound"),
    ] {
        let snapshot = behind_classic(listeners);
        assert_eq!(of_balancers(&snapshot), [VIP]);
        let reason = only_reason(&snapshot);
        assert!(reason.contains(why) && reason.contains(ELB), "{reason}");
    }
}

#[test]
fn what_needs_the_payload_is_passed_through_and_said() {
    let snapshot = behind_classic(classic(&[(443, 80, "HTTPS")]));
    assert_eq!(of_balancers(&snapshot), ["hello-world-elb.ecs:443/tcp"]);
    assert!(only_reason(&snapshot).starts_with("hello-world-elb:443 ends HTTPS"));
}

#[test]
fn one_that_was_not_read_yet_harms_no_other() {
    let mut known = tutorial();
    let other = Service {
        entries: vec![entry(Front::Classic("late".into()), "hello-world", 80)],
        ..Service::default()
    };
    known.services.insert("other".into(), other);
    let snapshot = built(&known);
    assert_eq!(names(&snapshot), [VIP, OWN]);
    assert_eq!(
        only_reason(&snapshot),
        "load balancer late has not been read yet"
    );
}

#[test]
fn each_of_several_target_groups_has_its_listeners_port() {
    let mut known = tutorial();
    let (web, admin) = (group_arn("web-tg"), group_arn("admin-tg"));
    let balanced = |name, front| group(name, &[("web-nlb", front, "TCP", None)]);
    known
        .groups
        .insert(web.clone(), Asked::Is(balanced("web-tg", 80)));
    known
        .groups
        .insert(admin.clone(), Asked::Is(balanced("admin-tg", 8443)));
    known.services.get_mut(SERVICE).unwrap().entries = vec![
        entry(Front::Group(web), "hello-world", 8080),
        entry(Front::Group(admin), "hello-world", 9000),
    ];
    let mut task = task(SERVICE);
    task.addresses = ["10.77.0.101".parse().unwrap()].into();
    known.tasks.insert(arn("a"), task);
    let snapshot = built(&known);
    assert_eq!(
        behind(&snapshot, "web-nlb.ecs:80/tcp"),
        ["10.77.0.101:8080=1"]
    );
    assert_eq!(
        behind(&snapshot, "web-nlb.ecs:8443/tcp"),
        ["10.77.0.101:9000=1"]
    );
    assert_eq!(behind(&snapshot, OWN), ["10.77.0.101:8080=1"]);
}

#[test]
fn a_target_group_without_a_listener_stands_under_its_own_name() {
    let mut known = tutorial();
    let (bare, hidden) = (group_arn("bare-tg"), group_arn("hidden-tg"));
    known
        .groups
        .insert(bare.clone(), Asked::Is(group("bare-tg", &[])));
    let why = "DescribeTargetGroups: AccessDenied".to_owned();
    known.groups.insert(hidden.clone(), Asked::Refused(why));
    known.services.get_mut(SERVICE).unwrap().entries = vec![
        entry(Front::Group(bare), "hello-world", 80),
        entry(Front::Group(hidden), "hello-world", 80),
    ];
    let snapshot = built(&known);
    assert_eq!(
        of_balancers(&snapshot),
        ["bare-tg.ecs:80/tcp", "hidden-tg.ecs:80/tcp"]
    );
    assert!(only_reason(&snapshot).contains("AccessDenied"));
}

#[test]
fn load_balancers_stand_under_their_own_host_names_where_dns_answers_for_those() {
    let mut known = tutorial();
    let Some(Asked::Is(classic)) = known.classics.get_mut(ELB) else {
        panic!("the tutorial has a load balancer");
    };
    classic.dns_name = "Hello-World-ELB-1.us-east-1.elb.amazonaws.com".to_owned();
    let tg = group_arn("web-tg");
    let listening = group("web-tg", &[("web-nlb", 8080, "TCP", None)]);
    known.groups.insert(tg.clone(), Asked::Is(listening));
    let service = known.services.get_mut(SERVICE).unwrap();
    let entry = entry(Front::Group(tg), "hello-world", 80);
    service.entries.push(entry);
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    let with = |domain: &str| {
        let config = EcsConfig {
            domains: [domain.to_owned()].into(),
            ..EcsConfig::new(CLUSTER)
        };
        build(&known, &config)
    };
    let usual = names(&built(&known));
    assert_eq!(names(&with("example.org")), usual);
    for (domain, name) in [
        (
            "us-east-1.elb.amazonaws.com",
            "hello-world-elb-1.us-east-1.elb.amazonaws.com.docker:80/tcp",
        ),
        (
            "elb.us-east-1.amazonaws.com",
            "web-nlb-1.elb.us-east-1.amazonaws.com.docker:8080/tcp",
        ),
    ] {
        let snapshot = with(domain);
        assert_eq!(behind(&snapshot, name), ["10.77.0.11:32768=1"]);
        assert_eq!(names(&snapshot).len(), usual.len() + 1, "and no other");
    }
}

#[test]
fn two_services_behind_one_target_group_are_one_pool() {
    let mut known = tutorial();
    let tg = group_arn("web-tg");
    let listening = group("web-tg", &[("web-nlb", 80, "TCP", None)]);
    known.groups.insert(tg.clone(), Asked::Is(listening));
    for (service, task, host_port) in [("one", "a", 32768), ("two", "b", 32769)] {
        let behind = Service {
            entries: vec![entry(Front::Group(tg.clone()), "hello-world", 80)],
            ..Service::default()
        };
        known.services.insert(service.into(), behind);
        known.tasks.insert(arn(task), bridge(service, host_port));
    }
    assert_eq!(
        behind(&built(&known), "web-nlb.ecs:80/tcp"),
        ["10.77.0.11:32768=1", "10.77.0.11:32769=1"]
    );
}

#[test]
fn one_port_of_the_services_own_name_leads_to_one_container() {
    let mut known = tutorial();
    known
        .classics
        .insert("other-elb".into(), classic(&[(80, 9000, "TCP")]));
    let service = known.services.get_mut(SERVICE).unwrap();
    let second = entry(Front::Classic("other-elb".into()), "hello-world", 9000);
    service.entries.push(second);
    let mut task = bridge(SERVICE, 32768);
    bind(&mut task, "hello-world", 9000, 32769, Protocol::Tcp);
    known.tasks.insert(arn("a"), task);
    let snapshot = built(&known);
    assert_eq!(behind(&snapshot, OWN), ["10.77.0.11:32768=1"]);
    assert_eq!(
        behind(&snapshot, "other-elb.ecs:80/tcp"),
        ["10.77.0.11:32769=1"]
    );
    assert!(only_reason(&snapshot).contains("port 80/tcp leads to port 80"));
}

fn tagged(tags: &[(&str, &str)]) -> Known {
    let mut known = tutorial();
    let tags = tags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    known.services.get_mut(SERVICE).unwrap().tags = tags.collect();
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    known
}

#[test]
fn a_tag_or_a_docker_label_asks_for_a_vip() {
    let mut known = tagged(&[("lb.vip", "web:8000=80 api:81=80")]);
    known.services.get_mut(SERVICE).unwrap().entries.clear();
    let own = "hello-world-test.hello-world-cluster.ecs";
    let expected = [
        "api.ecs:81/tcp",
        &format!("{own}:81/tcp"),
        &format!("{own}:8000/tcp"),
        "web.ecs:8000/tcp",
    ];
    let by_tag = built(&known);
    assert_eq!(names(&by_tag), expected);
    assert_eq!(behind(&by_tag, "web.ecs:8000/tcp"), ["10.77.0.11:32768=1"]);

    let tags = std::mem::take(&mut known.services.get_mut(SERVICE).unwrap().tags);
    let definition = known.definitions.get_mut(DEFINITION).unwrap();
    definition.containers.get_mut("hello-world").unwrap().labels = tags;
    assert_eq!(built(&known), by_tag);
}

#[test]
fn a_vip_for_a_port_that_no_container_has_is_said() {
    let snapshot = built(&tagged(&[("lb.vip", "web:8000")]));
    assert_eq!(names(&snapshot), [VIP, OWN]);
    let reason = only_reason(&snapshot);
    assert_eq!(
        reason,
        "lb.vip: no container of its task definition has port 8000"
    );
}

#[test]
fn tags_shape_what_a_load_balancer_named() {
    let tags = [
        ("lb.balance", "least-conn"),
        ("lb.weight", "7"),
        ("lb.maxflows-backend", "9"),
    ];
    let snapshot = built(&tagged(&tags));
    assert_eq!(behind(&snapshot, VIP), ["10.77.0.11:32768=7"]);
    let pool = &snapshot.pools[0];
    assert_eq!(pool.backends[0].max_flows, 9);
    assert_eq!(
        pool.properties.as_ref().unwrap().balance,
        Balance::LeastConn
    );
}

#[test]
fn a_task_is_in_its_availability_zone_unless_a_tag_says_otherwise() {
    let zone = |mut known: Known| {
        for task in known.tasks.values_mut() {
            task.zone = Some("eu-west-1b".into());
        }
        built(&known).pools[0].backends[0].zone.clone()
    };
    assert_eq!(zone(tagged(&[])).as_deref(), Some("eu-west-1b"));
    let tagged = tagged(&[("lb.zone", "rack-7")]);
    assert_eq!(zone(tagged).as_deref(), Some("rack-7"));
}

#[test]
fn tags_win_over_docker_labels() {
    let mut known = tagged(&[("lb.balance", "round-robin")]);
    let definition = known.definitions.get_mut(DEFINITION).unwrap();
    let labels = &mut definition.containers.get_mut("hello-world").unwrap().labels;
    labels.insert("lb.balance".to_owned(), "source".to_owned());
    let snapshot = built(&known);
    let properties = snapshot.pools[0].properties.as_ref().unwrap();
    assert_eq!(properties.balance, Balance::RoundRobin);
}

#[test]
fn a_service_with_a_bad_tag_is_left_out_alone() {
    for (key, value, why) in [
        ("lb.vip", "web:0", "is not a port"),
        ("lb.vip", "web:70000", "is not a port"),
        ("lb.vip", ":80", "no name"),
        ("lb.balance", "dice", "is not one of"),
        ("lb.weight", "257", "is not a weight"),
        ("lb.affinity", "-1", "is not a duration"),
        ("lb.allow", "10.0.0.0/33", "10.0.0.0/33"),
    ] {
        let mut known = tagged(&[(key, value)]);
        let fine = known.services[SERVICE].clone();
        let other = Service {
            tags: BTreeMap::new(),
            ..fine
        };
        known.services.insert("other".into(), other);
        let snapshot = built(&known);
        assert_eq!(
            names(&snapshot),
            [VIP, "other.hello-world-cluster.ecs:80/tcp"],
            "{key}={value}"
        );
        assert!(
            snapshot
                .pools
                .iter()
                .all(|pool| &*pool.app == "/hello-world-cluster/other")
        );
        let reason = only_reason(&snapshot);
        assert!(
            reason.contains(key) && reason.contains(why) && reason.ends_with("service left out"),
            "{reason}"
        );
    }
    let long = "x".repeat(10 << 20);
    let snapshot = built(&tagged(&[("lb.vip", &long)]));
    assert_eq!(names(&snapshot), [""; 0]);
    assert!(only_reason(&snapshot).len() < 200);
}

#[test]
fn a_service_may_be_left_out() {
    assert_eq!(
        built(&tagged(&[("lb.enable", "false")])),
        Snapshot::default()
    );
}

#[test]
fn stickiness_by_address_is_affinity_unless_a_tag_says_other() {
    let tg = group_arn("web-tg");
    for (tags, affinity) in [(&[][..], 86_400), (&[("lb.affinity", "10m")], 600)] {
        let mut known = tagged(tags);
        let mut sticky = group("web-tg", &[("web-nlb", 80, "TCP", None)]);
        sticky.manner.by_source = true;
        sticky.manner.notes.push("no effect".to_owned());
        known.groups.insert(tg.clone(), Asked::Is(sticky));
        let service = known.services.get_mut(SERVICE).unwrap();
        service.entries = vec![entry(Front::Group(tg.clone()), "hello-world", 80)];
        let snapshot = built(&known);
        for pool in &snapshot.pools {
            assert_eq!(pool.properties.as_ref().unwrap().affinity, affinity);
        }
        assert_eq!(only_reason(&snapshot), "target group web-tg: no effect");
    }
}

#[test]
fn a_cluster_is_known_by_name_or_arn() {
    let arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/hello-world-cluster";
    let config = EcsConfig::new(arn);
    assert_eq!(
        (config.name(), config.region()),
        (CLUSTER, Some("eu-west-1"))
    );
    assert_eq!(build(&tutorial(), &config), built(&tutorial()));
    assert_eq!(EcsConfig::new(CLUSTER).region(), None);
    let elsewhere = EcsConfig {
        region: Some("us-east-2".to_owned()),
        ..config
    };
    assert_eq!(elsewhere.region(), Some("us-east-2"));
}
