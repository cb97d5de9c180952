//! Commands that change backends: they become the same orders as those of `lb-agent drain` and its like.

use std::net::SocketAddr;

use super::{commands::Wrong, session::Session};
use crate::admin::{
    orders::{Act, Forced, Order, Which},
    web::{which, whole},
};

/// A server as the operator sees it.
pub(super) struct Found {
    pub(super) which: Which,
    /// Where it listens.
    pub(super) addr: SocketAddr,
    /// The weight that its orchestrator gives it.
    weight: u16,
    /// Its service has it checked.
    pub(super) checked: bool,
}

/// `set server <px>/<sv> ...`
pub(super) async fn server(
    session: &mut Session,
    server: &str,
    rest: &[&str],
) -> Result<(), Wrong> {
    match rest {
        ["state", word @ ("ready" | "drain" | "maint")] => state(session, server, word).await,
        ["state", ..] => {
            find(session, server)?;
            Err(format!(
                "'set server {} state' expects 'ready', 'drain' and 'maint'.",
                name(server)
            )
            .into())
        }
        ["weight", rest @ ..] => weight(session, server, rest).await,
        ["health", "up"] => give(session, server, Act::Health(Forced::Up)).await,
        ["health", "stopping"] => give(session, server, Act::Health(Forced::Stopping)).await,
        ["health", "down"] => give(session, server, Act::Health(Forced::Down)).await,
        ["agent" | "fqdn" | "ssl", ..] => {
            find(session, server)?;
            let words = ["set", "server", server]
                .into_iter()
                .chain(rest.iter().copied());
            Err(super::commands::unknown(&words.collect::<Vec<_>>()))
        }
        ["health", ..] => {
            find(session, server)?;
            Err(format!(
                "'set server {} health' expects 'up', 'stopping', or 'down'.",
                name(server)
            )
            .into())
        }
        _ => {
            find(session, server)?;
            Err(
                format!(
                    "usage: set server {server} state [ready|drain|maint], health [up|stopping|down], weight [n|n%], \
                     addr IP [port n] or check-port [n]"
                )
                .into(),
            )
        }
    }
}

/// `ready`, `drain` or `maint`. HAProxy's `ready` leaves the weight alone.
pub(super) async fn state(session: &mut Session, server: &str, word: &str) -> Result<(), Wrong> {
    let act = match word {
        "ready" => Act::Enable,
        "drain" => Act::Drain,
        _ => Act::Maintenance,
    };
    give(session, server, act).await
}

/// `enable health`, `disable health`.
pub(super) async fn checks(session: &mut Session, server: &str, on: bool) -> Result<(), Wrong> {
    let found = find(session, server)?;
    if on && !found.checked {
        return Err("Health checks are not configured on this server, cannot enable.".into());
    }
    order(session, Act::Checks(on), found.which).await
}

/// `shutdown sessions server`.
pub(super) async fn reset(session: &mut Session, server: &str) -> Result<(), Wrong> {
    give(session, server, Act::Reset).await
}

/// `set maxconn server`.
pub(super) async fn limit(session: &mut Session, server: &str, rest: &[&str]) -> Result<(), Wrong> {
    let found = find(session, server)?;
    let text = rest.first().filter(|text| !text.is_empty());
    let text = text.ok_or("Require <maxconn>.")?;
    let digits = text.trim_start_matches('-');
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("maxconn string empty or preceded by garbage".into());
    }
    if !digits.chars().all(|c| c.is_ascii_digit()) {
        return Err("Trailing garbage in maxconn string".into());
    }
    let limit = text.parse().map_err(|_| "Value out of range.")?;
    order(session, Act::Limit(limit), found.which).await
}

/// `set maxconn frontend`.
pub(super) async fn frontend_limit(
    session: &mut Session,
    proxy: &str,
    rest: &[&str],
) -> Result<(), Wrong> {
    let which = find_frontend(session, proxy)?;
    let text = rest.first().ok_or("Integer value expected.")?;
    let number: i128 = text.parse().map_err(|_| "Integer value expected.")?;
    let limit = u32::try_from(number).map_err(|_| "Value out of range.")?;
    order(session, Act::Limit(limit), which).await
}

