//! The engine's API, with a deadline on every request.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder},
};
use futures_util::{Stream, StreamExt as _};

use super::{container::Container, event::Event};
use crate::provider::causes::with_causes;

/// The longest that a request may take, s.
const DEADLINE: u64 = 5;
/// The same for a sign of life.
const PING: Duration = Duration::from_secs(2);

/// A connection to one engine.
#[derive(Clone, Debug)]
pub(super) struct Client(Docker);

// === impl Client ===

impl Client {
    /// Connects, and agrees on the newest version of the API that both know.
    pub(super) async fn connect(socket: &str) -> Result<Self, String> {
        let failed = |error: Error| {
            format!(
                "cannot connect to Docker at {socket}: {}",
                with_causes(&error)
            )
        };
        let docker = if socket.starts_with("tcp://") || socket.starts_with("http://") {
            Docker::connect_with_http(socket, DEADLINE, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_unix(socket, DEADLINE, API_DEFAULT_VERSION)
        };
        let docker = docker.map_err(failed)?;
        within(docker.negotiate_version())
            .await
            .map(Self)
            .map_err(|why| format!("cannot connect to Docker at {socket}: {why}"))
    }

    /// The ids of all containers.
    pub(super) async fn list(&self) -> Result<Vec<Arc<str>>, String> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let listed = within(self.0.list_containers(Some(options))).await;
        let listed = listed.map_err(|why| format!("cannot list the containers: {why}"))?;
        let id = |summary: bollard::models::ContainerSummary| summary.id.map(Arc::from);
        let ids: Option<Vec<_>> = listed.into_iter().map(id).collect();
        ids.ok_or_else(|| "cannot list the containers: one has no id".to_owned())
    }

    /// One container; `None`: there is none with this id.
    pub(super) async fn look(&self, id: &str) -> Result<Option<Container>, String> {
        let asked = tokio::time::timeout(
            Duration::from_secs(DEADLINE),
            self.0.inspect_container(id, None),
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

    /// Whether it is there.
    pub(super) async fn ping(&self) -> Result<(), String> {
        match tokio::time::timeout(PING, self.0.ping()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("Docker does not answer: {}", with_causes(&error))),
            Err(_) => Err(format!(
                "Docker does not answer within {} s",
                PING.as_secs()
            )),
        }
    }

    /// Events from `since` on (s since 1970), for as long as the connection holds.
    pub(super) fn events(&self, since: u64) -> impl Stream<Item = Result<Event, String>> + use<> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let filters: HashMap<String, Vec<String>> = HashMap::from([
            ("type".to_owned(), words(&["container", "network"])),
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
                ]),
            ),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&since.to_string())
            .filters(&filters)
            .build();
        self.0
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
                Event::read(
                    &kind,
                    message.action.as_deref().unwrap_or_default(),
                    actor.id.as_deref().unwrap_or_default(),
                    &actor.attributes.unwrap_or_default(),
                )
                .map(Ok)
            })
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
