//! What orchestrator and checks make of a backend together.

use super::*;
use crate::{
    admin::orders::{Act, Forced, Order, Which},
    catalog::{Check, Probe, Properties},
    plan::{Kernel, KernelState, Limits, Op, Planner, Reach, WantedBackend, WantedService},
};

mod telling;

const ADDR: &str = "10.0.0.1:80";

fn backend(weight: Weight) -> CatalogBackend {
    CatalogBackend {
        weight,
        draining: (weight == Weight::DRAIN).then_some(Drain::unfit("unhealthy")),
        ..CatalogBackend::plain(ADDR)
    }
}

fn checked() -> Properties {
    Properties {
        check: Some(Arc::new(Check::new(Probe::Tcp))),
        ..Properties::default()
    }
}

fn verdicts(verdict: Verdict, reason: Option<&str>) -> Verdicts {
    let target = Target {
        addr: ADDR.parse().expect("an address"),
        check: Arc::new(Check::new(Probe::Tcp)),
    };
    let reason = reason.map(Into::into);
    let judged = Judged { verdict, reason };
    Verdicts::new([(Arc::new(target), judged)], BTreeSet::new())
}

fn key() -> ServiceKey {
    ServiceKey::tcp("11.0.0.1:80")
}

fn service(of: &Properties, backend: CatalogBackend) -> Service {
    Service {
        name: None,
        properties: Arc::new(of.clone()),
        backends: vec![backend],
    }
}

/// State in the kernel, state shown, and why.
fn stands(of: &Properties, weight: Weight, verdicts: Option<&Verdicts>) -> String {
    let voices = Voices {
        verdicts,
        ..Voices::default()
    };
    let service = service(of, backend(weight));
    let standing = voices.standing(&key(), &service, &service.backends[0]);
    let why = standing.why.as_deref().unwrap_or("-");
    format!("{:?} {} {why}", standing.state, standing.shown)
}

#[test]
fn both_must_agree_that_a_backend_takes_flows() {
    let up = verdicts(Verdict::Up, None);
    let down = verdicts(Verdict::Down, Some("connection refused"));
    let unknown = Verdicts::default();
    let at = |weight, verdicts| stands(&checked(), weight, Some(verdicts));
    assert_eq!(at(Weight::ONE, &up), "Up active -");
    assert_eq!(at(Weight::ONE, &down), "Down down connection refused");
    assert_eq!(at(Weight::ONE, &unknown), "Up active no check result yet");
    // Weight 0 keeps its flows whatever the checks say.
    for verdicts in [&up, &down, &unknown] {
        assert_eq!(at(Weight::DRAIN, verdicts), "Draining draining unhealthy");
    }
}

#[test]
fn who_is_not_checked_is_what_his_orchestrator_says() {
    let down = verdicts(Verdict::Down, Some("connection refused"));
    let usual = Properties::default();
    assert_eq!(stands(&usual, Weight::ONE, Some(&down)), "Up active -");
    let off = "Up active not checked: checks are turned off";
    assert_eq!(stands(&checked(), Weight::ONE, None), off);
}

#[test]
fn what_a_backend_that_ends_has_left_is_reset_when_its_drain_is_over() {
    let of = Properties {
        drain: Some(0),
        ..Properties::default()
    };
    let backend = CatalogBackend {
        draining: Some(Drain::ending("told to stop")),
        ..backend(Weight::DRAIN)
    };
    let (service, mut ending) = (service(&of, backend), Ending::default());
    let now = (Timestamp::now(), Instant::now());
    ending.note([(&key(), &service)].into_iter(), now.1);
    let voices = Voices {
        ending: Some(&ending),
        at: now,
        ..Voices::default()
    };
    let standing = voices.standing(&key(), &service, &service.backends[0]);
    assert!(standing.gone);
    assert_eq!(standing.shown, BackendState::Draining);
    let why = standing.why.as_deref();
    assert_eq!(why, Some("told to stop; what was left was reset"));
}

