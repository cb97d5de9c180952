//! deployfish's services on an AWS stand-in: followed within one poll, without a lost connection.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_tests::{
    ecs::{
        CLUSTER,
        yard::{
            ELB, PATIENCE, SERVICE, TUTORIAL, Yard, echoes, none_failed, one_to_each, open, shares,
            steady,
        },
    },
    lab::{wait_for, wait_until},
};

#[test]
fn the_tutorials_service_is_followed_through_create_scale_and_update() {
    let yard = Yard::up(10, &[]);
    yard.deploy(TUTORIAL, &["create", SERVICE]);
    yard.scheduled(SERVICE, 80, 1);
    yard.followed(ELB, 80, SERVICE, 80);
    let vip = yard.vip(ELB, 80);
    assert_eq!(shares(yard.client(), vip, 5).len(), 1);
    assert_eq!(yard.service(ELB, 80)["check"], "tcp", "the load balancer's");
    let own = format!("{SERVICE}.{CLUSTER}");
    assert_eq!(
        yard.found(&own, 80),
        yard.found(ELB, 80),
        "the same under its own name"
    );

    let answers = steady(yard.client(), vip, || {
        for count in [2, 3, 1] {
            yard.deploy(TUTORIAL, &["scale", "test", &count.to_string()]);
            yard.scheduled(SERVICE, 80, count);
            let took = yard.followed(ELB, 80, SERVICE, 80);
            println!("{count} tasks: followed after {took:.1?}");
        }
        yard.deploy(TUTORIAL, &["scale", SERVICE, "2"]);
        let before = yard.scheduled(SERVICE, 80, 2);
        yard.followed(ELB, 80, SERVICE, 80);
        yard.deploy("hello-world-changed.yml", &["update", SERVICE]);
        yard.replaced(&before);
    });
    none_failed(&answers);
    assert_eq!(shares(yard.client(), vip, 40).len(), 2, "both answer");

    yard.deploy(TUTORIAL, &["scale", "test", "0"]);
    yard.emptied();
    yard.followed(ELB, 80, SERVICE, 80);
    open(yard.client(), vip).expect_err("it is refused");
}

#[test]
fn a_task_that_stops_gets_no_new_flow_and_keeps_those_it_has() {
    let yard = Yard::up(15, &[]);
    yard.tutorial(2);
    let vip = yard.vip(ELB, 80);
    let mut open_ones = one_to_each(yard.client(), vip, 2);
    yard.deploy(TUTORIAL, &["scale", "test", "1"]);
    let draining = yard.scheduled(SERVICE, 80, 1);
    assert_eq!(draining.drain.len(), 1, "it still drains: {draining:?}");
    yard.followed(ELB, 80, SERVICE, 80);
    let new = shares(yard.client(), vip, 50);
    assert_eq!(new.len(), 1, "only one takes new flows");
    for (name, stream) in &mut open_ones {
        assert!(echoes(stream), "{name}");
    }
    let gone = || yard.found(ELB, 80).drain.is_empty();
    wait_until("it leaves", PATIENCE, gone).expect("it ends");
    yard.followed(ELB, 80, SERVICE, 80);
}

#[test]
fn fargate_tasks_behind_two_target_groups_have_two_vip_ports() {
    let yard = Yard::up(10, &[]);
    let (file, service) = ("web-fargate.yml", "web-fargate");
    yard.deploy(file, &["create", service]);
    let both = |yard: &Yard, count| {
        yard.scheduled(service, 80, count);
        for (port, container_port) in [(80, 80), (8443, 9000)] {
            yard.followed("web-nlb", port, service, container_port);
            assert_eq!(yard.found("web-nlb", port).ready.len(), count);
            let vip = yard.vip("web-nlb", port);
            assert_eq!(
                shares(yard.client(), vip, 60).len(),
                count,
                "each answers at {port}"
            );
        }
    };
    both(&yard, 2);
    let answers = steady(yard.client(), yard.vip("web-nlb", 8443), || {
        yard.deploy(file, &["scale", service, "3"]);
        both(&yard, 3);
        yard.deploy(file, &["scale", service, "1"]);
        both(&yard, 1);
    });
    none_failed(&answers);
}

#[test]
fn clients_may_keep_the_host_names_that_aws_gave_its_load_balancers() {
    let dns = ["--dns-listen", "127.0.0.1:53"];
    let domain = ["--dns-domain", "us-east-1.elb.amazonaws.com"];
    let yard = Yard::up(5, &[dns, domain].concat());
    yard.tutorial(2);
    // As moto calls it.
    let name = "hello-world-elb.us-east-1.elb.amazonaws.com";
    let ask = ["dig", "@127.0.0.1", "+short", "+time=1", "+tries=1", "A"];
    let asked = yard.node().run(&[&ask[..], &[name]].concat());
    let answer = asked.and_then(|dig| dig.ok()).expect("an answer");
    let addr = answer.trim().parse().expect("an address");
    let vip = SocketAddr::new(addr, 80);
    assert_ne!(vip, yard.vip(ELB, 80), "a VIP of its own");
    assert_eq!(shares(yard.client(), vip, 40).len(), 2, "both answer");
}

