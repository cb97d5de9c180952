//! The agent's statistics and orders, asked from the node itself: over TCP, and over the stats socket.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    lab::{Finished, wait_until},
    stage::{PATIENCE, Stage},
};

/// A VIP of the services of [`services`].
pub const VIP: &str = "10.99.0.1:80";
/// What HAProxy's tools call it.
pub const PROXY: &str = "10.99.0.1_80";
/// What they call its two backends.
pub const SERVERS: [&str; 2] = ["10_77_0_11_80", "10_77_0_12_80"];

/// Rows of the CSV by `svname`, each by field.
pub type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// A service with the backends `s1` and `s2`; `keys`: more of it.
pub fn services(keys: &str) -> String {
    format!(
        "services:\n- {{address: 10.99.0.1, port: 80, {keys} backends: ['10.77.0.11:80', '10.77.0.12:80']}}\n"
    )
}

/// A stage with those, as soon as its statistics show them.
pub fn stage(keys: &str) -> Stage {
    let stage = Stage::up(&services(keys), &[]);
    for server in SERVERS {
        expect_status(&stage, server, "UP");
    }
    stage
}

/// Runs a program on the node that must succeed; what it printed.
pub fn run(stage: &Stage, argv: &[&str]) -> String {
    let done = finish(stage, argv);
    let code = done.status.code();
    assert_eq!(code, Some(0), "{argv:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

/// Runs a program on the node; what it said is the test's to show, with `--nocapture` or when it fails.
pub fn finish(stage: &Stage, argv: &[&str]) -> Finished {
    let done = stage.node.run(argv).expect("it runs");
    println!("$ {}\n{}{}", argv.join(" "), done.stdout, done.stderr);
    done
}

/// The body of a page over TCP.
pub fn page(stage: &Stage, target: &str) -> String {
    let url = format!("http://127.0.0.1:9090{target}");
    run(stage, &["curl", "-sSf", "--max-time", "10", &url])
}

/// A page that is JSON.
pub fn json(stage: &Stage, target: &str) -> Value {
    serde_json::from_str(&page(stage, target)).expect("JSON")
}

/// How many things of a source were left out, by its counter; `source`: how its name begins.
pub fn left_out(stage: &Stage, source: &str) -> Option<u64> {
    let start = format!("lb_agent_provider_problems{{provider=\"{source}");
    let metrics = page(stage, "/metrics");
    let line = metrics.lines().find(|line| line.starts_with(&start))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The rows of [`PROXY`] in a CSV.
pub fn rows(csv: &str) -> Rows {
    rows_of(csv, PROXY)
}

/// The rows of one proxy in a CSV.
pub fn rows_of(csv: &str, proxy: &str) -> Rows {
    let mut lines = csv.lines();
    let head = lines.next().and_then(|line| line.strip_prefix("# "));
    let fields: Vec<_> = head.expect("a head").split(',').collect();
    let row = |line: &str| -> BTreeMap<String, String> {
        let values = line.split(',').map(str::to_owned);
        fields
            .iter()
            .map(|name| (*name).to_owned())
            .zip(values)
            .collect()
    };
    let all = lines.filter(|line| !line.is_empty()).map(row);
    let ours = all.filter(|row| row["pxname"] == proxy);
    ours.map(|row| (row["svname"].clone(), row)).collect()
}

/// Where the stats socket is.
pub fn socket(stage: &Stage) -> String {
    let path = stage.run_dir().join("stats.sock");
    path.display().to_string()
}

/// What the stats socket answers to a line.
pub fn ask(stage: &Stage, line: &str) -> String {
    const CLIENT: &str = "import socket, sys\n\
                          s = socket.socket(socket.AF_UNIX)\n\
                          s.connect(sys.argv[1])\n\
                          s.sendall(sys.argv[2].encode() + b'\\n')\n\
                          while True:\n \
                          b = s.recv(65536)\n \
                          if not b: break\n \
                          sys.stdout.write(b.decode())\n";
    run(stage, &["python3", "-c", CLIENT, &socket(stage), line])
}

/// Waits until the CSV shows a server with this status.
pub fn expect_status(stage: &Stage, server: &str, expected: &str) {
    let mut last = String::new();
    let shown = || {
        last = rows(&page(stage, "/;csv"))
            .get(server)
            .map(|row| row["status"].clone())
            .unwrap_or_default();
        last == expected
    };
    let seen = wait_until("the status is shown", PATIENCE, shown);
    assert!(seen.is_ok(), "{server} is {last:?}, not {expected:?}");
}

/// The environment with tools for HAProxy.
pub fn venv() -> PathBuf {
    let place = env::var_os("LB_HAPROXY_VENV");
    let place =
        place.expect("LB_HAPROXY_VENV; `cargo xtask test admin` installs the tools and says where");
    Path::new(&place).to_owned()
}
