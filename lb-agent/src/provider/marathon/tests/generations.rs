//! Every place where a VIP can be declared, in every generation of app JSON.

use super::*;

#[test]
fn form_c_docker_port_mappings_of_old_marathons() {
    let app = |network: &str, host_port: Value, ports: &[u16]| {
        let mut task = task("t", ports);
        task["ipAddresses"] = json!([{"ipAddress": "9.0.0.2", "protocol": "IPv4"}]);
        json!([{
            "id": "/c",
            "ports": [10000],
            "portDefinitions": [{"port": 10000, "protocol": "tcp", "labels": {}}],
            "ipAddress": null,
            "container": {"type": "DOCKER", "docker": {"network": network, "portMappings": [
                {"containerPort": 8080, "hostPort": host_port, "servicePort": 10000,
                 "protocol": "tcp", "name": null, "labels": {"VIP_0": "/c:80"}}
            ]}},
            "tasks": [task]
        }])
    };
    let at_host = ["/c.marathon:80/tcp /c = 10.0.0.1:31000 w1"];
    assert_eq!(lines(&apps(app("BRIDGE", json!(null), &[31000]))), at_host);
    assert_eq!(lines(&apps(app("BRIDGE", json!(0), &[31000]))), at_host);
    assert_eq!(lines(&apps(app("USER", json!(0), &[31000]))), at_host);
    let at_task = ["/c.marathon:80/tcp /c = 9.0.0.2:8080 w1"];
    assert_eq!(lines(&apps(app("USER", json!(null), &[]))), at_task);
}

#[test]
fn form_d_discovery_ports_of_ip_per_task() {
    let snapshot = apps(json!([{
        "id": "/d",
        "ipAddress": {"groups": [], "labels": {}, "discovery": {"ports": [
            {"number": 80, "name": "http", "protocol": "tcp", "labels": {"VIP_0": "/d:8080"}},
            {"number": 53, "name": "dns", "protocol": "udp", "labels": {"VIP_1": "/d:53"}},
            {"number": 0, "name": "none", "protocol": "tcp", "labels": {"VIP_2": "/d:1"}}
        ]}},
        "tasks": [{
            "id": "t", "host": "10.0.0.1", "state": "TASK_RUNNING", "ports": [],
            "ipAddresses": [{"ipAddress": "9.0.0.2"}, {"ipAddress": "fd01:b::2"}]
        }]
    }]));
    assert_eq!(
        lines(&snapshot),
        [
            "/d.marathon:53/udp /d = 9.0.0.2:53 w1, [fd01:b::2]:53 w1",
            "/d.marathon:8080/tcp /d = 9.0.0.2:80 w1, [fd01:b::2]:80 w1",
        ]
    );
    assert_eq!(reasons(&snapshot), [""; 0]);
}

#[test]
fn form_f_app_labels_index_the_tasks_host_ports() {
    let snapshot = apps(json!([{
        "id": "/f",
        "ports": [10000, 10001],
        "labels": {
            "vip_port0": "tcp://f:80", "VIP_PORT1": "udp://10.9.9.9:53", "vip_port2": "tcp://gone:1",
            "HAPROXY_GROUP": "external"
        },
        "tasks": [task("t", &[31000, 31001])]
    }]));
    assert_eq!(
        lines(&snapshot),
        [
            "f.marathon:80/tcp /f = 10.0.0.1:31000 w1",
            "gone.marathon:1/tcp /f = ",
            "[10.9.9.9]:53/udp /f = 10.0.0.1:31001 w1",
        ]
    );
    let reasons = reasons(&snapshot);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].contains("vip_port2") && reasons[0].contains("past the end"),
        "{reasons:?}"
    );
}

#[test]
fn a_bad_index_costs_its_own_label_and_no_other_vip_of_the_task() {
    let mut app = simple_app("/a", 31000);
    app["labels"] = json!({"vip_port9": "tcp://f:80"});
    let snapshot = apps(json!([app]));
    assert!(lines(&snapshot).contains(&"/a.marathon:80/tcp /a = 10.0.0.1:31000 w1".to_owned()));
}

