//! The watcher against a Marathon that misbehaves.

use serde_json::json;
use tokio::time::Instant;

use super::{
    lines,
    server::{Fake, Reply},
    watched::*,
};
use crate::provider::marathon::{Auth, MarathonConfig, Secret, Steps};

#[tokio::test]
async fn the_stream_is_opened_before_the_first_snapshot() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    let update = watched.next().await;
    assert_eq!(update.provider.as_str(), "marathon:marathon");
    assert_eq!(lines(&update.outcome.unwrap()), [A]);
    let (stream, apps) = (&fake.seen("/v2/events")[0], &fake.seen("/v2/apps")[0]);
    assert!(stream.at < apps.at);
    assert_eq!(stream.headers["accept"], "text/event-stream");
    assert_eq!(stream.query, "plan-format=light");
    assert!(!stream.headers.contains_key("accept-encoding"));
    assert_eq!(apps.headers["accept"], "application/json");
    assert_eq!(apps.headers["accept-encoding"], "gzip");
    assert_eq!(apps.query, "embed=apps.tasks&embed=apps.readiness");
}

#[tokio::test]
async fn a_given_framework_is_not_asked_for() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.framework = Some("marathon-user".to_owned());
    let mut watched = watch(config);
    let update = watched.next().await;
    assert_eq!(update.provider.as_str(), "marathon:marathon-user");
    assert_eq!(
        lines(&update.outcome.unwrap()),
        ["/a.marathon-user:80/tcp /a = 10.0.0.1:31000 w1"]
    );
    assert!(fake.seen("/v2/info").is_empty());
}

#[tokio::test]
async fn an_event_with_news_brings_a_snapshot_and_one_without_does_not() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    assert_eq!(watched.state().await, [A]);
    fake.apps(json!([app_a(), app_b()]));
    fake.event("deployment_info");
    tokio::time::sleep(ms(200)).await;
    assert_eq!(fake.seen("/v2/apps").len(), 1);
    fake.event("status_update_event");
    assert_eq!(watched.state().await, [A, B]);
}

#[tokio::test]
async fn who_is_asked_reads_everything_without_an_event() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    assert_eq!(watched.state().await, [A]);
    fake.apps(json!([app_a(), app_b()]));
    watched.again.ask();
    assert_eq!(watched.state().await, [A, B]);
}

#[tokio::test]
async fn a_burst_of_events_is_one_snapshot_and_snapshots_never_overlap() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.debounce = ms(100);
    config.timings.debounce_at_most = ms(5000);
    let mut watched = watch(config);
    watched.state().await;
    for _ in 0..50 {
        fake.event("status_update_event");
    }
    watched.state().await;
    assert_eq!(fake.seen("/v2/apps").len(), 2);
    for n in 0..200 {
        fake.event("instance_changed_event");
        if n % 20 == 0 {
            tokio::time::sleep(ms(120)).await;
        }
    }
    watched.state().await;
    assert_eq!(fake.most_at_once(), 1);
}

#[tokio::test]
async fn the_stream_follows_302_to_the_leader_with_authorization() {
    let leader = Fake::start(json!([])).await;
    let standby = Fake::start(json!([app_a()])).await;
    let to = format!(
        "http://localhost:{}/v2/events?plan-format=light",
        leader.addr.port()
    );
    standby.set("/v2/events", Reply::Redirect(to));
    let mut config = config(&standby);
    config.auth = Auth::Token("abc".into());
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    let redirected = &leader.seen("/v2/events")[0];
    assert_eq!(redirected.headers["authorization"], "token=abc");
    assert_eq!(redirected.headers["accept"], "text/event-stream");
    assert_eq!(redirected.query, "plan-format=light");
    standby.apps(json!([app_b()]));
    leader.event("app_terminated_event");
    assert_eq!(watched.state().await, [B]);
}

