//! Our own labels on an app: each says what all of its VIPs are like.

use super::*;
use crate::catalog::Mode;

/// A label, a value of it, and what is so then.
type Case = (&'static str, &'static str, fn(&Properties) -> bool);

#[test]
fn each_label_of_ours_has_its_effect_on_service_ports_and_vips_alike() {
    let cases: [Case; 12] = [
        ("lb.mode", "nat", |p| p.mode == Mode::Nat),
        ("lb.balance", "least-conn", |p| {
            p.balance == Balance::LeastConn
        }),
        ("lb.affinity", "10m", |p| p.affinity == 600),
        ("lb.maxflows", "9", |p| p.max_flows == 9),
        ("lb.rate", "200", |p| p.rate == 200),
        ("lb.source-rate", "20", |p| p.source_rate == 20),
        ("lb.idle", "10m", |p| p.idle.tcp == 600),
        ("lb.drain", "2m", |p| p.drain == Some(120)),
        ("lb.slow-start", "30s", |p| p.slow_start == 30),
        ("lb.check", "tcp", |p| p.check.is_some()),
        ("lb.fail-open", "no", |p| p.fail_closed),
        ("lb.denied", "refuse", |p| p.refuses),
    ];
    for (name, value, is_so) in cases {
        let mut app = web(json!({ name: value }));
        app["portDefinitions"][0]["labels"] = json!({"VIP_0": "/other:80"});
        let snapshot = served_by(&external(), json!([app]));
        assert_eq!(reasons(&snapshot), [""; 0], "{name}");
        assert!(
            !is_so(&Properties::default()),
            "{name} says what is so anyway"
        );
        for pool in 0..3 {
            let found = properties(&snapshot, pool);
            assert!(is_so(&found), "{name}: {found:?}");
        }
    }
    let listed = served(json!({"lb.allow": "10.7.0.0/16", "lb.deny": "10.6.0.0/16"}));
    let net = |text: &str| text.parse().unwrap();
    let rules = [
        (net("10.6.0.0/16"), Source::Deny),
        (net("10.7.0.0/16"), Source::Allow),
    ];
    assert_eq!(properties(&listed, 0).sources, rules.into());
}

#[test]
fn tasks_weigh_stand_by_and_belong_to_groups_of_agents_as_the_labels_say() {
    let snapshot = served(json!({"lb.weight": "0", "lb.backup": "true", "lb.group": "edge"}));
    let of_web = "/web.marathon:10000/tcp /web = 10.0.0.1:31000 w0 (weight 0)";
    assert_eq!(lines(&snapshot)[0], of_web);
    assert!(snapshot.pools[0].backends[0].backup);
    let edge: std::sync::Arc<str> = "edge".into();
    assert_eq!(properties(&snapshot, 0).groups, [edge].into());
}
