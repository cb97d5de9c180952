//! The settings of Docker.

use std::time::Duration;

use super::Node;

fn refusal(flags: &[&str]) -> String {
    Node::new().flags(flags).refusal()
}

#[test]
fn everything_about_docker_is_read() {
    let node = Node::new().with("pem", "");
    let pem = node.path("pem").display().to_string();
    let docker = node
        .flags(&[
            "--docker=tcp://10.0.0.2:2376",
            "--docker-ca-file",
            &pem,
            "--docker-cert-file",
            &pem,
            "--docker-key-file",
            &pem,
            "--docker-poll",
            "2",
            "--docker-overlay-reachable",
            "--docker-drain",
            "30",
        ])
        .config()
        .docker
        .unwrap();
    assert!(docker.ca_file.is_some() && docker.certificate.is_some());
    assert_eq!(docker.poll, Duration::from_secs(2));
    assert!(docker.overlay_reachable);
    assert_eq!(docker.drain, Some(30));
    let plain = Node::new().flags(&["--docker"]).config().docker.unwrap();
    assert_eq!(plain.socket, "unix:///var/run/docker.sock");
    assert_eq!((plain.ca_file, plain.certificate), (None, None));
    assert_eq!(plain.poll, Duration::from_secs(5));
    assert!(!plain.overlay_reachable);
    assert_eq!(plain.drain, None);
    let at_once = Node::new().flags(&["--docker", "--docker-drain=-1"]);
    assert_eq!(at_once.config().docker.unwrap().drain, Some(0));
}

#[test]
fn what_cannot_work_is_refused() {
    let node = Node::new().with("pem", "");
    let pem = node.path("pem").display().to_string();
    let tcp = |flags: &[&str]| refusal(&[&["--docker=tcp://e:2376"], flags].concat());
    for (told, expected) in [
        (
            refusal(&["--docker-poll", "2"]),
            "--docker-poll: has no effect without --docker",
        ),
        (
            refusal(&["--docker", "--docker-ca-file", &pem]),
            "--docker-ca-file: has no effect: --docker is no tcp://HOST:PORT",
        ),
        (
            tcp(&["--docker-cert-file", &pem]),
            "--docker-cert-file: needs --docker-key-file beside it",
        ),
        (
            tcp(&["--docker-key-file", &pem]),
            "--docker-key-file: needs --docker-cert-file beside it",
        ),
        (
            tcp(&["--docker-cert-file", &pem, "--docker-key-file", &pem]),
            "--docker-cert-file: needs --docker-ca-file beside it",
        ),
        (
            tcp(&["--docker-ca-file", "/nonexistent"]),
            "--docker-ca-file: ",
        ),
        (
            tcp(&["--docker-poll", "0"]),
            "--docker-poll: \"0\" is not a whole number from 1 to 60",
        ),
        (
            tcp(&["--docker-drain", "soon"]),
            "--docker-drain: \"soon\" is not a duration",
        ),
    ] {
        assert!(told.contains(expected), "{told}");
    }
}
