//! A node of a Swarm that is lost.

use super::*;

#[test]
fn a_task_is_gone_once_its_node_is_down_and_the_swarm_replaces_it() {
    let shows = |state: &str, desired: &str| {
        let mut engine = engine([own("web", 1, "172.17.0.2")]);
        let there = published(task("web", 2, "n2", [desired, "running"]), 30_002);
        see(
            &mut engine,
            vec![service("web", vip(), json!({}))],
            vec![task("web", 1, "n1", RUNNING), there],
            vec![
                node("n1", "one", "192.0.2.1", "ready"),
                node("n2", "two", "192.0.2.2", state),
            ],
        );
        shown(&engine).remove(0)
    };
    let with = |more: &str| format!("web:80/tcp 172.17.0.2:80 x1{more}");
    assert_eq!(shows("ready", "running"), with(" 192.0.2.2:30002 x1"));
    // The node may come back with it.
    let down = with(" 192.0.2.2:30002 x0 (its node is down)");
    assert_eq!(shows("down", "running"), down);
    for desired in ["shutdown", "remove"] {
        let stops = with(" 192.0.2.2:30002 x0 (its task is to stop)");
        assert_eq!(shows("ready", desired), stops, "{desired}");
        // Nobody would tell of its end for a day.
        assert_eq!(shows("down", desired), with(""), "{desired}");
    }
}
