//! The settings of etcd.

use super::Node;

fn refusal(flags: &[&str]) -> String {
    Node::new().flags(flags).refusal()
}

#[test]
fn everything_about_etcd_is_read() {
    let node = Node::new().with("password", "geheim\n").with("pem", "");
    let path = |name: &str| node.path(name).display().to_string();
    let (password, pem) = (path("password"), path("pem"));
    let node = node.flags(&[
        "--etcd",
        "https://10.0.0.2:2379,https://10.0.0.3:2379",
        "--etcd-prefix",
        "/lab",
        "--etcd-user",
        "lb",
        "--etcd-password-file",
        &password,
        "--etcd-ca-file",
        &pem,
        "--etcd-cert-file",
        &pem,
        "--etcd-key-file",
        &pem,
    ]);
    let etcd = node.config().etcd.unwrap();
    assert_eq!(etcd.urls.len(), 2);
    assert_eq!(etcd.prefix, "/lab/");
    assert_eq!(etcd.login.unwrap().0, "lb");
    assert!(etcd.ca_file.is_some() && etcd.certificate.is_some());
    let config = Node::new().flags(&["--etcd", "http://e:2379"]).config();
    assert_eq!(config.etcd.unwrap().prefix, "/lb-agent/");
    assert_eq!(config.services, None, "there is another source");
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn what_cannot_work_is_refused() {
    let with = |flags: &[&str]| refusal(&[&["--etcd", "http://e:2379"], flags].concat());
    for (told, expected) in [
        (
            refusal(&["--etcd", "e:2379"]),
            "--etcd: \"e:2379\" must begin with http:// or https://",
        ),
        (
            refusal(&["--etcd", "http://u:p@e"]),
            "--etcd: a URL must not hold a user or password; use --etcd-user and --etcd-password-file",
        ),
        (
            refusal(&["--etcd-user", "lb"]),
            "--etcd-user: has no effect without --etcd",
        ),
        (
            with(&["--etcd-user", "lb"]),
            "--etcd-user: needs --etcd-password-file beside it",
        ),
        (
            with(&["--etcd-password-file", "/dev/null"]),
            "--etcd-password-file: needs --etcd-user beside it",
        ),
        (
            with(&["--etcd-cert-file", "/dev/null"]),
            "--etcd-cert-file: needs --etcd-key-file beside it",
        ),
        (
            with(&["--etcd-ca-file", "/dev/null"]),
            "--etcd-ca-file: has no effect: no --etcd URL begins with https://",
        ),
        (
            with(&["--etcd-prefix", "a b"]),
            "--etcd-prefix: \"a b\" is not a prefix such as /lb-agent/: 1 to 256 printable characters without blanks",
        ),
    ] {
        assert_eq!(told, expected);
    }
}

#[test]
fn peers_may_be_given_and_stand_in_etcd_besides() {
    let etcd = ["--etcd", "http://e:2379", "--dsr", "--peers"];
    let config = |peers: &str| Node::new().flags(&[&etcd[..], &[peers]].concat()).config();
    let both = config("10.0.0.1,etcd");
    assert!(both.peers_in_etcd && both.dsr);
    assert_eq!(both.peers.len(), 1);
    assert!(config("etcd").peers.is_empty());
    assert!(!config("10.0.0.1").peers_in_etcd);
}