/// State in the kernel, weight, state shown, and why, after an order.
fn ordered(act: Act, deadline: Option<u64>, backend: CatalogBackend) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut operator = Operator::load(dir.path()).expect("there is none yet");
    let service = service(&checked(), backend);
    let desired = Desired {
        services: [(key(), service.clone())].into(),
        ..Desired::default()
    };
    let which = Which {
        backend: Some(ADDR.parse().expect("a backend")),
        service: None,
    };
    let order = Order {
        act,
        which,
        deadline,
    };
    operator
        .obey(&order, &desired, Timestamp(1_000))
        .expect("obeyed");
    let down = verdicts(Verdict::Down, Some("connection refused"));
    let voices = Voices {
        verdicts: Some(&down),
        operator: Some(&operator),
        slow: None,
        ending: None,
        at: (Timestamp(2_000), Instant::now()),
    };
    let standing = voices.standing(&key(), &service, &service.backends[0]);
    let Standing {
        weight,
        share,
        starting: _,
        limit,
        forced: _,
        unchecked: _,
        gone,
        state,
        shown,
        why,
        check_port: _,
    } = standing;
    let why = why.as_deref().unwrap_or("-");
    let limit = if limit == 0 {
        String::new()
    } else {
        format!(" of {limit} flows")
    };
    format!("{state:?} {weight}/{share}{limit} gone {gone}: {shown} {why}")
}

#[test]
fn the_operator_wins_but_brings_nobody_back_who_is_about_to_end() {
    let whole = || backend(Weight::ONE);
    assert_eq!(
        ordered(Act::Drain, None, whole()),
        "Draining 1/0 gone false: draining by the operator"
    );
    assert_eq!(
        ordered(Act::Maintenance, Some(2), whole()),
        "Draining 1/0 gone false: maintenance by the operator"
    );
    assert_eq!(
        ordered(Act::Drain, Some(1), whole()),
        "Draining 1/0 gone true: draining by the operator; what was left was reset"
    );
    assert_eq!(
        ordered(Act::Weight(5), None, whole()),
        "Down 5/5 gone false: down connection refused; weight by the operator"
    );
    assert_eq!(
        ordered(Act::Weight(0), None, whole()),
        "Draining 0/0 gone false: draining weight 0; weight by the operator"
    );
    let unhealthy = backend(Weight::DRAIN);
    assert_eq!(
        ordered(Act::Weight(5), None, unhealthy),
        "Draining 0/0 gone false: draining unhealthy"
    );
    let declared = CatalogBackend {
        draining: Some(Drain::WEIGHT_0),
        ..backend(Weight::DRAIN)
    };
    assert_eq!(
        ordered(Act::Weight(5), None, declared),
        "Down 5/5 gone false: down connection refused; weight by the operator"
    );
}

#[test]
fn a_backend_of_a_node_that_drains_is_shown_with_the_node() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut operator = Operator::load(dir.path()).expect("there is none yet");
    let service = service(&checked(), backend(Weight::ONE));
    let addr = service.backends[0].addr.ip();
    let drained = crate::provider::etcd::Drained {
        addresses: [addr].into(),
        ..Default::default()
    };
    operator.know_drained(Arc::new([("10.0.0.9".to_owned(), drained)].into()));
    let voices = Voices {
        operator: Some(&operator),
        ..Voices::default()
    };
    let standing = voices.standing(&key(), &service, &service.backends[0]);
    assert_eq!(standing.shown, BackendState::Draining);
    assert_eq!(standing.why.as_deref(), Some("drained by 10.0.0.9"));
    assert!(!standing.gone);
}

