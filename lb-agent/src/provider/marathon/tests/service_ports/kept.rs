//! What stays of an app, and what it is called.

use super::*;

#[test]
fn an_app_that_cannot_be_read_keeps_its_place_and_who_may_use_it() {
    let labels = json!({"HAPROXY_0_BACKEND_NETWORK_ALLOWED_ACL": "10.1.0.0/16"});
    let before = served(labels.clone());
    assert!(!properties(&before, 0).sources.is_empty());
    let mut broken = web(labels);
    broken["tasks"] = json!(7);
    let apps = json!({ "apps": [broken] });
    let (none, versions) = (json!([]), Versions::default());
    let after = build_at(&apps, &none, &versions, Some(&before), &external());
    assert_eq!(after.pools, before.pools);
}

#[test]
fn tools_of_haproxy_call_an_app_by_its_id_and_a_group_by_its_label() {
    let called = |id: &str, labels: Value| {
        let mut app = web(labels);
        app["id"] = json!(id);
        let snapshot = served_by(&external(), json!([app]));
        properties(&snapshot, 0).called.expect("a name").to_string()
    };
    assert_eq!(called("/dcos-101/app2", json!({})), "dcos-101_app2");
    assert_eq!(called("/a.b", json!({})), "a.b");
    let group = json!({"HAPROXY_DEPLOYMENT_GROUP": "My_shop"});
    assert_eq!(called("/shop-blue", group), "My_shop");
}
