//! Where the tasks of a Swarm are.

use super::*;

#[test]
fn a_task_is_in_the_zone_of_its_node_unless_a_label_says_otherwise() {
    let zones = |of_node: [&str; 2], of_service: Value| {
        let mut all = nodes();
        for (node, zone) in all.iter_mut().zip(of_node) {
            node["Spec"] = json!({"Role": "worker", "Labels": {"lb.zone": zone}});
        }
        let mut labels = vip();
        if of_service.is_string() {
            labels["lb.zone"] = of_service;
        }
        let mut engine = engine([own("web", 1, "172.17.0.2")]);
        let tasks = vec![
            task("web", 1, "n1", RUNNING),
            published(task("web", 2, "n2", RUNNING), 30_002),
        ];
        see(
            &mut engine,
            vec![service("web", labels, json!({}))],
            tasks,
            all,
        );
        let all = build(&engine, &config());
        let backends = all.pools[0].backends.iter();
        let zones = backends.map(|one| one.zone.as_deref().unwrap_or("-").to_owned());
        (zones.collect::<Vec<_>>().join(" "), reasons(&all).join(" "))
    };
    let none = String::new;
    assert_eq!(zones(["a", "b"], Value::Null), ("a b".to_owned(), none()));
    assert_eq!(zones(["a", "b"], json!("c")), ("c c".to_owned(), none()));
    let (left, why) = zones(["a", "b c"], Value::Null);
    assert_eq!(left, "a -", "it is served all the same");
    let expected = "label lb.zone: \"b c\" is not a word of 1 to 64 bytes without blanks; it counts as in no zone";
    assert_eq!(why, expected);
}
