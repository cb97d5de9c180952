//! Logging: text for people, JSON for machines, always to standard error.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{self, MakeWriter},
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{Log, LogFormat};

/// Two lines a query would be most of the log; a filter that names these modules wins.
const QUIET: &str = "hickory_server=warn,hickory_resolver=warn";

/// Starts logging for the process. Records of the `log` crate (aya's, for one) come out as well.
///
/// # Errors
/// When logging was started before.
pub fn init(log: &Log) -> Result<(), TryInitError> {
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    subscriber(json, terminal, &log.filter, io::stderr).try_init()
}

/// Reads a filter such as `info,lb_agent::dns=debug`, with the noisiest modules kept to warnings.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{filter}"))
}

fn subscriber<W>(
    json: bool,
    ansi: bool,
    filter: &str,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A filter that came through the configuration parses; any other is worth a full log rather than none.
    let filter = parse_filter(filter).unwrap_or_else(|_| EnvFilter::new(format!("info,{QUIET}")));
    let lines = fmt::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(writer);
    if json {
        Box::new(lines.json().flatten_event(true).finish())
    } else {
        Box::new(lines.finish())
    }
}

#[cfg(test)]
mod tests {
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

    fn logged(json: bool, filter: &str, say: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        tracing::subscriber::with_default(
            subscriber(json, false, filter, move || writer.clone()),
            say,
        );
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
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
}
