//! Starts the providers that the configuration names.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Error, Result};
use tokio::sync::mpsc;

use super::UPDATES;
use crate::{
    config::{Config, MarathonAuth},
    provider::{
        self, Again, ProviderId, Update,
        docker::Tls,
        etcd::{Claims, EtcdConfig, Login},
        marathon::{Auth, Credentials, Edge, Secret, id_without_framework},
    },
};

/// Starts each; their updates come by `updates`, under the names that are given back. `node`: where what runs in the
/// node's own network is reached. With etcd, addresses are agreed on by what is given back besides. All read anew when `again` asks them.
pub(super) fn start_providers(
    config: &Config,
    node: Vec<IpAddr>,
    updates: &mpsc::Sender<Update>,
    again: &Again,
) -> Result<(Vec<ProviderId>, Option<Claims>)> {
    let mut started = Started {
        ids: Vec::new(),
        updates,
    };
    let mut claims = None;
    let domains = config.dns.iter().flat_map(|dns| dns.domains.clone());
    let domains: BTreeSet<String> = domains.collect();
    for marathon in config.marathons() {
        let mut settings = provider::marathon::MarathonConfig::new(marathon.urls.clone());
        settings.framework.clone_from(&marathon.framework);
        settings.ca_file.clone_from(&marathon.ca_file);
        settings.timings.silence = marathon.stream_timeout;
        settings.edge = Edge {
            groups: marathon.groups.iter().cloned().collect(),
            strict: marathon.strict_mode,
            skipped: marathon.skipped.iter().cloned().collect(),
            domains: domains.clone(),
        };
        settings.auth = auth(&marathon.auth)?;
        // Events tell what changes, and reading everything is work for Marathon: every other time is enough.
        settings.timings.resync = config.resync * 2;
        // One name for all its life: the framework's may be learnt later.
        let tx = started.one(id_without_framework(&settings));
        tokio::spawn(provider::marathon::run(settings, tx, again.listen()));
    }
    if let Some(docker) = &config.docker {
        let mut settings = provider::docker::DockerConfig::new(&docker.socket);
        settings.framework = docker.framework.as_str().into();
        settings.expose_all = docker.expose_all;
        settings.services = docker.services.iter().cloned().collect();
        settings.networks.clone_from(&docker.networks);
        settings.tls = docker.ca_file.clone().map(|ca_file| Tls {
            ca_file,
            certificate: docker.certificate.clone(),
        });
        settings.overlay_reachable = docker.overlay_reachable;
        settings.drain = docker.drain;
        settings.compat = docker.compat.clone();
        settings.timings.poll = docker.poll;
        settings.node.clone_from(&node);
        settings.timings.resync = config.resync;
        let tx = started.one(settings.id());
        tokio::spawn(provider::docker::run(settings, tx, again.listen()));
    }
    if let Some(etcd) = &config.etcd {
        let mut settings = EtcdConfig::new(etcd.urls.clone(), &etcd.prefix);
        settings.ca_file.clone_from(&etcd.ca_file);
        settings.certificate.clone_from(&etcd.certificate);
        settings.timings.resync = config.resync;
        settings.node = node.first().map(ToString::to_string);
        settings.member = config.peers_in_etcd.then(|| node.iter().copied().collect());
        if let Some((user, password)) = &etcd.login {
            settings.login = Some(Login {
                user: user.clone(),
                password: Secret::in_file(password).map_err(Error::msg)?,
            });
        }
        let tx = started.one(settings.id());
        let (ours, ends) = provider::etcd::channels();
        claims = Some(ours);
        tokio::spawn(provider::etcd::run(settings, tx, ends, again.listen()));
    }
    #[cfg(feature = "ecs")]
    if let Some(ecs) = &config.ecs {
        let hear = |queue: &reqwest::Url| {
            provider::ecs::hear(queue.clone(), ecs.region.clone(), &ecs.clusters)
        };
        let mut ears = ecs.events.as_ref().map_or_else(Vec::new, hear).into_iter();
        for cluster in &ecs.clusters {
            let mut settings = provider::ecs::EcsConfig::new(cluster);
            settings.region.clone_from(&ecs.region);
            settings.endpoint = ecs.endpoint.as_ref().map(ToString::to_string);
            settings.hosts.clone_from(&ecs.hosts);
            settings.domains.clone_from(&domains);
            settings.timings.poll = ecs.poll;
            settings.timings.services = 2 * config.resync;
            let tx = started.one(settings.id());
            let ear = ears.next().unwrap_or_else(provider::ecs::Ear::deaf);
            tokio::spawn(provider::ecs::run(settings, tx, again.listen(), ear));
        }
    }
    if let Some(path) = &config.services {
        let tx = started.one(ProviderId::new("file", path.display()));
        let path = Some(path.clone());
        tokio::spawn(provider::file::run(path, tx, again.listen()));
    }
    Ok((started.ids, claims))
}

/// Those that were started.
struct Started<'a> {
    ids: Vec<ProviderId>,
    updates: &'a mpsc::Sender<Update>,
}

// === impl Started ===

impl Started<'_> {
    /// One more: where it sends its updates.
    fn one(&mut self, id: ProviderId) -> mpsc::Sender<Update> {
        let (tx, rx) = mpsc::channel(UPDATES);
        self.ids.push(id.clone());
        tokio::spawn(forward(id, rx, self.updates.clone()));
        tx
    }
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
        MarathonAuth::Login { credentials_file } => {
            Auth::Login(Credentials::in_file(credentials_file).map_err(Error::msg)?)
        }
    })
}
