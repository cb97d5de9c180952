//! The checks of dockercloud/haproxy: `HEALTH_CHECK` (words of HAProxy's `server` line) and `HTTP_CHECK` (the value of
//! its `option httpchk`), as checks of ours.

use super::compat::with_unit;
use crate::{catalog::Check, provider::check::Draft};

/// What both ask for together; `notes`: words without effect. `None`: no check.
///
/// # Errors
/// The first word that is wrong, with the variable that it is in.
pub(super) fn check(
    health: Option<&str>,
    http: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Option<Check>, String> {
    let of = |name: &'static str| move |why: String| format!("{name} of the environment: {why}");
    let mut draft = match http {
        None if health.is_none() => return Ok(None),
        None => Draft::tcp(),
        Some(http) => request(http, notes).map_err(of("HTTP_CHECK"))?,
    };
    if let Some(words) = health {
        let checked = server_words(words, &mut draft, notes).map_err(of("HEALTH_CHECK"))?;
        if !checked {
            return Ok(None);
        }
    }
    draft.finish().map(Some).map_err(of("HTTP_CHECK"))
}

/// What is wrong with words of `HEALTH_CHECK`, or has no effect.
///
/// # Errors
/// The first word that is wrong.
pub(super) fn words(health: &str, notes: &mut Vec<String>) -> Result<(), String> {
    server_words(health, &mut Draft::tcp(), notes).map(|_| ())
}

/// `check inter 2000 rise 2 fall 3`; false: there is no `check` among them.
fn server_words(text: &str, draft: &mut Draft, notes: &mut Vec<String>) -> Result<bool, String> {
    let mut checked = false;
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next();
            value.ok_or_else(|| format!("{word} without a value"))
        };
        match word {
            "check" => checked = true,
            "inter" => draft.set("interval", &with_unit(value()?))?,
            "fastinter" => draft.set("fast", &with_unit(value()?))?,
            "rise" | "fall" | "port" => draft.set(word, value()?)?,
            "downinter" => {
                value()?;
                notes.push(format!("{word} in HEALTH_CHECK has no effect"));
            }
            _ => notes.push(format!("{word} in HEALTH_CHECK has no effect")),
        }
    }
    Ok(checked)
}

/// `OPTIONS * HTTP/1.1\r\nHost:\ www`: a path, before it a method, after it a version and headers. The escapes are
/// those of HAProxy's configuration, which the text was pasted into.
fn request(text: &str, notes: &mut Vec<String>) -> Result<Draft, String> {
    let plain = text
        .replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\ ", " ");
    let mut lines = plain.lines().filter(|line| !line.trim().is_empty());
    let words: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let (method, path) = match words[..] {
        [path] => ("OPTIONS", path),
        [method, path] | [method, path, _] => (method, path),
        _ => return Err(format!("{text:?} is not [METHOD] PATH [VERSION]")),
    };
    let mut draft = Draft::http(path)?;
    draft.set("method", method)?;
    for line in lines {
        match line.split_once(':') {
            Some((name, host)) if name.eq_ignore_ascii_case("host") => {
                draft.set("host", host.trim())?
            }
            _ => notes.push("of the headers in HTTP_CHECK only Host has an effect".to_owned()),
        }
    }
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::catalog::{Http, Port, Probe};

    fn read(health: Option<&str>, http: Option<&str>) -> (Option<Check>, Vec<String>) {
        let mut notes = Vec::new();
        let check = check(health, http, &mut notes).unwrap();
        (check, notes)
    }

    #[test]
    fn what_haproxy_was_told_to_ask_is_asked() {
        assert_eq!(read(None, None), (None, vec![]));
        assert_eq!(read(Some("inter 2000"), None), (None, vec![]));
        let tcp = Check::new(Probe::Tcp);
        let upstream = Some("check inter 2000 rise 2 fall 3");
        assert_eq!(read(upstream, None), (Some(tcp.clone()), vec![]));
        let (check, notes) = read(
            Some("check port 81 inter 1s fastinter 500 downinter 5s send-proxy"),
            None,
        );
        let expected = Check {
            port: Port::new(81),
            interval: Duration::from_secs(1),
            fast: Some(Duration::from_millis(500)),
            timeout: Duration::from_secs(1),
            ..tcp
        };
        assert_eq!(check, Some(expected));
        let without = ["downinter", "send-proxy"];
        let without = without.map(|word| format!("{word} in HEALTH_CHECK has no effect"));
        assert_eq!(notes, without);
    }

    #[test]
    fn a_request_keeps_its_method_path_and_host() {
        for (text, method, path, host) in [
            (
                r"OPTIONS * HTTP/1.1\r\nHost:\ www",
                "OPTIONS",
                "*",
                Some("www"),
            ),
            ("GET /healthz", "GET", "/healthz", None),
            ("/up", "OPTIONS", "/up", None),
            (
                "HEAD / HTTP/1.1\r\nhost: a.b:80",
                "HEAD",
                "/",
                Some("a.b:80"),
            ),
        ] {
            let expected = Probe::Http(Http {
                method,
                path: path.to_owned(),
                host: host.map(str::to_owned),
                expect: vec![Http::EXPECT],
            });
            let (check, notes) = read(None, Some(text));
            assert_eq!(
                (check, notes),
                (Some(Check::new(expected)), vec![]),
                "{text}"
            );
        }
        let (_, notes) = read(None, Some(r"GET / HTTP/1.1\r\nUser-Agent:\ x"));
        assert_eq!(
            notes,
            ["of the headers in HTTP_CHECK only Host has an effect"]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_variable() {
        for (health, http, expected) in [
            (
                Some("check inter"),
                None,
                "HEALTH_CHECK of the environment: inter without a value",
            ),
            (
                Some("check rise 0"),
                None,
                "HEALTH_CHECK of the environment: ",
            ),
            (
                None,
                Some("POST /"),
                "HTTP_CHECK of the environment: \"POST\" is not one of",
            ),
            (None, Some("GET healthz"), "HTTP_CHECK of the environment: "),
            (None, Some(r"\r\n"), "is not [METHOD] PATH [VERSION]"),
        ] {
            let refused = check(health, http, &mut Vec::new()).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
