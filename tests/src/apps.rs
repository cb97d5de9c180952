//! The apps of the demo and of the main tests.

use serde_json::{Value, json};

/// The id of [`app2`].
pub const APP2: &str = "/dcos-101/app2";

/// The tutorial's app2, as its `app2.json` says: TCP, one VIP, host networking.
pub fn app2() -> Value {
    serde_json::from_str(include_str!("../fixtures/app2.json")).unwrap_or_default()
}

/// An app on host ports with one VIP.
pub fn on_host(name: &str, protocol: &str, port: u16, instances: u32) -> Value {
    json!({
        "id": format!("/{name}"), "cmd": "./app", "instances": instances,
        "portDefinitions": [{"port": port, "protocol": protocol, "labels": {"VIP_0": format!("/{name}:{port}")}}],
    })
}

/// An app whose tasks have addresses of their own, IPv4 and IPv6, and listen on `port` there.
pub fn in_container(name: &str, protocol: &str, port: u16, instances: u32) -> Value {
    json!({
        "id": format!("/{name}"), "cmd": "./app", "instances": instances,
        "networks": [{"mode": "container", "name": "dcos6"}],
        "container": {
            "type": "MESOS",
            "portMappings": [{
                "containerPort": port, "protocol": protocol, "labels": {"VIP_0": format!("/{name}:{port}")},
            }],
        },
    })
}

/// The same app, tied to one node by its address.
#[must_use]
pub fn tied_to(mut app: Value, address: &str) -> Value {
    app["constraints"] = json!([["hostname", "CLUSTER", address]]);
    app
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app2_is_the_tutorials() {
        let app = app2();
        assert_eq!(app["id"], APP2);
        assert_eq!(
            app["portDefinitions"][0]["labels"]["VIP_0"],
            "/dcos-101/app2:10000"
        );
    }
}
