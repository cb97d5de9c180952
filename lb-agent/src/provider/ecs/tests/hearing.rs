//! Events: whom they wake, how often, and what is told while they cannot be heard.

use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant as Moment},
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use super::*;
use crate::provider::ecs::{
    api::{Failure, FailureKind},
    events::{Allowance, Ear, Message, Queue, listen, mouths},
    watcher::state,
};

const SHOP: &str = "arn:aws:ecs:eu-west-1:123456789012:cluster/shop";
/// Long enough for what is to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for what is not to come.
const SILENCE: Duration = Duration::from_millis(200);

/// Answers in this order, and then none.
#[derive(Default)]
struct Line {
    answers: Mutex<VecDeque<Result<Vec<Message>, Failure>>>,
    deleted: Mutex<Vec<String>>,
}

#[async_trait]
impl Queue for Line {
    async fn receive(&self) -> Result<Vec<Message>, Failure> {
        let next = self.answers.lock().unwrap().pop_front();
        match next {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn delete(&self, messages: &[Message]) -> Result<(), Failure> {
        let receipts = messages.iter().map(|message| message.receipt.clone());
        self.deleted.lock().unwrap().extend(receipts);
        Ok(())
    }
}

fn message(body: &str) -> Message {
    Message {
        receipt: "r".to_owned(),
        body: body.to_owned(),
    }
}

fn about(cluster: &str) -> String {
    serde_json::json!({"source": "aws.ecs", "detail": {"clusterArn": cluster}}).to_string()
}

/// What each of `clusters` hears of such messages.
async fn heard(bodies: &[&str], clusters: &[&str]) -> Vec<bool> {
    let clusters: Vec<_> = clusters.iter().map(|name| (*name).to_owned()).collect();
    let (mouths, trouble) = mouths(&clusters);
    let ears: Vec<_> = mouths.iter().map(|mouth| mouth.ear(&trouble)).collect();
    let line = Line::default();
    let messages = bodies.iter().map(|body| message(body)).collect();
    line.answers.lock().unwrap().push_back(Ok(messages));
    let listening = listen(&line, &mouths, &trouble);
    assert!(timeout(SILENCE, listening).await.is_err(), "it goes on");
    assert_eq!(line.deleted.lock().unwrap().len(), bodies.len());
    let mut all = Vec::new();
    for mut ear in ears {
        all.push(timeout(SILENCE, ear.heard()).await.is_ok());
    }
    all
}

#[tokio::test]
async fn an_event_wakes_its_own_cluster() {
    let clusters = ["shop", SHOP, "other", &SHOP.replace("eu-", "us-")];
    let shops = [true, true, false, false];
    assert_eq!(heard(&[&about(SHOP)], &clusters).await, shops);
    let wrapped = serde_json::json!({"Type": "Notification", "Message": about(SHOP)});
    assert_eq!(heard(&[&wrapped.to_string()], &clusters).await, shops);
}

#[tokio::test]
async fn what_cannot_be_read_wakes_all() {
    for body in ["", "nonsense", "{}", "[1]", "{\"Message\": \"nonsense\"}"] {
        assert_eq!(heard(&[body], &["shop", "other"]).await, [true, true]);
    }
}

#[tokio::test]
async fn an_ear_for_nothing_hears_nothing() {
    assert!(timeout(SILENCE, Ear::deaf().heard()).await.is_err());
    assert_eq!(Ear::deaf().trouble(), None);
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_is_told_and_asked_again() {
    let (mouths, trouble) = mouths(&["shop".to_owned()]);
    let mut ear = mouths[0].ear(&trouble);
    let line = Line::default();
    let denied = Failure::of_answer("ReceiveMessage", 403, "AccessDenied", "");
    line.answers.lock().unwrap().extend([
        Err(denied.clone()),
        Err(denied.clone()),
        Ok(vec![message(&about(SHOP))]),
    ]);
    let begun = Moment::now();
    let watched = async {
        ear.heard().await;
        begun.elapsed()
    };
    let mut seen = trouble.subscribe();
    let told = async {
        seen.changed().await.unwrap();
        seen.borrow_and_update().clone()
    };
    let listening = listen(&line, &mouths, &trouble);
    let (told, waited) = tokio::select! {
        () = listening => unreachable!("it goes on for ever"),
        both = async { tokio::join!(told, watched) } => both,
    };
    assert_eq!(told.as_deref(), Some(denied.reason.as_str()));
    assert_eq!(denied.kind, FailureKind::Refused);
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
    assert!(waited < PATIENCE, "{waited:?}");
    assert_eq!(ear.trouble(), None, "it is heard again");
}

#[test]
fn a_queue_that_is_not_heard_is_a_problem_of_its_cluster() {
    let (mouths, trouble) = mouths(&[CLUSTER.to_owned()]);
    let (ear, config) = (mouths[0].ear(&trouble), EcsConfig::new(CLUSTER));
    assert_eq!(state(&tutorial(), &config, &ear), built(&tutorial()));
    trouble.send_replace(Some("AccessDenied".into()));
    let snapshot = state(&tutorial(), &config, &ear);
    assert_eq!(
        only_reason(&snapshot),
        "events are not heard, so that a change counts from the next poll on: AccessDenied"
    );
    assert_eq!(&*snapshot.problems[0].subject, CLUSTER);
    assert_eq!(snapshot.pools, built(&tutorial()).pools);
}

#[test]
fn whatever_their_rate_events_bring_a_bounded_number_of_readings() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    let mut readings = |from: Duration, seconds: u32| {
        let moments =
            (0..10 * seconds).map(|tenth| start + from + Duration::from_millis(100) * tenth);
        let taken = moments.filter(|now| {
            let may = allowance.next(*now) <= *now;
            if may {
                allowance.take(*now);
            }
            may
        });
        taken.count()
    };
    assert_eq!(readings(Duration::ZERO, 60), 5 + 11);
    let later = Duration::from_secs(3_600);
    assert_eq!(readings(later, 1), 5, "no more after a silence");
    assert_eq!(readings(later + Duration::from_secs(2), 2), 0);
}

#[test]
fn an_event_that_is_one_too_many_counts_as_soon_as_it_may() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    for _ in 0..5 {
        assert_eq!(allowance.next(start), start);
        allowance.take(start);
    }
    let next = start + Duration::from_secs(5);
    assert_eq!(allowance.next(start + Duration::from_secs(1)), next);
    assert_eq!(allowance.next(next), next);
}
