//! From outcomes to verdicts, which probe is due when, and what probes make of answers.

mod probing;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::catalog::{Check, Probe};

const SECOND: Duration = Duration::from_secs(1);

fn failed() -> Outcome {
    Outcome::Failed("connection refused".into())
}

/// With `rise` 2 and `fall` 3.
fn check() -> Check {
    Check::new(Probe::Tcp)
}

/// The verdict after these outcomes, `p` for passed, a second apart.
fn after(health: &mut Health, outcomes: &str, now: &mut Instant) -> Verdict {
    for outcome in outcomes.chars() {
        *now += SECOND;
        let outcome = match outcome {
            'p' => Outcome::Passed,
            _ => failed(),
        };
        health.observe(&check(), outcome, *now);
    }
    health.verdict()
}

#[test]
fn it_takes_fall_failures_in_a_row_to_go_down_and_rise_passes_to_come_back() {
    let mut now = Instant::now();
    let mut health = Health::new(now);
    assert_eq!(health.verdict(), Verdict::Unknown);
    assert_eq!(after(&mut health, "p", &mut now), Verdict::Up);
    assert_eq!(after(&mut health, "ffpffpff", &mut now), Verdict::Up);
    assert_eq!(after(&mut health, "f", &mut now), Verdict::Down);
    assert_eq!(
        health.reason().map(|why| &**why),
        Some("connection refused")
    );
    assert_eq!(after(&mut health, "pfpf", &mut now), Verdict::Down);
    assert_eq!(after(&mut health, "pp", &mut now), Verdict::Up);
    assert_eq!(health.reason(), None);
}

#[test]
fn a_new_backend_is_not_known_until_it_passes_once_or_fails_enough() {
    let mut now = Instant::now();
    let mut health = Health::new(now);
    assert_eq!(after(&mut health, "ff", &mut now), Verdict::Unknown);
    assert_eq!(after(&mut health, "f", &mut now), Verdict::Down);
}

#[test]
fn failures_within_the_grace_of_a_new_backend_do_not_count() {
    let check = Check {
        grace: 10 * SECOND,
        fall: 1,
        ..check()
    };
    let start = Instant::now();
    let mut slow = Health::new(start);
    assert!(!slow.observe(&check, failed(), start + 9 * SECOND));
    assert_eq!(slow.verdict(), Verdict::Unknown);
    assert!(slow.observe(&check, failed(), start + 10 * SECOND));
    assert_eq!(slow.verdict(), Verdict::Down);
    // One that has answered has no grace left.
    let mut quick = Health::new(start);
    quick.observe(&check, Outcome::Passed, start + SECOND);
    quick.observe(&check, failed(), start + 2 * SECOND);
    assert_eq!(quick.verdict(), Verdict::Down);
}

#[test]
fn who_goes_down_again_and_again_must_pass_more_until_that_is_long_ago() {
    let mut now = Instant::now();
    let mut health = Health::new(now);
    let passes = |health: &mut Health, now: &mut Instant| {
        after(health, "fff", now);
        assert_eq!(health.verdict(), Verdict::Down);
        (1..=100)
            .find(|_| after(health, "p", now) == Verdict::Up)
            .expect("it comes back")
    };
    let mut needed = Vec::new();
    for _ in 0..9 {
        needed.push(passes(&mut health, &mut now));
    }
    assert_eq!(needed, [2, 2, 4, 8, 16, 32, 32, 32, 32]);
    after(&mut health, "fff", &mut now);
    let why = health.reason().cloned().expect("a reason");
    assert_eq!(
        &*why,
        "connection refused; down 10 times in 10 minutes, comes back after 32 checks passed"
    );
    after(&mut health, &"p".repeat(32), &mut now);
    now += 600 * SECOND;
    assert_eq!(passes(&mut health, &mut now), 2);
}

#[test]
fn who_was_down_before_the_agent_started_comes_back_by_passing() {
    let mut now = Instant::now();
    let mut health = Health::known_down(now);
    assert_eq!(after(&mut health, "p", &mut now), Verdict::Down);
    assert_eq!(after(&mut health, "p", &mut now), Verdict::Up);
}

