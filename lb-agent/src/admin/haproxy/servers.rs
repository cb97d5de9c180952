//! Commands after which other servers are there, or at other addresses.

use std::net::{IpAddr, SocketAddr};

use super::{
    change::{find, order},
    commands::Wrong,
    session::Session,
};
use crate::{
    admin::{
        orders::{Act, Named, NewServer, Which},
        stats::{Proxy, Sample, status},
        web::{which, whole},
    },
    catalog::Port,
    provider::OPERATOR,
};

/// The longest name of a server, bytes.
const LONGEST: usize = 64;
/// What rows of a proxy are called that are no servers.
const ROWS: [&str; 2] = ["FRONTEND", "BACKEND"];
/// Whom the answer to a move names.
const UPDATER: &str = "by 'stats socket command'";

/// `add server <px>/<sv> <addr>:<port> [<keyword> ...]`
pub(super) async fn add(session: &Session, server: &str, words: &[&str]) -> Result<String, Wrong> {
    let (proxy, name) = split(server)?;
    let sample = session.admin.stats.fresh().await;
    let proxy = sample.proxy(proxy).ok_or("No such backend.")?;
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "_.:-".contains(*c);
    if let Some(wrong) = name.chars().find(|c| !is_plain(c)) {
        let wrong = wrong.escape_default();
        return Err(format!("character '{wrong}' is not permitted in server name.").into());
    }
    if name.len() > LONGEST || ROWS.contains(&name) {
        return Err(format!("'{name}' cannot be the name of a server.").into());
    }
    if proxy.server(name).is_some() {
        return Err("Already exists a server with the same name in backend.".into());
    }
    let Some((at, words)) = words.split_first() else {
        return Err("'server' expects <name> and <addr>[:<port>] as arguments.".into());
    };
    let at: SocketAddr = at.parse().map_err(|_| {
        format!(
            "'server {name}' : '{at}' is no address with a port, as 10.0.0.1:80 or [fd00::1]:80"
        )
    })?;
    let is_checked = sample.service(proxy).probe.is_some();
    let new = read(server, name, words, is_checked)?;
    let which = Which {
        backend: Some(Named::At(SocketAddr::new(
            at.ip().to_canonical(),
            at.port(),
        ))),
        ..whole(&sample, proxy).ok_or("No such backend.")?
    };
    order(session, Act::Add(new), which).await?;
    Ok("New server registered.\n".to_owned())
}

/// The words after the address. `is_checked`: servers of this backend are.
fn read(server: &str, name: &str, words: &[&str], is_checked: bool) -> Result<NewServer, Wrong> {
    let mut new = NewServer {
        server: server.to_owned(),
        weight: 1,
        backup: false,
        max_flows: 0,
        check_port: None,
        enabled: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = |most: u32| -> Result<u32, Wrong> {
            let text = words.next();
            let text =
                text.ok_or_else(|| format!("'server {name}' : '{word}' expects a number."))?;
            let number = text.parse().ok().filter(|number| *number <= most);
            let wrong = || {
                format!("'server {name}' : '{word}' is a number from 0 to {most}, not '{text}'.")
            };
            Ok(number.ok_or_else(wrong)?)
        };
        match *word {
            "weight" => new.weight = u16::try_from(number(256)?).unwrap_or(256),
            "maxconn" => new.max_flows = number(u32::MAX)?,
            "port" => new.check_port = u16::try_from(number(65_535)?).ok().and_then(Port::new),
            "backup" => new.backup = true,
            "enabled" => new.enabled = true,
            "disabled" => new.enabled = false,
            "check" => {}
            _ => {
                return Err(format!(
                    "'server {name}' unknown keyword '{word}'. Here are weight, maxconn, backup, check, port, enabled \
                     and disabled; all else is as the service says."
                )
                .into());
            }
        }
        if matches!(*word, "check" | "port") && !is_checked {
            return Err(format!(
                "'server {name}' : '{word}' has no meaning: the servers of this backend are not checked. Give the \
                 service a check where it is declared."
            )
            .into());
        }
    }
    Ok(new)
}