#[test]
fn forced_health_wins_over_checks_and_orchestrator_until_the_backend_is_to_end() {
    let forced = |forced, backend| ordered(Act::Health(forced), None, backend);
    let whole = || backend(Weight::MAX);
    assert_eq!(
        forced(Forced::Up, whole()),
        "Up 256/256 gone false: active up by the operator"
    );
    assert_eq!(
        forced(Forced::Stopping, whole()),
        "Draining 256/0 gone false: draining stopping by the operator"
    );
    assert_eq!(
        forced(Forced::Down, whole()),
        "Off 256/0 gone false: down by the operator"
    );
    // Nobody knows what share it would have.
    assert_eq!(
        forced(Forced::Up, backend(Weight::DRAIN)),
        "Up 1/1 gone false: active up by the operator"
    );
    let ending = CatalogBackend {
        draining: Some(Drain::ending("told to stop")),
        ..backend(Weight::DRAIN)
    };
    assert_eq!(
        forced(Forced::Up, ending),
        "Draining 0/0 gone false: draining told to stop"
    );
}

#[test]
fn the_operators_limit_is_in_the_place_of_the_declared_one() {
    let limited = || CatalogBackend {
        max_flows: 7,
        ..backend(Weight::ONE)
    };
    let down = "gone false: down connection refused";
    for (act, of) in [(Act::Limit(3), 3), (Act::Weight(1), 7)] {
        let expected = format!("Down 1/1 of {of} flows {down}");
        assert_eq!(ordered(act, None, limited()), expected);
    }
}

#[test]
fn who_is_checked_no_more_stays_as_he_was_and_is_not_probed() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = service(&checked(), backend(Weight::ONE));
    let desired = Desired {
        services: [(key(), service.clone())].into(),
        ..Desired::default()
    };
    let order = |act| Order {
        act,
        which: Which {
            backend: Some(ADDR.parse().expect("a backend")),
            service: None,
        },
        deadline: None,
    };
    let (up, down) = (
        verdicts(Verdict::Up, None),
        verdicts(Verdict::Down, Some("connection refused")),
    );
    let shown = |operator: &Operator, verdicts: &Verdicts| {
        let voices = Voices {
            verdicts: Some(verdicts),
            operator: Some(operator),
            ..Voices::default()
        };
        let standing = voices.standing(&key(), &service, &service.backends[0]);
        let down: Vec<_> = voices.down(&desired).collect();
        assert_eq!(
            down.len(),
            usize::from(standing.shown == BackendState::Down)
        );
        let why = standing.why.as_deref().unwrap_or("-").to_owned();
        (standing.shown, standing.unchecked, why)
    };
    let stopped = "checks stopped by the operator".to_owned();
    for (then, state) in [(&up, BackendState::Active), (&down, BackendState::Down)] {
        let mut operator = Operator::load(dir.path()).expect("what was said");
        let voices = Voices {
            verdicts: Some(then),
            operator: Some(&operator),
            ..Voices::default()
        };
        let was_down: Vec<_> = voices.down(&desired).collect();
        operator.know_down(was_down.into_iter());
        let obeyed = operator.obey(&order(Act::Checks(false)), &desired, Timestamp(1));
        let said = "10.0.0.1:80 of 11.0.0.1:80/tcp: checks stopped".to_owned();
        assert_eq!(obeyed, Ok(vec![said]));
        // Also after a restart, and whatever the checks of others say.
        let mut next = Operator::load(dir.path()).expect("what was said");
        for verdicts in [&up, &down] {
            assert_eq!(shown(&next, verdicts), (state, true, stopped.clone()));
        }
        let followed = targets(&desired, &next);
        assert_eq!((followed.targets.len(), followed.paused.len()), (1, 1));
        let obeyed = next.obey(&order(Act::Checks(true)), &desired, Timestamp(2));
        obeyed.expect("obeyed");
        let followed = targets(&desired, &next);
        assert_eq!((followed.targets.len(), followed.paused.len()), (1, 0));
        assert_eq!(shown(&next, &down).0, BackendState::Down);
        assert_eq!(shown(&next, &up).0, BackendState::Active);
    }
}

/// Maps that only remember what was done.
#[derive(Default)]
struct Maps(KernelState, Vec<String>);

impl Kernel for Maps {
    fn state(&mut self) -> anyhow::Result<KernelState> {
        Ok(self.0.clone())
    }

