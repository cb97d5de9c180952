//! ECS's answers, by the SDK's own types, and errors of the query APIs.

mod identity;
mod stand_in;
mod wire;

use aws_sdk_ecs::types;

use super::{query::refusal, *};
use crate::{
    catalog::{Port, Protocol},
    provider::ecs::{
        api::FailureKind,
        model::{Binding, Defined, Entry, Front, Health, Last},
    },
};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn detail(name: &str, value: &str) -> types::KeyValuePair {
    types::KeyValuePair::builder()
        .name(name)
        .value(value)
        .build()
}

#[test]
fn a_task_has_its_service_its_state_and_its_ports() {
    let binding = |inside, outside, protocol| {
        types::NetworkBinding::builder()
            .container_port(inside)
            .host_port(outside)
            .protocol(protocol)
            .bind_ip("0.0.0.0")
            .build()
    };
    let container = types::Container::builder()
        .name("web")
        .network_bindings(binding(80, 32768, types::TransportProtocol::Tcp))
        .network_bindings(binding(53, 32769, types::TransportProtocol::Udp))
        .network_bindings(binding(81, 0, types::TransportProtocol::Tcp))
        .network_bindings(binding(82, 70_000, types::TransportProtocol::Tcp));
    let task = types::Task::builder()
        .task_arn("arn:task/c/1")
        .group("service:web")
        .started_by("ecs-svc/1")
        .last_status("DEACTIVATING")
        .desired_status("STOPPED")
        .health_status(types::HealthStatus::Unhealthy)
        .availability_zone("us-east-1a")
        .containers(container.build());
    let alone = types::Task::builder()
        .task_arn("arn:task/c/2")
        .group("family:web");
    let nameless = types::Task::builder();
    let read = read::tasks(vec![task.build(), alone.build(), nameless.build()]);
    assert_eq!(read.len(), 2);
    let (arn, task) = &read[0];
    assert_eq!(
        (&**arn, task.service.as_deref()),
        ("arn:task/c/1", Some("web"))
    );
    assert_eq!((task.last, task.stopping), (Last::Stopping, true));
    assert_eq!(task.health, Health::Unhealthy);
    assert_eq!(task.zone.as_deref(), Some("us-east-1a"));
    let bound = |inside, outside, protocol| Binding {
        container: port(inside),
        host: port(outside),
        protocol,
    };
    let expected = [
        bound(53, 32769, Protocol::Udp),
        bound(80, 32768, Protocol::Tcp),
    ];
    assert_eq!(task.containers["web"].bindings, expected.into());
    assert_eq!((&read[1].1.service, read[1].1.last), (&None, Last::Gone));
}

#[test]
fn an_attached_interface_has_the_tasks_addresses() {
    let attachment = |kind: &str, address: &str| {
        types::Attachment::builder()
            .r#type(kind)
            .details(detail("subnetId", "subnet-1"))
            .details(detail("privateIPv4Address", address))
            .build()
    };
    let task = types::Task::builder()
        .task_arn("arn:task/c/1")
        .attachments(attachment("ElasticNetworkInterface", "10.0.0.1"))
        .attachments(attachment("Service Connect", "10.0.0.2"));
    let read = read::tasks(vec![task.build()]);
    assert_eq!(read[0].1.addresses, ["10.0.0.1".parse().unwrap()].into());
}

#[test]
fn a_service_has_its_load_balancers_and_our_tags_unless_it_is_deleted() {
    let balancer = |number| {
        types::LoadBalancer::builder()
            .load_balancer_name("elb")
            .container_name("web")
            .container_port(number)
            .build()
    };
    let grouped = types::LoadBalancer::builder()
        .target_group_arn("arn:tg")
        .container_name("web")
        .container_port(81)
        .build();
    let tag = |key: &str| types::Tag::builder().key(key).value("x").build();
    let service = |status: &str| {
        types::Service::builder()
            .service_arn(format!("arn:service/c/{status}"))
            .status(status)
            .health_check_grace_period_seconds(90)
            .load_balancers(balancer(80))
            .load_balancers(balancer(0))
            .load_balancers(grouped.clone())
            .tags(tag("lb.vip"))
            .tags(tag("Environment"))
    };
    let all = ["ACTIVE", "DRAINING", "INACTIVE"].map(|status| service(status).build());
    let read = read::services(all.to_vec(), vec!["arn:gone".into()]);
    assert_eq!(
        read.missing,
        ["arn:gone".into(), "arn:service/c/INACTIVE".into()]
    );
    assert_eq!(read.found.len(), 2);
    let entry = |front, number| Entry {
        front,
        container: "web".into(),
        port: port(number),
    };
    let found = &read.found[0].1;
    assert_eq!(
        found.entries,
        [
            entry(Front::Classic("elb".into()), 80),
            entry(Front::Group("arn:tg".into()), 81)
        ]
    );
    assert_eq!(found.tags.keys().collect::<Vec<_>>(), ["lb.vip"]);
    assert_eq!((&found.sets, found.grace), (&None, 90));

    let controller = types::DeploymentController::builder()
        .r#type(types::DeploymentControllerType::CodeDeploy)
        .build()
        .unwrap();
    let set = types::TaskSet::builder()
        .id("ecs-svc/1")
        .load_balancers(balancer(80));
    let blue = service("ACTIVE")
        .deployment_controller(controller)
        .task_sets(set.build());
    let read = read::services(vec![blue.build()], vec![]);
    let sets = read.found[0].1.sets.as_ref().unwrap();
    assert_eq!(sets["ecs-svc/1"], [entry(Front::Classic("elb".into()), 80)]);
}

