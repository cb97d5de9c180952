//! What is changed on running services of an AWS stand-in: their tasks, names, ports, health, and they themselves.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use lb_tests::{
    admin::{left_out, page},
    ecs::{
        CLUSTER, QUEUE,
        yard::{
            ELB, PATIENCE, SERVICE, TUTORIAL, Yard, echoes, none_failed, one_to_each, open, shares,
            steady,
        },
    },
    lab::{Host, wait_for, wait_until},
};
use serde_json::{Value, json};

/// Services are read again twice as rarely.
const OFTEN: [&str; 2] = ["--resync", "2"];

/// A service of one container with this definition, behind the classic load balancer, at `port`.
fn create(yard: &Yard, service: &str, network: &str, port: u16, more: &Value) {
    let mut container = json!({
        "name": "web", "image": "tutum/hello-world", "cpu": 128, "memory": 256,
        "portMappings": [{"containerPort": port}],
    });
    let fields = container.as_object_mut().expect("an object");
    fields.extend(more["container"].as_object().cloned().unwrap_or_default());
    let definition = json!({
        "family": service, "networkMode": network, "containerDefinitions": [container],
    });
    yard.ecs("register_task_definition", &definition);
    let mut arguments = json!({
        "cluster": CLUSTER, "serviceName": service, "taskDefinition": service,
        "loadBalancers": [{"loadBalancerName": ELB, "containerName": "web", "containerPort": port}],
    });
    let fields = arguments.as_object_mut().expect("an object");
    fields.extend(more["service"].as_object().cloned().unwrap_or_default());
    yard.ecs("create_service", &arguments);
}

#[test]
fn a_restart_of_its_tasks_costs_no_connection() {
    let yard = Yard::up(15, &[]);
    yard.tutorial(2);
    let (vip, before) = (yard.vip(ELB, 80), yard.truth(SERVICE, 80));
    let mut open_ones = one_to_each(yard.client(), vip, 2);
    let answers = steady(yard.client(), vip, || {
        yard.deploy(TUTORIAL, &["restart", "test"]);
        let stopping = yard.truth(SERVICE, 80);
        for (name, stream) in &mut open_ones {
            assert!(echoes(stream), "{name}: {stopping:?}");
        }
        yard.replaced(&before);
        wait_until("the old ones have ended", PATIENCE, || {
            yard.truth(SERVICE, 80).drain.is_empty()
        })
        .expect("they end");
        yard.followed(ELB, 80, SERVICE, 80);
    });
    none_failed(&answers);
    assert_eq!(yard.vip(ELB, 80), vip, "the address stays");
    assert_eq!(shares(yard.client(), vip, 40).len(), 2, "both answer");
}

#[test]
fn a_service_that_is_deleted_leaves_and_takes_its_names_along() {
    let yard = Yard::up(5, &OFTEN);
    yard.tutorial(2);
    let vip = yard.vip(ELB, 80);
    let deleted = yard
        .cloud
        .deploy_telling(yard.node(), TUTORIAL, &["delete", "test"], SERVICE);
    deleted.expect("deployfish deletes it");
    yard.emptied();
    let own = format!("{SERVICE}.{CLUSTER}");
    wait_until("its names are gone", PATIENCE, || {
        yard.service(ELB, 80).is_null() && yard.service(&own, 80).is_null()
    })
    .expect("they go");
    open(yard.client(), vip).expect_err("it is refused");
    yard.deploy(TUTORIAL, &["create", SERVICE]);
    yard.scheduled(SERVICE, 80, 1);
    yard.followed(ELB, 80, SERVICE, 80);
    assert_eq!(yard.vip(ELB, 80), vip, "its address was kept for it");
}

