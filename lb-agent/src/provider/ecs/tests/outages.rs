//! What an outage costs: how soon the state is right again, and how often is asked meanwhile and whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    fake::Fake,
    reading::{asked, backends, reads, running},
    *,
};
use crate::provider::ecs::{api::FailureKind, reader::Reader};

const POLL: Duration = Duration::from_secs(5);

/// The tutorial, and a service that is behind so many target groups.
fn behind_groups(groups: usize) -> Known {
    let mut known = running(1);
    let service = known.services.entry("many".into()).or_default();
    for n in 0..groups {
        let arn = group_arn(&format!("g{n:03}"));
        let front = Front::Group(arn.clone());
        service.entries.push(entry(front, "hello-world", 80));
        let listening = group(
            &format!("g{n:03}"),
            &[(&format!("nlb{n}"), 80, "TCP", None)],
        );
        known.groups.insert(arn, Asked::Is(listening));
    }
    known
}

/// How often something was asked for.
fn times(calls: &BTreeMap<&'static str, usize>, call: &str) -> usize {
    calls.get(call).copied().unwrap_or(0)
}

#[tokio::test]
async fn an_ec2_that_was_away_for_long_is_asked_ten_seconds_later_at_most() {
    let fake = Fake::of(running(1));
    let mut reader = reads(&fake);
    let mut now = Instant::now();
    reader.read(now).await.unwrap();
    fake.fail("DescribeInstances", FailureKind::Passing);
    fake.change(|state| {
        let mut elsewhere = bridge(SERVICE, 40_000);
        elsewhere.instance = Some("arn:2".into());
        state.known.tasks.insert(arn("elsewhere"), elsewhere);
        state.ids.insert("arn:2".into(), "i-2".to_owned());
        let addr = "10.77.0.12".parse().unwrap();
        let hosts = &mut state.known.hosts;
        hosts.insert("arn:2".into(), Asked::Is(vec![addr]));
    });
    fake.calls();
    for _ in 0..120 {
        now += POLL;
        reader.read(now).await.unwrap();
    }
    let asked = times(&fake.calls(), "DescribeInstances");
    assert!((60..=120).contains(&asked), "{asked} in ten minutes");
    assert_eq!(backends(&reader), ["10.77.0.11:32768=1"]);
    fake.mend();
    for _ in 0..2 {
        now += POLL;
        reader.read(now).await.unwrap();
    }
    assert_eq!(backends(&reader).len(), 2);
}

#[tokio::test]
async fn after_a_failure_only_what_has_no_answer_is_asked_for_again() {
    let fake = Fake::of(behind_groups(20));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    assert_eq!(times(&fake.calls(), "group"), 20);
    let odd = group_arn("g007");
    fake.change(|state| _ = state.sick.insert(odd.clone()));
    let mut now = start + Duration::from_secs(301);
    reader.read(now).await.unwrap();
    assert_eq!(times(&fake.calls(), "group"), 20, "it harms no other");
    // Who listens is another now.
    fake.change(|state| {
        let moved = group("g007", &[("elsewhere", 81, "TCP", None)]);
        state.known.groups.insert(odd.clone(), Asked::Is(moved));
    });
    let seen = |reader: &Reader<&Fake>| {
        names(&built(reader.known())).contains(&"elsewhere.ecs:81/tcp".to_owned())
    };
    for _ in 0..6 {
        now += Duration::from_secs(10);
        reader.read(now).await.unwrap();
    }
    assert_eq!(
        times(&fake.calls(), "group"),
        6,
        "itself, every ten seconds"
    );
    assert!(!seen(&reader));
    fake.mend();
    now += Duration::from_secs(10);
    reader.read(now).await.unwrap();
    assert_eq!(times(&fake.calls(), "group"), 1);
    assert!(seen(&reader), "not only five minutes later");
    now += Duration::from_secs(10);
    reader.read(now).await.unwrap();
    assert_eq!(times(&fake.calls(), "group"), 0);
}

