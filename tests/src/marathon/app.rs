//! App definitions: what a client posts, turned into what Marathon 1.11 keeps and returns.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};

/// The first of the service ports that are assigned where none is given (`local_port_min`).
const FIRST_SERVICE_PORT: u64 = 10_000;

/// How an app's tasks are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The node's network; one host port per port definition.
    Host,
    /// An address of its own; no host port.
    Container,
}

/// Drops nulls and what a client may send but never gets back, and fills in the defaults that Marathon does.
///
/// # Errors
///
/// The definition cannot run here; the text is for the client.
pub(super) fn canonical(mut posted: Value, id: &str) -> Result<Value> {
    drop_nulls(&mut posted);
    let Value::Object(app) = &mut posted else {
        bail!("an app is a JSON object")
    };
    // As it was before 1.5: the numbers alone.
    if let (Some(Value::Array(ports)), false) =
        (app.get("ports"), app.contains_key("portDefinitions"))
    {
        let ports = ports.iter().map(|port| json!({"port": port})).collect();
        app.insert("portDefinitions".into(), ports);
    }
    for read_only in [
        "version",
        "versionInfo",
        "deployments",
        "tasks",
        "ports",
        "uris",
        "ipAddress",
    ] {
        app.remove(read_only);
    }
    app.insert("id".into(), json!(id));
    let defaults = json!({
        "acceptedResourceRoles": ["*"], "backoffFactor": 1.15, "backoffSeconds": 1, "cpus": 1, "disk": 0,
        "executor": "", "gpus": 0, "instances": 1, "labels": {}, "maxLaunchDelaySeconds": 300, "mem": 128,
        "networks": [{"mode": "host"}], "requirePorts": false,
        "upgradeStrategy": {"maximumOverCapacity": 1, "minimumHealthCapacity": 1},
        "killSelection": "YOUNGEST_FIRST",
        "unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}, "role": "slave_public",
    });
    for (key, value) in defaults.as_object().into_iter().flatten() {
        app.entry(key).or_insert_with(|| value.clone());
    }
    ensure!(app["instances"].is_u64(), "instances must be a number");
    match mode_of(app)? {
        Mode::Host => {
            let default = json!([{"port": 0, "protocol": "tcp", "name": "default"}]);
            number(app.entry("portDefinitions").or_insert(default), "port");
        }
        Mode::Container => {
            app.remove("portDefinitions");
            let container = app
                .entry("container")
                .or_insert_with(|| json!({"type": "MESOS"}));
            let default = json!([{"containerPort": 0, "name": "default"}]);
            let Value::Object(container) = container else {
                bail!("container must be an object")
            };
            number(
                container.entry("portMappings").or_insert(default),
                "servicePort",
            );
        }
    }
    Ok(posted)
}

/// # Errors
///
/// A mode that has no counterpart in the lab.
pub(super) fn mode(app: &Value) -> Result<Mode> {
    match app.as_object() {
        Some(app) => mode_of(app),
        None => bail!("an app is a JSON object"),
    }
}

fn mode_of(app: &Map<String, Value>) -> Result<Mode> {
    match app
        .get("networks")
        .and_then(|networks| networks[0]["mode"].as_str())
    {
        None | Some("host") => Ok(Mode::Host),
        Some("container") => Ok(Mode::Container),
        Some(other) => bail!("network mode {other} is not there in this stand-in"),
    }
}

/// The port objects of an app, whatever its mode calls them.
pub(super) fn ports(app: &Value) -> &[Value] {
    let list = match mode(app) {
        Ok(Mode::Container) => &app["container"]["portMappings"],
        _ => &app["portDefinitions"],
    };
    list.as_array().map_or(&[], Vec::as_slice)
}

/// Service ports in declaration order.
pub(super) fn service_ports(app: &Value) -> Vec<u64> {
    let key = if mode(app).is_ok_and(|mode| mode == Mode::Container) {
        "servicePort"
    } else {
        "port"
    };
    ports(app)
        .iter()
        .filter_map(|port| port[key].as_u64())
        .collect()
}

/// The address that a `["hostname", "CLUSTER" or "IS", ADDRESS]` constraint ties the app to.
pub(super) fn pinned_to(app: &Value) -> Option<&str> {
    app["constraints"]
        .as_array()?
        .iter()
        .find_map(|constraint| {
            let ties = constraint[0] == "hostname"
                && (constraint[1] == "CLUSTER" || constraint[1] == "IS");
            ties.then(|| constraint[2].as_str()).flatten()
        })
}

/// Whether two definitions differ in more than the number of instances.
pub(super) fn same_config(a: &Value, b: &Value) -> bool {
    let config = |app: &Value| {
        let mut app = app.clone();
        if let Value::Object(app) = &mut app {
            for scaling in ["instances", "version", "versionInfo"] {
                app.remove(scaling);
            }
        }
        app
    };
    config(a) == config(b)
}

/// Fills in the protocol and a service port where there is none.
fn number(ports: &mut Value, key: &str) {
    let Value::Array(ports) = ports else { return };
    for (index, port) in (0..).zip(ports.iter_mut()) {
        let Value::Object(port) = port else { continue };
        port.entry("protocol").or_insert_with(|| json!("tcp"));
        if port.get(key).and_then(Value::as_u64).unwrap_or(0) == 0 {
            port.insert(key.into(), json!(FIRST_SERVICE_PORT + 100 + index));
        }
    }
}

/// Since 1.5 Marathon leaves out what is null.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tutorials_app_keeps_its_vip_and_loses_its_nulls() {
        let posted = json!({
            "id": "/dcos-101/app2", "cmd": "chmod u+x app2 && ./app2", "args": null, "instances": 1,
            "container": null, "healthChecks": null, "ipAddress": null, "env": null,
            "labels": {"HAPROXY_GROUP": "external"},
            "portDefinitions": [{"protocol": "tcp", "port": 10000, "labels": {"VIP_0": "/dcos-101/app2:10000"}}],
        });
        let app = canonical(posted, "/dcos-101/app2").unwrap();
        assert_eq!(
            app["portDefinitions"][0]["labels"]["VIP_0"],
            "/dcos-101/app2:10000"
        );
        assert_eq!(app["networks"], json!([{"mode": "host"}]));
        assert_eq!(service_ports(&app), [10_000]);
        assert!(app.get("container").is_none() && app.get("args").is_none());
    }

    #[test]
    fn scaling_is_not_a_change_of_configuration() {
        let app = canonical(json!({"cmd": "x", "instances": 1}), "/a").unwrap();
        let mut more = app.clone();
        more["instances"] = json!(2);
        assert!(same_config(&app, &more));
        more["cmd"] = json!("y");
        assert!(!same_config(&app, &more));
    }
}