#[test]
fn a_deregistration_delay_resets_what_is_left_where_the_load_balancer_would() {
    // Far longer than the delay of the target groups, 3 s.
    let yard = Yard::up(90, &[]);
    let (file, service) = ("web-fargate.yml", "web-fargate");
    yard.deploy(file, &["create", service]);
    yard.scheduled(service, 80, 2);
    yard.followed("web-nlb", 80, service, 80);
    yard.followed("web-nlb", 8443, service, 9000);
    let connected = |port| one_to_each(yard.client(), yard.vip("web-nlb", port), 2);
    let (mut kept, mut ended) = (connected(80), connected(8443));
    yard.deploy(file, &["scale", service, "1"]);
    let left = yard.scheduled(service, 9000, 1);
    let one = || {
        ended
            .values_mut()
            .map(echoes)
            .filter(|echoed| *echoed)
            .count()
            == 1
    };
    wait_until("what is left is reset", PATIENCE, one).expect("the delay is over");
    assert_eq!(yard.truth(service, 9000), left, "while the task goes on");
    assert_eq!(left.drain.len(), 1);
    assert!(kept.values_mut().all(echoes), "an NLB leaves these alone");
}

#[test]
fn while_the_api_answers_nonsense_the_last_state_stays() {
    let yard = Yard::up(10, &[]);
    yard.tutorial(2);
    let (vip, before) = (yard.vip(ELB, 80), yard.found(ELB, 80));
    let answers = steady(yard.client(), vip, || {
        for (mode, why) in [
            ("half", "ListTasks"),
            ("error", "ServerException"),
            ("hang", "no answer within 10 s"),
            ("throttle", "ThrottlingException"),
        ] {
            yard.cloud.fault(yard.node(), mode).expect("set");
            yard.failing(why);
            assert_eq!(yard.found(ELB, 80), before, "{mode}");
        }
        // It is asked ever more rarely: in 20 s, a poll of 5 s would be 4, and the first three waits are 10, 20, 40 s.
        yard.cloud.calls(yard.node()).expect("counted");
        let began = Instant::now();
        let calls = wait_for("the next question", PATIENCE, || {
            let calls = yard.cloud.calls(yard.node()).expect("counted");
            calls.get("ListTasks").copied().filter(|asked| *asked > 0)
        });
        assert_eq!(calls.expect("it asks again"), 1);
        assert!(
            began.elapsed() > Duration::from_millis(5_500),
            "{:?}",
            began.elapsed()
        );
        yard.cloud.fault(yard.node(), "none").expect("set");
        yard.recovers();
        assert_eq!(yard.found(ELB, 80), before);
    });
    none_failed(&answers);
}

#[test]
fn an_api_that_answers_slowly_is_followed_all_the_same() {
    let yard = Yard::up(60, &[]);
    yard.tutorial(1);
    let answers = steady(yard.client(), yard.vip(ELB, 80), || {
        yard.cloud.fault(yard.node(), "slow").expect("set");
        for tasks in [3, 2] {
            let scaled = yard.cloud.scale(yard.node(), SERVICE, tasks);
            scaled.expect("scaled");
            yard.scheduled(SERVICE, 80, tasks);
            let same = || yard.found(ELB, 80) == yard.truth(SERVICE, 80);
            // A reading of tasks is two answers, one of services two more, and one may be under way.
            wait_until("it is followed", Duration::from_secs(35), same).expect("slowly");
            let provider = yard.provider();
            assert!(provider["last_error"].is_null(), "{provider:#}");
        }
    });
    none_failed(&answers);
}

#[test]
fn an_api_that_is_killed_costs_no_connection_and_is_followed_when_it_is_back() {
    let mut yard = Yard::up(10, &[]);
    yard.tutorial(1);
    // By a client, so that the stand-in knows it in its next life, too.
    yard.deploy(TUTORIAL, &["scale", "test", "2"]);
    yard.scheduled(SERVICE, 80, 2);
    yard.followed(ELB, 80, SERVICE, 80);
    let (vip, before) = (yard.vip(ELB, 80), yard.found(ELB, 80));
    let agent = yard.stage.agent.pid();
    yard.cloud.kill().expect("killed");
    let answers = steady(yard.client(), vip, || {
        yard.failing("ListTasks");
        assert_eq!(yard.found(ELB, 80), before);
    });
    none_failed(&answers);
    yard.cloud.revive(&yard.stage.node).expect("it is back");
    let answers = steady(yard.client(), vip, || {
        yard.recovers();
        assert_eq!(yard.found(ELB, 80), before);
        yard.deploy(TUTORIAL, &["scale", "test", "3"]);
        yard.scheduled(SERVICE, 80, 3);
        yard.followed(ELB, 80, SERVICE, 80);
    });
    none_failed(&answers);
    assert_eq!(yard.stage.agent.pid(), agent);
    assert!(!yard.stage.agent.has_ended(), "without a restart");
}
