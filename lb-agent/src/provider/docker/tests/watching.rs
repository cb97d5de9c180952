//! The watcher against an engine that fails in every way: the state of the last good list stays.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::{
    super::{Timings, run},
    *,
};
use crate::provider::{Again, Update, backoff::Steps};

/// Longer than every deadline of the client's.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a request is answered.
#[derive(Clone, Copy, Debug, Default)]
enum Manner {
    #[default]
    Well,
    Refused,
    Half,
    Garbage,
    Silent,
    Missing,
    /// In a version of the API that it does not speak.
    Unspoken,
}

/// What the engine is like.
#[derive(Default)]
struct Scene {
    /// Addresses by name.
    containers: BTreeMap<&'static str, &'static str>,
    list: Manner,
    /// Of the last container.
    look: Manner,
    ping: Manner,
    /// To those who listen to events.
    listeners: Vec<mpsc::UnboundedSender<String>>,
    /// How many have come to listen so far.
    heard: usize,
    /// How often a container was looked at.
    looks: usize,
    /// It speaks versions 1.x of its API from the first of them to the second.
    versions: (usize, usize),
    /// The last of them that it was asked in.
    asked_in: usize,
}

/// An engine, and what a watcher tells of it.
struct Watched {
    scene: Arc<Mutex<Scene>>,
    updates: mpsc::Receiver<Update>,
    _again: Again,
}

impl Watched {
    async fn begin(resync: Duration, list: Manner) -> Self {
        let scene = Scene {
            containers: [("web-1", "172.17.0.2")].into(),
            list,
            versions: (12, 41),
            ..Scene::default()
        };
        let scene = Arc::new(Mutex::new(scene));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let socket = format!("tcp://{}", listener.local_addr().expect("an address"));
        let shared = Arc::clone(&scene);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        let (tx, updates) = mpsc::channel(64);
        let again = Again::default();
        let config = DockerConfig {
            timings: Timings {
                coalesce: Duration::from_millis(5),
                resync,
                poll: resync,
                ping: Duration::from_millis(50),
                backoff: Steps {
                    first: Duration::from_millis(10),
                    factor: 2.0,
                    cap: Duration::from_millis(50),
                },
            },
            ..DockerConfig::new(&socket)
        };
        tokio::spawn(run(config, tx, again.listen()));
        Self {
            scene,
            updates,
            _again: again,
        }
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Scene) -> T) -> T {
        change(&mut self.scene())
    }

    /// Tells all listeners, once so many have come.
    async fn tell(&self, event: &str, heard: usize) {
        let come = async {
            while self.scene().heard < heard {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, come).await.expect("a listener");
        for listener in &self.scene().listeners {
            // Some are gone.
            let _ = listener.send(event.to_owned());
        }
    }

    async fn next(&mut self) -> Result<Vec<String>, String> {
        let update = timeout(PATIENCE, self.updates.recv()).await;
        let update = update.expect("in time").expect("the watcher lives");
        update.outcome.map(|snapshot| lines(&snapshot))
    }

    /// Waits for this state.
    async fn shows(&mut self, expected: &str) {
        let mut last = None;
        let seen = async {
            while last.as_ref() != Some(&Ok(vec![expected.to_owned()])) {
                last = Some(self.next().await);
            }
        };
        let seen = timeout(PATIENCE, seen).await;
        assert!(seen.is_ok(), "{expected} is never told, but {last:?}");
    }

    /// Waits for a failure, before which nothing but `stays` is told; why it failed.
    async fn fails(&mut self, stays: &str) -> String {
        loop {
            match self.next().await {
                Ok(state) => assert_eq!(state, [stays]),
                Err(why) => return why,
            }
        }
    }
}

impl Scene {
    /// Whether it answers what is asked so. Only for its versions it is asked without one.
    fn speaks(&mut self, asked_in: Option<usize>, path: &str) -> bool {
        let Some(version) = asked_in else {
            return path == "/version";
        };
        self.asked_in = version;
        let (least, newest) = self.versions;
        (least..=newest).contains(&version)
    }
}

/// The version 1.x of the API before a path, and the path.
fn versioned(path: &str) -> Option<(usize, &str)> {
    let (version, _) = path.strip_prefix("/v1.")?.split_once('/')?;
    let path = &path["/v1.".len() + version.len()..];
    Some((version.parse().ok()?, path))
}