#[test]
fn five_apps_on_one_vip_declare_one_pool_each() {
    let mut all: Vec<Value> = (1..=5)
        .map(|n| simple_app(&format!("/a{n}"), 31000 + n))
        .collect();
    for app in &mut all {
        app["portDefinitions"][0]["labels"] = json!({"VIP_0": "/l4lbtest:5000"});
    }
    let snapshot = apps(all.into());
    assert_eq!(snapshot.pools.len(), 5);
    assert!(
        snapshot
            .pools
            .iter()
            .all(|pool| pool.host == snapshot.pools[0].host)
    );
}

#[test]
fn one_vip_on_several_ports_of_an_app_is_one_pool() {
    let label = json!({"VIP_0": "/a:80"});
    let snapshot = apps(json!([{
        "id": "/a",
        "portDefinitions": [{"port": 0, "labels": label}, {"port": 0, "labels": label}],
        "tasks": [task("t", &[31000, 31001])]
    }]));
    assert_eq!(
        lines(&snapshot),
        ["/a.marathon:80/tcp /a = 10.0.0.1:31000 w1, 10.0.0.1:31001 w1"]
    );
}

#[test]
fn an_app_without_tasks_declares_its_vip_with_an_empty_pool() {
    let mut app = simple_app("/a", 1);
    app["tasks"] = json!(null);
    assert_eq!(lines(&apps(json!([app]))), ["/a.marathon:80/tcp /a = "]);
}