#[test]
fn a_definition_has_its_containers_ports_checks_and_labels() {
    let mapping = |inside, outside| {
        types::PortMapping::builder()
            .container_port(inside)
            .host_port(outside)
            .build()
    };
    let check = types::HealthCheck::builder()
        .command("true")
        .build()
        .unwrap();
    let container = types::ContainerDefinition::builder()
        .name("web")
        .port_mappings(mapping(80, 0))
        .port_mappings(mapping(81, 8081))
        .docker_labels("lb.vip", "web:80")
        .health_check(check);
    let definition = types::TaskDefinition::builder()
        .network_mode(types::NetworkMode::Host)
        .container_definitions(container.build());
    let read = read::definition(definition.build());
    assert!(read.host_network);
    let expected = Defined {
        ports: [
            (port(80), None, Protocol::Tcp),
            (port(81), Some(port(8081)), Protocol::Tcp),
        ]
        .into(),
        checked: true,
        labels: [("lb.vip".to_owned(), "web:80".to_owned())].into(),
    };
    assert_eq!(read.containers["web"], expected);
}

#[test]
fn what_an_answer_calls_missing_is_missing_and_anything_else_is_a_failure() {
    let failure = |reason: &str| {
        let failure = types::Failure::builder().arn("arn:1").reason(reason);
        read::missing("DescribeTasks", Some(vec![failure.build()]))
    };
    assert_eq!(failure("MISSING").unwrap(), ["arn:1".into()]);
    assert_eq!(failure("BUSY").unwrap_err().kind, FailureKind::Passing);
}

#[test]
fn errors_of_the_query_apis_have_a_code_in_one_of_two_places() {
    let ec2 = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Slow down</Message></Error></Errors>\
               <RequestID>1</RequestID></Response>";
    let elb = "<ErrorResponse xmlns=\"http://elasticloadbalancing.amazonaws.com/doc/2012-06-01/\"><Error>\
               <Type>Sender</Type><Code>LoadBalancerNotFound</Code><Message>no elb</Message></Error></ErrorResponse>";
    for (status, text, kind, says) in [
        (
            503,
            ec2,
            FailureKind::Throttled,
            "Act: RequestLimitExceeded: Slow down",
        ),
        (
            400,
            elb,
            FailureKind::Refused,
            "Act: LoadBalancerNotFound: no elb",
        ),
        (
            502,
            "<html>",
            FailureKind::Passing,
            "Act: HTTP status 502: <html>",
        ),
        (500, "", FailureKind::Passing, "Act: HTTP status 500"),
    ] {
        let failure = refusal("Act", status, text);
        assert_eq!((failure.kind, failure.reason.as_str()), (kind, says));
    }
}

#[test]
fn each_region_has_addresses_of_its_own() {
    for (region, ec2) in [
        ("eu-west-1", "https://ec2.eu-west-1.amazonaws.com/"),
        ("us-gov-west-1", "https://ec2.us-gov-west-1.amazonaws.com/"),
        ("cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn/"),
    ] {
        let region = Region::new(region);
        let found = SdkConfig::builder().region(region.clone()).build();
        let query = Query::new(&found, Identity::new(region)).unwrap();
        assert_eq!(query.endpoint(query::EC2).unwrap().as_str(), ec2);
    }
}

#[test]
fn lists_are_sent_by_number() {
    let words = numbered("Names.member.", ["a", "b"]);
    let expected = [("Names.member.1", "a"), ("Names.member.2", "b")];
    assert_eq!(
        words,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(last_but_one("arn:aws:x:targetgroup/web-tg/0123"), "web-tg");
}
