//! An AWS in a lab host: moto with a scheduler (`tests/ecs/stand_in.py`), and deployfish as its client.

pub mod yard;

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::{
    lab::{Host, Process, http, wait_until},
    stage::Stage,
};

/// The cluster that the stand-in makes.
pub const CLUSTER: &str = "hello-world-cluster";
/// Where it listens, on the stage's node.
pub const ENDPOINT: &str = "http://127.0.0.1:5055";
/// The queue to which it tells what happens to tasks.
pub const QUEUE: &str = "http://127.0.0.1:5055/123456789012/lb-events";
/// What an agent needs to ask it.
pub const VARIABLES: [&str; 5] = [
    "AWS_ACCESS_KEY_ID=testing",
    "AWS_SECRET_ACCESS_KEY=testing",
    "AWS_CONFIG_FILE=/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
    "AWS_EC2_METADATA_DISABLED=true",
];

const PORT: u16 = 5055;
/// Python takes a while to load all of moto.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running stand-in. The programs of its tasks end with the node.
#[derive(Debug)]
pub struct Cloud {
    dir: PathBuf,
    venv: PathBuf,
    argv: Vec<String>,
    stand_in: Process,
}

/// Addresses behind one container port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Those that take new flows.
    pub ready: Vec<String>,
    /// Those that take none: they drain, or their health checks do not say that they are well.
    pub drain: Vec<String>,
}

// === impl Cloud ===

impl Cloud {
    /// Starts one on the stage's node; the first two of its servers are hosts, the second client is Fargate's. A
    /// task that is to stop goes on for `stop_delay` s.
    ///
    /// # Errors
    ///
    /// moto is not installed, or does not start.
    pub fn start(stage: &Stage, stop_delay: u32) -> Result<Self> {
        let venv = env::var_os("LB_ECS_VENV").context(
            "LB_ECS_VENV does not say where moto and deployfish are; `cargo xtask test ecs` installs them and says it",
        )?;
        let venv = PathBuf::from(venv);
        let python = venv.join("bin/python");
        ensure!(
            python.is_file(),
            "{} is missing; remedy: `cargo xtask setup --test`",
            python.display()
        );
        let dir = stage.node.dir().join("cloud");
        std::fs::create_dir_all(&dir)?;
        let text = |path: &Path| path.display().to_string();
        let netns = |host: &Host| host.netns().name().to_owned();
        let argv = [
            text(&python),
            text(&folder().join("stand_in.py")),
            PORT.to_string(),
            "--dir".to_owned(),
            text(&dir),
            "--host".to_owned(),
            format!("10.77.0.11={}", netns(&stage.servers[0])),
            "--host".to_owned(),
            format!("10.77.0.12={}", netns(&stage.servers[1])),
            "--fargate".to_owned(),
            // Port 80 of the servers is taken.
            netns(&stage.clients[1]),
            "--stop-delay".to_owned(),
            stop_delay.to_string(),
        ];
        Ok(Self {
            stand_in: run(&stage.node, &argv)?,
            argv: argv.to_vec(),
            dir,
            venv,
        })
    }

