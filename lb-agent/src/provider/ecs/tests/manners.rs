//! What load balancers do with their targets is done here, too.

use std::time::Duration;

use super::*;
use crate::catalog::{Check, Probe, Properties};

/// What the VIPs of the tutorial's service are like, with these tags and what is said of its load balancer.
fn shaped(tags: &[(&str, &str)], grace: u32, manner: Manner) -> (Properties, Snapshot) {
    let mut known = tutorial();
    let service = known.services.get_mut(SERVICE).unwrap();
    service.grace = grace;
    let tags = tags.iter();
    service.tags = tags
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let Some(Asked::Is(classic)) = known.classics.get_mut(ELB) else {
        panic!("the tutorial has a load balancer");
    };
    classic.manner = manner;
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    let snapshot = built(&known);
    let of = |name: &str| {
        let mut pools = snapshot.pools.iter();
        let pool = pools.find(|pool| called(pool) == name).unwrap();
        pool.properties.as_deref().cloned().unwrap_or_default()
    };
    assert_eq!(of(VIP), of(OWN), "the same under its own name");
    (of(VIP), snapshot)
}

fn checked() -> Manner {
    Manner {
        drain: Some(60),
        check: Some(Check::new(Probe::Tcp)),
        ..Manner::default()
    }
}

#[test]
fn its_draining_and_its_check_are_the_services() {
    let (properties, snapshot) = shaped(&[], 0, checked());
    assert_eq!(properties.drain, Some(60));
    assert_eq!(properties.check.as_deref(), Some(&Check::new(Probe::Tcp)));
    assert_eq!(reasons(&snapshot), [""; 0]);
    let (properties, _) = shaped(&[], 0, Manner::default());
    assert_eq!(properties, Properties::default());
}

#[test]
fn checks_of_a_new_task_count_when_the_services_grace_is_over() {
    for (grace, expected) in [(90, 90), (u32::MAX, 86_400)] {
        let (properties, _) = shaped(&[], grace, checked());
        let grace = properties.check.as_ref().unwrap().grace;
        assert_eq!(grace, Duration::from_secs(expected));
    }
    let (properties, _) = shaped(&[("lb.check", "tcp")], 90, checked());
    assert_eq!(properties.check.as_ref().unwrap().grace, Duration::ZERO);
}

#[test]
fn a_tag_wins() {
    for (value, drain) in [("5", Some(5)), ("0", None), ("-1", Some(0))] {
        let (properties, _) = shaped(&[("lb.drain", value)], 0, checked());
        assert_eq!(properties.drain, drain, "{value}");
        assert!(properties.check.is_some(), "of the check it says nothing");
    }
    let (properties, _) = shaped(&[("lb.check", "http:/up interval=5s")], 0, checked());
    assert_eq!(properties.check.unwrap().to_string(), "http GET /up");
    assert_eq!(properties.drain, Some(60));
    let (properties, _) = shaped(&[("lb.check", "none")], 0, checked());
    assert_eq!(properties.check, None);
    let mut known = tutorial();
    let tags = &mut known.services.get_mut(SERVICE).unwrap().tags;
    tags.insert("lb.check".to_owned(), "ping".to_owned());
    let snapshot = built(&known);
    assert_eq!(names(&snapshot), [""; 0]);
    assert!(only_reason(&snapshot).contains("label lb.check: \"ping\" is neither"));
}

#[test]
fn what_has_no_effect_is_said_with_the_load_balancer() {
    let manner = Manner {
        notes: vec!["its health check is odd".to_owned()],
        ..checked()
    };
    let (_, snapshot) = shaped(&[], 0, manner);
    let reason = only_reason(&snapshot);
    assert_eq!(
        reason,
        "load balancer hello-world-elb: its health check is odd"
    );
}

#[test]
fn attributes_that_may_not_be_read_are_said_once() {
    let mut known = tutorial();
    for name in ["one", "two", "three"] {
        let refused = |call: &str| Some(format!("{call}: AccessDenied: not {name}"));
        let tg = group_arn(name);
        let mut listening = group(name, &[(name, 80, "TCP", None)]);
        listening.manner.refused = refused("DescribeTargetGroupAttributes");
        known.groups.insert(tg.clone(), Asked::Is(listening));
        let mut elb = Classic::default();
        elb.manner.refused = refused("DescribeLoadBalancerAttributes");
        known.classics.insert(name.into(), Asked::Is(elb));
        let service = Service {
            entries: vec![entry(Front::Group(tg), "hello-world", 80)],
            ..Service::default()
        };
        known.services.insert(name.into(), service);
        known.tasks.insert(arn(name), bridge(name, 32768));
    }
    let snapshot = built(&known);
    assert_eq!(behind(&snapshot, "two.ecs:80/tcp").len(), 1);
    let said: Vec<_> = snapshot
        .problems
        .iter()
        .map(|problem| (&*problem.subject, problem.reason.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (
                CLUSTER,
                "connection draining of classic load balancers: not taken over: DescribeLoadBalancerAttributes: \
                 AccessDenied: not one"
            ),
            (
                CLUSTER,
                "deregistration delay and stickiness of target groups: not taken over: DescribeTargetGroupAttributes: \
                 AccessDenied: not one"
            ),
        ]
    );
}
