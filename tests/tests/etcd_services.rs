//! A real etcd: documents in it are served, each fails alone, and while it is away everything goes on.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_tests::{
    admin::left_out,
    etcd::{Certificates, Etcd},
    lab::wait_until,
    stage::{PATIENCE, Stage, connect},
};
use serde_json::Value;

const AT: &str = "127.0.0.1:2379";
/// Its clients have a route to these.
const POOL: [&str; 2] = ["--vip-pool-v4", "10.99.1.1-10.99.255.254"];
const KEY: &str = "/lb-agent/services/a";
const VIP: &str = "10.99.0.1:80";

/// A node with an agent that reads an etcd beside it.
struct Yard {
    // Ends before its host does.
    etcd: Etcd,
    stage: Stage,
}

impl Yard {
    /// The agent comes up before etcd does.
    fn up(flags: &[&str]) -> Self {
        let at: SocketAddr = AT.parse().expect("an address");
        let url = format!("http://{AT}");
        let stage = Stage::up("", &[&["--etcd", &url], &POOL[..], flags].concat());
        let mut etcd = Etcd::new(&stage.node, at, None);
        etcd.start(&stage.node).expect("etcd");
        Self { etcd, stage }
    }

    fn put(&self, key: &str, value: &str) {
        self.etcd.put(&self.stage.node, key, value).expect("put");
    }

    fn client(&self, words: &[&str]) {
        self.etcd.client(&self.stage.node, words).expect("done");
    }

    /// Waits until all of several connections come to that server; empty: until none is taken.
    fn expect(&self, vip: &str, server: &str) {
        let client = &self.stage.clients[0];
        let reached = wait_until("the service is as expected", PATIENCE, || {
            (0..3).all(|_| match connect(client, vip) {
                Ok((_, name)) => name == server,
                Err(_) => server.is_empty(),
            })
        });
        if reached.is_err() {
            panic!("{vip} never leads to {server:?}: {:#}", self.stage.status());
        }
    }

    /// Waits until `status` shows this somewhere, or not any more.
    fn shows(&self, what: &str, shown: bool) {
        let seen = wait_until("status shows it", PATIENCE, || {
            let status = self.stage.status();
            !status.is_null() && status.to_string().contains(what) == shown
        });
        if seen.is_err() {
            panic!("status, {what:?} ({shown}): {:#}", self.stage.status());
        }
    }
}

/// A document with one service at an address of its own.
fn document(vip: &str, server: u8) -> String {
    let (addr, port) = vip.split_once(':').expect("a port");
    format!("services: [{{address: {addr}, port: {port}, backends: ['10.77.0.1{server}:80']}}]")
}

#[test]
fn services_appear_change_and_go() {
    let yard = Yard::up(&[]);
    yard.put(KEY, &document(VIP, 1));
    yard.expect(VIP, "s1");
    let changed = Instant::now();
    yard.put(KEY, &document(VIP, 2));
    yard.expect(VIP, "s2");
    assert!(
        changed.elapsed() < Duration::from_secs(5),
        "{:?}",
        changed.elapsed()
    );
    // In folders, too.
    yard.put("/lb-agent/services/team/b", &document("10.99.0.2:80", 3));
    yard.expect("10.99.0.2:80", "s3");
    yard.put("/other/services/c", &document("10.99.0.3:80", 3));
    yard.client(&["del", KEY]);
    yard.expect(VIP, "");
    yard.expect("10.99.0.2:80", "s3");
    yard.expect("10.99.0.3:80", "");
}