#[test]
fn an_agent_may_be_a_host_name() {
    let mut app = simple_app("/a", 31000);
    app["tasks"][0]["host"] = json!("agent-7");
    assert_eq!(
        lines(&apps(json!([app]))),
        ["/a.marathon:80/tcp /a = 10.0.0.7:31000 w1"]
    );
    app["tasks"][0]["host"] = json!("agent-8");
    let snapshot = apps(json!([app]));
    assert_eq!(lines(&snapshot), ["/a.marathon:80/tcp /a = "]);
    assert_eq!(
        reasons(&snapshot),
        [r#"/a: the address of agent "agent-8" is not known"#]
    );
}

#[test]
fn a_task_that_is_not_ready_drains_though_it_is_healthy() {
    let mut app = simple_app("/a", 31000);
    app["readinessCheckResults"] = json!([
        {"name": "x", "taskId": "task_a", "ready": true},
        {"name": "y", "taskId": "task_a", "ready": false},
    ]);
    assert_eq!(
        lines(&apps(json!([app]))),
        ["/a.marathon:80/tcp /a = 10.0.0.1:31000 w0 (not ready)"]
    );
    app["readinessCheckResults"][1]["taskId"] = json!("other");
    assert_eq!(
        lines(&apps(json!([app]))),
        ["/a.marathon:80/tcp /a = 10.0.0.1:31000 w1"]
    );
}

#[test]
fn health_needs_every_result_alive_and_nulls_are_no_results() {
    let weight = |results: Value| {
        let mut app = simple_app("/a", 31000);
        app["healthChecks"] = json!([{"protocol": "HTTP"}, {"protocol": "TCP"}]);
        app["tasks"][0]["healthCheckResults"] = results;
        apps(json!([app])).pools[0].backends[0].weight.get()
    };
    assert_eq!(weight(json!([{"alive": true}])), 1);
    assert_eq!(weight(json!([{"alive": true}, null])), 1);
    assert_eq!(weight(json!([{"alive": true}, {"alive": false}])), 0);
    assert_eq!(weight(json!([{"taskId": "x", "firstSuccess": null}])), 0);
    assert_eq!(weight(json!([null])), 0);
    assert_eq!(weight(json!(null)), 0);
}

#[test]
fn a_port_without_address_is_reported_and_costs_only_that_task() {
    let snapshot = apps(json!([{
        "id": "/a",
        "networks": [{"mode": "container"}],
        "container": {"portMappings": [{"containerPort": 80, "labels": {"VIP_0": "/a:80"}}]},
        "tasks": [
            {"id": "bare", "host": "10.0.0.1", "state": "TASK_RUNNING"},
            {"id": "good", "host": "10.0.0.1", "state": "TASK_RUNNING",
             "ipAddresses": [{"ipAddress": "9.0.0.3"}]}
        ]
    }]));
    assert_eq!(lines(&snapshot), ["/a.marathon:80/tcp /a = 9.0.0.3:80 w1"]);
    assert_eq!(reasons(&snapshot).len(), 1);
}

fn pod(endpoint: &Value, condition: &Value) -> Vec<String> {
    lines(&of_pod(endpoint, condition))
}

fn of_pod(endpoint: &Value, condition: &Value) -> Snapshot {
    let pod = json!([{
        "id": "/p",
        "spec": {"containers": [{"name": "c", "endpoints": [endpoint]}]},
        "instances": [{
            "id": "p.instance-1", "agentHostname": "10.0.0.1",
            "agentRegion": "aws/us-west-2", "agentZone": "aws/us-west-2a",
            "networks": [
                {"name": "one", "addresses": ["9.0.0.1"]}, {"name": "two", "addresses": ["9.0.0.2"]}
            ],
            "containers": [{
                "name": "c", "status": "TASK_RUNNING", "conditions": [condition],
                "endpoints": [{"name": "e", "allocatedHostPort": 31000}]
            }]
        }]
    }]);
    build_with(&json!({"apps": []}), &pod, &Versions::default(), None)
}

#[test]
fn a_pods_endpoint_may_have_several_protocols_and_a_choice_of_networks() {
    let ready = json!({"name": "ready", "value": "false"});
    let mut endpoint = json!({
        "name": "e", "containerPort": 80, "protocol": ["tcp", "UDP", "http"],
        "labels": {"vip_0": "p:80"}
    });
    assert_eq!(
        pod(&endpoint, &ready),
        [
            "p.marathon:80/tcp /p = 9.0.0.1:80 w1, 9.0.0.2:80 w1",
            "p.marathon:80/udp /p = 9.0.0.1:80 w1, 9.0.0.2:80 w1",
        ]
    );
    endpoint["protocol"] = json!(["tcp"]);
    endpoint["networkNames"] = json!(["two"]);
    assert_eq!(
        pod(&endpoint, &ready),
        ["p.marathon:80/tcp /p = 9.0.0.2:80 w1"]
    );
    endpoint["protocol"] = json!([]);
    assert_eq!(
        pod(&endpoint, &ready),
        [""; 0],
        "a pod's endpoint without protocol is no service"
    );
}

#[test]
fn a_pods_container_is_healthy_as_its_condition_says() {
    let endpoint = json!({
        "name": "e", "hostPort": 0, "protocol": ["tcp"], "labels": {"VIP": "p:80"}
    });
    let with = |condition: Value| {
        pod(&endpoint, &condition)
            .remove(0)
            .split(" = ")
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        with(json!({"name": "healthy", "value": "true"})),
        "10.0.0.1:31000 w1"
    );
    assert_eq!(
        with(json!({"name": "healthy", "value": "false", "reason": "health-reported-by-mesos"})),
        "10.0.0.1:31000 w0 (unhealthy)"
    );
    assert_eq!(
        with(json!({"name": "healthy", "value": "false", "reason": "health-unreported-by-mesos"})),
        "10.0.0.1:31000 w0 (no health result yet)"
    );
}

#[test]
fn tasks_and_pods_are_in_the_zones_of_their_agents() {
    let zones = |snapshot: &Snapshot| {
        let backends = snapshot.pools.iter().flat_map(|pool| &pool.backends);
        let zones = backends.map(|one| one.zone.as_deref().unwrap_or("-").to_owned());
        zones.collect::<Vec<_>>().join(" ")
    };
    let mut app = simple_app("/a", 31000);
    let mut other = task("b", &[31001]);
    other["zone"] = json!("aws/us-west-2b");
    let mut nowhere = task("c", &[31002]);
    nowhere["zone"] = json!(null);
    app["tasks"][0]["zone"] = json!("aws/us-west-2a");
    app["tasks"]
        .as_array_mut()
        .unwrap()
        .extend([other, nowhere]);
    assert_eq!(
        zones(&apps(json!([app]))),
        "aws/us-west-2a aws/us-west-2b -"
    );
    let endpoint = json!({
        "name": "e", "hostPort": 0, "protocol": ["tcp"], "labels": {"VIP": "p:80"}
    });
    let of_pod = of_pod(&endpoint, &json!({"name": "ready", "value": "true"}));
    assert_eq!(zones(&of_pod), "aws/us-west-2a");
}