#[test]
fn vips_are_added_renamed_and_moved_on_a_running_service() {
    let mut yard = Yard::up(10, &OFTEN);
    yard.tutorial(2);
    let arguments = json!({"cluster": CLUSTER, "services": [SERVICE]});
    let found = yard.ecs("describe_services", &arguments);
    let arn = &found["services"][0]["serviceArn"];
    let tag = |value: &str| {
        let tags = json!([{"key": "lb.vip", "value": value}]);
        let arguments = json!({"resourceArn": arn, "tags": tags});
        yard.ecs("tag_resource", &arguments);
    };
    let stands = |name: &str, port| {
        let same = || yard.found(name, port) == yard.truth(SERVICE, 80);
        wait_until("the VIP stands", PATIENCE, same).expect("it is followed");
        yard.vip(name, port)
    };
    let gone = |name: &str, port| {
        let gone = || yard.service(name, port).is_null();
        wait_until("the VIP is gone", PATIENCE, gone).expect("it goes");
    };
    let mut old = Vec::new();
    let answers = steady(yard.client(), yard.vip(ELB, 80), || {
        let mut opened = |at| {
            let (stream, _) = open(yard.client(), at).expect("an answer");
            old.push(stream);
        };
        tag("extra:8080=80");
        let added = stands("extra", 8080);
        opened(added);
        tag("other:8080=80");
        let renamed = stands("other", 8080);
        gone("extra", 8080);
        open(yard.client(), added).expect_err("the old name is refused");
        opened(renamed);
        tag("other:9090=80");
        let moved = stands("other", 9090);
        gone("other", 8080);
        assert_eq!(moved.ip(), renamed.ip(), "the name keeps its address");
        open(yard.client(), renamed).expect_err("the old port is refused");
        opened(moved);
        let arguments = json!({"resourceArn": arn, "tagKeys": ["lb.vip"]});
        yard.ecs("untag_resource", &arguments);
        gone("other", 9090);
        open(yard.client(), moved).expect_err("without the tag it is refused");
    });
    none_failed(&answers);
    assert!(old.iter_mut().all(echoes), "what they had goes on");
    assert!(!yard.stage.agent.has_ended(), "without a restart");
}

#[test]
fn tags_beyond_the_operators_bounds_or_in_conflict_are_refused_and_others_are_served() {
    let yard = Yard::up(5, &["--node-ports", "10000-10100"]);
    yard.tutorial(1);
    let answers = steady(yard.client(), yard.vip(ELB, 80), || {
        for (service, vip, more) in [
            ("greedy", "greedy:80", ("lb.address", "8.8.8.8")),
            ("near", "near:22=80", ("lb.address", "node")),
            ("broken", "nonsense", ("lb.weight", "1")),
            ("one", "shared:80", ("lb.balance", "least-conn")),
            ("two", "shared:80", ("lb.balance", "source")),
        ] {
            let tags = [("lb.vip", vip), more];
            let tags = tags.map(|(key, value)| json!({"key": key, "value": value}));
            let fields = json!({"loadBalancers": [], "desiredCount": 1, "tags": tags});
            create(&yard, service, "bridge", 80, &json!({"service": fields}));
        }
        let reasons = ["8.8.8.8", "--node-ports", "has no port", "comes first"];
        let tell = |what: &str| reasons.iter().all(|reason| what.contains(reason));
        let told = || tell(&yard.stage.status().to_string());
        let told = wait_until("each is named with its reason", PATIENCE, told);
        assert!(told.is_ok(), "{:#}", yard.stage.status());
        let events = page(&yard.stage, "/v1/events");
        assert!(tell(&events), "each is an event: {events}");
        let counted = || left_out(&yard.stage, "ecs:") >= Some(4);
        wait_until("they are counted", PATIENCE, counted).expect("all four");
        let first = || yard.found("shared", 80).ready.len() == 1;
        wait_until("the first keeps the name", PATIENCE, first).expect("it does");
        assert_eq!(yard.service("shared", 80)["algorithm"], "least-conn");
    });
    none_failed(&answers);
}

#[test]
fn listeners_of_a_running_services_load_balancer_are_followed() {
    let yard = Yard::up(10, &[]);
    yard.tutorial(2);
    let call = |operation: &str, arguments: Value| {
        let answer = yard.cloud.call(yard.node(), "elb", operation, &arguments);
        answer.expect(operation);
        // Else it is read every five minutes.
        yard.stage.print(&["resync"]);
    };
    let first = yard.vip(ELB, 80);
    let (mut old, _) = open(yard.client(), first).expect("an answer");
    let listener = json!({"Protocol": "TCP", "LoadBalancerPort": 8080, "InstancePort": 80});
    call(
        "create_load_balancer_listeners",
        json!({"LoadBalancerName": ELB, "Listeners": [listener]}),
    );
    let same = || yard.found(ELB, 8080) == yard.truth(SERVICE, 80);
    wait_until("both ports stand", PATIENCE, same).expect("it is followed");
    assert_eq!(yard.found(ELB, 80), yard.found(ELB, 8080));
    call(
        "delete_load_balancer_listeners",
        json!({"LoadBalancerName": ELB, "LoadBalancerPorts": [80]}),
    );
    let gone = || yard.service(ELB, 80).is_null();
    wait_until("the first port is gone", PATIENCE, gone).expect("it is followed");
    open(yard.client(), first).expect_err("it is refused");
    assert_eq!(shares(yard.client(), yard.vip(ELB, 8080), 40).len(), 2);
    assert!(echoes(&mut old), "what it had goes on");
}

