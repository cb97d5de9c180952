//! Everything about ECS.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use reqwest::Url;

use super::{is_set, refuse};
use crate::config::{ConfigError, Ecs, keys, parse, sources::Sources};

/// The clusters to read, if any.
pub(in crate::config) fn ecs(sources: &Sources<'_>) -> Result<Option<Ecs>, ConfigError> {
    let clusters = sources.many(&keys::ECS, cluster)?;
    if clusters.is_empty() {
        let orphans = [
            &keys::ECS_REGION,
            &keys::ECS_ENDPOINT,
            &keys::ECS_POLL,
            &keys::ECS_EVENTS,
            &keys::ECS_HOSTS,
        ];
        return match orphans.into_iter().find(|key| is_set(sources, key)) {
            Some(key) => Err(refuse(sources, key, "has no effect without --ecs")),
            None => Ok(None),
        };
    }
    if cfg!(not(feature = "ecs")) {
        let reason = "this lb-agent was built without ECS; build it with --features ecs";
        return Err(refuse(sources, &keys::ECS, reason));
    }
    let mut hosts = BTreeMap::new();
    for (id, addr) in sources.many(&keys::ECS_HOSTS, host)? {
        if hosts
            .insert(id.clone(), addr)
            .is_some_and(|before| before != addr)
        {
            let reason = format!("{id} has two addresses");
            return Err(refuse(sources, &keys::ECS_HOSTS, reason));
        }
    }
    Ok(Some(Ecs {
        clusters,
        region: sources.one(&keys::ECS_REGION, region)?,
        endpoint: sources.one(&keys::ECS_ENDPOINT, |text| {
            url(text, "http://127.0.0.1:5000")
        })?,
        events: sources.one(&keys::ECS_EVENTS, queue)?,
        poll: Duration::from_secs(
            sources
                .preset(&keys::ECS_POLL, parse::number(1..=60))?
                .into(),
        ),
        hosts,
    }))
}

/// A cluster's name, or its ARN.
fn cluster(text: &str) -> Result<String, String> {
    const MOST: usize = 255;
    let name = match text.strip_prefix("arn:") {
        None => Some(text),
        Some(rest) => {
            let parts: Vec<_> = rest.split(':').collect();
            match parts[..] {
                [_, "ecs", region, _, resource] if !region.is_empty() => {
                    resource.strip_prefix("cluster/")
                }
                _ => None,
            }
        }
    };
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match name {
        Some(name) if !name.is_empty() && name.len() <= MOST && name.chars().all(fine) => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "\"{text}\" is neither the name of an ECS cluster (letters, digits, - and _) nor its ARN \
             (arn:aws:ecs:REGION:ACCOUNT:cluster/NAME)"
        )),
    }
}

fn region(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.contains('-') && text.chars().all(fine) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is not a region such as eu-west-1"))
    }
}

/// What is behind a host's name is an account and the queue.
fn queue(text: &str) -> Result<Url, String> {
    const LIKE: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/lb-agent";
    let url = url(text, LIKE)?;
    let mut path = url.path_segments().into_iter().flatten();
    if path.clone().count() == 2 && path.all(|part| !part.is_empty()) {
        Ok(url)
    } else {
        Err(format!(
            "\"{text}\" is not the URL of a queue such as {LIKE}"
        ))
    }
}

fn url(text: &str, like: &str) -> Result<Url, String> {
    let wrong = || format!("\"{text}\" is not a URL such as {like}");
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Everybody on the node can read a command line, so the text is not repeated here either.
        return Err(
            "a URL must not hold a user or password; AWS_ACCESS_KEY_ID and the like do".into(),
        );
    }
    Ok(url)
}

fn host(text: &str) -> Result<(String, IpAddr), String> {
    let (id, addr) = text
        .split_once('=')
        .filter(|(id, _)| !id.is_empty())
        .ok_or_else(|| {
            format!("\"{text}\" is not ID=ADDRESS, such as mi-0123456789abcdef0=10.0.0.7")
        })?;
    let addr = addr
        .parse()
        .map_err(|_| format!("\"{addr}\" in \"{text}\" is not an IP address"))?;
    Ok((id.to_owned(), addr))
}
