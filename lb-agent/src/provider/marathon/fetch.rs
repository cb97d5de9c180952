//! Takes a snapshot: asks Marathon for apps and pods and for what else they refer to, one request at a time. Between two
//! of them, single apps are asked for and put in their places.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::Arc,
};

use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::provider::Snapshot;

use super::{
    agents::Agents,
    build::{self, Context},
    client::{Client, Failure},
    edge::Edge,
    reading::{self, Reading},
    version::{self, Lookup, VersionKey, Versions},
};

/// Takes snapshots and remembers what does not change between them.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Arc<Client>,
    framework: Option<Arc<str>>,
    edge: Edge,
    versions: Versions,
    agents: Agents,
    /// What the last good answers said.
    reading: Reading,
    /// Of which answers the last state was made, if of nothing else.
    made_of: Option<u64>,
    hasher: RandomState,
}

/// Why apps could not be read alone.
#[derive(Debug)]
pub(super) enum Missed {
    /// One is not there (any more): only a snapshot can say so for all.
    Gone,
    /// One sentence.
    Failed(String),
}

/// A complete snapshot.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The state.
    pub(super) snapshot: Snapshot,
    /// Marathon has no app and no pod at all.
    pub(super) empty: bool,
    /// Who answered, if it says so.
    pub(super) leader: Option<String>,
}

// === impl Fetcher ===

impl Fetcher {
    /// The framework's name is asked for if it is not given.
    pub(super) fn new(client: Arc<Client>, framework: Option<&str>, edge: &Edge) -> Self {
        let framework = framework.map(Arc::from);
        Self {
            client,
            framework,
            edge: edge.clone(),
            versions: Versions::default(),
            agents: Agents::default(),
            reading: Reading::default(),
            made_of: None,
            hasher: RandomState::new(),
        }
    }

    /// The framework's name, once it is known.
    pub(super) fn framework(&self) -> Option<&Arc<str>> {
        self.framework.as_ref()
    }

    /// Takes a snapshot; `last` is the state so far, which stays where the answers are those of the last time, and
    /// which unreadable objects fall back to.
    ///
    /// # Errors
    /// Why there is none: any request that failed, any body that is not of the expected shape.
    pub(super) async fn snapshot(&mut self, last: Option<&Snapshot>) -> Result<Fetched, String> {
        let framework = self.ask_framework().await?;
        let embeds = Some("embed=apps.tasks&embed=apps.readiness");
        let apps = self
            .client
            .get(&["v2", "apps"], embeds)
            .await
            .map_err(text)?;
        let pods = match self.client.get(&["v2", "pods", "::status"], None).await {
            Ok(answer) => Some(answer.body),
            Err(failure) if failure.status == Some(StatusCode::NOT_FOUND) => None,
            Err(failure) => return Err(failure.to_string()),
        };
        let answers = self.hasher.hash_one((&apps.body, &pods));
        if let Some(last) = last
            && self.made_of == Some(answers)
        {
            return Ok(Fetched {
                snapshot: last.clone(),
                empty: false,
                leader: apps.leader,
            });
        }
        self.made_of = None;
        self.reading = reading::read(&apps.body, pods.as_deref())?;
        let reading = std::mem::take(&mut self.reading);
        let before = std::mem::take(&mut self.versions);
        let snapshot = self.build(&reading, before, &framework, last).await;
        let alone = is_all(&reading) && self.versions.is_empty();
        self.made_of = alone.then_some(answers);
        self.reading = reading;
        Ok(Fetched {
            snapshot,
            empty: self.reading.empty,
            leader: apps.leader,
        })
    }

    /// Reads these apps alone, after a snapshot; `last` is what it gave.
    ///
    /// # Errors
    /// Any request that failed, any body that is not the app's.
    pub(super) async fn apps(
        &mut self,
        ids: &BTreeSet<String>,
        last: &Snapshot,
    ) -> Result<Fetched, Missed> {
        let framework = self.ask_framework().await.map_err(Missed::Failed)?;
        self.made_of = None;
        let embeds = Some("embed=app.tasks&embed=app.readiness");
        let mut leader = None;
        let mut groups = self.reading.groups_of(ids);
        for id in ids {
            let mut path = vec!["v2", "apps"];
            path.extend(id.trim_start_matches('/').split('/'));
            let answer = match self.client.get(&path, embeds).await {
                Ok(answer) => answer,
                Err(failure) if failure.status == Some(StatusCode::NOT_FOUND) => {
                    return Err(Missed::Gone);
                }
                Err(failure) => return Err(Missed::Failed(failure.to_string())),
            };
            let replaced = self.reading.replace_app(id, &answer.body);
            replaced.map_err(Missed::Failed)?;
            leader = answer.leader.or(leader);
        }
        groups.extend(self.reading.groups_of(ids));
        let part = self.reading.split(ids, &groups);
        let mut touched = ids.clone();
        touched.extend(part.apps.iter().map(|app| app.id.clone()));
        let before = self.versions.clone();
        let snapshot = self.build(&part, before, &framework, Some(last)).await;
        self.reading.join(part);
        Ok(Fetched {
            snapshot: build::merge(last, &touched, snapshot),
            empty: false,
            leader,
        })
    }

