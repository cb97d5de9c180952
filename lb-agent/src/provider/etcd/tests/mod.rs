//! The provider against a gateway that misbehaves on demand.

mod server;

use std::{net::IpAddr, time::Duration};

use tokio::task::JoinHandle;

use self::server::Server;
use super::*;
use crate::{
    provider::{Again, Snapshot},
    vip::{Family, VipName},
};

const DEADLINE: Duration = Duration::from_secs(20);
/// So long that only a watch explains a change.
const NEVER: Duration = Duration::from_secs(600);

struct Watched {
    rx: mpsc::Receiver<Update>,
    claims: Claims,
    task: JoinHandle<()>,
    again: Again,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(servers: &[&Server]) -> EtcdConfig {
    _ = rustls::crypto::ring::default_provider().install_default();
    let urls = servers.iter().map(|server| server.url.clone()).collect();
    let mut config = EtcdConfig::new(urls, "/lb/");
    config.timings.request = Duration::from_secs(2);
    config.timings.resync = NEVER;
    config.timings.claim_again = Duration::from_millis(50);
    config.timings.backoff.first = Duration::from_millis(20);
    config
}

fn watch_by(config: EtcdConfig) -> Watched {
    let (tx, rx) = mpsc::channel(64);
    let (claims, ends) = channels();
    let again = Again::default();
    let task = tokio::spawn(run(config, tx, ends, again.listen()));
    Watched {
        rx,
        claims,
        task,
        again,
    }
}

impl Watched {
    async fn next(&mut self) -> Result<Arc<Snapshot>, String> {
        let update = tokio::time::timeout(DEADLINE, self.rx.recv()).await;
        update
            .expect("an update in time")
            .expect("a provider that lives")
            .outcome
    }

    /// Waits for a state with exactly these services.
    async fn until(&mut self, services: &[&str]) {
        loop {
            let Ok(state) = self.next().await else {
                continue;
            };
            let found: Vec<_> = state
                .pools
                .iter()
                .map(|pool| pool.app.to_string())
                .collect();
            if found == services {
                return;
            }
        }
    }

    async fn until_failure(&mut self, part: &str) {
        while !self.next().await.is_err_and(|why| why.contains(part)) {}
    }

    async fn until_view(&mut self, holds: impl FnMut(&View) -> bool) {
        let view = self.claims.view.wait_for(holds);
        drop(
            tokio::time::timeout(DEADLINE, view)
                .await
                .expect("in time")
                .expect("it lives"),
        );
    }

