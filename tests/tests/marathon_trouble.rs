//! Marathons that are in trouble, or two of them: each is followed by itself, and whatever happens to one, the last
//! state serves and the right one follows.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    answers::{Answers, Trouble},
    docker::place,
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What the agent calls them: by where it was told to read.
const ROOT: &str = "marathon:http://10.77.0.1:8080";
const USER: &str = "marathon:http://10.77.0.1:8081";
/// How soon after a recovery everything is right.
const RIGHT: Duration = Duration::from_secs(35);
/// VIPs are leased of what the stage's clients have a route to.
const POOL: &str = "10.99.1.1-10.99.255.254";
/// The app's service port, on the node.
const PUBLIC: &str = "10.77.0.1:10000";
/// A VIP that two Marathons declare.
const SHARED: &str = "10.99.0.9:80";

/// An app with these VIPs, one task of which runs on a server.
fn app(server: u8, vips: &[&str]) -> Value {
    let labels = vips.iter().enumerate();
    let labels: serde_json::Map<_, _> = labels
        .map(|(n, vip)| (format!("VIP_{n}"), json!(vip)))
        .collect();
    let task = json!({
        "id": format!("web.instance-{server}._app.1"), "appId": "/web", "host": format!("10.77.0.1{server}"),
        "state": "TASK_RUNNING", "ports": [80],
    });
    json!({
        "id": "/web", "instances": 1, "networks": [{"mode": "host"}], "labels": {"HAPROXY_GROUP": "external"},
        "portDefinitions": [{"port": 10000, "protocol": "tcp", "labels": labels}], "tasks": [task],
    })
}

fn apps(apps: &[Value]) -> Value {
    json!({ "apps": apps })
}

/// A stage that reads one Marathon, whose app is on the first server.
fn up() -> (Stage, Answers) {
    let flags = [
        "--marathon",
        "http://10.77.0.1:8080",
        "--marathon-group",
        "external",
        "--vip-pool-v4",
        POOL,
    ];
    let stage = Stage::up("", &flags);
    let marathon = marathon(&stage, 8080, "marathon", &app(1, &["/web:80"]));
    (stage, marathon)
}

fn marathon(stage: &Stage, port: u16, framework: &str, app: &Value) -> Answers {
    let at = ([10, 77, 0, 1], port).into();
    let apps = apps(std::slice::from_ref(app));
    Answers::serve(&stage.node, at, framework, &apps).expect("a Marathon")
}

/// The VIP of a name as soon as it is served.
fn vip(stage: &Stage, name: &str) -> String {
    let found = |status: &Value| -> Option<String> {
        let services = status["services"].as_array()?;
        let service = services.iter().find(|service| service["name"] == name)?;
        Some(format!("{}:80", service["addrs"][0].as_str()?))
    };
    let seen = wait_until(name, RIGHT, || found(&stage.status()).is_some());
    seen.expect("it is served");
    found(&stage.status()).expect("an address")
}

/// The server that a new connection comes to.
fn server(stage: &Stage, vip: &str) -> String {
    let connected = connect(&stage.clients[0], vip);
    connected.map_or_else(|why| why.to_string(), |(_, name)| name)
}

fn becomes(stage: &Stage, vip: &str, name: &str) {
    let right = wait_until("the right state", RIGHT, || server(stage, vip) == name);
    if right.is_err() {
        panic!("{vip} does not lead to {name}: {:#}", stage.status());
    }
}

/// What is said of a Marathon.
fn provider(stage: &Stage, id: &str) -> Value {
    let status = stage.status();
    let providers = status["providers"].as_array();
    let found = providers.into_iter().flatten().find(|one| one["id"] == id);
    found.cloned().unwrap_or_default()
}

fn asked_again(stage: &Stage) {
    let done = stage.run(&["resync"]);
    assert!(done.status.success(), "{}", done.stderr);
}

#[test]
fn whatever_marathon_does_its_last_state_serves_and_the_right_one_follows() {
    let (stage, marathon) = up();
    let vip = vip(&stage, "web.marathon");
    let mine = || provider(&stage, ROOT);
    let mut number = 1;
    let both_become = |number: u8| {
        for place in [vip.as_str(), PUBLIC] {
            becomes(&stage, place, &format!("s{number}"));
        }
    };
    both_become(number);
    for trouble in [
        Trouble::Frozen,
        Trouble::Closing,
        Trouble::Half,
        Trouble::Failing,
        Trouble::Garbage,
    ] {
        marathon.set_trouble(Some(trouble));
        asked_again(&stage);
        let age = || mine()["last_sync_age_ms"].as_u64().unwrap_or(0);
        let grows = wait_until("its age is told", PATIENCE, || age() > 2_000);
        assert!(grows.is_ok(), "{}", stage.status()["providers"]);
        // Who is silent may still answer.
        let told = mine()["last_error"].is_object();
        assert_eq!(told, trouble != Trouble::Frozen, "{trouble:?}: {}", mine());
        for _ in 0..10 {
            let reached = [vip.as_str(), PUBLIC].map(|place| server(&stage, place));
            let last = format!("s{number}");
            assert_eq!(reached, [last.clone(), last], "{trouble:?}");
        }
        number = number % 3 + 1;
        marathon.set("/v2/apps", &apps(&[app(number, &["/web:80"])]));
        marathon.set_trouble(None);
        both_become(number);
        let well = wait_until("it is well", RIGHT, || mine()["last_error"].is_null());
        well.expect("nothing is said any more");
    }
    let bad = json!({"id": "/bad", "networks": 7, "tasks": "none"});
    number = number % 3 + 1;
    marathon.set("/v2/apps", &apps(&[bad, app(number, &["/web:80"])]));
    asked_again(&stage);
    both_become(number);
    let problems = mine()["problems"].to_string();
    assert!(problems.contains("/bad"), "{problems}");
}