#[test]
fn who_is_not_asked_is_not_known() {
    let now = Instant::now();
    let mut health = Health::known_down(now);
    assert!(health.observe(&check(), Outcome::NotAsked("ours".into()), now));
    assert_eq!(health.verdict(), Verdict::Unknown);
    assert_eq!(health.reason().map(|why| &**why), Some("ours"));
    assert!(!health.observe(&check(), Outcome::NotAsked("ours".into()), now));
}

fn target(addr: &str) -> Arc<Target> {
    let check = Arc::new(check());
    let addr = addr.parse().expect("an address");
    Arc::new(Target { addr, check })
}

fn wanted(addrs: &[&str]) -> BTreeSet<Arc<Target>> {
    addrs.iter().map(|addr| target(addr)).collect()
}

#[test]
fn a_target_is_probed_at_once_and_then_once_an_interval_with_jitter() {
    let now = Instant::now();
    let mut checks = Checks::new(BTreeSet::new(), now);
    let one = target("10.0.0.1:80");
    checks.follow(&wanted(&["10.0.0.1:80"]), now, || 0.5);
    assert_eq!(checks.next_due(), Some(now + SECOND / 2));
    assert_eq!(checks.begin(now), None);
    let now = now + SECOND;
    assert_eq!(checks.begin(now), Some(Arc::clone(&one)));
    // Only one at a time.
    assert_eq!(checks.next_due(), None);
    for (chance, pause) in [(0.0, 1_800), (0.5, 2_000), (1.0, 2_200)] {
        let mut checks = Checks::new(BTreeSet::new(), now);
        checks.follow(&wanted(&["10.0.0.1:80"]), now, || 0.0);
        checks.begin(now).expect("it is due");
        checks.observe(&one, Outcome::Passed, now + SECOND, chance);
        assert_eq!(checks.next_due(), Some(now + Duration::from_millis(pause)));
    }
    // A probe that took longer than the interval is followed by the next one at once.
    let late = now + 10 * SECOND;
    checks.observe(&one, failed(), late, 0.5);
    assert_eq!(checks.next_due(), Some(late));
}

#[test]
fn while_probes_speak_against_the_verdict_they_come_faster() {
    let addr = "10.0.0.1:80".parse().expect("an address");
    let check = Arc::new(Check {
        fast: Some(SECOND / 2),
        ..check()
    });
    let one = Arc::new(Target { addr, check });
    let mut now = Instant::now();
    let mut checks = Checks::new(BTreeSet::new(), now);
    checks.follow(&BTreeSet::from([Arc::clone(&one)]), now, || 0.0);
    let (usual, fast) = (2 * SECOND, SECOND / 2);
    for (outcome, pause) in [
        (Outcome::Passed, usual),
        (failed(), fast),
        (failed(), fast),
        // Down: nothing speaks against that yet.
        (failed(), usual),
        (Outcome::Passed, fast),
        (Outcome::Passed, usual),
    ] {
        checks.begin(now).expect("it is due");
        checks.observe(&one, outcome, now, 0.5);
        now += pause;
        assert_eq!(checks.next_due(), Some(now));
    }
}

#[test]
fn the_outcome_of_a_target_that_is_gone_is_nobodys() {
    let now = Instant::now();
    let mut checks = Checks::new(BTreeSet::new(), now);
    checks.follow(&wanted(&["10.0.0.1:80"]), now, || 0.0);
    let one = checks.begin(now).expect("it is due");
    checks.follow(&BTreeSet::new(), now, || 0.0);
    // It comes back while the old probe is under way, which is then its own.
    checks.follow(&wanted(&["10.0.0.1:80"]), now, || 0.0);
    assert_eq!(checks.next_due(), None);
    checks.follow(&BTreeSet::new(), now, || 0.0);
    assert!(!checks.observe(&one, Outcome::Passed, now, 0.5));
    assert_eq!(checks.next_due(), None);
    assert_eq!(checks.verdicts(), Verdicts::default());
}

#[test]
fn services_with_the_same_check_share_the_probe_and_others_do_not() {
    let now = Instant::now();
    let addr: SocketAddr = "10.0.0.1:80".parse().expect("an address");
    let other = Check { fall: 1, ..check() };
    let both = [
        Arc::new(check()),
        Arc::new(check()),
        Arc::new(other.clone()),
    ]
    .map(|check| Arc::new(Target { addr, check }));
    let mut checks = Checks::new(BTreeSet::new(), now);
    checks.follow(&both.into(), now, || 0.0);
    let begun: Vec<_> = std::iter::from_fn(|| checks.begin(now)).collect();
    assert_eq!(begun.len(), 2);
    for target in &begun {
        checks.observe(target, failed(), now, 0.5);
    }
    let verdicts = checks.verdicts();
    assert_eq!(verdicts.of(addr, &other).verdict, Verdict::Down);
    assert_eq!(verdicts.of(addr, &check()).verdict, Verdict::Unknown);
}