async fn answer(mut stream: TcpStream, scene: Arc<Mutex<Scene>>) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => asked.push(byte),
            Err(_) => return,
        }
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let target = asked.split_whitespace().nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let (asked_in, path) = match versioned(path) {
        Some((version, path)) => (Some(version), path),
        None => (None, path),
    };
    let is_spoken = {
        let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
        scene.speaks(asked_in, path)
    };
    if !is_spoken {
        return reply(stream, Manner::Unspoken, "").await;
    }
    if path == "/events" {
        return tell(stream, &scene).await;
    }
    let (manner, body) = {
        let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            "/version" => {
                let (least, newest) = scene.versions;
                let said = json!({
                    "ApiVersion": format!("1.{newest}"),
                    "MinAPIVersion": format!("1.{least}"),
                });
                (Manner::Well, said)
            }
            "/info" => (Manner::Well, json!({})),
            "/_ping" => (scene.ping, json!("OK")),
            "/containers/json" => {
                let ids = scene.containers.keys().map(|id| json!({"Id": id}));
                (scene.list, ids.collect::<Value>())
            }
            _ => {
                scene.looks += 1;
                let id = path.split('/').nth(2).unwrap_or_default();
                let is_last = scene.containers.keys().next_back() == Some(&id);
                let manner = match scene.containers.contains_key(id) {
                    false => Manner::Missing,
                    true if is_last => scene.look,
                    true => Manner::Well,
                };
                (manner, inspected(id, scene.containers.get(id)))
            }
        }
    };
    reply(stream, manner, &body.to_string()).await;
}

