//! The engine's API, with a deadline on every request.

use std::{collections::HashMap, future::Future, net::IpAddr, sync::Arc, time::Duration};

use bollard::{
    BollardRequest, Docker,
    errors::Error,
    query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use serde::de::DeserializeOwned;

use super::{
    DockerConfig,
    container::Container,
    engine::Seat,
    event::Told,
    swarm::{Answers, Swarm},
    transport::Transport,
    version::Version,
    wire::{Info, Message, Versions},
};
use crate::provider::causes::with_causes;

/// The longest that a request may take, s.
const DEADLINE: u64 = 5;
/// The same for a sign of life.
const PING: Duration = Duration::from_secs(2);
/// The longest answer about a Swarm, in bytes: tens of thousands of tasks.
const LONGEST: usize = 128 << 20;

/// A connection to one engine.
#[derive(Clone)]
pub(super) struct Client {
    docker: Docker,
    /// For what `docker` does not know how to read.
    transport: Transport,
    /// What is spoken.
    version: Version,
}

// === impl Client ===

impl Client {
    /// Connects, and agrees on the newest version of the API that both know.
    pub(super) async fn connect(config: &DockerConfig) -> Result<Self, String> {
        let failed = |why: String| format!("cannot connect to Docker at {}: {why}", config.socket);
        let transport = Transport::new(&config.socket, config.tls.as_ref()).map_err(failed)?;
        // The one path that every version has.
        let said: Versions = ask(&transport, "/version").await.map_err(failed)?;
        let version = Version::agreed(&said).map_err(failed)?;
        tracing::debug!(%version, "the version of Docker's API that is spoken");
        let through = transport.clone();
        let docker = Docker::connect_with_custom_transport(
            move |mut request: BollardRequest| {
                let through = through.clone();
                async move {
                    version.mark(request.uri_mut())?;
                    through.send(request).await.map_err(Error::from)
                }
            },
            Some("http://docker"),
            DEADLINE,
            &version.into(),
        );
        let docker = docker.map_err(|error| failed(with_causes(&error)))?;
        Ok(Self {
            docker,
            transport,
            version,
        })
    }

    /// The addresses of the node that it stands on, at most one of each family; `None`: this node.
    pub(super) async fn node(&self) -> Result<Option<Vec<IpAddr>>, String> {
        let asked = tokio::time::timeout(Duration::from_secs(DEADLINE), self.transport.node());
        match asked.await {
            Ok(found) => found.map_err(|error| format!("cannot resolve its name: {error}")),
            Err(_) => Err(late()),
        }
    }

    /// The ids of all containers.
    pub(super) async fn list(&self) -> Result<Vec<Arc<str>>, String> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let listed = within(self.docker.list_containers(Some(options))).await;
        let listed = listed.map_err(|why| format!("cannot list the containers: {why}"))?;
        let id = |summary: bollard::models::ContainerSummary| summary.id.map(Arc::from);
        let ids: Option<Vec<_>> = listed.into_iter().map(id).collect();
        ids.ok_or_else(|| "cannot list the containers: one has no id".to_owned())
    }

    /// One container; `None`: there is none with this id.
    pub(super) async fn look(&self, id: &str) -> Result<Option<Container>, String> {
        let asked = tokio::time::timeout(
            Duration::from_secs(DEADLINE),
            self.docker.inspect_container(id, None),
        );
        match asked.await {
            Ok(Ok(answer)) => Container::read(answer).map(Some),
            Ok(Err(Error::DockerResponseServerError {
                status_code: 404, ..
            })) => Ok(None),
            Ok(Err(error)) => Err(with_causes(&error)),
            Err(_) => Err(late()),
        }
    }

    /// What it is in a Swarm, with what it tells of that.
    pub(super) async fn swarm(&self) -> Result<Seat, String> {
        let info: Info = self.get("/info").await?;
        let swarm = match info.swarm {
            Some(swarm) if swarm.control_available => swarm,
            Some(swarm) if swarm.local_node_state == "active" => return Ok(Seat::Worker),
            _ => return Ok(Seat::Nowhere),
        };
        let (services, nodes, tasks) = tokio::try_join!(
            self.get("/services"),
            self.get("/nodes"),
            self.get("/tasks")
        )?;
        Ok(Seat::Manager(Swarm::read(
            &swarm.node_id,
            Answers {
                services,
                nodes,
                tasks,
            },
        )))
    }

    /// What it says at `path`.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let answer = ask(&self.transport, &self.version.path(path)).await;
        answer.map_err(|why| format!("cannot read {path}: {why}"))
    }

    /// Whether it is there.
    pub(super) async fn ping(&self) -> Result<(), String> {
        match tokio::time::timeout(PING, self.docker.ping()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("Docker does not answer: {}", with_causes(&error))),
            Err(_) => Err(format!(
                "Docker does not answer within {} s",
                PING.as_secs()
            )),
        }
    }

    /// Events from `since` on (s since 1970), for as long as the connection holds.
    pub(super) fn events(&self, since: u64) -> impl Stream<Item = Result<Told, String>> + use<> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let filters: HashMap<String, Vec<String>> = HashMap::from([
            (
                "type".to_owned(),
                words(&["container", "network", "service", "node"]),
            ),
            (
                "event".to_owned(),
                words(&[
                    "create",
                    "start",
                    "restart",
                    "kill",
                    "die",
                    "stop",
                    "destroy",
                    "pause",
                    "unpause",
                    "rename",
                    "update",
                    "health_status",
                    "connect",
                    "disconnect",
                    "remove",
                ]),
            ),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&since.to_string())
            .filters(&filters)
            .build();
        self.docker
            .events(Some(options))
            .filter_map(|message| async move {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => {
                        return Some(Err(format!(
                            "Docker's events broke off: {}",
                            with_causes(&error)
                        )));
                    }
                };
                let actor = message.actor.unwrap_or_default();
                let kind = message.typ.map(|kind| kind.to_string()).unwrap_or_default();
                Told::read(
                    &kind,
                    message.action.as_deref().unwrap_or_default(),
                    actor.id.as_deref().unwrap_or_default(),
                    &actor.attributes.unwrap_or_default(),
                    message.time_nano.map(i128::from),
                )
                .map(Ok)
            })
    }
}

/// What an engine says at `path`.
async fn ask<T: DeserializeOwned>(transport: &Transport, path: &str) -> Result<T, String> {
    let asked = async {
        let request = Request::get(path).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = transport.send(request).await;
        let answer = answer.map_err(|error| with_causes(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| error.to_string());
        }
        let said = serde_json::from_slice::<Message>(&body).unwrap_or_default();
        Err(format!("{status} {}", said.message))
    };
    match tokio::time::timeout(Duration::from_secs(DEADLINE), asked).await {
        Ok(answer) => answer,
        Err(_) => Err(late()),
    }
}

async fn within<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match tokio::time::timeout(Duration::from_secs(DEADLINE), asked).await {
        Ok(answer) => answer.map_err(|error| with_causes(&error)),
        Err(_) => Err(late()),
    }
}

fn late() -> String {
    format!("no answer within {DEADLINE} s")
}