#[test]
fn who_was_down_is_presumed_down_for_ten_minutes() {
    let now = Instant::now();
    let addr: SocketAddr = "10.0.0.1:80".parse().expect("an address");
    let mut checks = Checks::new([addr].into(), now);
    assert_eq!(checks.verdicts().of(addr, &check()).verdict, Verdict::Down);
    checks.follow(&wanted(&["10.0.0.1:80"]), now + SECOND, || 0.0);
    assert_eq!(checks.verdicts().of(addr, &check()).verdict, Verdict::Down);
    checks.follow(&BTreeSet::new(), now + 600 * SECOND, || 0.0);
    checks.follow(&wanted(&["10.0.0.1:80"]), now + 600 * SECOND, || 0.0);
    assert_eq!(
        checks.verdicts().of(addr, &check()).verdict,
        Verdict::Unknown
    );
}

proptest! {
    /// Whatever comes, no target is lost, and none is probed twice at a time.
    #[test]
    fn every_wanted_target_is_queued_or_under_way_once(
        steps in prop::collection::vec((0_usize..4, 0_u8..16), 1..200)
    ) {
        let mut now = Instant::now();
        let mut checks = Checks::new(BTreeSet::new(), now);
        let all = ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "10.0.0.1:4"].map(target);
        let mut wanted = BTreeSet::new();
        let mut under_way: Vec<Arc<Target>> = Vec::new();
        for (what, bits) in steps {
            now += SECOND;
            match what {
                0 => {
                    let chosen = all.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0);
                    wanted = chosen.map(|(_, target)| Arc::clone(target)).collect();
                    checks.follow(&wanted, now, || 0.3);
                }
                1 | 2 => {
                    if let Some(begun) = checks.begin(now) {
                        prop_assert!(!under_way.contains(&begun));
                        prop_assert!(wanted.contains(&begun));
                        under_way.push(begun);
                    }
                }
                _ => {
                    if !under_way.is_empty() {
                        let done = under_way.remove(usize::from(bits) % under_way.len());
                        checks.observe(&done, Outcome::Passed, now, 0.7);
                    }
                }
            }
        }
        now += 10 * SECOND;
        let mut begun: Vec<_> = std::iter::from_fn(|| checks.begin(now)).collect();
        begun.extend(under_way.into_iter().filter(|target| wanted.contains(target)));
        begun.sort();
        prop_assert_eq!(begun, wanted.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn who_waits_is_not_probed_and_stays_as_he_was() {
    let now = Instant::now();
    let all = wanted(&["10.0.0.1:80", "10.0.0.2:80"]);
    let paused = wanted(&["10.0.0.1:80"]);
    let mut checks = Checks::new(BTreeSet::new(), now);
    checks.follow(&all, now, || 0.0);
    let first = paused.first().unwrap();
    let verdict = |checks: &Checks| checks.verdicts().of(first.addr, &first.check).verdict;
    let begun = |checks: &mut Checks, at| std::iter::from_fn(|| checks.begin(at)).count();
    assert_eq!(begun(&mut checks, now), 2);
    for _ in 0..3 {
        checks.observe(first, failed(), now, 0.5);
    }
    assert_eq!(verdict(&checks), Verdict::Down);
    let later = now + 60 * SECOND;
    assert_eq!(begun(&mut checks, later), 1);
    // What a probe finds that was under way does not count.
    checks.pause(&paused, later);
    assert!(!checks.observe(first, Outcome::Passed, later, 0.5));
    assert_eq!(begun(&mut checks, later + 60 * SECOND), 0);
    checks.follow(&all, later, || 0.0);
    checks.pause(&paused, later);
    assert_eq!(begun(&mut checks, later + 60 * SECOND), 0);
    assert_eq!(verdict(&checks), Verdict::Down);
    checks.pause(&BTreeSet::new(), later);
    assert_eq!(begun(&mut checks, later), 1);
    assert_eq!(verdict(&checks), Verdict::Down);
}