#[tokio::test]
async fn a_task_definition_that_cannot_be_read_holds_back_what_has_it_alone() {
    let fake = Fake::of(running(1));
    let mut reader = reads(&fake);
    let mut now = Instant::now();
    reader.read(now).await.unwrap();
    let odd: Arc<str> = "arn:aws:ecs:us-east-1:1:task-definition/odd:2".into();
    fake.change(|state| {
        state.sick.insert(odd.clone());
        let known = &mut state.known;
        known.tasks.insert(arn("well"), bridge(SERVICE, 40_000));
        let mut task = bridge(SERVICE, 40_001);
        task.definition = odd.clone();
        known.tasks.insert(arn("odd"), task);
        // A service that is being updated, and a new one.
        let service = known.services.get_mut(SERVICE).unwrap();
        service.definition = odd.clone();
        let new = service.clone();
        known.services.insert("new".into(), new);
    });
    now += Duration::from_secs(60);
    reader.read(now).await.unwrap();
    let both = ["10.77.0.11:32768=1", "10.77.0.11:40000=1"];
    assert_eq!(backends(&reader), both);
    let snapshot = built(reader.known());
    assert_eq!(names(&snapshot), [VIP, OWN]);
    let reason = only_reason(&snapshot);
    assert_eq!(
        reason,
        "cannot be read, so that what has it waits: no answer"
    );
    assert_eq!(&*snapshot.problems[0].subject, "odd:2");
    fake.mend();
    now += POLL;
    reader.read(now).await.unwrap();
    assert_eq!(backends(&reader).len(), 3);
    let snapshot = built(reader.known());
    assert_eq!(reasons(&snapshot), [""; 0]);
    let new = "new.hello-world-cluster.ecs:80/tcp";
    assert!(names(&snapshot).iter().any(|name| name == new));
}

#[tokio::test]
async fn once_aws_is_asked_too_much_the_rest_is_not_asked_for() {
    let fake = Fake::of(behind_groups(100));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    fake.calls();
    fake.fail("group", FailureKind::Throttled);
    for after in [301, 420, 540] {
        reader
            .read(start + Duration::from_secs(after))
            .await
            .unwrap();
        let asked = times(&fake.calls(), "group");
        assert!((1..=4).contains(&asked), "{asked}");
    }
    fake.mend();
    reader.read(start + Duration::from_secs(660)).await.unwrap();
    assert_eq!(times(&fake.calls(), "group"), 100);
}

#[tokio::test]
async fn whatever_happens_a_poll_is_a_bounded_number_of_requests() {
    let fake = Fake::of(running(100));
    let mut reader = reads(&fake);
    let mut now = Instant::now();
    reader.read(now).await.unwrap();
    fake.calls();
    for generation in 0..12_u16 {
        // All tasks are others, of another deployment, and five services are new.
        fake.change(|state| {
            state.known.tasks.clear();
            for n in 0..100 {
                let mut task = bridge(SERVICE, 32_768 + n);
                task.started_by = format!("ecs-svc/{generation}").into();
                let name = format!("{generation}-{n}");
                state.known.tasks.insert(arn(&name), task);
            }
            for n in 0..5 {
                let name = format!("s{generation}-{n}");
                state.known.services.insert(name.into(), Service::default());
            }
        });
        now += POLL;
        reader.read(now).await.unwrap();
        let services = 1 + 5 * usize::from(generation + 1);
        let expected = [
            ("ListTasks", 1),
            // Those that are new, and those that are gone.
            ("DescribeTasks", 2),
            ("ListServices", 1),
            ("DescribeServices", services.div_ceil(10)),
        ];
        assert_eq!(fake.calls(), asked(&expected));
    }
    assert_eq!(backends(&reader).len(), 100);
    // Nothing happens, and nobody asks for services.
    now += POLL;
    reader.read(now).await.unwrap();
    let quiet = BTreeSet::from(["ListTasks", "DescribeTasks"]);
    assert_eq!(fake.calls().into_keys().collect::<BTreeSet<_>>(), quiet);
}
