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
            "--docker-framework",
            "east",
            "--docker-drain",
            "30",
        ])
        .config()
        .docker
        .unwrap();
    assert!(docker.ca_file.is_some() && docker.certificate.is_some());
    assert_eq!(docker.poll, Duration::from_secs(2));
    assert!(docker.overlay_reachable);
    assert_eq!(docker.framework, "east");
    assert_eq!(docker.drain, Some(30));
    let plain = Node::new().flags(&["--docker"]).config().docker.unwrap();
    assert_eq!(plain.socket, "unix:///var/run/docker.sock");
    assert_eq!((plain.ca_file, plain.certificate), (None, None));
    assert_eq!(plain.poll, Duration::from_secs(5));
    assert!(!plain.overlay_reachable);
    assert_eq!(plain.framework, "docker");
    assert_eq!(plain.drain, None);
    let at_once = Node::new().flags(&["--docker", "--docker-drain=-1"]);
    assert_eq!(at_once.config().docker.unwrap().drain, Some(0));
}

#[test]
fn docker_alone_goes_by_the_variables_of_its_client() {
    let node = |flag: &str, host: &str| Node::new().flags(&[flag]).env("DOCKER_HOST", host);
    let socket = |node: Node| node.config().docker.map(|docker| docker.socket);
    let some = |text: &str| Some(text.to_owned());
    let tcp = "tcp://10.0.0.2:2376";
    assert_eq!(socket(node("--docker", tcp)), some(tcp));
    let unix = "unix:///run/other.sock";
    assert_eq!(socket(node("--docker", unix)), some(unix));
    assert_eq!(
        socket(node("--docker", " ")),
        some("unix:///var/run/docker.sock")
    );
    assert_eq!(
        socket(node("--docker=/run/mine.sock", tcp)),
        some("unix:///run/mine.sock")
    );
    assert_eq!(socket(node("--docker=no", tcp)), None);
    let refused = node("--docker", "ssh://me@there").refusal();
    assert!(refused.starts_with("DOCKER_HOST: "), "{refused}");

    let secured = |files: &[&str], variables: &[(&str, &str)]| {
        let node = node("--docker", tcp).env("DOCKER_TLS_VERIFY", "1");
        let node = files.iter().fold(node, |node, file| node.with(file, ""));
        let folder = node.path("").display().to_string();
        let node = node.env("DOCKER_CERT_PATH", &folder);
        variables
            .iter()
            .fold(node, |node, (name, value)| node.env(name, value))
    };
    let all = ["ca.pem", "cert.pem", "key.pem"];
    let node = secured(&all, &[]);
    let docker = node.config().docker.unwrap();
    assert_eq!(docker.ca_file, Some(node.path("ca.pem")));
    assert_eq!(
        docker.certificate,
        Some((node.path("cert.pem"), node.path("key.pem")))
    );
    let plain = secured(&all, &[("DOCKER_TLS_VERIFY", "")])
        .config()
        .docker
        .unwrap();
    assert_eq!((plain.ca_file, plain.certificate), (None, None));
    let refused = secured(&all[..2], &[]).refusal();
    assert!(
        refused.starts_with("DOCKER_CERT_PATH: cannot read "),
        "{refused}"
    );
    let refused = secured(&all, &[("DOCKER_CERT_PATH", "")]).refusal();
    assert_eq!(
        refused,
        "DOCKER_TLS_VERIFY: needs DOCKER_CERT_PATH beside it, the folder of ca.pem, cert.pem and key.pem"
    );
}

#[test]
fn what_was_set_on_the_balancer_is_read_from_every_place() {
    let of = |node: Node| {
        let config = node.config();
        (config.docker.unwrap().compat, config.warnings)
    };
    let flags = [
        "--docker",
        "--docker-compat",
        "TIMEOUT=client 50s, server 60s",
        "--docker-compat",
        "BALANCE=source",
    ];
    let (flags, warnings) = of(Node::new().flags(&flags));
    assert_ne!(flags, Default::default());
    assert_eq!(warnings, Vec::<String>::new());
    let env = of(Node::new().flags(&["--docker"]).env(
        "LB_AGENT_DOCKER_COMPAT",
        "TIMEOUT=client 50s, server 60s\n BALANCE=source",
    ));
    let file = of(Node::new().file(
        "docker = true\ndocker-compat = ['TIMEOUT=client 50s, server 60s', 'BALANCE=source']",
    ));
    assert_eq!((&env.0, &file.0), (&flags, &flags));
    let unknown = ["--docker", "--docker-compat", "NBPROC=4"];
    let (none, warnings) = of(Node::new().flags(&unknown));
    assert_eq!(none, Default::default());
    assert_eq!(warnings.len(), 1);
    let expected = "--docker-compat: NBPROC has no effect: ";
    assert!(warnings[0].starts_with(expected), "{warnings:?}");
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
            refusal(&["--docker", "--docker-framework", "East.1"]),
            "--docker-framework: \"East.1\" is not one label of lower-case letters",
        ),
        (
            refusal(&["--docker-compat", "BALANCE=source"]),
            "--docker-compat: has no effect without --docker",
        ),
        (
            refusal(&["--docker", "--docker-compat", "BALANCE=uri"]),
            "--docker-compat: BALANCE: \"uri\" is not one of roundrobin",
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
