//! Orders on the command line.

use super::*;

/// Two words.
pub(super) fn example() -> Vec<OperatorReport> {
    let one = OperatorReport {
        which: "10.0.1.5:28543 of dcos-101app2.marathon".into(),
        says: "maintenance, weight 5".into(),
        since: Timestamp(9_400_000),
        deadline: Some(Timestamp(10_060_000)),
        unused_since: None,
        server: None,
    };
    let other = OperatorReport {
        which: "task-7".into(),
        says: "draining".into(),
        deadline: None,
        unused_since: Some(Timestamp(9_700_000)),
        ..one.clone()
    };
    vec![one, other]
}

#[test]
fn an_order_is_posted_and_what_then_holds_is_printed() {
    let dir = TempDir::new().unwrap();
    for (args, request) in [
        (
            &[
                "drain",
                "10.0.0.1:80",
                "--service",
                "web.file:80",
                "--deadline",
                "5",
            ][..],
            "POST /v1/drain?backend=10.0.0.1%3A80&service=web.file%3A80&deadline=5 HTTP/1.0",
        ),
        (
            &["maintenance", "--node"],
            "POST /v1/maintenance?node=true HTTP/1.0",
        ),
        (
            &["ready", "task.1"],
            "POST /v1/ready?backend=task.1 HTTP/1.0",
        ),
        (
            &["weight", "[fd00::1]:80", "7"],
            "POST /v1/weight?backend=%5Bfd00%3A%3A1%5D%3A80&weight=7 HTTP/1.0",
        ),
        (
            &["health", "task.1", "stopping", "--service", "web.file"],
            "POST /v1/health?backend=task.1&state=stopping&service=web.file HTTP/1.0",
        ),
        (
            &["reset", "10.0.0.1"],
            "POST /v1/reset?backend=10.0.0.1 HTTP/1.0",
        ),
        (
            &["release", "redis.marathon"],
            "POST /v1/release?name=redis.marathon HTTP/1.0",
        ),
    ] {
        let agent = answer_once(&dir, ok(&["one", "two\u{1b}"]));
        let command = parse(args).unwrap().command.unwrap();
        let (text, outcome) = execute_in(&dir, command, no_purge);
        outcome.unwrap();
        assert_eq!(text, "one\ntwo\\u{1b}\n");
        assert_eq!(agent.join().unwrap(), request);
        std::fs::remove_file(dir.path().join(SOCKET_NAME)).unwrap();
    }
    for args in [
        &["drain", "a"][..],
        &["maint", "--node"],
        &["ready", "a"],
        &["weight", "a", "7"],
        &["health", "a", "up"],
        &["reset", "a"],
        &["resync"],
    ] {
        let agent = answer_once(&dir, ok(&["one", "two"]));
        let args = [args, &["--json"]].concat();
        let command = parse(&args).unwrap().command.unwrap();
        let (text, outcome) = execute_in(&dir, command, no_purge);
        outcome.unwrap();
        let said: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(said, ["one", "two"], "{args:?}");
        agent.join().unwrap();
        std::fs::remove_file(dir.path().join(SOCKET_NAME)).unwrap();
    }
    let missing = mistake(&["drain"]);
    assert!(missing.starts_with("<BACKEND> is missing"), "{missing}");
    assert!(mistake(&["weight", "a", "257"]).contains("257"));
    assert!(mistake(&["health", "a", "ill"]).contains("ill"));
    let both = mistake(&["drain", "a", "--node"]);
    let named = both.contains("[BACKEND]") || both.contains("<BACKEND>");
    assert!(
        named && both.contains("--node") && both.contains("exclude each other"),
        "{both}"
    );
}