#[test]
fn a_bad_document_costs_itself_alone() {
    let mut yard = Yard::up(&[]);
    yard.put(KEY, &document(VIP, 1));
    yard.put("/lb-agent/services/b", "services: [{addres: 10.99.0.2}]");
    yard.expect(VIP, "s1");
    yard.shows(
        "/lb-agent/services/b:1:13: unknown key addres; did you mean address?",
        true,
    );
    let counted = || left_out(&yard.stage, "etcd:") == Some(1);
    wait_until("it is counted", PATIENCE, counted).expect("it alone");
    yard.put("/lb-agent/services/b", &document("10.99.0.2:80", 2));
    yard.expect("10.99.0.2:80", "s2");
    yard.shows("unknown key", false);
    // What it had stays, while others change.
    yard.put("/lb-agent/services/b", "{{{");
    yard.put(KEY, &document(VIP, 3));
    yard.expect(VIP, "s3");
    yard.expect("10.99.0.2:80", "s2");
    yard.shows("its services stay as they were", true);
    // A new agent never saw it good: what the kernel carries stays, and all others are followed.
    yard.stage.revive();
    yard.shows("nothing of it is served yet", true);
    yard.put(KEY, &document(VIP, 2));
    yard.expect(VIP, "s2");
    yard.expect("10.99.0.2:80", "s2");
    yard.client(&["del", "/lb-agent/services/b"]);
    yard.expect("10.99.0.2:80", "");
    // Beyond the operator's bounds: an address, and a port of the node; the VIP of that is served all the same.
    yard.put("/lb-agent/services/c", &document("192.0.2.1:80", 1));
    yard.shows(
        "outside the ranges that the operator allows (--ip-vips)",
        true,
    );
    let ssh =
        "services: [{address: 10.99.0.4, port: 80, external: 22, backends: ['10.77.0.13:80']}]";
    yard.put("/lb-agent/services/d", ssh);
    yard.shows("it is outside --node-ports", true);
    yard.expect("10.99.0.4:80", "s3");
    // Of two documents the first by its key says what a VIP is like.
    let shaped = |keys: &str, server| {
        document(VIP, server).replace("port: 80", &format!("port: 80, {keys}"))
    };
    yard.put(KEY, &shaped("rate: 1000", 1));
    yard.put("/lb-agent/services/e", &shaped("rate: 2000", 2));
    yard.shows(
        "/lb-agent/services/a comes first and has another rate",
        true,
    );
    yard.expect(VIP, "s1");
    yard.client(&["del", "/lb-agent/services/e"]);
    let big = format!("services: [] # {}", "x".repeat(1_000_000));
    let file = yard.stage.node.dir().join("big");
    fs::write(&file, big).expect("written");
    let put = format!(
        "etcdctl --endpoints=http://{AT} put /lb-agent/services/big < {}",
        file.display()
    );
    yard.stage
        .node
        .run(&["sh", "-c", &put])
        .expect("it runs")
        .ok()
        .expect("put");
    yard.put(KEY, &document(VIP, 1));
    yard.expect(VIP, "s1");
}

#[test]
fn while_etcd_is_away_everything_goes_on_and_it_is_followed_again_without_a_restart() {
    let mut yard = Yard::up(&[]);
    yard.put(KEY, &document(VIP, 1));
    yard.expect(VIP, "s1");
    let (held, _) = connect(&yard.stage.clients[0], VIP).expect("a connection");
    yard.etcd.kill().expect("killed");
    yard.shows("\"last_error\":{", true);
    yard.expect(VIP, "s1");
    // The agent, too: what the kernel carries stays, though nobody can say whose it is.
    yard.stage.revive();
    yard.expect(VIP, "s1");
    yard.etcd.start(&yard.stage.node).expect("etcd");
    yard.put(KEY, &document(VIP, 2));
    yard.expect(VIP, "s2");
    drop(held);

    // Frozen, its connections stay and nobody answers.
    yard.etcd.freeze(true).expect("frozen");
    yard.expect(VIP, "s2");
    yard.etcd.freeze(false).expect("thawed");
    yard.put(KEY, &document(VIP, 3));
    yard.expect(VIP, "s3");
}

#[test]
fn killed_again_and_again_under_load_it_costs_no_connection() {
    let mut yard = Yard::up(&[]);
    yard.put(KEY, &document(VIP, 1));
    yard.expect(VIP, "s1");
    for _ in 0..3 {
        yard.etcd.kill().expect("killed");
        for _ in 0..50 {
            let (_, name) = connect(&yard.stage.clients[0], VIP).expect("a connection");
            assert_eq!(name, "s1");
        }
        yard.etcd.start(&yard.stage.node).expect("etcd");
    }
    yard.put(KEY, &document(VIP, 2));
    yard.expect(VIP, "s2");
}

