//! Lines of HAProxy's configuration, as `EXTRA_SETTINGS` and its like hold them: those with a meaning for connections.

use std::time::Duration;

use crate::{
    catalog::{Balance, Idle, Properties},
    provider::{
        shape::{LONGEST, SHORTEST},
        values::{count, decimal, millis},
    },
};

/// Lines that are read, by their first word.
const READ: [&str; 3] = ["balance", "timeout", "maxconn"];

/// Takes over `balance`, `timeout client`, `timeout server` and `maxconn`. Of other lines `notes` has the first word:
/// what follows may be a secret.
///
/// # Errors
/// The first line of those whose value cannot be used.
pub(super) fn read(
    name: &str,
    text: &str,
    to: &mut Properties,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let mut silent = None;
    for line in lines(text) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["balance", how, ..] => to.balance = balance(how)?,
            ["timeout", "client" | "server", time] => {
                silent = silent.max(Some(duration(time)?));
            }
            ["maxconn", most] => to.max_flows = count(most)?,
            [word @ ("balance" | "maxconn"), ..] => {
                return Err(format!("{line:?}: {word} has one value"));
            }
            [word, ..] => notes.push(format!(
                "{word} in {name} has no effect: connections are balanced, not requests"
            )),
            [] => {}
        }
    }
    if let Some(silent) = silent {
        to.idle = idle(silent);
    }
    Ok(())
}

/// The same text with nothing but the first word of lines that are not read.
pub(super) fn without_secrets(text: &str) -> String {
    let kept = lines(text).map(|line| {
        let first = line.split_whitespace().next().unwrap_or_default();
        match READ.contains(&first) {
            true => line.clone(),
            false => first.to_owned(),
        }
    });
    kept.collect::<Vec<_>>().join(",")
}

/// As HAProxy calls the ways to choose.
pub(super) fn balance(text: &str) -> Result<Balance, String> {
    match text {
        "roundrobin" | "static-rr" => Ok(Balance::RoundRobin),
        "leastconn" => Ok(Balance::LeastConn),
        "source" => Ok(Balance::Source),
        _ => Err(format!(
            "{text:?} is not one of roundrobin, static-rr, leastconn, source"
        )),
    }
}

/// HAProxy's times are in ms where they have no unit.
pub(in crate::provider::docker) fn with_unit(text: &str) -> String {
    match decimal(text) {
        Some(_) => format!("{text}ms"),
        None => text.to_owned(),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(LONGEST.into());
    millis(&with_unit(text), Duration::ZERO..=longest)
}

/// When a silent flow is over, in whole seconds and within what a flow can have; with 0 HAProxy waits for ever.
fn idle(silent: Duration) -> Idle {
    let seconds = u32::try_from(silent.as_millis().div_ceil(1_000)).unwrap_or(LONGEST);
    let seconds = match seconds {
        0 => LONGEST,
        seconds => seconds.clamp(SHORTEST, LONGEST),
    };
    Idle {
        tcp: seconds,
        udp: seconds,
        udp_two_way: seconds,
    }
}

/// By commas; `\,` is a comma in a line.
fn lines(text: &str) -> impl Iterator<Item = String> {
    // An environment cannot hold a NUL.
    let text = text.replace("\\,", "\0");
    let lines: Vec<String> = text
        .split(',')
        .map(|line| line.replace('\0', ",").trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> (Result<Properties, String>, Vec<String>) {
        let (mut properties, mut notes) = (Properties::default(), Vec::new());
        let read = read("EXTRA_SETTINGS", text, &mut properties, &mut notes);
        (read.map(|()| properties), notes)
    }

    #[test]
    fn what_has_a_meaning_for_connections_counts() {
        let text = "balance leastconn, timeout client 50000, timeout server 2m, maxconn 100";
        let (properties, notes) = all(text);
        let expected = Properties {
            balance: Balance::LeastConn,
            idle: idle(Duration::from_secs(120)),
            max_flows: 100,
            ..Properties::default()
        };
        assert_eq!((properties, notes), (Ok(expected), vec![]));
        for (text, seconds) in [
            ("timeout client 1500", SHORTEST),
            ("timeout client 10001", 11),
            ("timeout server 0", LONGEST),
            ("timeout server 30d", LONGEST),
        ] {
            let idle = all(text).0.unwrap().idle;
            assert_eq!((idle.tcp, idle.udp_two_way), (seconds, seconds), "{text}");
        }
    }

    #[test]
    fn of_the_rest_the_first_word_is_told_and_kept() {
        let text =
            r"http-request deny if { src 10.0.0.1\, 10.0.0.2 }, timeout tunnel 1h, balance source";
        let (properties, notes) = all(text);
        assert_eq!(properties.unwrap().balance, Balance::Source);
        let told = ["http-request", "timeout"];
        assert_eq!(notes.len(), told.len());
        for (note, word) in notes.iter().zip(told) {
            assert!(
                note.starts_with(&format!("{word} in EXTRA_SETTINGS")),
                "{note}"
            );
        }
        let kept = "http-request,timeout tunnel 1h,balance source";
        assert_eq!(without_secrets(text), kept);
        assert_eq!(all(kept).1, notes);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, expected) in [
            ("balance uri", "\"uri\" is not one of roundrobin"),
            ("balance", "balance has one value"),
            ("maxconn many", "\"many\" is not a number"),
            ("maxconn 0", "\"0\" is not a number"),
            ("timeout client soon", "\"soon\" is not a duration"),
            ("timeout client 31d", "is not between"),
        ] {
            let refused = all(text).0.unwrap_err();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }
}
