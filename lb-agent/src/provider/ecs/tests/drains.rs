//! Who takes new flows.

use super::*;

fn in_pool(change: impl Fn(&mut Task), checked: bool) -> Vec<String> {
    let mut known = tutorial();
    let definition = known.definitions.get_mut(DEFINITION).unwrap();
    definition
        .containers
        .get_mut("hello-world")
        .unwrap()
        .checked = checked;
    let mut task = bridge(SERVICE, 32768);
    change(&mut task);
    known.tasks.insert(arn("a"), task);
    behind(&built(&known), VIP)
}

#[test]
fn the_states_of_a_task() {
    let drained = |why: &str| vec![format!("10.77.0.11:32768=0 {why}")];
    for (last, stopping, expected) in [
        (Last::Starting, false, vec![]),
        (Last::Starting, true, vec![]),
        (Last::Activating, false, vec![]),
        (Last::Activating, true, drained("told to stop")),
        (Last::Running, false, vec!["10.77.0.11:32768=1".to_owned()]),
        (Last::Running, true, drained("told to stop")),
        (Last::Stopping, true, drained("stopping")),
        (Last::Stopping, false, drained("stopping")),
        (Last::Gone, true, vec![]),
    ] {
        let state = |task: &mut Task| (task.last, task.stopping) = (last, stopping);
        assert_eq!(in_pool(state, false), expected, "{last:?} {stopping}");
    }
    for (word, last) in [
        ("PROVISIONING", Last::Starting),
        ("PENDING", Last::Starting),
        ("ACTIVATING", Last::Activating),
        ("RUNNING", Last::Running),
        ("DEACTIVATING", Last::Stopping),
        ("STOPPING", Last::Stopping),
        ("DEPROVISIONING", Last::Gone),
        ("STOPPED", Last::Gone),
        ("DELETED", Last::Gone),
        ("SOMETHING_NEW", Last::Gone),
    ] {
        assert_eq!(Last::read(word), last, "{word}");
    }
}

#[test]
fn the_health_of_a_task() {
    let ready = "10.77.0.11:32768=1";
    for (health, checked, expected) in [
        (Health::Healthy, true, ready),
        (Health::Unknown, false, ready),
        (
            Health::Unknown,
            true,
            "10.77.0.11:32768=0 no health result yet",
        ),
        (Health::Unhealthy, true, "10.77.0.11:32768=0 unhealthy"),
        (Health::Unhealthy, false, "10.77.0.11:32768=0 unhealthy"),
    ] {
        let state = |task: &mut Task| task.health = health;
        assert_eq!(in_pool(state, checked), [expected], "{health:?} {checked}");
    }
}

#[test]
fn tasks_of_an_old_and_a_new_deployment_serve_together() {
    let mut known = tutorial();
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    let mut new = bridge(SERVICE, 32769);
    (new.started_by, new.definition) = ("ecs-svc/2".into(), "arn:2".into());
    known.tasks.insert(arn("b"), new);
    assert_eq!(behind(&built(&known), VIP).len(), 2);
}

#[test]
fn where_task_sets_decide_a_task_is_behind_its_own_sets_load_balancer() {
    let mut known = tutorial();
    let (blue, green) = (group_arn("blue"), group_arn("green"));
    for (arn, name, front) in [(&blue, "blue", 80), (&green, "green", 8080)] {
        let listening = group(name, &[("web-alb", front, "HTTP", None)]);
        known.groups.insert(Arc::clone(arn), Asked::Is(listening));
    }
    let set = |arn: &Arc<str>| vec![entry(Front::Group(Arc::clone(arn)), "hello-world", 80)];
    let service = known.services.get_mut(SERVICE).unwrap();
    service.entries.clear();
    service.sets = Some(
        [
            ("ecs-svc/1".into(), set(&blue)),
            ("ecs-svc/2".into(), set(&green)),
        ]
        .into(),
    );
    known.tasks.insert(arn("a"), bridge(SERVICE, 32768));
    let mut new = bridge(SERVICE, 32769);
    new.started_by = "ecs-svc/2".into();
    known.tasks.insert(arn("b"), new);
    let mut stray = bridge(SERVICE, 32770);
    stray.started_by = "ecs-svc/3".into();
    known.tasks.insert(arn("c"), stray);
    let snapshot = built(&known);
    assert_eq!(
        behind(&snapshot, "web-alb.ecs:80/tcp"),
        ["10.77.0.11:32768=1"]
    );
    assert_eq!(
        behind(&snapshot, "web-alb.ecs:8080/tcp"),
        ["10.77.0.11:32769=1"]
    );
}
