//! deployfish's services on an AWS stand-in: followed within one poll, without a lost connection.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    ecs::{Behind, CLUSTER, Cloud, ENDPOINT, VARIABLES},
    lab::{Host, wait_for, wait_until},
    stage::{CONNECT, Stage},
};
use serde_json::Value;

/// How long deployfish, the scheduler or the agent may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// A poll of the agent (5 s), and the time that it takes on a machine with other work.
const ONE_POLL: Duration = Duration::from_millis(6_500);
/// VIPs are leased of what the stage's clients have a route to.
const POOL: [&str; 2] = ["--vip-pool-v4", "10.99.1.1-10.99.255.254"];

const TUTORIAL: &str = "hello-world.yml";
const SERVICE: &str = "hello-world-test";
const ELB: &str = "hello-world-elb";

/// A node whose agent reads the stand-in's cluster.
struct Yard {
    cloud: Cloud,
    stage: Stage,
}

impl Yard {
    fn up(stop_delay: u32) -> Self {
        let own = [
            "--ecs",
            CLUSTER,
            "--ecs-region",
            "us-east-1",
            "--ecs-endpoint",
            ENDPOINT,
        ];
        // The agent comes first, and waits.
        let stage = Stage::up_with(&VARIABLES, "", &[&own[..], &POOL].concat());
        let cloud = Cloud::start(&stage, stop_delay).expect("a stand-in");
        Self { cloud, stage }
    }

    fn node(&self) -> &Host {
        &self.stage.node
    }

    fn client(&self) -> &Host {
        &self.stage.clients[0]
    }

    fn deploy(&self, file: &str, words: &[&str]) {
        let said = self.cloud.deploy(self.node(), file, words);
        said.expect("deployfish does it");
    }

    /// What the stand-in has behind a port of a service.
    fn truth(&self, service: &str, port: u16) -> Behind {
        self.cloud
            .behind(self.node(), service, port)
            .expect("it says")
    }

    /// Waits until the stand-in has so many tasks that serve.
    fn scheduled(&self, service: &str, port: u16, ready: usize) -> Behind {
        let right = || Some(self.truth(service, port)).filter(|found| found.ready.len() == ready);
        wait_for("the tasks run", PATIENCE, right).expect("scheduled")
    }

    /// What the agent has at a VIP's port.
    fn found(&self, name: &str, port: u16) -> Behind {
        let mut found = Behind::default();
        let backends = self.service(name, port)["backends"].clone();
        for backend in backends.as_array().into_iter().flatten() {
            let at = backend["addr"].as_str().unwrap_or_default().to_owned();
            match backend["weight"].as_u64() {
                Some(0) => found.drain.push(at),
                _ => found.ready.push(at),
            }
        }
        found.ready.sort();
        found.drain.sort();
        found
    }

    /// Waits for what the stand-in has: at most one poll. How long it took.
    fn followed(&self, name: &str, port: u16, service: &str, container_port: u16) -> Duration {
        let began = Instant::now();
        let same = || self.found(name, port) == self.truth(service, container_port);
        if wait_until("the agent has what the stand-in has", ONE_POLL, same).is_err() {
            panic!(
                "{:?} is not {:?}: {:#}",
                self.found(name, port),
                self.truth(service, container_port),
                self.stage.status()
            );
        }
        began.elapsed()
    }

    fn service(&self, name: &str, port: u16) -> Value {
        let status = self.stage.status();
        let services = status["services"].as_array();
        let full = format!("{name}.ecs");
        let found = services
            .into_iter()
            .flatten()
            .find(|service| service["port"] == port && service["name"] == full.as_str());
        found.cloned().unwrap_or_default()
    }

    fn vip(&self, name: &str, port: u16) -> SocketAddr {
        let service = self.service(name, port);
        let addr = service["addrs"][0].as_str().expect("an address");
        SocketAddr::new(addr.parse().expect("an address"), port)
    }

