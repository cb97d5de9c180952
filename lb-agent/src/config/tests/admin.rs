//! The settings of the pages over TCP and of the stats socket.

use std::path::Path;

use super::Node;
use crate::admin::haproxy::{Level, Place};

fn refusal(flags: &[&str]) -> String {
    Node::new().flags(flags).refusal()
}

#[test]
fn without_settings_pages_are_at_loopback_and_the_socket_is_roots() {
    let config = Node::new().config();
    let admin = config.admin.unwrap();
    let listen: Vec<_> = admin.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:9090", "[::1]:9090"]);
    assert!(admin.by_default && !admin.closed);
    assert_eq!((admin.token_file, admin.users_file), (None, None));
    assert_eq!(admin.certificate, None);
    let place = config.stats_socket.unwrap();
    assert_eq!(place, Place::default());
    assert_eq!((place.mode, place.level), (0o600, Level::Admin));
}

#[test]
fn everything_about_the_pages_is_read() {
    let node = Node::new().with("secret", "s3cret\n").with("pem", "");
    let path = |name: &str| node.path(name).display().to_string();
    let (secret, pem) = (path("secret"), path("pem"));
    let flags = [
        "--admin-listen",
        "10.0.0.1:9090,[fd00::1]:1936",
        "--admin-token-file",
        &secret,
        "--admin-read-auth",
        "--admin-hosts",
        "lb.example,lb2.example",
        "--admin-tls-cert",
        &pem,
        "--admin-tls-key",
        &pem,
    ];
    let admin = node.flags(&flags).config().admin.unwrap();
    let listen: Vec<_> = admin.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["10.0.0.1:9090", "[fd00::1]:1936"]);
    assert!(!admin.by_default && admin.closed);
    assert_eq!(admin.token_file.as_deref(), Some(Path::new(&secret)));
    assert_eq!(admin.hosts, ["lb.example", "lb2.example"]);
    assert!(admin.certificate.is_some());
    let off = Node::new().flags(&["--admin-listen", "none"]).config();
    assert_eq!(off.admin, None);
}

#[test]
fn the_stats_socket_takes_options_in_any_order() {
    let place = |text: &str| {
        let config = Node::new().flags(&["--stats-socket", text]).config();
        config.stats_socket
    };
    let expected = Place {
        path: Some("/run/haproxy/admin.sock".into()),
        mode: 0o660,
        group: Some("haproxy".to_owned()),
        level: Level::Operator,
    };
    for text in [
        "/run/haproxy/admin.sock,mode=660,group=haproxy,level=operator",
        "/run/haproxy/admin.sock, level=operator, group=haproxy, mode=0660",
    ] {
        assert_eq!(place(text), Some(expected.clone()), "{text}");
    }
    let bare = place("/run/x.sock").unwrap();
    assert_eq!((bare.mode, bare.group), (0o600, None));
    assert_eq!(place("none"), None);
}

#[test]
fn what_cannot_work_is_refused() {
    for (told, expected) in [
        (
            refusal(&["--admin-listen", "9090"]),
            "--admin-listen: \"9090\" is not an address with a port",
        ),
        (
            refusal(&["--admin-listen", "10.0.0.1:0"]),
            "--admin-listen: \"10.0.0.1:0\" has port 0",
        ),
        (
            refusal(&["--admin-listen", "224.0.0.1:9090"]),
            "--admin-listen: \"224.0.0.1:9090\" is a multicast address",
        ),
        (
            refusal(&["--admin-read-auth"]),
            "--admin-read-auth: needs --admin-token-file or --admin-users-file beside it",
        ),
        (
            refusal(&["--admin-token-file", "/nowhere/token"]),
            "--admin-token-file: cannot read \"/nowhere/token\"",
        ),
        (
            refusal(&["--admin-tls-cert", "/dev/null"]),
            "--admin-tls-cert: needs --admin-tls-key beside it",
        ),
        (
            refusal(&["--admin-tls-key", "/dev/null"]),
            "--admin-tls-key: needs --admin-tls-cert beside it",
        ),
        (
            refusal(&["--stats-socket", "/run/x.sock,mode=9"]),
            "--stats-socket: \"mode=9\" is none of mode=0600, group=NAME",
        ),
        (
            refusal(&["--stats-socket", "/run/x.sock,mode=1777"]),
            "--stats-socket: \"mode=1777\" is none of mode=0600, group=NAME",
        ),
        (
            refusal(&["--stats-socket", "/run/x.sock,owner=root"]),
            "--stats-socket: \"owner=root\" is none of mode=0600, group=NAME",
        ),
        (
            refusal(&["--stats-socket", "/run/x.sock,group"]),
            "--stats-socket: \"group\" is none of mode=0600, group=NAME",
        ),
        (
            refusal(&["--stats-socket", "/run/x.sock,level=root"]),
            "--stats-socket: ",
        ),
        (refusal(&["--stats-socket", "x.sock"]), "--stats-socket: "),
    ] {
        assert!(told.starts_with(expected), "{expected}: {told}");
    }
}