/// `del server <px>/<sv>`
pub(super) async fn delete(session: &Session, server: &str) -> Result<String, Wrong> {
    let (proxy, name) = split(server)?;
    let sample = session.admin.stats.fresh().await;
    let which = match sample.proxy(proxy) {
        Some(proxy) if proxy.server(name).is_some() => may_go(&sample, proxy, name)?,
        found => {
            // Of a service that is not there, or while somebody else has a backend in its place.
            let mut words = sample.report.operator.iter();
            let is_known = words.any(|word| word.server.as_deref() == Some(server));
            match (is_known, found) {
                (true, _) => Which {
                    backend: Some(Named::Task(name.to_owned())),
                    service: Some(proxy.to_owned()),
                },
                (false, Some(_)) => return Err("No such server.".into()),
                (false, None) => return Err("No such backend.".into()),
            }
        }
    };
    let server = server.to_owned();
    order(session, Act::Delete { server }, which).await?;
    Ok("Server deleted.\n".to_owned())
}

/// A server that may be removed.
fn may_go(sample: &Sample, proxy: &Proxy, name: &str) -> Result<Which, Wrong> {
    let server = proxy.server(name).ok_or("No such server.")?;
    let backend = sample.backend(proxy, server);
    if &*backend.provider != OPERATOR {
        return Err(format!(
            "This server cannot be removed at runtime due to other configuration elements pointing to it: {} declares \
             it. Remove it there, or take it out with 'disable server'.",
            backend.provider
        )
        .into());
    }
    if status::word(backend) != "MAINT" {
        return Err("Only servers in maintenance mode can be deleted.".into());
    }
    if backend.traffic.flows_active > 0 {
        return Err("Server still has connections attached to it, cannot remove it.".into());
    }
    Ok(which(sample, proxy, name).ok_or("No such server.")?)
}

/// `set server <px>/<sv> addr <ip> [port <port>]`
pub(super) async fn shift(
    session: &Session,
    server: &str,
    words: &[&str],
) -> Result<String, Wrong> {
    let found = find(session, server)?;
    let from = found.addr;
    let (ip, port) = match words {
        [ip] => (*ip, None),
        [ip, "port", port] => (*ip, Some(*port)),
        _ => {
            let usage = "set server <b>/<s> addr requires an address and optionally a port.";
            return Err(usage.into());
        }
    };
    let ip: IpAddr = ip.parse().map_err(|_| format!("Invalid addr '{ip}'"))?;
    let number = match port {
        Some(port) => port
            .parse()
            .map_err(|_| format!("problem converting string '{port}' to int"))?,
        None => from.port(),
    };
    let to = SocketAddr::new(ip.to_canonical(), number);
    if to != from {
        let server = server.to_owned();
        order(session, Act::Move { server, to }, found.which).await?;
    }
    let mut said = match to.ip() == from.ip() {
        true => "no need to change the addr".to_owned(),
        false => format!("IP changed from '{}' to '{}'", from.ip(), to.ip()),
    };
    match port {
        None => {}
        Some(_) if to.port() == from.port() => said.push_str(", no need to change the port"),
        Some(_) => {
            let (before, now) = (from.port(), to.port());
            said.push_str(&format!(", port changed from '{before}' to '{now}'"));
        }
    }
    Ok(format!("{said} {UPDATER}\n"))
}

/// `set server <px>/<sv> check-port <port>`
pub(super) async fn check_port(
    session: &Session,
    server: &str,
    words: &[&str],
) -> Result<String, Wrong> {
    let found = find(session, server)?;
    if !found.checked {
        return Err("health checks are not enabled on this server.".into());
    }
    let number: Option<i64> = words.first().and_then(|text| text.parse().ok());
    let number = number.ok_or("'set server <srv> check-port' expects an integer as argument.")?;
    let port = u16::try_from(number).map_err(|_| "provided port is not valid.")?;
    order(session, Act::CheckPort(port), found.which).await?;
    Ok("health check port updated.\n".to_owned())
}

/// Proxy and server.
fn split(server: &str) -> Result<(&str, &str), Wrong> {
    let split = server.split_once('/').filter(|(_, name)| !name.is_empty());
    split.ok_or_else(|| "Require 'backend/server'.".into())
}