#[tokio::test]
async fn redirects_in_a_circle_end_after_three_hops_and_snapshots_go_on() {
    let fake = Fake::start(json!([app_a()])).await;
    fake.set("/v2/events", Reply::Redirect("/v2/events".to_owned()));
    let mut config = config(&fake);
    config.timings.backoff = Steps {
        first: DEADLINE,
        factor: 1.0,
        cap: DEADLINE,
    };
    config.timings.resync = ms(50);
    let mut watched = watch(config);
    watched.until(&[A]).await;
    assert_eq!(
        fake.seen("/v2/events").len(),
        4,
        "one request and three hops"
    );
    fake.apps(json!([app_b()]));
    watched.until(&[B]).await;
}

#[tokio::test]
async fn a_renewed_token_is_sent_with_the_next_request_and_ends_a_401() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old\n").unwrap();
    let fake = Fake::start(json!([app_a()])).await;
    fake.wants("token=new");
    let mut config = config(&fake);
    config.auth = Auth::Token(Secret::in_file(file.path()).unwrap());
    let mut watched = watch(config);
    let why = watched.next().await.outcome.unwrap_err();
    assert!(why.contains("401"), "{why}");
    std::fs::write(file.path(), "new\n").unwrap();
    watched.until(&[A]).await;
}

