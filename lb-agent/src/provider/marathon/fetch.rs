//! Takes a snapshot: asks Marathon for apps and pods and for what else they refer to.

use std::{collections::HashMap, fmt, sync::Arc};

use futures_util::StreamExt as _;
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
    reading,
    version::{self, Lookup, VersionKey, Versions},
};

/// How many older versions are asked for at once.
const PARALLEL: usize = 8;

/// Takes snapshots and remembers what does not change between them.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Arc<Client>,
    framework: Option<Arc<str>>,
    edge: Edge,
    versions: Versions,
    agents: Agents,
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
        }
    }

    /// The framework's name, once it is known.
    pub(super) fn framework(&self) -> Option<&Arc<str>> {
        self.framework.as_ref()
    }

    /// Takes a snapshot; `last` is what unreadable objects fall back to.
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
        let reading = reading::read(&apps.body, pods.as_deref())?;
        let needed = version::needed(&reading);
        let Versions {
            apps: known_apps,
            pods: known_pods,
        } = &mut self.versions;
        refresh(&self.client, known_apps, needed.apps, app_path).await;
        refresh(&self.client, known_pods, needed.pods, pod_path).await;
        self.agents.refresh(&build::agent_names(&reading)).await;
        let (versions, agents) = (&self.versions, self.agents.known());
        let context = Context {
            framework: &framework,
            versions,
            agents,
            edge: &self.edge,
        };
        let snapshot = build::build(&reading, &context, last);
        Ok(Fetched {
            snapshot,
            empty: reading.empty,
            leader: apps.leader,
        })
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

/// Forgets versions that nothing runs any more and asks for those that are new. A version never
/// changes, so a good answer is kept; any other is asked for again next time. All together take no longer
/// than one request may.
async fn refresh<D: DeserializeOwned>(
    client: &Client,
    known: &mut HashMap<VersionKey, Lookup<D>>,
    needed: impl IntoIterator<Item = VersionKey>,
    path: fn(&VersionKey) -> Vec<String>,
) {
    let mut before = std::mem::take(known);
    let (mut new, mut ask) = (HashMap::new(), Vec::new());
    for key in needed {
        match before.remove(&key) {
            Some(found @ Lookup::Found(_)) => _ = new.insert(key, found),
            _ => ask.push(key),
        }
    }
    let late = || Lookup::Failed("no answer in time".to_owned());
    new.extend(ask.iter().map(|key| (key.clone(), late())));
    let asked = futures_util::stream::iter(ask).map(|key| async move {
        let path = path(&key);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let answer = client.get(&path, None).await.map(|answer| answer.body);
        (key, looked_up(answer))
    });
    let mut asked = asked.buffer_unordered(PARALLEL);
    let end = Instant::now() + client.patience();
    while let Ok(Some((key, lookup))) = timeout_at(end, asked.next()).await {
        new.insert(key, lookup);
    }
    *known = new;
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
