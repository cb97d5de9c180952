//! Starts the providers that the configuration names.

use std::net::IpAddr;

use anyhow::{Error, Result};
use tokio::sync::mpsc;

use super::UPDATES;
use crate::{
    config::{Config, MarathonAuth},
    provider::{
        self, ProviderId, Update,
        marathon::{Auth, Secret, id_without_framework},
    },
};

/// Starts each; their updates come by `updates`, under the names that are given back. `node`: where what runs in the
/// node's own network is reached.
pub(super) fn start_providers(
    config: &Config,
    node: Vec<IpAddr>,
    updates: &mpsc::Sender<Update>,
) -> Result<Vec<ProviderId>> {
    let mut ids = Vec::new();
    if let Some(marathon) = &config.marathon {
        let mut settings = provider::marathon::MarathonConfig::new(marathon.urls.clone());
        settings.framework.clone_from(&marathon.framework);
        settings.ca_file.clone_from(&marathon.ca_file);
        settings.auth = auth(&marathon.auth)?;
        settings.timings.resync = config.resync;
        // One name for all its life: the framework's may be learnt later.
        let id = id_without_framework(&settings);
        ids.push(id.clone());
        let (tx, rx) = mpsc::channel(UPDATES);
        tokio::spawn(provider::marathon::run(settings, tx));
        tokio::spawn(forward(id, rx, updates.clone()));
    }
    if let Some(docker) = &config.docker {
        let mut settings = provider::docker::DockerConfig::new(&docker.socket);
        settings.expose_all = docker.expose_all;
        settings.services = docker.services.iter().cloned().collect();
        settings.networks.clone_from(&docker.networks);
        settings.node = node;
        settings.timings.resync = config.resync;
        let id = settings.id();
        ids.push(id.clone());
        let (tx, rx) = mpsc::channel(UPDATES);
        tokio::spawn(provider::docker::run(settings, tx));
        tokio::spawn(forward(id, rx, updates.clone()));
    }
    #[cfg(feature = "ecs")]
    if let Some(ecs) = &config.ecs {
        for cluster in &ecs.clusters {
            let mut settings = provider::ecs::EcsConfig::new(cluster);
            settings.region.clone_from(&ecs.region);
            settings.endpoint = ecs.endpoint.as_ref().map(ToString::to_string);
            settings.hosts.clone_from(&ecs.hosts);
            settings.timings.poll = ecs.poll;
            settings.timings.services = 2 * config.resync;
            let id = settings.id();
            ids.push(id.clone());
            let (tx, rx) = mpsc::channel(UPDATES);
            tokio::spawn(provider::ecs::run(settings, tx));
            tokio::spawn(forward(id, rx, updates.clone()));
        }
    }
    if let Some(path) = &config.services {
        let id = ProviderId::new("file", path.display());
        ids.push(id.clone());
        let (tx, rx) = mpsc::channel(UPDATES);
        tokio::spawn(provider::file::run(Some(path.clone()), tx));
        tokio::spawn(forward(id, rx, updates.clone()));
    }
    Ok(ids)
}

/// Gives a provider's updates the name under which it is awaited.
async fn forward(id: ProviderId, mut from: mpsc::Receiver<Update>, to: mpsc::Sender<Update>) {
    while let Some(update) = from.recv().await {
        if to
            .send(Update {
                provider: id.clone(),
                ..update
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

fn auth(auth: &MarathonAuth) -> Result<Auth> {
    let secret = |path| Secret::in_file(path).map_err(Error::msg);
    Ok(match auth {
        MarathonAuth::Open => Auth::None,
        MarathonAuth::Basic {
            user,
            password_file,
        } => Auth::Basic {
            user: user.clone(),
            password: secret(password_file)?,
        },
        MarathonAuth::Token { token_file } => Auth::Token(secret(token_file)?),
    })
}
