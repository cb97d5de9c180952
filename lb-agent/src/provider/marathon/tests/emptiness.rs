//! An empty answer with status 200: believed, doubted, confirmed, taken back.

use serde_json::json;
use tokio::time::Instant;

use super::{
    lines,
    server::{Fake, Reply},
    watched::*,
};

#[tokio::test]
async fn in_quiet_times_an_empty_answer_is_believed_at_once() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    assert_eq!(watched.state().await, [A]);
    fake.apps(json!([]));
    fake.event("app_terminated_event");
    assert_eq!(lines(&watched.next().await.outcome.unwrap()), [""; 0]);
}

#[tokio::test]
async fn an_empty_answer_after_an_error_needs_a_second_one() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    assert_eq!(watched.state().await, [A]);
    fake.set("/v2/apps", Reply::Text(503, String::new()));
    fake.event("app_terminated_event");
    assert!(watched.failure(&[A]).await.contains("503"));
    fake.apps(json!([]));
    loop {
        let why = watched.failure(&[A]).await;
        if why.contains("no apps at all") {
            break;
        }
    }
    let doubted = Instant::now();
    assert_eq!(lines(&watched.next().await.outcome.unwrap()), [""; 0]);
    assert!(
        doubted.elapsed() >= ms(250),
        "confirmed after {:?}",
        doubted.elapsed()
    );
}

#[tokio::test]
async fn an_empty_answer_after_a_reconnect_or_a_new_leader_can_be_taken_back() {
    for new_leader in [false, true] {
        let fake = Fake::start(json!([app_a()])).await;
        fake.header("x-marathon-leader", "http://10.0.0.11:8080");
        let mut watched = watch(config(&fake));
        assert_eq!(watched.state().await, [A]);
        fake.apps(json!([]));
        if new_leader {
            fake.header("x-marathon-leader", "http://10.0.0.12:8080");
            fake.event("app_terminated_event");
        } else {
            fake.close_streams();
        }
        assert!(watched.failure(&[A]).await.contains("no apps at all"));
        fake.apps(json!([app_a(), app_b()]));
        assert_eq!(watched.state().await, [A, B], "never empty in between");
    }
}