    /// Kills it as it is; the programs of its tasks go on.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.stand_in.signal(Signal::KILL)?;
        wait_until("the stand-in is gone", PATIENCE, || {
            self.stand_in.has_ended()
        })
    }

    /// Starts it again, with the state that it had.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn revive(&mut self, node: &Host) -> Result<()> {
        self.stand_in = run(node, &self.argv)?;
        Ok(())
    }

    /// Runs deployfish with a file of `tests/ecs`; what it prints.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn deploy(&self, node: &Host, file: &str, words: &[&str]) -> Result<String> {
        self.deploy_telling(node, file, words, "")
    }

    /// As [`Cloud::deploy`]; what it asks is answered so.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn deploy_telling(
        &self,
        node: &Host,
        file: &str,
        words: &[&str],
        answer: &str,
    ) -> Result<String> {
        let program = self.venv.join("bin/deploy").display().to_string();
        let file = folder().join(file).display().to_string();
        let told = ["sh", "-c", "echo \"$0\" | \"$@\"", answer];
        let argv = [&told[..], &[&program, "-f", &file], words].concat();
        self.run(node, &argv)
    }

    /// Calls an operation as boto3 names it, with arguments as boto3 takes them, such as `ecs` and
    /// `describe_services`; what it answers.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn call(
        &self,
        node: &Host,
        service: &str,
        operation: &str,
        arguments: &Value,
    ) -> Result<Value> {
        const CALL: &str = "import boto3, json, sys\n\
            api, operation, arguments = sys.argv[1:]\n\
            answer = getattr(boto3.client(api), operation)(**json.loads(arguments))\n\
            print(json.dumps(answer, default=str))";
        let python = self.venv.join("bin/python").display().to_string();
        let arguments = arguments.to_string();
        let argv = [python.as_str(), "-c", CALL, service, operation, &arguments];
        Ok(serde_json::from_str(&self.run(node, &argv)?)?)
    }

    /// Runs a client of AWS; what it prints.
    fn run(&self, node: &Host, client: &[&str]) -> Result<String> {
        let endpoint = format!("AWS_ENDPOINT_URL={ENDPOINT}");
        let home = format!("HOME={}", self.dir.display());
        // deployfish's environment file is looked for where it runs.
        let place = self.dir.display().to_string();
        let own = [
            "env",
            "-C",
            &place,
            &endpoint,
            &home,
            "AWS_DEFAULT_REGION=us-east-1",
            "NO_COLOR=1",
        ];
        let done = node.run(&[&own, &VARIABLES[..], client].concat())?;
        if !done.status.success() {
            bail!(
                "{client:?}: {}\n{}\n{}",
                done.status,
                done.stdout,
                done.stderr
            );
        }
        Ok(done.stdout)
    }

    /// Has ECS answer so from now on: `throttle`, `error`, `half`, `hang`, `slow`, or `none`.
    ///
    /// # Errors
    ///
    /// The stand-in does not answer.
    pub fn fault(&self, node: &Host, mode: &str) -> Result<()> {
        self.order(node, &format!("fault?mode={mode}"))
    }

    /// Has a service so many tasks, whatever ECS answers to others.
    ///
    /// # Errors
    ///
    /// The stand-in does not answer.
    pub fn scale(&self, node: &Host, service: &str, count: usize) -> Result<()> {
        self.order(node, &format!("scale?service={service}&count={count}"))
    }

    /// Has the health checks of a task say so from now on, or those of all tasks of a service by its name: `HEALTHY`,
    /// `UNHEALTHY`.
    ///
    /// # Errors
    ///
    /// The stand-in does not answer.
    pub fn health(&self, node: &Host, of: &str, says: &str) -> Result<()> {
        self.order(node, &format!("health?of={of}&says={says}"))
    }

    /// Requests by operation, since the last call.
    ///
    /// # Errors
    ///
    /// The stand-in does not answer.
    pub fn calls(&self, node: &Host) -> Result<BTreeMap<String, u64>> {
        let calls = self.ask(node, "GET", "/stand-in/calls")?;
        Ok(serde_json::from_value(calls)?)
    }

    /// What is behind a container port of a service, by the scheduler's own books.
    ///
    /// # Errors
    ///
    /// The stand-in does not answer.
    pub fn behind(&self, node: &Host, service: &str, port: u16) -> Result<Behind> {
        let all = self.ask(node, "GET", "/stand-in/backends")?;
        let found = &all[format!("{service}:{port}")];
        let list = |side: &str| -> Vec<String> {
            let list = found[side].as_array().into_iter().flatten();
            list.filter_map(|at| at.as_str().map(str::to_owned))
                .collect()
        };
        Ok(Behind {
            ready: list("ready"),
            drain: list("drain"),
        })
    }

    fn order(&self, node: &Host, what: &str) -> Result<()> {
        self.ask(node, "POST", &format!("/stand-in/{what}"))
            .map(drop)
    }

    fn ask(&self, node: &Host, method: &str, path: &str) -> Result<Value> {
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        node.enter(|| http::request(at, method, path, &Value::Null))??
            .json()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.kill();
        // They would hold on to the node's cgroup for a moment longer than the node itself.
        let known = std::fs::read_to_string(self.dir.join("programs.json")).unwrap_or_default();
        let known: Value = serde_json::from_str(&known).unwrap_or_default();
        let pids = known.as_object().into_iter().flat_map(|all| all.values());
        for pid in pids.filter_map(|kept| kept["pid"].as_i64()) {
            let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                continue;
            };
            let _ = kill_process(pid, Signal::KILL);
            let gone = || test_kill_process(pid).is_err();
            let _ = wait_until("a task's program is gone", Duration::from_secs(1), gone);
        }
    }
}

fn run(node: &Host, argv: &[String]) -> Result<Process> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut stand_in = node.start("stand-in", &words)?;
    let up = wait_until("moto is up", PATIENCE, || {
        stand_in.has_ended() || stand_in.stdout().contains("ready")
    });
    ensure!(up.is_ok() && !stand_in.has_ended(), "{}", stand_in.stderr());
    Ok(stand_in)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ecs")
}