#[tokio::test]
async fn every_request_carries_basic_or_token_authorization() {
    for (auth, in_url, expected) in [
        (
            Auth::Basic {
                user: "u".into(),
                password: "p:x".into(),
            },
            "",
            "Basic dTpwOng=",
        ),
        (Auth::Token("jwt".into()), "", "token=jwt"),
        (Auth::None, "u:p%3Ax@", "Basic dTpwOng="),
    ] {
        let fake = Fake::start(json!([app_a()])).await;
        let mut config = config(&fake);
        config.urls = vec![format!("http://{in_url}{}", fake.addr).parse().unwrap()];
        config.auth = auth;
        let mut watched = watch(config);
        assert_eq!(watched.state().await, [A]);
        for path in ["/v2/events", "/v2/info", "/v2/apps", "/v2/pods/::status"] {
            assert_eq!(
                fake.seen(path)[0].headers["authorization"],
                expected,
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn a_bad_answer_leaves_the_last_state_and_the_next_good_one_replaces_it() {
    let text = |status, text: &str| Reply::Text(status, text.to_owned());
    let half = json!({ "apps": [app_b()] }).to_string();
    let half = &half[..half.len() / 2];
    let bad: [(&str, Reply, &str); 14] = [
        ("/v2/apps", text(500, ""), "500"),
        ("/v2/apps", text(404, r#"{"message":"no"}"#), "404"),
        (
            "/v2/apps",
            text(401, r#"{"message":"Invalid username or password."}"#),
            "401",
        ),
        ("/v2/apps", text(302, ""), "302"),
        ("/v2/apps", text(204, ""), "204"),
        (
            "/v2/apps",
            text(200, "<html>maintenance</html>"),
            "not a list of apps",
        ),
        ("/v2/apps", text(200, ""), "not a list of apps"),
        ("/v2/apps", text(200, half), "not a list of apps"),
        ("/v2/apps", Reply::Broken(half.to_owned()), "/v2/apps"),
        ("/v2/apps", Reply::Endless(BLANKS, ms(0)), "longer than"),
        ("/v2/apps", Reply::Endless(" ", ms(10)), "/v2/apps"),
        ("/v2/apps", Reply::Silence, "/v2/apps"),
        ("/v2/pods/::status", text(500, ""), "500"),
        ("/v2/pods/::status", text(200, "{}"), "not a list of pods"),
    ];
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.request = ms(300);
    let mut watched = watch(config);
    watched.until(&[A]).await;
    let mut current = (A, B);
    for (path, reply, expected) in bad {
        let (last, next) = current;
        let app = if next == B { app_b() } else { app_a() };
        fake.apps(json!([app.clone()]));
        fake.set(path, reply);
        fake.event("status_update_event");
        let mut why = watched.failure(&[last]).await;
        while !why.contains(expected) {
            why = watched.failure(&[last]).await;
        }
        assert!(!why.contains("for url"), "the URL is said twice: {why}");
        fake.set("/v2/pods/::status", Reply::Json(json!([])));
        fake.apps(json!([app]));
        watched.until(&[next]).await;
        current = (next, last);
    }
}

#[tokio::test]
async fn pods_that_marathon_does_not_know_are_no_pods() {
    let fake = Fake::start(json!([app_a()])).await;
    fake.set("/v2/pods/::status", Reply::Text(404, String::new()));
    assert_eq!(watch(config(&fake)).state().await, [A]);
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_and_a_snapshot_follows() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    assert_eq!(watched.state().await, [A]);
    fake.apps(json!([app_b()]));
    fake.close_streams();
    assert_eq!(watched.state().await, [B]);
    assert_eq!(fake.seen("/v2/events").len(), 2);
}

#[tokio::test]
async fn after_a_stream_that_lived_long_enough_the_first_wait_comes_again() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.stable_stream = ms(0);
    // A second wait that were longer would be the end of the test.
    config.timings.backoff = Steps {
        first: ms(10),
        factor: 10_000.0,
        cap: DEADLINE * 10,
    };
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    for (app, line) in [(app_b(), B), (app_a(), A), (app_b(), B)] {
        fake.apps(json!([app]));
        fake.close_streams();
        watched.until(&[line]).await;
    }
}

#[tokio::test]
async fn a_leader_that_is_not_ready_is_asked_again_until_it_is() {
    let fake = Fake::start(json!([app_a()])).await;
    fake.set("/v2/events", Reply::ClosedStream);
    let mut watched = watch(config(&fake));
    watched.until(&[A]).await;
    eventually("reconnects", || fake.seen("/v2/events").len() >= 3).await;
    fake.set("/v2/events", Reply::Stream);
    fake.apps(json!([app_b()]));
    watched.until(&[B]).await;
}

#[tokio::test]
async fn a_silent_stream_is_replaced() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.silence = ms(100);
    // The replacement does not wait for a back-off.
    config.timings.backoff = Steps {
        first: DEADLINE * 10,
        factor: 1.0,
        cap: DEADLINE * 10,
    };
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    fake.apps(json!([app_b()]));
    watched.until(&[B]).await;
    assert!(fake.seen("/v2/events").len() >= 2);
}

#[tokio::test]
async fn heart_beats_keep_a_stream_and_it_is_replaced_as_long_after_the_last_one_as_is_said() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.silence = ms(1000);
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    for _ in 0..20 {
        fake.heart_beat();
        tokio::time::sleep(ms(100)).await;
    }
    let opened = fake.seen("/v2/events").len();
    assert_eq!(opened, 1, "no two beats were too far from each other");
    let last = Instant::now();
    // Its event is lost with the connection.
    fake.apps(json!([app_b()]));
    watched.until(&[B]).await;
    let silent = fake.seen("/v2/events")[1].at.duration_since(last);
    assert!(silent > ms(800), "replaced after {silent:?}");
}

#[tokio::test]
async fn a_master_that_froze_is_left_for_the_next_one_before_a_request_runs_out_of_time() {
    let frozen = Fake::start(json!([app_a()])).await;
    let next = Fake::start(json!([app_b()])).await;
    let mut config = config(&frozen);
    config.urls = vec![frozen.url(), next.url()];
    config.timings.silence = ms(1000);
    config.timings.request = DEADLINE * 3;
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    for path in ["/v2/events", "/v2/apps", "/v2/pods/::status"] {
        frozen.set(path, Reply::Silence);
    }
    watched.until(&[B]).await;
}

#[tokio::test]
async fn a_stream_that_is_not_one_is_refused_and_told_of_until_it_is_one() {
    for reply in [
        Reply::Text(
            403,
            r#"{"message":"Not Authorized to perform this action!"}"#.to_owned(),
        ),
        Reply::Text(405, String::new()),
        Reply::Text(200, "<html></html>".to_owned()),
        Reply::Silence,
    ] {
        let fake = Fake::start(json!([app_a()])).await;
        fake.set("/v2/events", reply);
        let mut config = config(&fake);
        config.timings.resync = ms(50);
        config.timings.stream_first = ms(50);
        let mut watched = watch(config);
        watched.until(&[A]).await;
        fake.apps(json!([app_b()]));
        watched.until(&[B]).await;
        watched.until_told("event stream", true).await;
        fake.set("/v2/events", Reply::Stream);
        watched.until_told("event stream", false).await;
    }
}

#[tokio::test]
async fn without_any_event_the_resync_finds_the_change() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.resync = ms(50);
    let mut watched = watch(config);
    watched.until(&[A]).await;
    fake.apps(json!([app_b()]));
    watched.until(&[B]).await;
    assert_eq!(fake.seen("/v2/events").len(), 1);
}

#[tokio::test]
async fn an_unchanged_state_is_sent_again_as_the_same_allocation() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut config = config(&fake);
    config.timings.resync = ms(20);
    let mut watched = watch(config);
    let (first, second) = (watched.next().await, watched.next().await);
    assert!(first.at < second.at);
    assert!(std::sync::Arc::ptr_eq(
        &first.outcome.unwrap(),
        &second.outcome.unwrap()
    ));
}

#[tokio::test]
async fn the_next_url_is_tried_on_connection_errors_and_5xx_and_kept() {
    let gone = Fake::start(json!([])).await.url();
    let broken = Fake::start(json!([])).await;
    for path in ["/v2/apps", "/v2/info", "/v2/events"] {
        broken.set(path, Reply::Text(502, String::new()));
    }
    let good = Fake::start(json!([app_a()])).await;
    let mut config = config(&good);
    config.urls = vec![gone, broken.url(), good.url()];
    let mut watched = watch(config);
    assert_eq!(watched.state().await, [A]);
    let before = broken.seen("/v2/apps").len();
    good.apps(json!([app_b()]));
    good.event("app_terminated_event");
    watched.until(&[B]).await;
    assert_eq!(
        broken.seen("/v2/apps").len(),
        before,
        "the one that worked is kept"
    );
}

#[tokio::test]
async fn an_older_version_is_asked_for_once() {
    let (old, new) = ("2024-03-05T08:00:00.000Z", "2024-03-05T09:00:00.000Z");
    let mut app = app_a();
    app["versionInfo"] = json!({ "lastConfigChangeAt": new });
    app["healthChecks"] = json!([{"protocol": "TCP"}]);
    app["tasks"][0]["version"] = json!(old);
    let fake = Fake::start(json!([app])).await;
    let path = format!("/v2/apps/a/versions/{old}");
    fake.set(&path, Reply::Silence);
    let mut config = config(&fake);
    config.timings.request = ms(300);
    let mut watched = watch(config);
    assert_eq!(
        watched.state().await,
        [""; 0],
        "the app is left out while its version is not known"
    );
    fake.set(&path, Reply::Text(503, String::new()));
    fake.event("status_update_event");
    assert_eq!(watched.state().await, [""; 0]);
    fake.set(&path, Reply::Json(app_a()));
    fake.event("status_update_event");
    assert_eq!(watched.state().await, [A]);
    let asked = fake.seen(&path).len();
    fake.event("status_update_event");
    assert_eq!(watched.state().await, [A]);
    assert_eq!(fake.seen(&path).len(), asked, "versions never change");
}

#[tokio::test]
async fn before_the_framework_is_known_the_url_names_the_provider() {
    let fake = Fake::start(json!([])).await;
    fake.set("/v2/info", Reply::Text(500, String::new()));
    let mut config = config(&fake);
    config.urls = vec![
        format!("http://user:secret@{}/x/", fake.addr)
            .parse()
            .unwrap(),
    ];
    let update = watch(config).next().await;
    assert_eq!(
        update.provider.as_str(),
        format!("marathon:http://{}/x", fake.addr)
    );
    let why = update.outcome.unwrap_err();
    assert!(!why.contains("secret"), "{why}");
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_said_and_tried_again_until_the_end() {
    let mut watched = watch(MarathonConfig::new(vec![]));
    assert!(watched.next().await.outcome.unwrap_err().contains("no URL"));
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let fake = Fake::start(json!([app_a()])).await;
    let mut watched = watch(config(&fake));
    watched.state().await;
    watched.rx.close();
    within("the end", &mut watched.task).await.unwrap();
}