    fn provider(&self) -> Value {
        let status = self.stage.status();
        let providers = status["providers"].as_array();
        let ours = |provider: &&Value| provider["id"] == format!("ecs:{CLUSTER}");
        providers
            .into_iter()
            .flatten()
            .find(ours)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until the agent says why it cannot read.
    fn failing(&self, why: &str) {
        let told = || {
            self.provider()["last_error"]["reason"]
                .as_str()
                .is_some_and(|said| said.contains(why))
        };
        if wait_until("the agent says so", PATIENCE, told).is_err() {
            panic!("not {why:?}: {:#}", self.provider());
        }
    }
}

/// A connection and the name of the task that it came to.
fn open(client: &Host, vip: SocketAddr) -> Result<(TcpStream, String), String> {
    let dial = || TcpStream::connect_timeout(&vip, CONNECT);
    let stream = client
        .enter(dial)
        .expect("in the host")
        .map_err(|why| why.to_string())?;
    stream.set_read_timeout(Some(CONNECT)).expect("set");
    let mut name = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut name).map_err(|why| why.to_string())?;
    if name.is_empty() {
        return Err("closed without a word".to_owned());
    }
    Ok((reader.into_inner(), name.trim().to_owned()))
}

/// Tasks by the number of connections that came to them.
fn shares(client: &Host, vip: SocketAddr, connections: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..connections {
        let (_, name) = open(client, vip).expect("an answer");
        *shares.entry(name).or_default() += 1;
    }
    shares
}

/// A connection to each of so many tasks.
fn one_to_each(client: &Host, vip: SocketAddr, tasks: usize) -> BTreeMap<String, TcpStream> {
    let mut all = BTreeMap::new();
    wait_until("a connection to each", PATIENCE, || {
        let (stream, name) = open(client, vip).expect("an answer");
        all.insert(name, stream);
        all.len() == tasks
    })
    .expect("all of them");
    all
}

/// Whether a connection is still there.
fn echoes(stream: &mut TcpStream) -> bool {
    let mut echo = [0; 6];
    stream.write_all(b"still?").is_ok()
        && stream.read_exact(&mut echo).is_ok()
        && &echo == b"still?"
}

/// When each connection began, and who answered.
type Answers = Vec<(Instant, Result<String, String>)>;

/// Connects all the time while `act` is under way.
fn steady(client: &Host, vip: SocketAddr, act: impl FnOnce()) -> Answers {
    let (answers, stop) = (Mutex::new(Answers::new()), AtomicBool::new(false));
    /// Also where `act` panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = open(client, vip).map(|(_, name)| name);
                answers.lock().expect("no panic").push((began, answer));
                thread::sleep(Duration::from_millis(2));
            }
        });
        act();
    });
    answers.into_inner().expect("no panic")
}

/// All were answered, and there were many.
fn none_failed(answers: &Answers) {
    let failures: Vec<_> = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err())
        .collect();
    assert!(answers.len() > 100, "{} connections", answers.len());
    assert_eq!(failures, [""; 0], "of {}", answers.len());
}