    fn apply(&mut self, op: &Op) -> anyhow::Result<()> {
        let text = op.to_string();
        let kind = text.split_whitespace().take(2).collect::<Vec<_>>();
        self.1.push(kind.join(" "));
        self.0.record(op.clone());
        Ok(())
    }
}

#[test]
fn a_backend_that_goes_down_and_comes_back_is_one_write_each_and_the_last_one_two() {
    let service = |states: [plan::BackendState; 2]| {
        let backends = states.iter().zip(1..).map(|(state, n)| WantedBackend {
            addr: format!("10.0.0.{n}:80").parse().expect("an address"),
            weight: Weight::ONE,
            max_flows: 0,
            tier: 0,
            state: *state,
            reach: Reach::Host,
            peer: lb_common::Peer::default(),
        });
        let service = WantedService {
            fail_open: true,
            backends: backends.collect(),
            ..WantedService::default()
        };
        let at = |port| Endpoint {
            addr: "11.0.0.1".parse().expect("an address"),
            port,
            proto: 6,
        };
        let service = Arc::new(service);
        // Also at another port, as at a port of the node.
        let services = [(at(80), Arc::clone(&service)), (at(81), service)];
        Wanted {
            services: services.into(),
            vips: ["11.0.0.1".parse().expect("an address")].into(),
            ..Wanted::default()
        }
    };
    let limits = Limits {
        services: 10,
        backends: 10,
        tables: [10; 3],
        addresses: 10,
        sources: 10,
        listed: 10,
        locals: 10,
    };
    let (mut maps, mut planner) = (Maps::default(), Planner::default());
    let mut done = |states| {
        maps.1.clear();
        let want = service(states);
        let report = plan::reconcile(&mut maps, &want, &limits, &mut planner).expect("it plans");
        assert_eq!((report.failed, report.problems), (vec![], vec![]));
        maps.1.clone()
    };
    use plan::BackendState::{Down, Up};
    done([Up, Up]);
    assert_eq!(done([Down, Up]), ["put backend"]);
    assert_eq!(done([Up, Up]), ["put backend"]);
    done([Down, Up]);
    let last = ["put service", "put service", "put backend"];
    assert_eq!(done([Down, Down]), last, "it fails open first");
}

#[test]
fn each_backend_of_a_checked_service_is_a_target_and_equal_ones_are_one() {
    let key = |port| ServiceKey::tcp(&format!("11.0.0.1:{port}"));
    let service = |properties| Service {
        name: None,
        properties: Arc::new(properties),
        backends: vec![backend(Weight::ONE)],
    };
    let services = [
        (key(1), service(checked())),
        (key(2), service(checked())),
        (key(3), service(Properties::default())),
    ];
    let desired = Desired {
        services: services.into(),
        ..Desired::default()
    };
    let found = targets(&desired, &Operator::default()).targets;
    assert_eq!(found.len(), 1);
    assert_eq!(
        found.first().map(|one| one.addr.to_string()),
        Some(ADDR.to_owned())
    );
}

#[test]
fn what_is_translated_is_the_vips_and_the_ports_of_the_node() {
    let at = |addr: &str, proto| {
        let addr: SocketAddr = addr.parse().expect("an address");
        let service = Arc::new(WantedService::default());
        (Endpoint::new(addr, proto), service)
    };
    let want = Wanted {
        services: [
            at("11.0.0.1:80", 6),
            at("10.0.0.1:10000", 6),
            at("10.0.0.1:53", 17),
        ]
        .into(),
        vips: ["11.0.0.1".parse().expect("an address")].into(),
        node_addresses: ["10.0.0.1".parse().expect("an address")].into(),
        ..Wanted::default()
    };
    let ours = ours(&want);
    assert_eq!(ours.vips.len(), 1);
    let ports = ["10.0.0.1:10000".parse().expect("an address")];
    assert_eq!(ours.ports, ports.into());
}
