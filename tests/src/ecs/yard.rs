//! A node with an agent that reads an AWS, on the stage, and connections to what is behind its VIPs.
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

use serde_json::Value;

use super::{Behind, CLUSTER, Cloud, ENDPOINT, VARIABLES};
use crate::{
    lab::{Host, wait_for, wait_until},
    stage::{CONNECT, Stage},
};

/// How long deployfish, the scheduler or the agent may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A poll of the agent (5 s), and the time that it takes on a machine with other work.
const ONE_POLL: Duration = Duration::from_millis(6_500);
/// VIPs are leased of what the stage's clients have a route to.
const POOL: [&str; 2] = ["--vip-pool-v4", "10.99.1.1-10.99.255.254"];

/// deployfish's tutorial, its service and the load balancer in front of it.
pub const TUTORIAL: &str = "hello-world.yml";
/// See [`TUTORIAL`].
pub const SERVICE: &str = "hello-world-test";
/// See [`TUTORIAL`].
pub const ELB: &str = "hello-world-elb";

/// A node whose agent reads the stand-in's cluster.
pub struct Yard {
    /// What the agent reads.
    pub cloud: Cloud,
    /// Node, clients and agent.
    pub stage: Stage,
}

// === impl Yard ===

impl Yard {
    /// A task that is to stop goes on for `stop_delay` s; `flags`: more of the agent.
    pub fn up(stop_delay: u32, flags: &[&str]) -> Self {
        let own = [
            "--ecs",
            CLUSTER,
            "--ecs-region",
            "us-east-1",
            "--ecs-endpoint",
            ENDPOINT,
        ];
        // The agent comes first, and waits.
        let stage = Stage::up_with(&VARIABLES, "", &[&own[..], &POOL, flags].concat());
        let cloud = Cloud::start(&stage, stop_delay).expect("a stand-in");
        Self { cloud, stage }
    }

    /// Where agent and stand-in run.
    pub fn node(&self) -> &Host {
        &self.stage.node
    }

    /// Who connects.
    pub fn client(&self) -> &Host {
        &self.stage.clients[0]
    }

    /// Runs deployfish with a file of `tests/ecs`.
    pub fn deploy(&self, file: &str, words: &[&str]) {
        let said = self.cloud.deploy(self.node(), file, words);
        said.expect("deployfish does it");
    }

    /// deployfish's tutorial, with so many tasks that the agent knows.
    pub fn tutorial(&self, tasks: usize) {
        self.deploy(TUTORIAL, &["create", SERVICE]);
        let scaled = self.cloud.scale(self.node(), SERVICE, tasks);
        scaled.expect("scaled");
        self.scheduled(SERVICE, 80, tasks);
        self.followed(ELB, 80, SERVICE, 80);
    }

    /// Calls ECS.
    pub fn ecs(&self, operation: &str, arguments: &Value) -> Value {
        let answer = self.cloud.call(self.node(), "ecs", operation, arguments);
        answer.expect(operation)
    }

    /// What the stand-in has behind a port of a service.
    pub fn truth(&self, service: &str, port: u16) -> Behind {
        self.cloud
            .behind(self.node(), service, port)
            .expect("it says")
    }

    /// Waits until the stand-in has so many tasks that serve.
    pub fn scheduled(&self, service: &str, port: u16, ready: usize) -> Behind {
        let right = || Some(self.truth(service, port)).filter(|found| found.ready.len() == ready);
        wait_for("the tasks run", PATIENCE, right).expect("scheduled")
    }

    /// Waits until every task of the tutorial that serves is another than before, and the agent knows.
    pub fn replaced(&self, before: &Behind) {
        let new = || {
            let now = self.truth(SERVICE, 80).ready;
            now.len() == before.ready.len() && now.iter().all(|at| !before.ready.contains(at))
        };
        wait_until("new tasks", PATIENCE, new).expect("replaced");
        self.followed(ELB, 80, SERVICE, 80);
    }

    /// Waits until the tutorial has no task any more.
    pub fn emptied(&self) {
        let nobody = || self.truth(SERVICE, 80) == Behind::default();
        wait_until("nobody is left", PATIENCE, nobody).expect("its tasks end");
    }

    /// What the agent has at a VIP's port.
    pub fn found(&self, name: &str, port: u16) -> Behind {
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
    pub fn followed(&self, name: &str, port: u16, service: &str, container_port: u16) -> Duration {
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

    /// A VIP's port in `status`; `null`: there is none.
    pub fn service(&self, name: &str, port: u16) -> Value {
        let status = self.stage.status();
        let services = status["services"].as_array();
        let full = format!("{name}.ecs");
        let found = services
            .into_iter()
            .flatten()
            .find(|service| service["port"] == port && service["name"] == full.as_str());
        found.cloned().unwrap_or_default()
    }

    /// Where it is.
    pub fn vip(&self, name: &str, port: u16) -> SocketAddr {
        let service = self.service(name, port);
        let addr = service["addrs"][0].as_str().expect("an address");
        SocketAddr::new(addr.parse().expect("an address"), port)
    }

    /// What the agent says of its reading.
    pub fn provider(&self) -> Value {
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
    pub fn failing(&self, why: &str) {
        let told = || {
            self.provider()["last_error"]["reason"]
                .as_str()
                .is_some_and(|said| said.contains(why))
        };
        if wait_until("the agent says so", PATIENCE, told).is_err() {
            panic!("not {why:?}: {:#}", self.provider());
        }
    }

    /// Waits until the agent can read again.
    pub fn recovers(&self) {
        let well = || self.provider()["last_error"].is_null();
        wait_until("all is well again", PATIENCE, well).expect("it recovers");
    }
}

/// A connection and the name of the task that it came to.
///
/// # Errors
///
/// Why there is none.
pub fn open(client: &Host, vip: SocketAddr) -> Result<(TcpStream, String), String> {
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
pub fn shares(client: &Host, vip: SocketAddr, connections: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..connections {
        let (_, name) = open(client, vip).expect("an answer");
        *shares.entry(name).or_default() += 1;
    }
    shares
}

/// A connection to each of so many tasks.
pub fn one_to_each(client: &Host, vip: SocketAddr, tasks: usize) -> BTreeMap<String, TcpStream> {
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
pub fn echoes(stream: &mut TcpStream) -> bool {
    let mut echo = [0; 6];
    stream.write_all(b"still?").is_ok()
        && stream.read_exact(&mut echo).is_ok()
        && &echo == b"still?"
}

/// When each connection began, and who answered.
pub type Answers = Vec<(Instant, Result<String, String>)>;

/// Connects all the time while `act` is under way.
pub fn steady(client: &Host, vip: SocketAddr, act: impl FnOnce()) -> Answers {
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
pub fn none_failed(answers: &Answers) {
    let failures: Vec<_> = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err())
        .collect();
    assert!(answers.len() > 100, "{} connections", answers.len());
    assert_eq!(failures, [""; 0], "of {}", answers.len());
}
