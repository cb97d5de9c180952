//! What is asked, how often, and what stays when it cannot be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{fake::Fake, *};
use crate::provider::ecs::{
    api::{FailureKind, Page},
    reader::Reader,
    watcher::reader,
};

pub(super) fn asked(calls: &[(&'static str, usize)]) -> BTreeMap<&'static str, usize> {
    calls.iter().copied().collect()
}

pub(super) fn reads(fake: &Fake) -> Reader<&Fake> {
    reader(fake, &EcsConfig::new(CLUSTER))
}

pub(super) fn backends(reader: &Reader<&Fake>) -> Vec<String> {
    behind(&built(reader.known()), VIP)
}

/// The tutorial with so many tasks.
pub(super) fn running(tasks: u16) -> Known {
    let mut known = tutorial();
    for n in 0..tasks {
        known
            .tasks
            .insert(arn(&format!("t{n:04}")), bridge(SERVICE, 32_768 + n));
    }
    known
}

const EACH_POLL: [(&str, usize); 2] = [("ListTasks", 1), ("DescribeTasks", 1)];

#[tokio::test]
async fn after_the_first_reading_a_poll_is_two_requests() {
    let fake = Fake::of(running(2));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    assert_eq!(backends(&reader).len(), 2);
    let first = [
        ("ListTasks", 2),
        ("DescribeTasks", 1),
        ("ListServices", 1),
        ("DescribeServices", 1),
        ("DescribeTaskDefinition", 1),
        ("DescribeContainerInstances", 1),
        ("DescribeInstances", 1),
        ("classic", 1),
    ];
    assert_eq!(fake.calls(), asked(&first));
    reader.read(start + Duration::from_secs(5)).await.unwrap();
    assert_eq!(fake.calls(), asked(&EACH_POLL));
}

#[tokio::test]
async fn many_tasks_and_services_are_asked_for_in_the_largest_portions() {
    let mut known = running(250);
    for n in 0..29 {
        known
            .services
            .insert(format!("s{n}").into(), Service::default());
    }
    let fake = Fake::of(known);
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    fake.calls();
    reader.read(start + Duration::from_secs(5)).await.unwrap();
    let poll = [("ListTasks", 3), ("DescribeTasks", 3)];
    assert_eq!(fake.calls(), asked(&poll));
    reader.read(start + Duration::from_secs(61)).await.unwrap();
    let all = [&poll[..], &[("ListServices", 1), ("DescribeServices", 3)]].concat();
    assert_eq!(fake.calls(), asked(&all));
    reader.read(start + Duration::from_secs(301)).await.unwrap();
    assert_eq!(fake.calls(), asked(&[&all[..], &[("classic", 1)]].concat()));
    assert_eq!(backends(&reader).len(), 250);
}

#[tokio::test]
async fn a_task_of_an_unknown_service_has_the_services_read_once() {
    let fake = Fake::of(running(1));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    fake.calls();
    fake.change(|state| {
        _ = state
            .known
            .tasks
            .insert(arn("new"), bridge("nobodys", 1_000))
    });
    reader.read(start + Duration::from_secs(5)).await.unwrap();
    let services = [
        &EACH_POLL[..],
        &[("ListServices", 1), ("DescribeServices", 1)],
    ]
    .concat();
    assert_eq!(fake.calls(), asked(&services));
    reader.read(start + Duration::from_secs(10)).await.unwrap();
    assert_eq!(fake.calls(), asked(&EACH_POLL));
}

#[tokio::test]
async fn a_new_deployment_has_the_services_read() {
    let fake = Fake::of(running(1));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    fake.calls();
    fake.change(|state| {
        let mut new = bridge(SERVICE, 32_769);
        new.started_by = "ecs-svc/2".into();
        state.known.tasks.insert(arn("new"), new);
        let service = state.known.services.get_mut(SERVICE).unwrap();
        service.tags.insert("lb.weight".to_owned(), "5".to_owned());
    });
    reader.read(start + Duration::from_secs(5)).await.unwrap();
    assert_eq!(fake.calls()["DescribeServices"], 1);
    assert_eq!(
        backends(&reader),
        ["10.77.0.11:32768=5", "10.77.0.11:32769=5"]
    );
    reader.read(start + Duration::from_secs(10)).await.unwrap();
    assert_eq!(fake.calls(), asked(&EACH_POLL));
}

#[tokio::test]
async fn a_task_that_is_told_to_stop_drains_until_it_is_gone() {
    let fake = Fake::of(running(2));
    let mut reader = reads(&fake);
    let mut now = Instant::now();
    let mut next = async |change: fn(&mut Task)| {
        fake.change(|state| change(state.known.tasks.get_mut(&arn("t0001")).unwrap()));
        reader.read(now).await.unwrap();
        now += Duration::from_secs(5);
        backends(&reader)
    };
    let both = ["10.77.0.11:32768=1", "10.77.0.11:32769=1"];
    assert_eq!(next(|_| ()).await, both);
    // The list of what runs does not have it any more.
    let stopping = next(|task| (task.stopping, task.last) = (true, Last::Stopping)).await;
    assert_eq!(
        stopping,
        ["10.77.0.11:32768=1", "10.77.0.11:32769=0 stopping"]
    );
    assert_eq!(next(|_| ()).await, stopping);
    assert_eq!(
        next(|task| task.last = Last::Gone).await,
        ["10.77.0.11:32768=1"]
    );
    fake.calls();
    assert_eq!(next(|_| ()).await, ["10.77.0.11:32768=1"]);
    assert_eq!(fake.calls(), asked(&EACH_POLL));
}

#[tokio::test]
async fn a_task_that_ecs_has_forgotten_leaves_at_once() {
    for silent in [false, true] {
        let fake = Fake::of(running(2));
        fake.change(|state| state.silent = silent);
        let mut reader = reads(&fake);
        reader.read(Instant::now()).await.unwrap();
        fake.change(|state| _ = state.known.tasks.remove(&arn("t0001")));
        reader.read(Instant::now()).await.unwrap();
        assert_eq!(backends(&reader), ["10.77.0.11:32768=1"]);
    }
}

#[tokio::test]
async fn what_drained_before_the_start_is_found() {
    let mut known = running(1);
    let mut old = bridge(SERVICE, 32_800);
    (old.stopping, old.last) = (true, Last::Stopping);
    known.tasks.insert(arn("old"), old);
    let fake = Fake::of(known);
    let mut reader = reads(&fake);
    reader.read(Instant::now()).await.unwrap();
    assert_eq!(
        backends(&reader),
        ["10.77.0.11:32768=1", "10.77.0.11:32800=0 stopping"]
    );
}

#[tokio::test]
async fn a_failure_or_half_an_answer_changes_nothing() {
    let fake = Fake::of(running(2));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    let before = backends(&reader);
    // Everything is gone, if only it could be seen.
    fake.change(|state| {
        state.known.tasks = running(0).tasks;
        state.known.tasks.insert(arn("new"), bridge("new", 1));
    });
    let calls = [
        "ListTasks",
        "DescribeTasks",
        "ListServices",
        "DescribeServices",
    ];
    for call in calls {
        for kind in [
            FailureKind::Throttled,
            FailureKind::Passing,
            FailureKind::Refused,
        ] {
            fake.fail(call, kind);
            assert_eq!(reader.read(start).await.unwrap_err().kind, kind, "{call}");
            assert_eq!(backends(&reader), before, "{call}");
            fake.mend();
        }
    }
    for call in ["DescribeTasks", "DescribeServices"] {
        fake.change(|state| _ = state.cut.insert(call));
        let failure = reader.read(start).await.unwrap_err();
        assert!(failure.reason.contains("incomplete"), "{failure}");
        assert_eq!(backends(&reader), before, "{call}");
        fake.mend();
    }
    reader.read(start).await.unwrap();
    assert_eq!(backends(&reader), [""; 0]);
}

#[tokio::test]
async fn a_list_without_an_end_is_an_error() {
    let endless = async |_: Option<String>| {
        Ok(Page {
            arns: Vec::new(),
            next: Some("again".to_owned()),
        })
    };
    let failure = crate::provider::ecs::asking::pages("ListTasks", endless).await;
    assert!(failure.unwrap_err().reason.contains("pages"));
}

#[tokio::test]
async fn four_requests_are_under_way_at_most() {
    let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let names: BTreeSet<Arc<str>> = (0..50).map(|n| n.to_string().into()).collect();
    let asked = crate::provider::ecs::asking::ask(names, async |_| {
        most.fetch_max(under_way.fetch_add(1, Relaxed) + 1, Relaxed);
        tokio::task::yield_now().await;
        under_way.fetch_sub(1, Relaxed);
        Ok(())
    });
    assert_eq!((asked.await.len(), most.into_inner()), (50, 4));
}

#[tokio::test]
async fn what_is_missing_at_the_first_reading_makes_it_fail() {
    for call in ["DescribeInstances", "classic", "DescribeTaskDefinition"] {
        let fake = Fake::of(running(2));
        let mut reader = reads(&fake);
        fake.fail(call, FailureKind::Throttled);
        let failure = reader.read(Instant::now()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Throttled, "{call}");
        fake.mend();
        reader
            .read(Instant::now() + Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(backends(&reader).len(), 2, "{call}");
    }
}

#[tokio::test]
async fn while_ec2_fails_only_tasks_on_new_hosts_wait() {
    let fake = Fake::of(running(2));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    fake.fail("DescribeInstances", FailureKind::Throttled);
    fake.change(|state| {
        let mut elsewhere = bridge(SERVICE, 40_000);
        elsewhere.instance = Some("arn:2".into());
        state.known.tasks.insert(arn("elsewhere"), elsewhere);
        state.ids.insert("arn:2".into(), "i-2".to_owned());
        let addr = "10.77.0.12".parse().unwrap();
        state
            .known
            .hosts
            .insert("arn:2".into(), Asked::Is(vec![addr]));
    });
    fake.calls();
    for _ in 0..3 {
        reader.read(start).await.unwrap();
        assert_eq!(backends(&reader).len(), 2);
    }
    assert_eq!(fake.calls()["DescribeInstances"], 1, "it backs off");
    let snapshot = built(reader.known());
    assert!(
        only_reason(&snapshot).contains("EC2 has not told"),
        "{snapshot:?}"
    );
    fake.mend();
    reader.read(start + Duration::from_secs(5)).await.unwrap();
    assert_eq!(backends(&reader).len(), 3);
}

#[tokio::test]
async fn a_load_balancer_that_was_read_once_stays_as_it_was() {
    let fake = Fake::of(running(1));
    let mut reader = reads(&fake);
    let start = Instant::now();
    reader.read(start).await.unwrap();
    fake.calls();
    for (kind, after) in [(FailureKind::Refused, 301), (FailureKind::Throttled, 602)] {
        fake.fail("classic", kind);
        reader
            .read(start + Duration::from_secs(after))
            .await
            .unwrap();
        assert_eq!(fake.calls()["classic"], 1, "{kind:?}");
        assert_eq!(reasons(&built(reader.known())), [""; 0]);
    }
}

#[tokio::test]
async fn hosts_that_are_no_instances_have_the_addresses_that_are_given() {
    let mut config = EcsConfig::new(CLUSTER);
    let fake = Fake::of(running(1));
    fake.change(|state| _ = state.ids.insert(HOST.into(), "mi-7".to_owned()));
    let mut without = reader(&fake, &config);
    without.read(Instant::now()).await.unwrap();
    let snapshot = built(without.known());
    assert!(
        only_reason(&snapshot).contains("--ecs-hosts mi-7=ADDRESS"),
        "{snapshot:?}"
    );
    config
        .hosts
        .insert("mi-7".to_owned(), "10.1.2.3".parse().unwrap());
    let mut with = reader(&fake, &config);
    with.read(Instant::now()).await.unwrap();
    assert_eq!(backends(&with), ["10.1.2.3:32768=1"]);
}