#[test]
fn a_user_who_may_only_read_is_served_and_claims_wait_for_the_right_to_write() {
    let password = std::env::temp_dir().join(format!("lb-etcd-{}", std::process::id()));
    fs::write(&password, "geheim\n").expect("written");
    let file = password.display().to_string();
    let mut yard = Yard::up(&["--etcd-user", "lb", "--etcd-password-file", &file]);
    for words in [
        &["user", "add", "lb:geheim"][..],
        &["role", "add", "reader"],
        &[
            "role",
            "grant-permission",
            "reader",
            "--prefix=true",
            "read",
            "/lb-agent/",
        ],
        &["user", "grant-role", "lb", "reader"],
    ] {
        yard.client(words);
    }
    yard.shows("leave --etcd-user out", true);
    let node = &yard.stage.node;
    yard.etcd.want_passwords(node).expect("auth");
    yard.put(KEY, &document(VIP, 1));
    yard.expect(VIP, "s1");
    let named = "services: [{name: /web, port: 80, backends: ['10.77.0.12:80']}]";
    yard.put("/lb-agent/services/named", named);
    yard.shows("addresses are not claimed in etcd", true);
    yard.shows("permission denied", true);
    let vip = address(&yard.stage.status());
    yard.expect(&format!("{vip}:80"), "s2");

    // Tokens do not outlive a restart of etcd: the agent logs in anew.
    yard.etcd.kill().expect("killed");
    yard.etcd.start(&yard.stage.node).expect("etcd");
    yard.put(KEY, &document(VIP, 3));
    yard.expect(VIP, "s3");
    for folder in ["vips", "addresses"] {
        let path = format!("/lb-agent/{folder}/");
        yard.client(&[
            "role",
            "grant-permission",
            "reader",
            "--prefix=true",
            "readwrite",
            &path,
        ]);
    }
    yard.stage.revive();
    let claimed = wait_until("the address is claimed", PATIENCE, || {
        let key = format!("/lb-agent/addresses/{vip}");
        yard.etcd
            .get(&yard.stage.node, &key)
            .is_ok_and(|name| name == "web.file")
    });
    claimed.expect("it may write");
    yard.shows("not claimed", false);
    let _ = fs::remove_file(password);
}

/// The address of the first named VIP.
fn address(status: &Value) -> String {
    let services = status["services"].as_array().into_iter().flatten();
    let mut named = services.filter(|service| service["name"].is_string());
    let service = named.next().expect("a named VIP");
    service["addrs"][0].as_str().expect("an address").to_owned()
}

#[test]
fn it_is_read_over_tls_with_a_certificate_of_our_own() {
    let dir = std::env::temp_dir().join(format!("lb-etcd-tls-{}", std::process::id()));
    let certificates = Certificates::make(&dir).expect("certificates");
    let text = |path: &std::path::Path| path.display().to_string();
    let url = format!("https://{AT}");
    let flags = [
        "--etcd",
        &url,
        "--etcd-ca-file",
        &text(&certificates.ca),
        "--etcd-cert-file",
        &text(&certificates.certificate),
        "--etcd-key-file",
        &text(&certificates.key),
    ];
    let stage = Stage::up("", &flags);
    let mut etcd = Etcd::new(
        &stage.node,
        AT.parse().expect("an address"),
        Some(&certificates),
    );
    etcd.start(&stage.node).expect("etcd");
    let yard = Yard { etcd, stage };
    yard.put(KEY, &document(VIP, 1));
    yard.expect(VIP, "s1");
    let _ = fs::remove_dir_all(&dir);
}

#[test]
fn what_was_compacted_away_is_read_anew() {
    let mut yard = Yard::up(&[]);
    yard.put(KEY, &document(VIP, 1));
    yard.expect(VIP, "s1");
    // While the agent's connection is dead, revisions pass and are forgotten.
    yard.etcd.kill().expect("killed");
    yard.etcd.start(&yard.stage.node).expect("etcd");
    for server in [1, 2, 3, 2] {
        yard.put(KEY, &document(VIP, server));
    }
    let status = yard
        .etcd
        .client(&yard.stage.node, &["get", KEY, "--write-out=json"]);
    let status: Value = serde_json::from_str(&status.expect("an answer")).expect("JSON");
    let revision = status["header"]["revision"].to_string();
    yard.client(&["compact", &revision]);
    yard.expect(VIP, "s2");
    yard.put(KEY, &document(VIP, 3));
    yard.expect(VIP, "s3");
}
