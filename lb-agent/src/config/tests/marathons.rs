//! Several Marathons.

use super::*;

/// One Marathon by flag, and another one by this file.
fn beside(text: &str) -> Node {
    let node = Node::new().with("user.toml", text);
    let path = node.path("user.toml").display().to_string();
    node.flags(&[
        "--marathon",
        "http://m:8080",
        "--marathon-group",
        "external",
        "--marathon-more",
        &path,
    ])
}

#[test]
fn each_marathon_has_its_own_settings() {
    let node = beside(
        "marathon = ['http://u:8080', 'http://v:8080']\nmarathon-framework = 'marathon-user'",
    );
    let config = node.config();
    let all: Vec<_> = config.marathons().collect();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].urls.len(), all[1].urls.len()), (1, 2));
    assert_eq!(all[0].framework, None);
    assert_eq!(all[1].framework.as_deref(), Some("marathon-user"));
    assert_eq!(all[0].groups, ["external"]);
    assert!(
        all[1].groups.is_empty(),
        "what is said of one does not hold for another"
    );
}

#[test]
fn a_file_that_is_about_something_else_or_about_the_same_is_refused() {
    for (text, why) in [
        (
            "marathon-framework = 'x'",
            "has no effect without --marathon",
        ),
        ("", "names no Marathon"),
        (
            "marathon = 'http://u:8080'\niface = 'eth0'",
            "line 2, iface: is not about a Marathon",
        ),
        (
            "marathon = 'http://u:8080'\nmarathon-more = 'x'",
            "is not about a Marathon",
        ),
        ("marathon = 'http://m:8080'", "is read already"),
        ("marathon = 7", "user.toml, line 1"),
    ] {
        let refused = beside(text).load().unwrap_err().to_string();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}
