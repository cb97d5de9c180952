//! Outages that end no connection, streams that come and go, and a reader that is cut off: the right state follows soon.

use serde_json::json;

use super::{
    server::{Fake, OUTSTANDING, Reply},
    watched::*,
};

#[tokio::test]
async fn what_was_asked_before_a_new_stream_is_given_up_and_asked_anew() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.request = DEADLINE * 3;
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    // No answer comes, and the connection does not end either.
    fake.set("/v2/apps", Reply::Silence);
    watched.again.ask();
    eventually("it is asked", || fake.seen("/v2/apps").len() == 2).await;
    fake.apps(json!([app_b()]));
    fake.close_streams();
    watched.until(&[B]).await;
}

#[tokio::test]
async fn after_an_outage_nothing_waits_for_a_request_that_was_lost_in_it() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.open = ms(300);
    config.timings.request = DEADLINE * 3;
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    for path in ["/v2/apps", "/v2/pods/::status", "/v2/events"] {
        fake.set(path, Reply::Silence);
    }
    fake.close_streams();
    watched.again.ask();
    eventually("all is asked in vain", || {
        fake.seen("/v2/apps").len() == 2 && fake.seen("/v2/events").len() > 3
    })
    .await;
    // Who was asked says nothing now either.
    fake.apps(json!([app_b()]));
    fake.set("/v2/pods/::status", Reply::Json(json!([])));
    fake.set("/v2/events", Reply::Stream);
    watched.until(&[B]).await;
}

#[tokio::test]
async fn where_streams_come_and_go_faster_than_anything_is_read_a_state_comes_too() {
    let fake = Fake::start(json!([])).await;
    fake.set("/v2/events", Reply::ClosedStream);
    let apps = json!({ "apps": [app_a()] });
    fake.set("/v2/apps", Reply::Late(apps, ms(300)));
    let mut watched = watch(config(&fake));
    watched.until(&[A]).await;
}

#[tokio::test]
async fn a_reader_that_was_cut_off_for_being_slow_comes_back_and_reads_everything() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    assert_eq!(watched.state().await, [A]);
    fake.apps(json!([app_b()]));
    // More than Marathon keeps, none of which has news, and nobody can read meanwhile.
    for _ in 0..=OUTSTANDING {
        fake.event("deployment_info");
    }
    watched.until(&[B]).await;
    assert_eq!(fake.seen("/v2/events").len(), 2);
}