/// Who answers a datagram; `None`: nobody, in time.
fn asked(socket: &UdpSocket) -> Option<String> {
    socket.send(b"who?").ok()?;
    let mut name = [0; 128];
    let length = socket.recv(&mut name).ok()?;
    Some(String::from_utf8_lossy(&name[..length]).into_owned())
}

/// A client of a VIP.
fn udp(client: &Host, vip: SocketAddr) -> UdpSocket {
    let bound = client.enter(|| UdpSocket::bind("0.0.0.0:0"));
    let socket = bound.expect("in the host").expect("bound");
    socket.connect(vip).expect("connected");
    let patience = Some(Duration::from_secs(1));
    socket.set_read_timeout(patience).expect("set");
    socket
}

#[test]
fn a_udp_port_is_served_by_udp_at_the_hosts_fixed_port() {
    let yard = Yard::up(15, &[]);
    yard.deploy("dns.yml", &["create", "dns"]);
    let hosts = ["10.77.0.11:8053", "10.77.0.12:8053"];
    assert_eq!(yard.scheduled("dns", 5353, 2).ready, hosts);
    yard.followed("web-nlb", 53, "dns", 5353);
    let service = yard.service("web-nlb", 53);
    assert_eq!(service["protocol"], "udp", "{service:#}");
    let vip = yard.vip("web-nlb", 53);
    let mut clients = BTreeMap::new();
    wait_until("both answer", PATIENCE, || {
        let socket = udp(yard.client(), vip);
        clients.insert(asked(&socket).expect("an answer"), socket);
        clients.len() == 2
    })
    .expect("they do");
    for (name, socket) in &clients {
        assert_eq!(asked(socket).as_ref(), Some(name), "a client stays");
    }
    let scaled = yard.cloud.scale(yard.node(), "dns", 1);
    scaled.expect("scaled");
    let left = yard.scheduled("dns", 5353, 1);
    yard.followed("web-nlb", 53, "dns", 5353);
    assert_eq!(left.drain.len(), 1, "it still answers: {left:?}");
    for (name, socket) in &clients {
        assert_eq!(asked(socket).as_ref(), Some(name), "what it had goes on");
    }
    let new: Vec<_> = (0..20)
        .map(|_| asked(&udp(yard.client(), vip)).expect("an answer"))
        .collect();
    let stays = &new[0];
    assert!(new.iter().all(|name| name == stays), "{new:?}");
    // The drained one ends; its client goes elsewhere.
    for socket in clients.values() {
        let elsewhere = || asked(socket).filter(|name| name == stays);
        wait_for("it answers", PATIENCE, elsewhere).expect("it is given another");
    }
}

#[test]
fn tasks_in_the_hosts_own_network_are_at_the_containers_port_on_each_host() {
    let yard = Yard::up(5, &[]);
    let daemon = json!({"service": {"schedulingStrategy": "DAEMON"}});
    create(&yard, "everywhere", "host", 7001, &daemon);
    let hosts = ["10.77.0.11:7001", "10.77.0.12:7001"];
    assert_eq!(yard.scheduled("everywhere", 7001, 2).ready, hosts);
    // The load balancer's only listener counts, wherever it leads.
    yard.followed(ELB, 80, "everywhere", 7001);
    assert_eq!(shares(yard.client(), yard.vip(ELB, 80), 40).len(), 2);
}

#[test]
fn a_task_takes_new_flows_while_its_health_check_says_that_it_is_well() {
    let yard = Yard::up(10, &[]);
    let check = json!({"command": ["CMD-SHELL", "true"]});
    let more = json!({"container": {"healthCheck": check}, "service": {"desiredCount": 2}});
    create(&yard, "checked", "bridge", 80, &more);
    let begun = || yard.truth("checked", 80).drain.len() == 2;
    wait_until("its tasks run", PATIENCE, begun).expect("scheduled");
    yard.followed(ELB, 80, "checked", 80);
    let vip = yard.vip(ELB, 80);
    open(yard.client(), vip).expect_err("nothing is said of them yet");
    let say = |of: &str, says: &str| {
        let said = yard.cloud.health(yard.node(), of, says);
        said.expect("it is said");
        yard.followed(ELB, 80, "checked", 80);
    };
    say("checked", "HEALTHY");
    let mut open_ones = one_to_each(yard.client(), vip, 2);
    let sick = open_ones.keys().next().cloned().expect("a task");
    say(&sick, "UNHEALTHY");
    let new = shares(yard.client(), vip, 40);
    assert_eq!(new.len(), 1, "{new:?}");
    assert!(!new.contains_key(&sick));
    for (name, stream) in &mut open_ones {
        assert!(echoes(stream), "{name}");
    }
    say(&sick, "HEALTHY");
    assert_eq!(shares(yard.client(), vip, 60).len(), 2, "it is back");
}

