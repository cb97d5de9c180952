//! Weights of target groups that share a listener.

use super::*;

/// Services `one` and `two` with so many tasks each, behind groups with these shares of one listener.
fn shared(tasks: [u16; 2], shares: [u32; 2]) -> Vec<String> {
    let mut known = tutorial();
    known.services.clear();
    for (n, name) in ["one", "two"].into_iter().enumerate() {
        let tg = group_arn(name);
        let forwarded = group(name, &[("web-alb", 80, "HTTP", Some(shares[n]))]);
        known.groups.insert(tg.clone(), Asked::Is(forwarded));
        let service = Service {
            entries: vec![entry(Front::Group(tg), "hello-world", 80)],
            ..Service::default()
        };
        known.services.insert(name.into(), service);
        for number in 0..tasks[n] {
            let task = bridge(name, 1_000 * (n as u16 + 1) + number);
            known.tasks.insert(arn(&format!("{name}-{number}")), task);
        }
    }
    behind(&built(&known), "web-alb.ecs:80/tcp")
}

#[test]
fn shares_hold_however_many_tasks_there_are() {
    // 3 to 1, by one task and by three: each of those has a ninth.
    assert_eq!(
        shared([1, 3], [3, 1]),
        [
            "10.77.0.11:1000=256",
            "10.77.0.11:2000=28",
            "10.77.0.11:2001=28",
            "10.77.0.11:2002=28"
        ]
    );
}

#[test]
fn a_group_of_weight_0_takes_nobody() {
    let why = "its target group has weight 0";
    assert_eq!(
        shared([1, 1], [1, 0]),
        ["10.77.0.11:1000=256", &format!("10.77.0.11:2000=0 {why}")]
    );
}

#[test]
fn without_the_other_group_a_share_means_nothing() {
    assert_eq!(
        shared([2, 0], [1, 999]),
        ["10.77.0.11:1000=1", "10.77.0.11:1001=1"]
    );
}