#[test]
fn the_tutorials_service_is_followed_through_create_scale_and_update() {
    let yard = Yard::up(10);
    yard.deploy(TUTORIAL, &["create", SERVICE]);
    yard.scheduled(SERVICE, 80, 1);
    yard.followed(ELB, 80, SERVICE, 80);
    let vip = yard.vip(ELB, 80);
    assert_eq!(shares(yard.client(), vip, 5).len(), 1);
    assert_eq!(yard.service(ELB, 80)["check"], "tcp", "the load balancer's");
    let own = format!("{SERVICE}.{CLUSTER}");
    assert_eq!(
        yard.found(&own, 80),
        yard.found(ELB, 80),
        "the same under its own name"
    );

    let answers = steady(yard.client(), vip, || {
        for count in [2, 3, 1] {
            yard.deploy(TUTORIAL, &["scale", "test", &count.to_string()]);
            yard.scheduled(SERVICE, 80, count);
            let took = yard.followed(ELB, 80, SERVICE, 80);
            println!("{count} tasks: followed after {took:.1?}");
        }
        yard.deploy(TUTORIAL, &["scale", SERVICE, "2"]);
        let before = yard.scheduled(SERVICE, 80, 2);
        yard.followed(ELB, 80, SERVICE, 80);
        yard.deploy("hello-world-changed.yml", &["update", SERVICE]);
        let replaced = || {
            let now = yard.truth(SERVICE, 80);
            now.ready.len() == 2 && now.ready.iter().all(|at| !before.ready.contains(at))
        };
        wait_until("new tasks", PATIENCE, replaced).expect("updated");
        yard.followed(ELB, 80, SERVICE, 80);
    });
    none_failed(&answers);
    assert_eq!(shares(yard.client(), vip, 40).len(), 2, "both answer");

    yard.deploy(TUTORIAL, &["scale", "test", "0"]);
    wait_until("nobody is left", PATIENCE, || {
        yard.truth(SERVICE, 80) == Behind::default()
    })
    .expect("scaled to nothing");
    yard.followed(ELB, 80, SERVICE, 80);
    open(yard.client(), vip).expect_err("it is refused");
}

#[test]
fn a_task_that_stops_gets_no_new_flow_and_keeps_those_it_has() {
    let yard = Yard::up(15);
    yard.deploy(TUTORIAL, &["create", SERVICE]);
    yard.deploy(TUTORIAL, &["scale", "test", "2"]);
    yard.scheduled(SERVICE, 80, 2);
    yard.followed(ELB, 80, SERVICE, 80);
    let vip = yard.vip(ELB, 80);
    let mut open_ones = one_to_each(yard.client(), vip, 2);
    yard.deploy(TUTORIAL, &["scale", "test", "1"]);
    let draining = yard.scheduled(SERVICE, 80, 1);
    assert_eq!(draining.drain.len(), 1, "it still drains: {draining:?}");
    yard.followed(ELB, 80, SERVICE, 80);
    let new = shares(yard.client(), vip, 50);
    assert_eq!(new.len(), 1, "only one takes new flows");
    for (name, stream) in &mut open_ones {
        assert!(echoes(stream), "{name}");
    }
    let gone = || yard.found(ELB, 80).drain.is_empty();
    wait_until("it leaves", PATIENCE, gone).expect("it ends");
    yard.followed(ELB, 80, SERVICE, 80);
}

#[test]
fn fargate_tasks_behind_two_target_groups_have_two_vip_ports() {
    let yard = Yard::up(10);
    let (file, service) = ("web-fargate.yml", "web-fargate");
    yard.deploy(file, &["create", service]);
    let both = |yard: &Yard, count| {
        yard.scheduled(service, 80, count);
        for (port, container_port) in [(80, 80), (8443, 9000)] {
            yard.followed("web-nlb", port, service, container_port);
            assert_eq!(yard.found("web-nlb", port).ready.len(), count);
            let vip = yard.vip("web-nlb", port);
            assert_eq!(
                shares(yard.client(), vip, 60).len(),
                count,
                "each answers at {port}"
            );
        }
    };
    both(&yard, 2);
    let answers = steady(yard.client(), yard.vip("web-nlb", 8443), || {
        yard.deploy(file, &["scale", service, "3"]);
        both(&yard, 3);
        yard.deploy(file, &["scale", service, "1"]);
        both(&yard, 1);
    });
    none_failed(&answers);
}

