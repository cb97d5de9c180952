//! The key `check` of a service: a line as in a label, or a map.

use serde_saphyr::Spanned;

use super::{Faults, FromNode, Node, Value, Wrong, keys, properties::read};
use crate::{
    catalog::Check,
    provider::check::{self, Draft},
};

/// Either form.
pub(super) enum CheckKeys {
    Line(String),
    Map(Box<CheckMap>),
}

keys! {
    pub(super) struct CheckMap {
        http: Spanned<String>,
        interval: Spanned<String>,
        fast: Spanned<String>,
        timeout: Spanned<String>,
        rise: Spanned<String>,
        fall: Spanned<String>,
        grace: Spanned<String>,
        port: Spanned<String>,
        host: Spanned<String>,
        method: Spanned<String>,
        expect: Spanned<String>,
    }
}

/// The check that the key asks for.
pub(super) fn check(keys: &Spanned<CheckKeys>) -> Result<Check, Wrong> {
    let at = keys.referenced;
    let wrong = |why| (at, format!("key check: {why}"));
    let map = match &keys.value {
        CheckKeys::Line(line) => return check::check(line).map_err(wrong),
        CheckKeys::Map(map) => map,
    };
    let CheckMap {
        http,
        interval,
        fast,
        timeout,
        rise,
        fall,
        grace,
        port,
        host,
        method,
        expect,
    } = &**map;
    let mut draft = read("check.http", http, Draft::http)?.unwrap_or_else(Draft::tcp);
    for (key, text) in [
        ("interval", interval),
        ("fast", fast),
        ("timeout", timeout),
        ("rise", rise),
        ("fall", fall),
        ("grace", grace),
        ("port", port),
        ("host", host),
        ("method", method),
        ("expect", expect),
    ] {
        read(&format!("check.{key}"), text, |text| draft.set(key, text))?;
    }
    draft.finish().map_err(wrong)
}

impl FromNode for CheckKeys {
    fn from_node(node: Node, key: &str, faults: &mut Faults) -> Option<Self> {
        match node.value {
            Value::Text(line) => Some(Self::Line(line)),
            Value::Map(_) => {
                let map = CheckMap::from_node(node, key, faults)?;
                Some(Self::Map(Box::new(map)))
            }
            other => {
                let what = format!(
                    "key {key}: a check: tcp, http:/PATH, or a map with http, interval and more, not {other}"
                );
                faults.add(node.at, what);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    fn read(keys: &str) -> Result<(Option<String>, bool), String> {
        let text =
            format!("services:\n  - {{name: /a, port: 1, backends: ['10.0.0.1:1'], {keys}}}\n");
        let snapshot = parse(&text, Path::new("s.yaml"))?;
        if let Some(problem) = snapshot.problems.first() {
            return Err(problem.reason.clone());
        }
        let properties = snapshot.pools[0].properties.clone().expect("they are said");
        let check = properties.check.as_ref();
        Ok((
            check.map(|check| format!("{check} {:?} {}", check.interval, check.fall)),
            properties.fail_closed,
        ))
    }

    #[test]
    fn a_check_is_a_line_or_a_map() {
        let shown = |keys| read(keys).unwrap().0.unwrap();
        assert_eq!(shown("check: tcp"), "tcp 2s 3");
        assert_eq!(shown("check: 'tcp port=81 fall=1'"), "tcp at port 81 2s 1");
        assert_eq!(shown("check: 'http:/h interval=1s'"), "http GET /h 1s 3");
        assert_eq!(
            shown("check: {http: /h, method: HEAD, interval: 500ms, fall: 5, host: www}"),
            "http HEAD /h 500ms 5"
        );
        assert_eq!(shown("check: {interval: 1m}"), "tcp 60s 3");
    }

    #[test]
    fn a_service_may_ask_not_to_fail_open() {
        for (text, closed) in [
            ("no", true),
            ("false", true),
            ("yes", false),
            ("true", false),
        ] {
            assert_eq!(read(&format!("fail-open: {text}")).unwrap().1, closed);
        }
        let refused = read("fail-open: maybe").unwrap_err();
        assert!(refused.contains("key fail-open: \"maybe\" is neither yes nor no"));
    }

    #[test]
    fn a_wrong_key_of_a_check_is_named_with_its_place() {
        for (keys, expected) in [
            (
                "check: ping",
                "key check: \"ping\" is neither tcp nor http:/PATH",
            ),
            ("check: {http: h}", "key check: \"h\" is not a path"),
            (
                "check: {host: www}",
                "key check.host: it has no meaning for a TCP check",
            ),
            ("check: {rise: 0}", "key check.rise: \"0\" is not a number"),
            ("check: {color: red}", "s.yaml:2:"),
            ("check: [tcp]", "a check: tcp, http:/PATH, or a map"),
        ] {
            let refused = read(keys).unwrap_err();
            assert!(refused.contains(expected), "{keys}: {refused}");
            assert!(refused.contains("s.yaml:2:"), "{keys}: {refused}");
        }
    }
}
