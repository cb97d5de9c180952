//! Logging: text for people, JSON for machines, both to standard error; fields for the journal.

mod pace;

use std::{
    env,
    fmt::Debug,
    io::{self, IsTerminal},
};

use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt as _,
    filter::ParseError,
    fmt::{
        self, MakeWriter,
        format::{self, Writer},
    },
    layer::SubscriberExt as _,
    util::{SubscriberInitExt, TryInitError},
};

use self::pace::Pace;
use crate::config::{Log, LogFormat};

/// Two lines a query would be most of the log; a filter that names these modules wins.
const QUIET: &str = "hickory_server=warn,hickory_resolver=warn";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It was started before.
    #[error(transparent)]
    Twice(#[from] TryInitError),
    /// Journald does not listen.
    #[error("cannot reach journald: {0}; choose another --log-format")]
    Journal(io::Error),
}

/// Starts logging for the process. Records of the `log` crate (aya's, for one) come out as well.
///
/// # Errors
/// When logging was started before, or the journal is asked for and cannot be reached.
pub fn init(log: &Log) -> Result<(), LogError> {
    let terminal = io::stderr().is_terminal();
    let lines = match form(log.format, terminal, leads_to_journal()) {
        Form::Journal { insist: true } => journal().map_err(LogError::Journal)?,
        // Standard error leads there in any case.
        Form::Journal { insist: false } => journal().unwrap_or_else(|_| json_lines(io::stderr)),
        Form::Text => text_lines(terminal, io::stderr),
        Form::Json => json_lines(io::stderr),
    };
    Ok(subscriber(lines, &log.filter).try_init()?)
}

/// Reads a filter such as `info,lb_agent::dns=debug`, with the noisiest modules kept to warnings.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{filter}"))
}

/// What lines look like, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    /// `insist`: it was asked for, so that nothing else will do.
    Journal {
        insist: bool,
    },
}

/// `terminal`, `journal`: what standard error is, or leads to.
fn form(asked: LogFormat, terminal: bool, journal: bool) -> Form {
    match asked {
        LogFormat::Journald => Form::Journal { insist: true },
        LogFormat::Auto if journal => Form::Journal { insist: false },
        LogFormat::Auto if terminal => Form::Text,
        LogFormat::Text => Form::Text,
        LogFormat::Auto | LogFormat::Json => Form::Json,
    }
}

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// Whether standard error is the stream that systemd gave us to its journal (`$JOURNAL_STREAM` in systemd.exec(5)).
fn leads_to_journal() -> bool {
    let (Ok(given), Ok(found)) = (env::var("JOURNAL_STREAM"), rustix::fs::fstat(io::stderr()))
    else {
        return false;
    };
    given == format!("{}:{}", found.st_dev, found.st_ino)
}

/// Each field is one of the journal: `journalctl -t lb-agent F_BACKEND=10.0.1.5:28543`.
fn journal() -> io::Result<Lines> {
    let layer = tracing_journald::layer()?.with_syslog_identifier("lb-agent".to_owned());
    Ok(layer.boxed())
}

fn json_lines<W>(writer: W) -> Lines
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer()
        .with_writer(writer)
        .json()
        .flatten_event(true)
        .boxed()
}

fn text_lines<W>(ansi: bool, writer: W) -> Lines
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer()
        .with_ansi(ansi)
        .fmt_fields(format::debug_fn(put).delimited(" "))
        .with_writer(writer)
        .boxed()
}

/// Writes one field, and what is no text in it as Rust does: nobody can have the name of a task look like another event,
/// or a terminal obey it.
fn put(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    if field.name() != "message" {
        write!(out, "{}=", field.name())?;
    }
    for letter in format!("{value:?}").chars() {
        if letter.is_control() {
            write!(out, "{}", letter.escape_default())?;
        } else {
            out.write_char(letter)?;
        }
    }
    Ok(())
}

fn subscriber(lines: Lines, filter: &str) -> impl Subscriber + Send + Sync + use<> {
    // A filter that came through the configuration parses; any other is worth a full log rather than none.
    let filter = parse_filter(filter).unwrap_or_else(|_| EnvFilter::new(format!("info,{QUIET}")));
    tracing_subscriber::registry()
        .with(lines)
        .with(Pace::default())
        .with(filter)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What comes of what is said, for machines.
    pub(crate) fn told(say: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = logged(true, "info", say);
        let lines = lines.lines().map(serde_json::from_str);
        lines.map(Result::unwrap).collect()
    }

    fn logged(json: bool, filter: &str, say: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let writer = move || writer.clone();
        let lines = match json {
            true => json_lines(writer),
            false => text_lines(false, writer),
        };
        tracing::subscriber::with_default(subscriber(lines, filter), say);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_are_made_for_whoever_reads_them() {
        let silent = Form::Journal { insist: false };
        for (asked, terminal, journal, expected) in [
            (LogFormat::Auto, true, false, Form::Text),
            (LogFormat::Auto, false, false, Form::Json),
            (LogFormat::Auto, false, true, silent),
            (LogFormat::Text, false, true, Form::Text),
            (LogFormat::Json, true, false, Form::Json),
            (
                LogFormat::Journald,
                true,
                false,
                Form::Journal { insist: true },
            ),
        ] {
            assert_eq!(form(asked, terminal, journal), expected, "{asked:?}");
        }
    }

    #[test]
    fn a_json_line_is_one_object_with_level_message_and_fields() {
        let line = logged(true, "info", || {
            tracing::warn!(iface = "eth0", "cannot attach")
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "cannot attach");
        assert_eq!(line["iface"], "eth0");
    }

    #[test]
    fn a_text_line_has_no_colours_unless_on_a_terminal() {
        let line = logged(false, "info", || tracing::info!("ready"));
        assert!(
            line.contains("INFO") && line.ends_with("ready\n"),
            "{line:?}"
        );
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }

    #[test]
    fn what_others_name_things_is_no_line_of_its_own() {
        let name = "task\n2026-01-01T00:00:00Z ERROR all is lost\r\u{1b}[2J";
        for json in [false, true] {
            let said = || tracing::info!(task = %name, "added {name}");
            let text = logged(json, "info", said);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains(['\r', '\u{1b}']), "{text:?}");
            assert_eq!(text.matches("all is lost").count(), 2, "{text}");
        }
    }

    #[test]
    fn the_resolver_is_quiet_even_at_debug() {
        let line = logged(false, "debug", || {
            tracing::info!(target: "hickory_server::server", "query");
            tracing::debug!(target: "lb_agent::dns", "answer");
        });
        assert!(
            !line.contains("query") && line.contains("answer"),
            "{line:?}"
        );
    }

    #[test]
    fn a_filter_that_names_the_resolver_wins() {
        let line = logged(
            false,
            "info,hickory_server=info",
            || tracing::info!(target: "hickory_server::server", "query"),
        );
        assert!(line.contains("query"), "{line:?}");
    }

    #[test]
    fn below_the_filter_nothing_is_logged() {
        assert_eq!(logged(false, "warn", || tracing::info!("chatter")), "");
    }

    #[test]
    fn of_a_flood_of_one_kind_only_the_beginning_is_logged() {
        let lines = logged(false, "info", || {
            for n in 0..pace::MOST * 3 {
                tracing::info!(n, "flood");
                if n % 100 == 0 {
                    tracing::info!("another");
                }
            }
        });
        let floods = lines.lines().filter(|line| line.contains("flood"));
        assert_eq!(floods.count() as u32, pace::MOST);
        assert!(
            lines
                .lines()
                .filter(|line| line.contains("another"))
                .count()
                >= 15
        );
    }
}
