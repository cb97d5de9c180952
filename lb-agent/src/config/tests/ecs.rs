//! The settings of `--ecs`.

use std::time::Duration;

use super::Node;

#[test]
fn clusters_are_names_or_arns_and_may_be_several() {
    let arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/shop";
    let node = Node::new().flags(&[
        "--ecs",
        "hello-world-cluster",
        "--ecs",
        arn,
        "--ecs-hosts",
        "mi-1=10.0.0.7,mi-2=fd00::7",
        "--ecs-events",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/lb",
    ]);
    let config = node.config();
    let ecs = config.ecs.unwrap();
    assert_eq!(ecs.clusters, ["hello-world-cluster", arn]);
    assert_eq!((ecs.region, ecs.endpoint), (None, None));
    assert_eq!(ecs.poll, Duration::from_secs(5));
    assert_eq!(ecs.events.unwrap().path(), "/123456789012/lb");
    assert_eq!(
        ecs.hosts["mi-2"],
        "fd00::7".parse::<std::net::IpAddr>().unwrap()
    );
    // It is enough to read.
    assert_eq!((config.services, config.warnings), (None, vec![]));
}

#[test]
fn what_cannot_be_used_is_refused() {
    let cluster = |text: &str| {
        format!(
            "--ecs: \"{text}\" is neither the name of an ECS cluster (letters, digits, - and _) nor its ARN \
             (arn:aws:ecs:REGION:ACCOUNT:cluster/NAME)"
        )
    };
    for text in [
        "a/b",
        "a.b",
        "arn:aws:ecs:eu-west-1:1:service/a/b",
        "arn:aws:ec2:r:1:cluster/a",
    ] {
        assert_eq!(Node::new().flags(&["--ecs", text]).refusal(), cluster(text));
    }
    for (flag, value, reason) in [
        (
            "--ecs-region",
            "Ireland",
            "\"Ireland\" is not a region such as eu-west-1",
        ),
        (
            "--ecs-endpoint",
            "127.0.0.1:5000",
            "\"127.0.0.1:5000\" is not a URL such as http://127.0.0.1:5000",
        ),
        (
            "--ecs-endpoint",
            "http://me:secret@aws",
            "a URL must not hold a user or password; AWS_ACCESS_KEY_ID and the like do",
        ),
        (
            "--ecs-events",
            "lb",
            "\"lb\" is not a URL such as https://sqs.eu-west-1.amazonaws.com/123456789012/lb-agent",
        ),
        (
            "--ecs-events",
            "https://sqs.eu-west-1.amazonaws.com/lb",
            "\"https://sqs.eu-west-1.amazonaws.com/lb\" is not the URL of a queue such as \
             https://sqs.eu-west-1.amazonaws.com/123456789012/lb-agent",
        ),
        (
            "--ecs-poll",
            "0",
            "\"0\" is not a whole number from 1 to 60",
        ),
        (
            "--ecs-hosts",
            "mi-1",
            "\"mi-1\" is not ID=ADDRESS, such as mi-0123456789abcdef0=10.0.0.7",
        ),
        (
            "--ecs-hosts",
            "mi-1=host",
            "\"host\" in \"mi-1=host\" is not an IP address",
        ),
        (
            "--ecs-hosts",
            "mi-1=10.0.0.1,mi-1=10.0.0.2",
            "mi-1 has two addresses",
        ),
    ] {
        let refusal = Node::new().flags(&["--ecs", "shop", flag, value]).refusal();
        assert_eq!(refusal, format!("{flag}: {reason}"));
    }
}

#[test]
fn without_a_cluster_the_others_have_no_effect() {
    for (flag, value) in [
        ("--ecs-region", "eu-west-1"),
        ("--ecs-endpoint", "http://127.0.0.1:5000"),
        ("--ecs-poll", "7"),
        ("--ecs-events", "http://127.0.0.1:5000/1/lb"),
        ("--ecs-hosts", "mi-1=10.0.0.7"),
    ] {
        let refusal = Node::new().flags(&[flag, value]).refusal();
        assert_eq!(refusal, format!("{flag}: has no effect without --ecs"));
    }
}