#[test]
fn after_an_outage_that_ended_no_connection_the_right_state_follows_in_time() {
    let url = "http://10.77.0.13:8080";
    let stage = Stage::up("", &["--marathon", url, "--vip-pool-v4", POOL]);
    let (far, at) = (&stage.servers[2], ([10, 77, 0, 13], 8080).into());
    let first = apps(&[app(1, &["/web:80"])]);
    let marathon = Answers::serve(far, at, "marathon", &first).expect("a Marathon");
    let vip = vip(&stage, "web.marathon");
    becomes(&stage, &vip, "s1");
    marathon.wait_for_stream().expect("it listens");
    far.cut_off().expect("cut off");
    // What it asks for is lost on the way.
    asked_again(&stage);
    let mine = || provider(&stage, &format!("marathon:{url}"));
    let told = wait_until("it is told", 2 * PATIENCE, || {
        mine()["last_error"].is_object()
    });
    assert!(told.is_ok(), "{}", stage.status()["providers"]);
    assert_eq!(server(&stage, &vip), "s1", "the last state stays");
    marathon.set("/v2/apps", &apps(&[app(2, &["/web:80"])]));
    far.reconnect().expect("reconnected");
    becomes(&stage, &vip, "s2");
}

#[test]
fn who_is_cut_off_for_reading_too_slowly_comes_back_and_reads_everything() {
    let (mut stage, marathon) = up();
    let vip = vip(&stage, "web.marathon");
    becomes(&stage, &vip, "s1");
    marathon.wait_for_stream().expect("it listens");
    stage.agent.signal(Signal::STOP).expect("stopped");
    // No event tells of the change.
    marathon.set("/v2/apps", &apps(&[app(2, &["/web:80"])]));
    let event = json!({"eventType": "framework_message_event", "message": "x".repeat(10_000)});
    let cut_off = wait_until("it is cut off", PATIENCE, || {
        (0..100).for_each(|_| marathon.event(&event));
        !marathon.is_heard()
    });
    stage.agent.signal(Signal::CONT).expect("it goes on");
    cut_off.expect("no kernel keeps so much");
    // Long before everything is read in any case.
    becomes(&stage, &vip, "s2");
}

#[test]
fn however_many_events_there_are_few_requests_are_made() {
    let (stage, marathon) = up();
    let vip = vip(&stage, "web.marathon");
    marathon.wait_for_stream().expect("it listens");
    let (asked, began) = (marathon.requests(), Instant::now());
    marathon.set("/v2/apps/web", &json!({"app": app(2, &["/web:80"])}));
    let event = json!({
        "eventType": "status_update_event", "appId": "/web", "taskStatus": "TASK_RUNNING", "taskId": "x",
    });
    for _ in 0..1_000 {
        marathon.event(&event);
        // Two hundred a second.
        thread::sleep(Duration::from_millis(5));
    }
    becomes(&stage, &vip, "s2");
    let (asked, seconds) = (marathon.requests() - asked, began.elapsed().as_secs());
    let most = 3 * usize::try_from(seconds).expect("a small number");
    assert!(
        (1..=most).contains(&asked),
        "{asked} requests in {seconds} s"
    );
    assert_eq!(marathon.most_at_once(), 1, "one after the other");
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is a file of three lines in a place for such.
        _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn of_two_marathons_each_is_followed_and_pools_of_one_vip_merge() {
    let folder = Folder(place("more").expect("a folder"));
    let more = folder.0.join("user.toml");
    fs::write(&more, "marathon = [\"http://10.77.0.1:8081\"]\n").expect("written");
    let more = more.display().to_string();
    let flags = [
        "--marathon",
        "http://10.77.0.1:8080",
        "--marathon-more",
        &more,
        "--vip-pool-v4",
        POOL,
    ];
    let stage = Stage::up("", &flags);
    let vips = ["/web:80", SHARED];
    let root = marathon(&stage, 8080, "marathon", &app(1, &vips));
    let user = marathon(&stage, 8081, "marathon-user", &app(2, &vips));
    let [of_root, of_user] = ["web.marathon", "web.marathon-user"].map(|name| vip(&stage, name));
    assert_ne!(of_root, of_user, "each framework has names of its own");
    becomes(&stage, &of_root, "s1");
    becomes(&stage, &of_user, "s2");
    let reached = || -> BTreeSet<String> { (0..40).map(|_| server(&stage, SHARED)).collect() };
    let both = |one: &str, other: &str| BTreeSet::from([one.to_owned(), other.to_owned()]);
    assert_eq!(reached(), both("s1", "s2"));

    // One that cannot be read takes nothing from the other, and keeps what it had.
    user.set_trouble(Some(Trouble::Failing));
    root.set("/v2/apps", &apps(&[app(3, &vips)]));
    asked_again(&stage);
    becomes(&stage, &of_root, "s3");
    let failing = |id: &str| provider(&stage, id)["last_error"].is_object();
    let told = wait_until("it is told", PATIENCE, || failing(USER));
    assert!(told.is_ok(), "{}", stage.status()["providers"]);
    assert!(!failing(ROOT));
    becomes(&stage, &of_user, "s2");
    assert_eq!(reached(), both("s3", "s2"));

    user.set("/v2/apps", &apps(&[app(1, &vips)]));
    user.set_trouble(None);
    becomes(&stage, &of_user, "s1");
    assert_eq!(reached(), both("s3", "s1"));
}
