//! Labels that are longer than anybody means them.

use super::*;

#[test]
fn labels_of_any_length_cost_themselves_alone_and_are_said_in_short() {
    let long = "x".repeat(10 << 20);
    let mut app = web(
        json!({ "HAPROXY_0_PATH": long, format!("HAPROXY_0_{long}"): "y", "lb.unknown": long }),
    );
    app["portDefinitions"][0]["labels"] =
        json!({"VIP_0": format!("/{long}:80"), format!("VIP_{long}"): "z"});
    let snapshot = served_by(&external(), json!([app]));
    assert_eq!(lines(&snapshot), [ZERO, ONE]);
    let reasons = reasons(&snapshot);
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.len() < 1000));
}
