//! The commands' words, and who may use them.

use std::{io, time::Duration};

use tracing::{info, warn};

use super::{change, servers, session::Session, show};

/// What may be done over a socket; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Look at numbers.
    User,
    /// See flows, reset maxima.
    Operator,
    /// Change backends.
    Admin,
}

/// Whether more may come.
pub(super) enum Reply {
    /// The answer is sent.
    Done,
    /// The connection ends.
    End,
}

/// An answer that is an error.
pub(super) struct Wrong {
    pub(super) text: String,
    /// The log has it already.
    pub(super) logged: bool,
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            logged: false,
        }
    }
}

/// The answer to who may not do what he asks for.
const DENIED: &str = "Permission denied";
/// How the answer to what nobody knows begins.
const UNKNOWN: &str = "Unknown command";
/// How answers begin to who asks for what may have been there a moment ago.
const MISSED: [&str; 2] = ["No such ", "Can't find "];

/// The commands that there are, for `help` and for those who got one wrong.
pub(super) const COMMANDS: &str = "\
  add server <bk>/<srv> <addr>:<port> ...  : add a server to a backend, in maintenance mode
  clear counters [all]                    : reset max statistics counters (or all of them)
  del server <bk>/<srv>                   : remove a server that was added
  disable frontend <frontend>             : take no new flows for a frontend
  disable health <bk>/<srv>               : stop the health checks of a server
  disable server <bk>/<srv>               : set a server in maintenance mode
  enable frontend <frontend>              : take new flows for a frontend again
  enable health <bk>/<srv>                : resume the health checks of a server
  enable server <bk>/<srv>                : enable a disabled server
  get weight <bk>/<srv>                   : report a server's current weight
  help                                    : list of all commands
  prompt                                  : toggle interactive mode with prompt
  quit                                    : disconnect
  set maxconn frontend <frontend> <n>     : limit a frontend's flows, 0 for what its service says
  set maxconn server <bk>/<srv> <n>       : limit a server's flows, 0 for what its orchestrator says
  set server <bk>/<srv> addr <ip> [port <n>] : change a server's address
  set server <bk>/<srv> check-port <n>    : change the port of a server's health checks
  set server <bk>/<srv> health <health>   : force a server's health to up, stopping or down
  set server <bk>/<srv> state <state>     : set a server to ready, drain or maint
  set server <bk>/<srv> weight <weight>   : change a server's weight
  set timeout cli <delay>                 : change the timeout of this connection
  set weight <bk>/<srv> <weight>          : change a server's weight
  show backend                            : list backends
  show info [json|typed]                  : report information about the running process
  show servers conn [<backend>]           : dump server connections status
  show servers state [<backend>]          : dump volatile server information
  show sess                               : report the list of current flows
  show stat [<iid> <type> <sid>] [json|typed] : report counters for each proxy and server
  show version                            : show version of the current process
  shutdown sessions server <bk>/<srv>     : reset the flows of a server
";

/// Commands of HAProxy that this agent does not have; whoever uses them is told so.
const MISSING: [&str; 5] = [
    "set maxconn global",
    "shutdown session",
    "enable agent",
    "disable agent",
    "shutdown frontend",
];

/// Runs one command and sends its answer.
pub(super) async fn run(session: &mut Session, command: &str) -> io::Result<Reply> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        [] => session.end().await?,
        ["quit"] => return Ok(Reply::End),
        ["prompt"] => {
            session.interactive = !session.interactive;
            session
                .send(if session.interactive { "\n> " } else { "\n" })
                .await?;
        }
        words => {
            if let Err(Wrong { text, logged }) = answer(session, words).await? {
                let (by, command) = (&session.by, shown(words));
                let why = text.lines().next().unwrap_or_default();
                if MISSED.iter().any(|start| why.starts_with(start)) {
                    info!(by, command, "refused: {why}");
                } else if !logged {
                    warn!(by, command, "refused: {why}");
                }
                let end = if text.ends_with('\n') { "" } else { "\n" };
                session.send(&format!("{text}{end}")).await?;
            }
            session.end().await?;
        }
    }
    Ok(Reply::Done)
}

