//! A health check as tenants write it: `tcp`, or `http:/path`, and words `key=value` after it.

use std::{ops::RangeInclusive, time::Duration};

use super::values::{count, millis, port};
use crate::catalog::{Check, Http, Probe};

/// What a tenant may ask for: many probes are the node's work.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=LONGEST_TIMEOUT;
pub(in crate::provider) const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=LONGEST_GRACE;
pub(in crate::provider) const LONGEST_GRACE: Duration = Duration::from_secs(86_400);
/// Of `rise` and `fall`.
const MOST: u32 = 100;
/// The longest path and host, bytes.
const LONGEST: usize = 1_024;
const METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// Reads `tcp` or `http:/path`, and options after blanks: `interval=2s fast=500ms timeout=1s rise=2 fall=3 grace=10s port=8081
/// host=www method=HEAD expect=200-299,404`. `inter` is `interval` and `fastinter` is `fast`, as with HAProxy.
///
/// # Errors
/// The first word that is wrong, and what would be right.
pub(in crate::provider) fn check(text: &str) -> Result<Check, String> {
    let mut words = text.split_whitespace();
    let what = words.next().unwrap_or_default();
    let mut draft = match what.split_once(':') {
        None if what == "tcp" => Draft::tcp(),
        None if what == "http" => Draft::http("/")?,
        Some(("http", path)) => Draft::http(path)?,
        _ => return Err(format!("{what:?} is neither tcp nor http:/PATH")),
    };
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("{word:?} is not KEY=VALUE"))?;
        let key = match key {
            "inter" => "interval",
            "fastinter" => "fast",
            key => key,
        };
        draft
            .set(key, value)
            .map_err(|why| format!("{key}: {why}"))?;
    }
    draft.finish()
}

/// A check under construction.
pub(in crate::provider) struct Draft {
    check: Check,
    timed: bool,
}

// === impl Draft ===

impl Draft {
    /// A connection is enough.
    pub(in crate::provider) fn tcp() -> Self {
        Self {
            check: Check::new(Probe::Tcp),
            timed: false,
        }
    }

    /// A request of `path`.
    ///
    /// # Errors
    /// It is not a path.
    pub(in crate::provider) fn http(path: &str) -> Result<Self, String> {
        let http = Http {
            method: METHODS[0],
            path: visible(path)?.to_owned(),
            host: None,
            expect: vec![Http::EXPECT],
        };
        Ok(Self {
            check: Check::new(Probe::Http(http)),
            timed: false,
        })
    }

    /// Sets what `key` names.
    ///
    /// # Errors
    /// What is wrong with the key or its value.
    pub(in crate::provider) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let Self { check, timed } = self;
        match key {
            "interval" => check.interval = millis(value, INTERVAL)?,
            "fast" => check.fast = Some(millis(value, INTERVAL)?),
            "timeout" => {
                check.timeout = millis(value, TIMEOUT)?;
                *timed = true;
            }
            "grace" => check.grace = millis(value, GRACE)?,
            "rise" => check.rise = few(value)?,
            "fall" => check.fall = few(value)?,
            "port" => check.port = Some(port(value)?),
            "host" | "method" | "expect" => match &mut check.probe {
                Probe::Tcp => return Err("it has no meaning for a TCP check".to_owned()),
                Probe::Http(http) => set_http(http, key, value)?,
            },
            _ => {
                return Err(
                    "no such key; there are interval, fast, timeout, rise, fall, grace, port, \
                            host, method, expect"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// The check.
    ///
    /// # Errors
    /// What does not go together.
    pub(in crate::provider) fn finish(self) -> Result<Check, String> {
        let Self { mut check, timed } = self;
        if !timed {
            check.timeout = check.interval.min(LONGEST_TIMEOUT);
        }
        if let Probe::Http(http) = &check.probe {
            let star = http.path == "*" && http.method == "OPTIONS";
            if !http.path.starts_with('/') && !star {
                return Err(format!(
                    "{:?} is not a path that begins with a slash",
                    http.path
                ));
            }
        }
        Ok(check)
    }
}

fn set_http(http: &mut Http, key: &str, value: &str) -> Result<(), String> {
    match key {
        "host" => http.host = Some(host(value)?.to_owned()),
        "method" => {
            let known = METHODS.into_iter().find(|method| *method == value);
            let wrong = || format!("{value:?} is not one of {}", METHODS.join(", "));
            http.method = known.ok_or_else(wrong)?;
        }
        _ => http.expect = expect(value)?,
    }
    Ok(())
}

fn few(text: &str) -> Result<u32, String> {
    let number = count(text).ok().filter(|number| *number <= MOST);
    number.ok_or_else(|| format!("{text:?} is not a number from 1 to {MOST}"))
}

/// Text that stays on one line of a request.
fn visible(text: &str) -> Result<&str, String> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || !visible || text.len() > LONGEST {
        return Err(format!(
            "{text:?} is not 1 to {LONGEST} visible ASCII characters"
        ));
    }
    Ok(text)
}

/// A name or address, and perhaps a port.
fn host(text: &str) -> Result<&str, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let text = visible(text)?;
    if !text.chars().all(fits) {
        return Err(format!("{text:?} is not a host, with a port or without"));
    }
    Ok(text)
}

/// `200-399,404`.
fn expect(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let wrong = || format!("{text:?} is not a list of status codes such as 200-299,404");
    let code = |text: &str| {
        let code = text.parse::<u16>().ok();
        code.filter(|code| text.len() == 3 && (100..=599).contains(code))
    };
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let range = (code(from)?, code(to)?);
        (range.0 <= range.1).then_some(range)
    };
    let mut ranges = text
        .split(',')
        .map(|part| range(part.trim()))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(wrong)?;
    ranges.sort_unstable();
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Port;