#[test]
fn a_deregistration_delay_resets_what_is_left_where_the_load_balancer_would() {
    // Far longer than the delay of the target groups, 3 s.
    let yard = Yard::up(90);
    let (file, service) = ("web-fargate.yml", "web-fargate");
    yard.deploy(file, &["create", service]);
    yard.scheduled(service, 80, 2);
    yard.followed("web-nlb", 80, service, 80);
    yard.followed("web-nlb", 8443, service, 9000);
    let connected = |port| one_to_each(yard.client(), yard.vip("web-nlb", port), 2);
    let (mut kept, mut ended) = (connected(80), connected(8443));
    yard.deploy(file, &["scale", service, "1"]);
    let left = yard.scheduled(service, 9000, 1);
    let one = || {
        ended
            .values_mut()
            .map(echoes)
            .filter(|echoed| *echoed)
            .count()
            == 1
    };
    wait_until("what is left is reset", PATIENCE, one).expect("the delay is over");
    assert_eq!(yard.truth(service, 9000), left, "while the task goes on");
    assert_eq!(left.drain.len(), 1);
    assert!(kept.values_mut().all(echoes), "an NLB leaves these alone");
}

#[test]
fn while_the_api_answers_nonsense_the_last_state_stays() {
    let yard = Yard::up(10);
    yard.deploy(TUTORIAL, &["create", SERVICE]);
    yard.deploy(TUTORIAL, &["scale", "test", "2"]);
    yard.scheduled(SERVICE, 80, 2);
    yard.followed(ELB, 80, SERVICE, 80);
    let (vip, before) = (yard.vip(ELB, 80), yard.found(ELB, 80));
    let answers = steady(yard.client(), vip, || {
        for (mode, why) in [
            ("half", "ListTasks"),
            ("error", "ServerException"),
            ("hang", "no answer within 10 s"),
            ("throttle", "ThrottlingException"),
        ] {
            yard.cloud.fault(yard.node(), mode).expect("set");
            yard.failing(why);
            assert_eq!(yard.found(ELB, 80), before, "{mode}");
        }
        // It is asked ever more rarely: in 20 s, a poll of 5 s would be 4, and the first three waits are 10, 20, 40 s.
        yard.cloud.calls(yard.node()).expect("counted");
        let began = Instant::now();
        let calls = wait_for("the next question", PATIENCE, || {
            let calls = yard.cloud.calls(yard.node()).expect("counted");
            calls.get("ListTasks").copied().filter(|asked| *asked > 0)
        });
        assert_eq!(calls.expect("it asks again"), 1);
        assert!(
            began.elapsed() > Duration::from_millis(5_500),
            "{:?}",
            began.elapsed()
        );
        yard.cloud.fault(yard.node(), "none").expect("set");
        let well = || yard.provider()["last_error"].is_null();
        wait_until("all is well again", PATIENCE, well).expect("it recovers");
        assert_eq!(yard.found(ELB, 80), before);
    });
    none_failed(&answers);
}

#[test]
fn an_api_that_is_killed_costs_no_connection_and_is_followed_when_it_is_back() {
    let mut yard = Yard::up(10);
    yard.deploy(TUTORIAL, &["create", SERVICE]);
    yard.deploy(TUTORIAL, &["scale", "test", "2"]);
    yard.scheduled(SERVICE, 80, 2);
    yard.followed(ELB, 80, SERVICE, 80);
    let (vip, before) = (yard.vip(ELB, 80), yard.found(ELB, 80));
    let agent = yard.stage.agent.pid();
    yard.cloud.kill().expect("killed");
    let answers = steady(yard.client(), vip, || {
        yard.failing("ListTasks");
        assert_eq!(yard.found(ELB, 80), before);
    });
    none_failed(&answers);
    yard.cloud.revive(&yard.stage.node).expect("it is back");
    let answers = steady(yard.client(), vip, || {
        let well = || yard.provider()["last_error"].is_null();
        wait_until("all is well again", PATIENCE, well).expect("it recovers");
        assert_eq!(yard.found(ELB, 80), before);
        yard.deploy(TUTORIAL, &["scale", "test", "3"]);
        yard.scheduled(SERVICE, 80, 3);
        yard.followed(ELB, 80, SERVICE, 80);
    });
    none_failed(&answers);
    assert_eq!(yard.stage.agent.pid(), agent);
    assert!(!yard.stage.agent.has_ended(), "without a restart");
}