async fn answer(session: &mut Session, words: &[&str]) -> io::Result<Result<(), Wrong>> {
    let needed = match words {
        ["show", "sess", ..] => Level::Operator,
        ["clear", "counters", "all", ..] => Level::Admin,
        ["clear", "counters", ..] => Level::Operator,
        ["set", "timeout", ..] | ["get", "weight", ..] | ["show", ..] | ["help", ..] => Level::User,
        [
            "set" | "enable" | "disable" | "add" | "del" | "shutdown",
            ..,
        ] => Level::Admin,
        _ => Level::User,
    };
    if session.level < needed {
        return Ok(Err(DENIED.into()));
    }
    let done = match words {
        ["help", ..] => {
            session
                .send(&format!(
                    "The following commands are valid at this level:\n{COMMANDS}"
                ))
                .await?;
            Ok(())
        }
        ["show", "info", "json", ..] => show::info_json(session).await?,
        ["show", "info", "typed", ..] => show::info_typed(session).await?,
        ["show", "info"] => show::info(session).await?,
        ["show", "stat", rest @ ..] => show::stat(session, rest).await?,
        ["show", "backend"] => show::backend(session).await?,
        ["show", "servers", "state", rest @ ..] => show::servers_state(session, rest).await?,
        ["show", "servers", "conn", rest @ ..] => show::servers_conn(session, rest).await?,
        ["show", "sess", ..] => show::sess(session).await?,
        ["show", "version"] => show::version(session).await?,
        ["clear", "counters", ..] => {
            session.admin.stats.clear(needed == Level::Admin).await;
            Ok(())
        }
        ["set", "timeout", "cli", time] => match duration(time) {
            Some(time) => {
                session.idle = time;
                Ok(())
            }
            None => Err("Invalid timeout value.".into()),
        },
        ["get", "weight", server] => show::weight(session, server).await?,
        ["set", "weight", server, rest @ ..] => change::weight(session, server, rest).await,
        ["set", "server", server, "addr", rest @ ..] => {
            let told = servers::shift(session, server, rest).await;
            tell(session, told).await?
        }
        ["set", "server", server, "check-port", rest @ ..] => {
            let told = servers::check_port(session, server, rest).await;
            tell(session, told).await?
        }
        ["add", "server", server, rest @ ..] => {
            let told = servers::add(session, server, rest).await;
            tell(session, told).await?
        }
        ["del", "server", server] => {
            let told = servers::delete(session, server).await;
            tell(session, told).await?
        }
        ["set", "server", server, rest @ ..] => change::server(session, server, rest).await,
        ["enable", "server", server] => change::state(session, server, "ready").await,
        ["disable", "server", server] => change::state(session, server, "maint").await,
        ["enable", "health", server] => change::checks(session, server, true).await,
        ["disable", "health", server] => change::checks(session, server, false).await,
        ["shutdown", "sessions", "server", server] => change::reset(session, server).await,
        ["set", "maxconn", "server", server, rest @ ..] => {
            change::limit(session, server, rest).await
        }
        ["set", "maxconn", "frontend", proxy, rest @ ..] => {
            change::frontend_limit(session, proxy, rest).await
        }
        ["enable", "frontend", proxy] => change::frontend(session, proxy, true).await,
        ["disable", "frontend", proxy] => change::frontend(session, proxy, false).await,
        ["enable" | "disable", "frontend"] | ["set", "maxconn", "frontend"] => {
            Err("A frontend name is expected.".into())
        }
        ["set", "weight"]
        | ["set" | "enable" | "disable" | "add" | "del", "server"]
        | ["enable" | "disable", "health"]
        | ["set", "maxconn", "server"]
        | ["shutdown", "sessions", "server"]
        | ["get", "weight"] => Err("Require 'backend/server'.".into()),
        words => Err(unknown(words)),
    };
    Ok(done)
}

/// Sends what a command came to, if it was done.
async fn tell(session: &mut Session, told: Result<String, Wrong>) -> io::Result<Result<(), Wrong>> {
    match told {
        Ok(text) => Ok(Ok(session.send(&text).await?)),
        Err(wrong) => Ok(Err(wrong)),
    }
}

/// What HAProxy answers to what it does not know, and why.
pub(super) fn unknown(words: &[&str]) -> Wrong {
    let known = |missing: &&&str| {
        let wanted: Vec<_> = missing.split(' ').collect();
        words.starts_with(&wanted)
    };
    let why = match MISSING.iter().find(known) {
        Some(missing) => format!("{UNKNOWN}: lb-agent has no '{missing}'"),
        None => format!("{UNKNOWN}: '{}'", shown(words)),
    };
    format!("{why}, but maybe one of the following ones is a better match:\n{COMMANDS}").into()
}

/// What was said, as far as it can be repeated.
fn shown(words: &[&str]) -> String {
    let text = words.join(" ");
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// A time as HAProxy writes it: seconds, or with a unit.
fn duration(text: &str) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(86_400);
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let time = match unit {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    };
    (!time.is_zero()).then(|| time.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let seconds = Duration::from_secs;
        assert_eq!(duration("60"), Some(seconds(60)));
        assert_eq!(duration("5s"), Some(seconds(5)));
        assert_eq!(duration("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(duration("2m"), Some(seconds(120)));
        assert_eq!(duration("99999999999d"), Some(seconds(86_400)));
        for wrong in ["", "x", "5x", "0", "-1", "99999999999999999999"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