    #[test]
    fn a_word_is_enough() {
        assert_eq!(check("tcp"), Ok(Check::new(Probe::Tcp)));
        let Probe::Http(http) = check("http:/healthz?deep=1").unwrap().probe else {
            panic!("a request is wanted");
        };
        assert_eq!((http.method, &*http.path), ("GET", "/healthz?deep=1"));
        assert!(http.expects(200) && http.expects(399) && !http.expects(400));
    }

    #[test]
    fn every_option_counts() {
        let read = check(
            "http:/h inter=500ms fastinter=100ms timeout=1s rise=1 fall=5 grace=1m port=81 host=www.example:8080 \
             method=HEAD expect=404,200-204",
        )
        .unwrap();
        let expected = Check {
            probe: Probe::Http(Http {
                method: "HEAD",
                path: "/h".to_owned(),
                host: Some("www.example:8080".to_owned()),
                expect: vec![(200, 204), (404, 404)],
            }),
            port: Port::new(81),
            interval: Duration::from_millis(500),
            fast: Some(Duration::from_millis(100)),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 5,
            grace: Duration::from_secs(60),
        };
        assert_eq!(read, expected);
        let Probe::Http(http) = &read.probe else {
            panic!("a request is wanted");
        };
        assert_eq!(http.expected(), "200-204, 404");
        assert_eq!(read.to_string(), "http HEAD /h at port 81");
    }

    #[test]
    fn without_a_timeout_an_answer_may_take_an_interval() {
        assert_eq!(
            check("tcp inter=5s").unwrap().timeout,
            Duration::from_secs(5)
        );
        let slow = check("tcp inter=10m").unwrap();
        assert_eq!(slow.timeout, Duration::from_secs(60));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("", "\"\" is neither tcp nor http:/PATH"),
            ("https:/x", "\"https:/x\" is neither"),
            ("http:healthz", "is not a path that begins with a slash"),
            ("http:*", "is not a path that begins with a slash"),
            ("http:/\u{e9}", "visible ASCII"),
            ("tcp 2s", "\"2s\" is not KEY=VALUE"),
            ("tcp interval=2", "interval: \"2\" is not a duration"),
            ("tcp interval=10ms", "is not between 100ms and 1h"),
            ("tcp fast=0s", "fast: \"0s\" is not between 100ms and 1h"),
            (
                "tcp timeout=2h",
                "timeout: \"2h\" is not between 10ms and 1m",
            ),
            ("tcp rise=0", "rise: \"0\" is not a number from 1 to 100"),
            (
                "tcp fall=101",
                "fall: \"101\" is not a number from 1 to 100",
            ),
            ("tcp port=70000", "port: \"70000\" is not a port"),
            ("tcp host=www", "host: it has no meaning for a TCP check"),
            ("tcp color=red", "color: no such key"),
            ("http:/ method=POST", "method: \"POST\" is not one of GET"),
            ("http:/ host=a/b", "host: \"a/b\" is not a host"),
            ("http:/ expect=2xx", "expect: \"2xx\" is not a list"),
            ("http:/ expect=300-200", "expect:"),
            ("http:/ expect=", "expect:"),
        ] {
            let refused = check(text).unwrap_err();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
        assert!(check("http:* method=OPTIONS").is_ok());
    }
}
