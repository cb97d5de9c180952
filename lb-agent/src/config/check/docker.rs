//! The settings of Docker.

use std::{path::Path, time::Duration};

use super::{certificate, is_set, refuse};
use crate::{
    config::{
        ConfigError, Docker,
        error::Place,
        keys, parse,
        sources::{OF_DOCKER, Sources},
    },
    provider::docker::{Balancer, Tls},
};

/// Everything about Docker.
pub(in crate::config) fn docker(
    sources: &Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Docker>, ConfigError> {
    let client = client(sources)?;
    let socket = match &client {
        Some(client) => Some(client.socket.clone()),
        None => sources.preset(&keys::DOCKER, parse::docker_socket)?,
    };
    let Some(socket) = socket else {
        let orphans = [
            &keys::DOCKER_FRAMEWORK,
            &keys::DOCKER_EXPOSE,
            &keys::DOCKER_SERVICES,
            &keys::DOCKER_NETWORKS,
            &keys::DOCKER_CA_FILE,
            &keys::DOCKER_CERT_FILE,
            &keys::DOCKER_KEY_FILE,
            &keys::DOCKER_POLL,
            &keys::DOCKER_OVERLAY_REACHABLE,
            &keys::DOCKER_DRAIN,
            &keys::DOCKER_COMPAT,
        ];
        return match orphans.into_iter().find(|key| is_set(sources, key)) {
            Some(key) => Err(refuse(sources, key, "has no effect without --docker")),
            None => Ok(None),
        };
    };
    let ca_file = sources.one(&keys::DOCKER_CA_FILE, parse::readable_file)?;
    if ca_file.is_some() && !socket.starts_with("tcp://") {
        let reason = "has no effect: --docker is no tcp://HOST:PORT";
        return Err(refuse(sources, &keys::DOCKER_CA_FILE, reason));
    }
    let certificate = certificate(sources, &keys::DOCKER_CERT_FILE, &keys::DOCKER_KEY_FILE)?;
    if certificate.is_some() && ca_file.is_none() {
        let reason = "needs --docker-ca-file beside it";
        return Err(refuse(sources, &keys::DOCKER_CERT_FILE, reason));
    }
    // The flags win over what its variables say.
    let papers = client.and_then(|client| client.tls);
    let (ca_file, certificate) = match papers.filter(|_| ca_file.is_none()) {
        Some(papers) => (Some(papers.ca_file), papers.certificate),
        None => (ca_file, certificate),
    };
    let mut without_effect = Vec::new();
    let compat = sources.many(&keys::DOCKER_COMPAT, parse::word)?;
    let compat = Balancer::read(&compat, &mut without_effect)
        .map_err(|reason| refuse(sources, &keys::DOCKER_COMPAT, reason))?;
    warnings.extend(
        without_effect
            .into_iter()
            .map(|why| format!("--docker-compat: {why}")),
    );
    let yes_or_no = parse::choice(&[(keys::YES, true), ("no", false)]);
    Ok(Some(Docker {
        socket,
        framework: sources.preset(&keys::DOCKER_FRAMEWORK, parse::framework)?,
        expose_all: sources.preset(
            &keys::DOCKER_EXPOSE,
            parse::choice(&[("asked", false), ("all", true)]),
        )?,
        services: sources.many(&keys::DOCKER_SERVICES, parse::word)?,
        networks: sources.many(&keys::DOCKER_NETWORKS, parse::word)?,
        ca_file,
        certificate,
        poll: Duration::from_secs(
            sources
                .preset(&keys::DOCKER_POLL, parse::number(1..=60))?
                .into(),
        ),
        overlay_reachable: sources.preset(&keys::DOCKER_OVERLAY_REACHABLE, yes_or_no)?,
        drain: sources.preset(&keys::DOCKER_DRAIN, crate::provider::drain)?,
        compat,
    }))
}

/// What the variables of Docker's own client say.
struct Client {
    socket: String,
    tls: Option<Tls>,
}

/// Where `--docker` alone finds the engine if Docker's own client is told where it is.
fn client(sources: &Sources<'_>) -> Result<Option<Client>, ConfigError> {
    let given = sources.get(&keys::DOCKER).values;
    let is_alone = given.last().is_some_and(|value| value.trim() == keys::YES);
    let [host, verify, folder] = OF_DOCKER;
    let wrong = |name: &str, reason: String| ConfigError::new(Place::Env(name.to_owned()), reason);
    let Some(text) = sources.variable(host).filter(|_| is_alone) else {
        return Ok(None);
    };
    let socket = parse::docker_host(text).map_err(|reason| wrong(host, reason))?;
    if !socket.starts_with("tcp://") || sources.variable(verify).is_none() {
        return Ok(Some(Client { socket, tls: None }));
    }
    let Some(papers) = sources.variable(folder) else {
        let reason =
            format!("needs {folder} beside it, the folder of ca.pem, cert.pem and key.pem");
        return Err(wrong(verify, reason));
    };
    let file = |name: &str| {
        let path = Path::new(papers).join(name);
        parse::readable_file(&path.to_string_lossy()).map_err(|reason| wrong(folder, reason))
    };
    let tls = Tls {
        ca_file: file("ca.pem")?,
        certificate: Some((file("cert.pem")?, file("key.pem")?)),
    };
    Ok(Some(Client {
        socket,
        tls: Some(tls),
    }))
}
