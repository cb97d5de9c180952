//! What a manager says wrongly costs nobody else anything.

use super::*;

#[test]
fn what_a_manager_says_that_cannot_be_read_is_left_out_alone() {
    let good = || published(task("web", 2, "n2", RUNNING), 81);
    let broken = |path: &[&str], value: Value| {
        let mut one = published(task("web", 3, "n2", RUNNING), 82);
        let at = path.iter().fold(&mut one, |at, name| &mut at[*name]);
        *at = value;
        one
    };
    let long = "x".repeat(1 << 20);
    for bad in [
        json!(null),
        json!([]),
        json!({"ID": "t3"}),
        broken(&["ID"], json!(7)),
        broken(&["DesiredState"], Value::Null),
        broken(&["Status"], json!("running")),
        broken(&["Slot"], json!(-1)),
        broken(&["Slot"], json!(long)),
        broken(&["Spec"], json!({"ContainerSpec": {"Env": "A=1"}})),
        broken(
            &["Status", "PortStatus"],
            json!({"Ports": [{"TargetPort": 70_000}]}),
        ),
    ] {
        let what = bad.to_string();
        let engine = manager(
            [],
            vec![service("web", vip(), json!({})), json!({"ID": "s9"})],
            vec![bad, good()],
        );
        let all = build(&engine, &config());
        assert_eq!(lines(&all)[0], "web:80/tcp 192.0.2.2:81 x1", "{what:.100}");
        let subjects: Vec<_> = all.problems.iter().map(|one| &*one.subject).collect();
        assert_eq!(subjects[0], "service s9");
        assert!(subjects[1].starts_with("task "), "{subjects:?}");
        assert!(all.problems.iter().all(|one| one.reason.len() < 400));
    }
    for odd in [
        json!(["10.0.1.3"]),
        json!(["x/24", "10.0.1.3/24"]),
        json!(["10.0.1.3/99"]),
    ] {
        let one = attached(task("web", 2, "n2", RUNNING), "proxy", "overlay", odd);
        let engine = manager([], vec![service("web", vip(), json!({}))], vec![one]);
        let mut config = config();
        config.overlay_reachable = true;
        assert_eq!(
            lines(&build(&engine, &config))[0],
            "web:80/tcp 10.0.1.3:80 x1"
        );
    }
    // A task of a service that nobody knows, and a container that says it is one.
    let stray = own("gone", 1, "172.17.0.9");
    let engine = manager([stray], vec![], vec![good()]);
    assert_eq!(shown(&engine), [""; 0]);
}

#[test]
fn a_bad_label_of_a_service_costs_that_service_alone() {
    let bad = service("bad", json!({"lb.vip": "nonsense"}), json!({}));
    let engine = manager(
        [],
        vec![bad, service("web", vip(), json!({}))],
        vec![published(task("web", 2, "n2", RUNNING), 81)],
    );
    let all = build(&engine, &config());
    assert_eq!(lines(&all)[0], "web:80/tcp 192.0.2.2:81 x1");
    let [problem] = &all.problems[..] else {
        panic!("{:?}", all.problems);
    };
    assert_eq!(&*problem.subject, "bad");
    assert!(problem.reason.contains("has no port"), "{}", problem.reason);
}
