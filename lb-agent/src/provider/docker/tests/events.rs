//! What events change at once.

use tokio::time::{Duration, Instant};

use super::{
    super::{
        engine::Effect,
        event::{Event, What},
    },
    *,
};

fn saw(engine: &mut Engine, what: What) -> Effect {
    let event = Event {
        id: "web".into(),
        what,
        at: None,
    };
    engine.saw(&event, Instant::now())
}

#[test]
fn the_stop_signal_drains_at_once_and_no_other_does() {
    let mut one = container("web", "172.17.0.2", &[("lb.vip", "web:80")]);
    one.stop_signal = 3;
    let mut engine = engine([one.clone()]);
    for signal in [1, 15, 28] {
        assert_eq!(
            saw(&mut engine, What::Killed(signal)),
            Effect {
                tell: false,
                look: false
            }
        );
    }
    assert_eq!(
        lines(&build(&engine, &config())),
        ["web:80/tcp 172.17.0.2:80 x1"]
    );
    assert!(saw(&mut engine, What::Killed(3)).tell);
    let draining = ["web:80/tcp 172.17.0.2:80 x0 (told to stop)"];
    assert_eq!(lines(&build(&engine, &config())), draining);
    // A look shows that it still runs.
    engine.looked(&"web".into(), Some(one.clone()));
    assert_eq!(lines(&build(&engine, &config())), draining);
    assert!(saw(&mut engine, What::Ended).tell);
    assert_eq!(lines(&build(&engine, &config())), ["web:80/tcp"]);
    // Started anew.
    one.started = "2026-02-01T00:00:00Z".to_owned();
    saw(&mut engine, What::Started);
    engine.looked(&"web".into(), Some(one));
    assert_eq!(
        lines(&build(&engine, &config())),
        ["web:80/tcp 172.17.0.2:80 x1"]
    );
}

#[test]
fn sigkill_takes_a_container_out_and_a_look_before_its_end_does_not_bring_it_back() {
    let one = container("web", "172.17.0.2", &[("lb.vip", "web:80")]);
    let mut engine = engine([one.clone()]);
    saw(&mut engine, What::Killed(signal::TERM));
    let told = Effect {
        tell: true,
        look: false,
    };
    assert_eq!(saw(&mut engine, What::Killed(signal::KILL)), told);
    assert_eq!(lines(&build(&engine, &config())), ["web:80/tcp"]);
    // The engine has not seen its end yet.
    engine.looked(&"web".into(), Some(one));
    assert_eq!(
        lines(&build(&engine, &config())),
        ["web:80/tcp 172.17.0.2:80 x0 (told to stop)"]
    );
    assert!(saw(&mut engine, What::Ended).tell);
    assert_eq!(lines(&build(&engine, &config())), ["web:80/tcp"]);
}

#[test]
fn a_signal_to_a_container_that_was_not_looked_at_yet_counts() {
    let mut engine = Engine::default();
    assert!(saw(&mut engine, What::Changed).look);
    saw(&mut engine, What::Killed(signal::TERM));
    engine.looked(
        &"web".into(),
        Some(container("web", "172.17.0.2", &[("lb.vip", "web:80")])),
    );
    assert_eq!(
        lines(&build(&engine, &config())),
        ["web:80/tcp 172.17.0.2:80 x0 (told to stop)"]
    );
}

#[test]
fn who_ignores_its_stop_signal_takes_new_flows_again_after_ten_minutes() {
    let mut engine = engine([container("web", "172.17.0.2", &[("lb.vip", "web:80")])]);
    saw(&mut engine, What::Killed(signal::TERM));
    let now = Instant::now();
    engine.lose_patience(now + Duration::from_secs(590));
    assert!(engine.is_stopping("web"));
    engine.lose_patience(now + Duration::from_secs(601));
    assert!(!engine.is_stopping("web"));
}

#[test]
fn what_was_told_before_the_last_start_is_old_and_only_has_it_looked_at() {
    let mut engine = engine([container("web", "172.17.0.2", &[("lb.vip", "web:80")])]);
    // It was started at 2026-01-01T00:00:00Z.
    let start = 1_767_225_600_000_000_000_i128;
    let mut told = |what, at| {
        let (id, at) = ("web".into(), Some(at));
        engine.saw(&Event { id, what, at }, Instant::now())
    };
    for what in [What::Ended, What::Killed(signal::TERM), What::Paused] {
        let effect = told(what, start - 1);
        assert_eq!((effect.tell, effect.look), (false, true), "{what:?}");
    }
    assert!(told(What::Ended, start + 1).tell);
}

#[test]
fn a_container_that_could_never_be_looked_at_makes_the_state_partial() {
    let mut engine = engine([container("web", "172.17.0.2", &[("lb.vip", "web:80")])]);
    let config = DockerConfig::new("unix:///none");
    let partial = |engine: &Engine| build(engine, &config).partial;
    engine.missed(&"web".into());
    assert!(!partial(&engine), "it is known");
    engine.missed(&"other".into());
    assert!(partial(&engine));
    engine.looked(&"other".into(), None);
    assert!(!partial(&engine));
    engine.missed(&"other".into());
    engine.keep_only(&["web".into()].into());
    assert!(!partial(&engine), "it is gone");
}

#[test]
fn what_is_removed_is_gone_with_its_name() {
    let mut engine = engine([container("web", "172.17.0.2", &[("lb.vip", "web:80")])]);
    saw(&mut engine, What::Ended);
    assert_eq!(build(&engine, &config()).pools.len(), 1, "it is stopped");
    assert!(saw(&mut engine, What::Removed).tell);
    assert_eq!(build(&engine, &config()).pools.len(), 0);
}

#[test]
fn whatever_events_came_in_whatever_order_a_look_shows_what_is() {
    let one = container("web", "172.17.0.2", &[("lb.vip", "web:80")]);
    let mut again = one.clone();
    again.started = "2026-02-01T00:00:00Z".to_owned();
    let all = [
        What::Started,
        What::Killed(signal::TERM),
        What::Killed(signal::KILL),
        What::Ended,
        What::Paused,
        What::Health(Health::Unhealthy),
        What::Changed,
    ];
    for first in all {
        for second in all {
            for third in all {
                let row = [first, second, third];
                let mut engine = engine([one.clone()]);
                for what in row {
                    saw(&mut engine, what);
                }
                engine.looked(&"web".into(), Some(again.clone()));
                let shown = lines(&build(&engine, &config()));
                assert_eq!(shown, ["web:80/tcp 172.17.0.2:80 x1"], "{row:?}");
                // Events of one that is gone bring nothing back.
                engine.looked(&"web".into(), None);
                for what in row {
                    saw(&mut engine, what);
                }
                assert_eq!(lines(&build(&engine, &config())), [""; 0], "{row:?}");
            }
        }
    }
}
