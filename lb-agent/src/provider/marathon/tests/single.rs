//! Between two snapshots an event brings its app alone.

use serde_json::{Value, json};

use super::{
    server::{Fake, Reply},
    simple_app,
    watched::*,
};

const MOVED: &str = "/a.marathon:80/tcp /a = 10.0.0.1:31005 w1";

fn moved_a() -> Value {
    simple_app("/a", 31005)
}

/// A Marathon with `/a` and `/b`, and a watcher that has read both.
async fn both() -> (Fake, Watched) {
    let fake = Fake::start(json!([app_a(), app_b()])).await;
    let mut watched = watch(config(&fake));
    assert_eq!(watched.state().await, [A, B]);
    (fake, watched)
}

#[tokio::test]
async fn an_event_about_an_app_reads_that_app_alone() {
    let (fake, mut watched) = both().await;
    fake.app(moved_a());
    fake.event_of("status_update_event", "/a");
    assert_eq!(watched.state().await, [MOVED, B]);
    let asked = fake.seen("/v2/apps/a");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].query, "embed=app.tasks&embed=app.readiness");
    for path in ["/v2/apps", "/v2/pods/::status", "/v2/info"] {
        assert_eq!(fake.seen(path).len(), 1, "{path}");
    }
}

#[tokio::test]
async fn answers_as_before_count_anew_where_an_app_was_read_alone_since() {
    let (fake, mut watched) = both().await;
    // Nothing has changed.
    watched.again.ask();
    assert_eq!(watched.state().await, [A, B]);
    assert_eq!(fake.seen("/v2/apps").len(), 2);
    fake.app(moved_a());
    fake.event_of("status_update_event", "/a");
    assert_eq!(watched.state().await, [MOVED, B]);
    // It moved back, and no event told of it.
    watched.again.ask();
    assert_eq!(watched.state().await, [A, B]);
    assert_eq!(fake.seen("/v2/apps").len(), 3);
}

#[tokio::test]
async fn a_new_app_in_a_group_is_read_alone_too() {
    let (fake, mut watched) = both().await;
    fake.app(simple_app("/shop/c", 33000));
    fake.event_of("status_update_event", "/shop/c");
    let new = "/shop/c.marathon:80/tcp /shop/c = 10.0.0.1:33000 w1";
    assert_eq!(watched.state().await, [A, B, new]);
    assert_eq!(fake.seen("/v2/apps").len(), 1);
}

#[tokio::test]
async fn an_app_that_is_gone_brings_a_snapshot() {
    let (fake, mut watched) = both().await;
    fake.apps(json!([app_b()]));
    fake.event_of("app_terminated_event", "/a");
    assert_eq!(watched.state().await, [B]);
    assert_eq!(fake.seen("/v2/apps").len(), 2);
}

#[tokio::test]
async fn a_burst_about_several_apps_reads_each_once_and_one_after_the_other() {
    let (fake, mut watched) = both().await;
    fake.app(moved_a());
    fake.app(simple_app("/b", 32005));
    for _ in 0..20 {
        fake.event_of("status_update_event", "/a");
        fake.event_of("health_status_changed_event", "/b");
    }
    let moved_b = "/b.marathon:80/tcp /b = 10.0.0.1:32005 w1";
    watched.until(&[MOVED, moved_b]).await;
    // Events that came while it was read may have brought it a second time.
    assert!(fake.seen("/v2/apps/a").len() <= 2);
    assert_eq!(fake.seen("/v2/apps").len(), 1);
    assert_eq!(fake.most_at_once(), 1);
}

#[tokio::test]
async fn a_bad_answer_about_an_app_leaves_the_last_state_and_a_snapshot_follows() {
    let whole = json!({ "app": moved_a() }).to_string();
    for reply in [
        Reply::Text(500, String::new()),
        Reply::Text(200, whole[..whole.len() / 2].to_owned()),
        Reply::Broken(whole.clone()),
        Reply::Json(json!({ "app": app_b() })),
        Reply::Json(moved_a()),
    ] {
        let (fake, mut watched) = both().await;
        fake.set("/v2/apps/a", reply.clone());
        fake.apps(json!([moved_a(), app_b()]));
        fake.event_of("status_update_event", "/a");
        let why = watched.failure(&[A, B]).await;
        assert!(why.contains("/v2/apps/a"), "{reply:?}: {why}");
        assert_eq!(watched.state().await, [MOVED, B], "{reply:?}");
        assert_eq!(fake.seen("/v2/apps").len(), 2);
    }
}

#[tokio::test]
async fn an_app_that_cannot_be_read_keeps_what_it_had_until_it_can() {
    let (fake, mut watched) = both().await;
    let mut broken = app_a();
    broken["networks"] = json!("host");
    fake.app(broken);
    fake.event_of("status_update_event", "/a");
    let update = watched.next().await.outcome.unwrap();
    assert_eq!(super::lines(&update), [A, B]);
    assert!(super::reasons(&update)[0].starts_with("/a: it cannot be read"));
    fake.app(moved_a());
    fake.event_of("status_update_event", "/a");
    let update = watched.next().await.outcome.unwrap();
    assert_eq!(super::lines(&update), [MOVED, B]);
    assert!(update.problems.is_empty());
}

#[tokio::test]
async fn after_a_reconnect_or_with_a_new_leader_everything_is_read() {
    let (fake, mut watched) = both().await;
    fake.header("x-marathon-leader", "http://10.0.0.12:8080");
    fake.app(moved_a());
    fake.apps(json!([moved_a()]));
    fake.event_of("status_update_event", "/a");
    assert_eq!(watched.state().await, [MOVED, B]);
    assert_eq!(
        watched.state().await,
        [MOVED],
        "the new leader was asked for all"
    );
    fake.apps(json!([app_b()]));
    fake.close_streams();
    watched.until(&[B]).await;
}

#[tokio::test]
async fn an_event_about_one_app_of_a_deployment_group_counts_for_the_other() {
    let app = |colour: &str, port: u16, group: &str| {
        let mut app = simple_app(&format!("/{colour}"), port);
        app["instances"] = json!(1);
        app["portDefinitions"][0]["port"] = json!(10000);
        app["labels"] = json!({"HAPROXY_DEPLOYMENT_GROUP": group, "HAPROXY_GROUP": "x"});
        app
    };
    let (blue, green) = (app("blue", 31000, "g"), app("green", 31001, "g"));
    let mut staging = green.clone();
    staging["tasks"] = json!([]);
    let fake = Fake::start(json!([blue, staging])).await;
    let mut config = config(&fake);
    config.edge.groups.insert("x".to_owned());
    let mut watched = watch(config);
    let of_blue = |state: Vec<String>| {
        let line = state
            .into_iter()
            .find(|line| line.contains("/blue = ") && line.starts_with("/g"));
        line.unwrap_or_default()
    };
    let up = "/g.marathon:10000/tcp /blue = 10.0.0.1:31000 w1";
    assert_eq!(of_blue(watched.state().await), up);
    fake.app(green);
    fake.event_of("status_update_event", "/green");
    assert!(of_blue(watched.state().await).contains("w0 (maintenance"));
    fake.app(app("green", 31001, "other"));
    fake.event_of("status_update_event", "/green");
    assert_eq!(of_blue(watched.state().await), up, "it stands alone again");
    assert_eq!(fake.seen("/v2/apps").len(), 1);
}