    fn want(&self, pairs: &[(&str, &str)]) {
        let wanted = pairs.iter().map(|(text, addr)| {
            let addr: IpAddr = addr.parse().unwrap();
            ((name(text), Family::of(addr)), addr)
        });
        self.claims.wanted.send_replace(Arc::new(wanted.collect()));
    }
}

fn name(text: &str) -> VipName {
    VipName::from_canonical(text).unwrap()
}

fn service(name: &str) -> String {
    format!("services: [{{name: {name}, port: 1}}]")
}

#[tokio::test]
async fn documents_come_change_and_go_and_others_are_not_ours() {
    let server = Server::start().await;
    server.put("/lb/services/1", &service("/a"));
    server.put("/other/services/1", &service("/o"));
    let mut watched = watch_by(config(&[&server]));
    watched.until(&["/a"]).await;
    server.put("/lb/services/x/2", &service("/b"));
    watched.until(&["/a", "/b"]).await;
    server.put("/lb/services/1", &service("/c"));
    watched.until(&["/c", "/b"]).await;
    server.delete("/lb/services/x/2");
    watched.until(&["/c"]).await;
}

#[tokio::test]
async fn many_documents_are_read_page_by_page() {
    let server = Server::start().await;
    let names: Vec<String> = (0..1_203).map(|n| format!("/s{n:04}")).collect();
    for name in &names {
        server.put(&format!("/lb/services{name}"), &service(name));
    }
    let mut watched = watch_by(config(&[&server]));
    watched
        .until(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let pages = server
        .store()
        .asked
        .iter()
        .filter(|path| *path == "kv/range")
        .count();
    assert_eq!(pages, 3);
}

#[tokio::test]
async fn a_watch_that_ended_or_starts_too_late_is_begun_anew_from_a_listing() {
    let server = Server::start().await;
    server.put("/lb/services/1", &service("/a"));
    let mut watched = watch_by(config(&[&server]));
    watched.until(&["/a"]).await;
    {
        let mut store = server.store();
        store.silent = true;
        store.compacted = store.revision + 2;
    }
    server.put("/lb/services/1", &service("/b"));
    server.cut();
    // The listing is of a revision that is compacted by the time that the watch begins.
    let refused = |server: &Server| {
        server
            .store()
            .asked
            .iter()
            .filter(|path| *path == "watch")
            .count()
    };
    let twice = async {
        while refused(&server) < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, twice)
        .await
        .expect("it tries again");
    server.store().compacted = 0;
    watched.until(&["/b"]).await;
}

#[tokio::test]
async fn what_a_silent_watch_does_not_tell_is_found_by_comparing() {
    let server = Server::start().await;
    server.put("/lb/services/1", &service("/a"));
    let mut config = config(&[&server]);
    config.timings.resync = Duration::from_millis(50);
    let mut watched = watch_by(config);
    watched.until(&["/a"]).await;
    server.store().silent = true;
    server.put("/lb/services/1", &service("/b"));
    watched.until(&["/b"]).await;
    server.delete("/lb/services/1");
    watched.until(&[]).await;
}

#[tokio::test]
async fn who_is_asked_reads_anew_what_a_silent_watch_does_not_tell() {
    let server = Server::start().await;
    server.put("/lb/services/1", &service("/a"));
    let mut watched = watch_by(config(&[&server]));
    watched.until(&["/a"]).await;
    server.store().silent = true;
    server.put("/lb/services/1", &service("/b"));
    watched.again.ask();
    watched.until(&["/b"]).await;
}

#[tokio::test]
async fn a_token_is_fetched_and_renewed_when_it_is_not_good_any_more() {
    let server = Server::start().await;
    server.put("/lb/services/1", &service("/a"));
    server.store().token = Some("one".to_owned());
    let login = |password: &str| Login {
        user: "lb".to_owned(),
        password: password.into(),
    };
    let mut wrong = config(&[&server]);
    wrong.login = Some(login("wrong"));
    watch_by(wrong).until_failure("authentication failed").await;
    watch_by(config(&[&server]))
        .until_failure("invalid auth token")
        .await;
    let mut right = config(&[&server]);
    right.login = Some(login("geheim"));
    let mut watched = watch_by(right);
    watched.until(&["/a"]).await;
    server.store().token = Some("two".to_owned());
    server.cut();
    server.put("/lb/services/1", &service("/b"));
    watched.until(&["/b"]).await;
}

#[tokio::test]
async fn nonsense_and_silence_leave_the_last_state_and_another_member_is_asked() {
    let (server, other) = (Server::start().await, Server::start().await);
    server.put("/lb/services/1", &service("/a"));
    let mut watched = watch_by(config(&[&server]));
    watched.until(&["/a"]).await;
    server.store().nonsense = Some("{\"result".to_owned());
    server.cut();
    watched.until_failure("an answer that is not etcd's").await;
    server.store().nonsense = None;
    watched.until(&["/a"]).await;

    other.put("/lb/services/1", &service("/b"));
    let mut both = config(&[&server, &other]);
    both.urls[0] = "http://127.0.0.1:1".parse().unwrap();
    watch_by(both).until(&["/b"]).await;
}

#[tokio::test]
async fn who_does_not_answer_is_given_up_in_time() {
    let server = Server::start().await;
    server.put("/lb/services/1", &service("/a"));
    let mut config = config(&[&server]);
    config.timings.request = Duration::from_millis(200);
    config.timings.resync = Duration::from_millis(100);
    let mut watched = watch_by(config);
    watched.until(&["/a"]).await;
    server.store().hanging = true;
    watched.until_failure("timed out").await;
    server.store().hanging = false;
    server.put("/lb/services/1", &service("/b"));
    watched.until(&["/b"]).await;
}

#[tokio::test]
async fn a_free_address_is_claimed_and_another_is_learnt() {
    let server = Server::start().await;
    server.put("/lb/vips/ipv4/b.m", "11.0.0.2");
    server.put("/lb/addresses/11.0.0.2", "b.m");
    let mut watched = watch_by(config(&[&server]));
    watched.until(&[]).await;
    // The first is free, the second's name has another address, the third's address another name.
    watched.want(&[
        ("a.m", "11.0.0.1"),
        ("b.m", "11.0.0.9"),
        ("c.m", "11.0.0.2"),
        ("a.m", "fd01:c::1"),
    ]);
    watched
        .until_view(|view| {
            let shared = view.shared.as_ref().unwrap();
            shared.iter().count() == 3
        })
        .await;
    assert_eq!(server.get("/lb/vips/ipv4/a.m").as_deref(), Some("11.0.0.1"));
    assert_eq!(
        server.get("/lb/addresses/fd01:c::1").as_deref(),
        Some("a.m")
    );
    assert_eq!(server.get("/lb/vips/ipv4/b.m").as_deref(), Some("11.0.0.2"));
    assert_eq!(server.get("/lb/vips/ipv4/c.m"), None);
}

#[tokio::test]
async fn both_keys_of_a_name_are_removed_at_once_or_neither_is() {
    let server = Server::start().await;
    for (name, addr) in [("a.m", "11.0.0.1"), ("b.m", "11.0.0.2")] {
        server.put(&format!("/lb/vips/ipv4/{name}"), addr);
        server.put(&format!("/lb/addresses/{addr}"), name);
    }
    let mut watched = watch_by(config(&[&server]));
    watched.until(&[]).await;
    let release = async |name, addr: &str| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let name = VipName::from_canonical(name).unwrap();
        let release = (name, vec![addr.parse::<IpAddr>().unwrap()], answer);
        watched.claims.releases.send(release).await.unwrap();
        answered.await.unwrap()
    };
    assert_eq!(release("a.m", "11.0.0.1").await, Ok(()));
    assert_eq!(server.get("/lb/vips/ipv4/a.m"), None);
    assert_eq!(server.get("/lb/addresses/11.0.0.1"), None);
    // By now another name has the address.
    server.put("/lb/addresses/11.0.0.2", "c.m");
    let why = release("b.m", "11.0.0.2").await.unwrap_err();
    assert!(why.contains("changed meanwhile"), "{why}");
    assert_eq!(server.get("/lb/vips/ipv4/b.m").as_deref(), Some("11.0.0.2"));
    server.store().read_only = true;
    let why = release("b.m", "11.0.0.2").await.unwrap_err();
    assert!(why.contains("permission denied"), "{why}");
}

#[tokio::test]
async fn a_node_that_drains_says_so_until_it_is_ready() {
    let server = Server::start().await;
    server.put(
        "/lb/drained/n2",
        r#"{"since": 5, "addresses": ["10.0.0.2"]}"#,
    );
    server.put("/lb/drained/n3", "yes");
    let mut config = config(&[&server]);
    config.node = Some("n1".to_owned());
    let mut watched = watch_by(config);
    let state = watched.next().await.unwrap();
    let subjects: Vec<_> = state.problems.iter().map(|one| &*one.subject).collect();
    assert_eq!(subjects, ["/lb/drained/n3"]);
    let own = Drained {
        since: 7,
        addresses: ["10.0.0.1".parse().unwrap()].into(),
        ..Drained::default()
    };
    let tell = |watched: &Watched, drained| {
        let own = OwnDrain {
            drained,
            partial: false,
        };
        watched.claims.own_drain.send_replace(Some(own));
    };
    tell(&watched, Some(own.clone()));
    let both = |view: &View| view.drained.keys().eq(["n1", "n2"]);
    watched.until_view(both).await;
    assert_eq!(watched.claims.view.borrow().drained["n1"], own);
    server.store().read_only = true;
    tell(&watched, None);
    let untold = |view: &View| {
        view.untold
            .as_ref()
            .is_some_and(|why| why.contains("is ready again"))
    };
    watched.until_view(untold).await;
    assert!(server.get("/lb/drained/n1").is_some());
}

#[tokio::test]
async fn who_leaves_the_drain_is_removed_from_it() {
    let server = Server::start().await;
    server.put(
        "/lb/drained/n1",
        r#"{"since": 5, "addresses": ["10.0.0.1"]}"#,
    );
    let mut config = config(&[&server]);
    config.node = Some("n1".to_owned());
    let mut watched = watch_by(config);
    watched.until(&[]).await;
    let known = |view: &View| view.drained.len() == 1;
    watched.until_view(known).await;
    watched
        .claims
        .own_drain
        .send_replace(Some(OwnDrain::default()));
    watched.until_view(|view| view.drained.is_empty()).await;
    assert_eq!(server.get("/lb/drained/n1"), None);
}

#[tokio::test]
async fn who_may_only_read_says_so_and_reads_on() {
    let server = Server::start().await;
    server.store().read_only = true;
    let mut watched = watch_by(config(&[&server]));
    watched.until(&[]).await;
    watched.want(&[("a.m", "11.0.0.1")]);
    watched
        .until_view(|view| {
            view.trouble
                .as_ref()
                .is_some_and(|why| why.contains("permission denied"))
        })
        .await;
    server.put("/lb/services/1", &service("/a"));
    watched.until(&["/a"]).await;
}

#[tokio::test]
async fn entries_that_make_no_sense_are_ignored_and_told() {
    let server = Server::start().await;
    for (key, value) in [
        ("vips/ipv4/a.m", "11.0.0.1"),
        ("addresses/11.0.0.1", "b.m"),
        ("vips/ipv4/B M", "11.0.0.3"),
        ("vips/ipv4/c.m", "fd01:c::1"),
        ("vips/ipv6/d.m", "fd01:c::2"),
        ("addresses/fd01:c::2", "d.m"),
    ] {
        server.put(&format!("/lb/{key}"), value);
    }
    let mut watched = watch_by(config(&[&server]));
    let state = watched.next().await.unwrap();
    let told: Vec<_> = state
        .problems
        .iter()
        .map(|one| format!("{}: {}", one.subject, one.reason))
        .collect();
    assert_eq!(
        told,
        [
            "/lb/vips/ipv4/B M: the key does not end with the name of a VIP; the entry is ignored",
            "/lb/vips/ipv4/a.m: /lb/addresses/11.0.0.1 does not say a.m; remove both, or put both; the entry is ignored",
            "/lb/vips/ipv4/c.m: \"fd01:c::1\" is not an IPv4 address; the entry is ignored",
        ]
    );
    let view = watched.claims.view.borrow().clone();
    let shared = view.shared.unwrap();
    let agreed: Vec<_> = shared
        .iter()
        .map(|(addr, name)| format!("{addr} {name}"))
        .collect();
    assert_eq!(agreed, ["fd01:c::2 d.m"]);
}

#[tokio::test]
async fn a_node_enters_itself_as_a_peer_with_a_lease_and_anew_when_it_is_gone() {
    let server = Server::start().await;
    server.put("/lb/peers/n2", r#"{"addresses": ["10.0.0.2", "fd00::2"]}"#);
    server.put("/lb/peers/n3", r#"{"addresses": ["127.0.0.1"]}"#);
    let mut config = config(&[&server]);
    config.node = Some("n1".to_owned());
    config.member = Some(["10.0.0.1".parse().unwrap()].into());
    let mut watched = watch_by(config);
    let state = watched.next().await.unwrap();
    let subjects: Vec<_> = state.problems.iter().map(|one| &*one.subject).collect();
    assert_eq!(subjects, ["/lb/peers/n3"]);
    let both = |view: &View| view.members.keys().eq(["n1", "n2"]);
    watched.until_view(both).await;
    let members = Arc::clone(&watched.claims.view.borrow().members);
    assert_eq!(members["n2"].len(), 2);
    assert_eq!(
        server.get("/lb/peers/n1").as_deref(),
        Some(r#"{"addresses":["10.0.0.1"]}"#)
    );
    let lease = server.store().leased["/lb/peers/n1"].clone();
    let granted: usize = lease.parse().unwrap();
    assert_eq!(server.store().leases[granted - 1], "600");
    server.delete("/lb/peers/n1");
    watched
        .until_view(|view| view.members.keys().eq(["n2"]))
        .await;
    watched.until_view(both).await;
    // Who may not write says so, and goes on to know the others.
    server.store().read_only = true;
    server.delete("/lb/peers/n1");
    let unlisted = |view: &View| {
        view.unlisted
            .as_ref()
            .is_some_and(|why| why.contains("do not know this one"))
    };
    watched.until_view(unlisted).await;
    assert!(watched.claims.view.borrow().members.contains_key("n2"));
}

#[tokio::test]
async fn a_nodes_entry_is_renewed_before_its_lease_is_over() {
    let server = Server::start().await;
    let mut config = config(&[&server]);
    config.node = Some("n1".to_owned());
    config.member = Some(["10.0.0.1".parse().unwrap()].into());
    config.timings.lease = Duration::from_secs(1);
    let _watched = watch_by(config);
    let deadline = std::time::Instant::now() + DEADLINE;
    while server.store().leases.len() < 3 {
        assert!(std::time::Instant::now() < deadline, "not renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let leased = server.store().leased["/lb/peers/n1"].clone();
    assert!(leased.parse::<usize>().unwrap() >= 2, "{leased}");
}