    /// Asks for what the reading refers to and is not known from `before`, and builds its snapshot.
    async fn build(
        &mut self,
        reading: &Reading,
        before: Versions,
        framework: &Arc<str>,
        last: Option<&Snapshot>,
    ) -> Snapshot {
        let needed = version::needed(reading);
        let Versions { apps, pods } = &mut self.versions;
        apps.extend(look_up(&self.client, before.apps, needed.apps, app_path).await);
        pods.extend(look_up(&self.client, before.pods, needed.pods, pod_path).await);
        self.agents.refresh(&build::agent_names(reading)).await;
        let context = Context {
            framework,
            versions: &self.versions,
            agents: self.agents.known(),
            edge: &self.edge,
        };
        build::build(reading, &context, last)
    }

    async fn ask_framework(&mut self) -> Result<Arc<str>, String> {
        if let Some(known) = &self.framework {
            return Ok(Arc::clone(known));
        }
        let answer = self.client.get(&["v2", "info"], None).await.map_err(text)?;
        let name: Arc<str> = framework_name(&answer.body)?.into();
        self.framework = Some(Arc::clone(&name));
        Ok(name)
    }
}

/// Whether a state is made of this reading alone: nothing of it was kept from before or looked up, and it needs no second
/// one to be believed.
fn is_all(reading: &Reading) -> bool {
    let names = build::agent_names(reading);
    let looked_up = names.iter().any(|name| name.parse::<IpAddr>().is_err());
    !reading.empty && reading.broken.is_empty() && !looked_up
}

fn framework_name(info: &[u8]) -> Result<String, String> {
    let info: Value = serde_json::from_slice(info)
        .map_err(|e| format!("the answer to GET /v2/info is not JSON: {e}"))?;
    match info
        .pointer("/marathon_config/framework_name")
        .and_then(Value::as_str)
    {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("the answer to GET /v2/info has no marathon_config.framework_name".to_owned()),
    }
}

/// What is known of these versions, from `before` or else from Marathon. A version never changes, so a good answer is
/// kept; any other is asked for again next time. All together take no longer than one request may.
async fn look_up<D: DeserializeOwned>(
    client: &Client,
    mut before: HashMap<VersionKey, Lookup<D>>,
    needed: impl IntoIterator<Item = VersionKey>,
    path: fn(&VersionKey) -> Vec<String>,
) -> HashMap<VersionKey, Lookup<D>> {
    let (mut known, mut ask) = (HashMap::new(), Vec::new());
    for key in needed {
        match before.remove(&key) {
            Some(found @ Lookup::Found(_)) => _ = known.insert(key, found),
            _ => ask.push(key),
        }
    }
    let late = || Lookup::Failed("no answer in time".to_owned());
    known.extend(ask.iter().map(|key| (key.clone(), late())));
    let end = Instant::now() + client.patience();
    for key in ask {
        let path = path(&key);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let Ok(answer) = timeout_at(end, client.get(&path, None)).await else {
            break;
        };
        known.insert(key, looked_up(answer.map(|answer| answer.body)));
    }
    known
}

fn looked_up<D: DeserializeOwned>(answer: Result<Vec<u8>, Failure>) -> Lookup<D> {
    match answer {
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(definition) => Lookup::Found(Arc::new(definition)),
            Err(e) => Lookup::Failed(e.to_string()),
        },
        Err(failure) if failure.status == Some(StatusCode::NOT_FOUND) => Lookup::Gone,
        Err(failure) => Lookup::Failed(failure.to_string()),
    }
}

/// `/v2/apps/{id}/versions/{version}`
fn app_path(key: &VersionKey) -> Vec<String> {
    let mut path = vec!["v2".to_owned(), "apps".to_owned()];
    path.extend(key.id.trim_start_matches('/').split('/').map(str::to_owned));
    path.extend(["versions".to_owned(), key.version.clone()]);
    path
}

/// `/v2/pods{id}::versions/{version}`
fn pod_path(key: &VersionKey) -> Vec<String> {
    let mut path = vec!["v2".to_owned(), "pods".to_owned()];
    path.extend(
        format!("{}::versions", key.id.trim_start_matches('/'))
            .split('/')
            .map(str::to_owned),
    );
    path.push(key.version.clone());
    path
}

fn text(failure: impl fmt::Display) -> String {
    failure.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_framework_is_named_by_info() {
        let bodies: Value =
            serde_json::from_str(include_str!("fixtures/07-leader-info.json")).unwrap();
        let info = bodies["GET /v2/info"].to_string();
        assert_eq!(framework_name(info.as_bytes()).unwrap(), "marathon");
        for bad in [
            "",
            "{",
            "{}",
            r#"{"marathon_config":{"framework_name":""}}"#,
        ] {
            assert!(framework_name(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_of_versions_are_those_of_the_api() {
        let key = |id: &str| VersionKey {
            id: id.to_owned(),
            version: "2024-03-05T09:00Z".to_owned(),
        };
        assert_eq!(
            app_path(&key("/a/b")).join("/"),
            "v2/apps/a/b/versions/2024-03-05T09:00Z"
        );
        assert_eq!(
            pod_path(&key("/a/b")).join("/"),
            "v2/pods/a/b::versions/2024-03-05T09:00Z"
        );
    }
}
