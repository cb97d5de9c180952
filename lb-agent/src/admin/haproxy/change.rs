//! Commands that change backends: they become the same orders as those of `lb-agent drain` and its like.

use super::{commands::Wrong, session::Session};
use crate::admin::{
    orders::{Act, Order, Which},
    web::which,
};

/// A server as the operator sees it.
struct Found {
    which: Which,
    /// The weight that its orchestrator gives it, and the one that it has.
    weights: (u16, u16),
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
        ["health", "up" | "stopping" | "down"]
        | ["addr" | "check-port" | "agent" | "fqdn" | "ssl", ..] => {
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
                format!("usage: set server {server} state [ready|drain|maint] or weight [n|n%]")
                    .into(),
            )
        }
    }
}

/// `ready`, `drain` or `maint`.
pub(super) async fn state(session: &mut Session, server: &str, word: &str) -> Result<(), Wrong> {
    let found = find(session, server)?;
    let act = match word {
        "ready" => Act::Ready,
        "drain" => Act::Drain,
        _ => Act::Maintenance,
    };
    let (declared, weight) = found.weights;
    order(session, act, found.which.clone()).await?;
    // HAProxy's `ready` leaves the weight alone; ours takes back every word.
    if act == Act::Ready && declared != weight {
        order(session, Act::Weight(weight), found.which).await?;
    }
    session.admin.stats.fresh().await;
    Ok(())
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
    let weight = read(text, found.weights.0)?;
    order(session, Act::Weight(weight), found.which).await?;
    session.admin.stats.fresh().await;
    Ok(())
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

async fn order(session: &Session, act: Act, which: Which) -> Result<(), Wrong> {
    let order = Order {
        act,
        which,
        deadline: None,
    };
    let done = session.admin.order(order).await;
    done.map(drop).map_err(|(_, why)| Wrong(why))
}

fn find(session: &Session, server: &str) -> Result<Found, Wrong> {
    let (proxy, name) = server.split_once('/').ok_or("Require 'backend/server'.")?;
    let sample = session.admin.stats.sample();
    let proxy = sample.proxy(proxy).ok_or("No such backend.")?;
    let server = proxy.server(name).ok_or("No such server.")?;
    let backend = sample.backend(proxy, server);
    Ok(Found {
        which: which(&sample, proxy, name).ok_or("No such server.")?,
        weights: (backend.declared.weight, backend.weight),
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
        let read = |text| read(text, 10).map_err(|Wrong(why)| why);
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