#[test]
fn after_an_outage_the_state_is_right_within_35_s_however_long_it_was() {
    let yard = Yard::up(5, &[]);
    yard.tutorial(1);
    // So many questions that nobody answers, and the next is as far away as ever.
    for (mode, why, questions, tasks) in [
        ("error", "ServerException", 6, 3),
        ("half", "ListTasks", 6, 1),
        ("hang", "no answer within 10 s", 4, 2),
    ] {
        yard.cloud.calls(yard.node()).expect("counted");
        yard.cloud.fault(yard.node(), mode).expect("set");
        yard.failing(why);
        let mut asked = 0;
        wait_until("the waits are long", PATIENCE * 2, || {
            let calls = yard.cloud.calls(yard.node()).expect("counted");
            asked += calls.get("ListTasks").copied().unwrap_or(0);
            asked >= questions
        })
        .expect("it goes on asking");
        let scaled = yard.cloud.scale(yard.node(), SERVICE, tasks);
        scaled.expect("scaled");
        yard.scheduled(SERVICE, 80, tasks);
        yard.cloud.fault(yard.node(), "none").expect("set");
        let same = || yard.found(ELB, 80) == yard.truth(SERVICE, 80);
        wait_until(mode, Duration::from_secs(35), same).expect("it is right again");
    }
}

#[test]
fn an_event_is_followed_at_once_however_rare_the_polls_are() {
    // A second, and the time that it takes on a machine with other work.
    const AT_ONCE: Duration = Duration::from_millis(2_000);
    let yard = Yard::up(10, &["--ecs-poll", "60", "--ecs-events", QUEUE]);
    yard.deploy(TUTORIAL, &["create", SERVICE]);
    yard.scheduled(SERVICE, 80, 1);
    let same = || yard.found(ELB, 80) == yard.truth(SERVICE, 80);
    // Agent and stand-in start together, and one waits for the other.
    wait_until("the agent has read", PATIENCE, same).expect("it is followed");
    let answers = steady(yard.client(), yard.vip(ELB, 80), || {
        for tasks in [2, 3, 1] {
            let scaled = yard.cloud.scale(yard.node(), SERVICE, tasks);
            scaled.expect("scaled");
            yard.scheduled(SERVICE, 80, tasks);
            wait_until("an event is heard", AT_ONCE, same).expect("at once");
        }
        wait_until("those that drain have ended", PATIENCE, || {
            yard.truth(SERVICE, 80).drain.is_empty()
        })
        .expect("they end");
        wait_until("an event is heard", AT_ONCE, same).expect("at once");
    });
    none_failed(&answers);
    // A storm of events is five readings, and one more each five seconds.
    let begun = Instant::now();
    yard.cloud.calls(yard.node()).expect("counted");
    for _ in 0..100 {
        let said = yard.cloud.health(yard.node(), SERVICE, "HEALTHY");
        said.expect("it is said");
    }
    let mut lists = 0;
    wait_until("all are taken out of the queue", PATIENCE, || {
        let calls = yard.cloud.calls(yard.node()).expect("counted");
        lists += calls.get("ListTasks").copied().unwrap_or(0);
        let arguments = json!({"QueueUrl": QUEUE, "AttributeNames": ["All"]});
        let left = yard
            .cloud
            .call(yard.node(), "sqs", "get_queue_attributes", &arguments);
        let left = left.expect("the queue")["Attributes"].clone();
        left["ApproximateNumberOfMessages"] == "0"
            && left["ApproximateNumberOfMessagesNotVisible"] == "0"
    })
    .expect("they are");
    let most = 5 + begun.elapsed().as_secs() / 5 + 2;
    assert!((1..=most).contains(&lists), "{lists} of {most} readings");
}