/// `enable frontend`, `disable frontend`.
pub(super) async fn frontend(session: &mut Session, proxy: &str, open: bool) -> Result<(), Wrong> {
    let which = find_frontend(session, proxy)?;
    order(session, Act::Open(open), which).await
}

/// `set weight`: a number, or a percentage of what the orchestrator says.
pub(super) async fn weight(
    session: &mut Session,
    server: &str,
    rest: &[&str],
) -> Result<(), Wrong> {
    let found = find(session, server)?;
    let Some(text) = rest.first().filter(|text| !text.is_empty()) else {
        return Err("Require <weight> or <weight%>.".into());
    };
    let weight = read(text, found.weight)?;
    order(session, Act::Weight(weight), found.which).await
}

fn read(text: &str, declared: u16) -> Result<u16, Wrong> {
    let garbage = || Wrong::from("Empty weight string empty or preceded by garbage");
    let (digits, percent) = match text.strip_suffix('%') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let number: i64 = digits.parse().map_err(|_| garbage())?;
    let most = if percent { 100 } else { 256 };
    let number = u16::try_from(number).ok().filter(|number| *number <= most);
    match (number, percent) {
        (Some(number), false) => Ok(number),
        // Not beyond what it is a part of.
        (Some(number), true) => Ok((u32::from(declared) * u32::from(number) / 100) as u16),
        (None, false) => Err("Absolute weight can only be between 0 and 256 inclusive.".into()),
        (None, true) => Err("Relative weight can only be between 0 and 100% inclusive.".into()),
    }
}

pub(super) async fn order(session: &Session, act: Act, which: Which) -> Result<(), Wrong> {
    let order = Order {
        act,
        which,
        deadline: None,
    };
    let done = session.admin.order(order, &session.by).await;
    done.map_err(|(_, text)| Wrong { text, logged: true })?;
    session.admin.stats.fresh().await;
    Ok(())
}

/// An order about one server.
async fn give(session: &mut Session, server: &str, act: Act) -> Result<(), Wrong> {
    let found = find(session, server)?;
    order(session, act, found.which).await
}

fn find_frontend(session: &Session, proxy: &str) -> Result<Which, Wrong> {
    let sample = session.admin.stats.sample();
    let proxy = sample.proxy(proxy).ok_or("No such frontend.")?;
    Ok(whole(&sample, proxy).ok_or("No such frontend.")?)
}

pub(super) fn find(session: &Session, server: &str) -> Result<Found, Wrong> {
    let (proxy, name) = server.split_once('/').ok_or("Require 'backend/server'.")?;
    let sample = session.admin.stats.sample();
    let proxy = sample.proxy(proxy).ok_or("No such backend.")?;
    let server = proxy.server(name).ok_or("No such server.")?;
    let backend = sample.backend(proxy, server);
    Ok(Found {
        which: which(&sample, proxy, name).ok_or("No such server.")?,
        addr: backend.addr,
        weight: backend.declared.weight,
        checked: sample.service(proxy).probe.is_some(),
    })
}

fn name(server: &str) -> &str {
    server.split_once('/').map_or(server, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_numbers_or_parts() {
        let read = |text| read(text, 10).map_err(|Wrong { text, .. }| text);
        assert_eq!(read("0"), Ok(0));
        assert_eq!(read("256"), Ok(256));
        assert_eq!(read("50%"), Ok(5));
        assert_eq!(read("100%"), Ok(10));
        for (text, expected) in [
            ("257", "Absolute weight"),
            ("-1", "Absolute weight"),
            ("101%", "Relative weight"),
            ("x", "Empty weight"),
            ("", "Empty weight"),
            ("5x", "Empty weight"),
            ("%", "Empty weight"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.starts_with(expected), "{text}: {why}");
        }
    }
}