fn inspected(id: &str, addr: Option<&&str>) -> Value {
    let label = match id {
        HUGE => "x".repeat(10 << 20),
        _ => "web:80".to_owned(),
    };
    json!({
        "Id": id,
        "Name": format!("/{id}"),
        "State": {"Status": "running", "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {"Labels": {"lb.vip": label}},
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": addr}}},
    })
}

async fn reply(mut stream: TcpStream, manner: Manner, body: &str) {
    let (status, body, sent) = match manner {
        Manner::Well => ("200 OK", body, body.len()),
        Manner::Refused => ("500 Internal Server Error", r#"{"message": "no"}"#, 17),
        Manner::Half => ("200 OK", body, body.len() / 2),
        Manner::Garbage => ("200 OK", "][ nothing", 10),
        Manner::Missing => ("404 Not Found", "{}", 2),
        Manner::Unspoken => ("400 Bad Request", REFUSAL, REFUSAL.len()),
        Manner::Silent => std::future::pending().await,
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n\r\n"
    );
    let all = [head.as_bytes(), &body.as_bytes()[..sent]].concat();
    let _ = stream.write_all(&all).await;
    let _ = stream.shutdown().await;
}

/// Sends events until nobody tells any more.
async fn tell(mut stream: TcpStream, scene: &Mutex<Scene>) {
    let (tx, mut events) = mpsc::unbounded_channel();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    {
        let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
        scene.listeners.push(tx);
        scene.heard += 1;
    }
    while let Some(event) = events.recv().await {
        if stream.write_all(event.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A container with a label of 10 MB.
const HUGE: &str = "huge";
/// As of Docker 20.10.
const REFUSAL: &str =
    r#"{"message":"client version 1.53 is too new. Maximum supported API version is 1.41"}"#;
const OFTEN: Duration = Duration::from_millis(100);
/// In no test's time.
const NEVER: Duration = Duration::from_secs(3_600);
const ONE: &str = "web:80/tcp 172.17.0.2:80 x1";
const TWO: &str = "web:80/tcp 172.17.0.2:80 x1 172.17.0.3:80 x1";

#[tokio::test]
async fn a_list_that_fails_takes_nothing_away_and_the_next_good_one_counts() {
    let mut watched = Watched::begin(OFTEN, Manner::Well).await;
    watched.shows(ONE).await;
    let mut state = ONE;
    for manner in [
        Manner::Refused,
        Manner::Half,
        Manner::Garbage,
        Manner::Silent,
    ] {
        watched.scene().list = manner;
        let why = watched.fails(state).await;
        assert!(
            why.starts_with("cannot list the containers: "),
            "{manner:?}: {why}"
        );
        state = watched.change(|scene| {
            scene.list = Manner::Well;
            match scene.containers.remove("web-2") {
                Some(_) => ONE,
                None => {
                    scene.containers.insert("web-2", "172.17.0.3");
                    TWO
                }
            }
        });
        watched.shows(state).await;
    }
}

#[tokio::test]
async fn nothing_is_told_before_the_first_list() {
    let mut watched = Watched::begin(OFTEN, Manner::Refused).await;
    for _ in 0..3 {
        let told = watched.next().await;
        assert!(told.is_err(), "{told:?}");
    }
    watched.scene().list = Manner::Well;
    watched.shows(ONE).await;
}

#[tokio::test]
async fn a_container_that_cannot_be_read_stays_as_it_was_and_holds_up_no_other() {
    let mut watched = Watched::begin(OFTEN, Manner::Well).await;
    watched.scene().containers.insert("web-2", "172.17.0.3");
    watched.shows(TWO).await;
    for (manner, first) in [
        (Manner::Refused, "172.17.0.4"),
        (Manner::Half, "172.17.0.5"),
        (Manner::Garbage, "172.17.0.6"),
    ] {
        watched.change(|scene| {
            scene.look = manner;
            scene.containers = [("web-1", first), ("web-2", "172.17.0.9")].into();
        });
        let stale = format!("web:80/tcp 172.17.0.3:80 x1 {first}:80 x1");
        watched.shows(&stale).await;
        watched.scene().look = Manner::Well;
        watched
            .shows(&format!("web:80/tcp {first}:80 x1 172.17.0.9:80 x1"))
            .await;
        watched.scene().containers.insert("web-2", "172.17.0.3");
        watched.shows(&stale).await;
    }
}

#[tokio::test]
async fn an_engine_that_gives_no_sign_of_life_is_connected_to_anew() {
    let mut watched = Watched::begin(NEVER, Manner::Well).await;
    watched.shows(ONE).await;
    let mut state = ONE;
    for (manner, expected) in [
        (Manner::Refused, "Docker does not answer: "),
        (Manner::Silent, "Docker does not answer within 2 s"),
    ] {
        watched.scene().ping = manner;
        let why = watched.fails(state).await;
        assert!(why.starts_with(expected), "{why}");
        // Nothing tells of it but the look after the connection.
        watched.change(|scene| {
            scene.ping = Manner::Well;
            scene.containers.insert("web-2", "172.17.0.3");
        });
        watched.shows(TWO).await;
        state = TWO;
    }
}

#[tokio::test]
async fn events_that_end_or_are_none_have_everything_read_anew() {
    let mut watched = Watched::begin(NEVER, Manner::Well).await;
    watched.shows(ONE).await;
    watched.tell("no event\n", 1).await;
    let why = watched.fails(ONE).await;
    assert!(why.starts_with("Docker's events broke off: "), "{why}");
    watched.scene().containers.insert("web-2", "172.17.0.3");
    watched.shows(TWO).await;

    let end = concat!(
        r#"{"Type": "container", "Action": "die", "#,
        r#""Actor": {"ID": "web-2", "Attributes": {}}}"#,
        "\n"
    );
    watched.scene().containers.remove("web-2");
    watched.tell(end, 2).await;
    watched.shows(ONE).await;

    // The engine closes the stream.
    watched.scene().listeners.clear();
    let why = watched.fails(ONE).await;
    assert_eq!(why, "Docker closed the stream of events");
    watched.scene().containers.insert("web-2", "172.17.0.3");
    watched.shows(TWO).await;
}

#[tokio::test]
async fn what_no_event_told_is_found_by_the_next_list() {
    let mut watched = Watched::begin(OFTEN, Manner::Well).await;
    watched.shows(ONE).await;
    watched.scene().containers.insert("web-2", "172.17.0.3");
    watched.shows(TWO).await;
    watched.scene().containers.remove("web-2");
    watched.shows(ONE).await;
}

#[tokio::test]
async fn a_label_of_ten_megabytes_holds_up_no_other_container() {
    let mut watched = Watched::begin(NEVER, Manner::Well).await;
    watched.shows(ONE).await;
    let new = [(HUGE, "172.17.0.9"), ("web-2", "172.17.0.3")];
    watched.scene().containers.extend(new);
    // Events have all labels of their container.
    for (id, label) in [(HUGE, "x".repeat(10 << 20)), ("web-2", "web:80".to_owned())] {
        let actor = json!({"ID": id, "Attributes": {"lb.vip": label}});
        let start = json!({"Type": "container", "Action": "start", "Actor": actor});
        watched.tell(&format!("{start}\n"), 1).await;
    }
    watched.shows(TWO).await;
}

#[tokio::test]
async fn thousands_of_events_of_a_container_are_a_few_looks() {
    let mut watched = Watched::begin(NEVER, Manner::Well).await;
    watched.shows(ONE).await;
    watched.scene().containers.insert("web-2", "172.17.0.3");
    let changed = |id: &str| {
        let event = json!({"Type": "container", "Action": "update", "Actor": {"ID": id}});
        format!("{event}\n")
    };
    let flood = changed("web-1").repeat(5_000) + &changed("web-2");
    watched.tell(&flood, 1).await;
    watched.shows(TWO).await;
    let looks = watched.scene().looks;
    assert!(looks < 250, "{looks}");
}

#[tokio::test]
async fn an_engine_that_speaks_another_version_since_is_followed_in_that() {
    let mut watched = Watched::begin(NEVER, Manner::Well).await;
    watched.shows(ONE).await;
    assert_eq!(watched.scene().asked_in, 41);
    // It was upgraded, and nothing told of that.
    watched.change(|scene| {
        scene.versions = (44, 47);
        scene.containers.insert("web-2", "172.17.0.3");
    });
    let why = watched.fails(ONE).await;
    assert!(why.contains("client version"), "{why}");
    watched.shows(TWO).await;
    assert_eq!(watched.scene().asked_in, 47);

    // Nobody here knows these versions yet, or any more.
    for (versions, words) in [((160, 170), "upgrade lb-agent"), ((12, 23), "Docker 1.12")] {
        watched.scene().versions = versions;
        let told = async { while !watched.fails(TWO).await.contains(words) {} };
        timeout(PATIENCE, told).await.expect(words);
    }
    watched.change(|scene| {
        scene.versions = (24, 170);
        scene.containers.remove("web-2");
    });
    watched.shows(ONE).await;
    let newest = bollard::API_DEFAULT_VERSION.minor_version;
    assert_eq!(watched.scene().asked_in, newest);
}
