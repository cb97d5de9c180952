//! `VIRTUAL_HOST` of dockercloud/haproxy and tutum/haproxy: the domains by which a service is reached. Pure.
//!
//! Entries `[scheme://]domain[:port][/path]`, separated by commas. Paths are requests' business: of two services with one
//! domain and other paths only one can have it.

use crate::{catalog::Port, provider::values::port, vip};

/// Where HTTP and TLS are expected.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Domain {
    /// In lower case, [`vip::ANY`] in the place of a first label `*`.
    pub(super) name: String,
    /// The VIP's port.
    pub(super) port: Port,
    /// Empty: every path.
    pub(super) path: String,
}

/// Reads all entries; `notes`: what of it has no effect.
pub(super) fn read(text: &str, notes: &mut Vec<String>) -> Vec<Domain> {
    let mut domains = Vec::new();
    for entry in text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        match domain(entry) {
            Ok(domain) => {
                if !domain.path.is_empty() {
                    notes.push(format!(
                        "the path of {entry:?} in VIRTUAL_HOST has no effect: connections are balanced, not requests"
                    ));
                }
                domains.push(domain);
            }
            Err(why) => notes.push(format!("{entry:?} in VIRTUAL_HOST has no effect: {why}")),
        }
    }
    domains
}

fn domain(entry: &str) -> Result<Domain, String> {
    let (scheme, rest) = entry.split_once("://").unwrap_or(("", entry));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, number) = match authority.rsplit_once(':') {
        Some((host, number)) => (host, Some(port(number)?)),
        None => (authority, None),
    };
    let usual = match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => HTTPS,
        _ => HTTP,
    };
    let usual = Port::new(usual).ok_or("it has no port")?;
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let (any, name) = match host.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, host.as_str()),
    };
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(fits)
    };
    if !name.contains('.') || !name.split('.').all(is_label) {
        return Err("it is no domain such as www.example.org or *.example.org".to_owned());
    }
    Ok(Domain {
        name: match any {
            true => format!("{}.{name}", vip::ANY),
            false => name.to_owned(),
        },
        port: number.unwrap_or(usual),
        path: match path {
            "*" => String::new(),
            path => path.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> (Vec<String>, usize) {
        let mut notes = Vec::new();
        let domains = read(text, &mut notes).into_iter();
        let lines = domains.map(|one| format!("{}:{}/{}", one.name, one.port, one.path));
        (lines.collect(), notes.len())
    }

    #[test]
    fn an_entry_is_a_domain_with_a_port() {
        for (text, expected) in [
            ("www.example.org", "www.example.org:80/"),
            ("WWW.Example.org.", "www.example.org:80/"),
            ("http://www.example.org", "www.example.org:80/"),
            ("https://www.example.org", "www.example.org:443/"),
            ("wss://www.example.org/", "www.example.org:443/"),
            ("https://www.example.org:8443/*", "www.example.org:8443/"),
            ("www.example.org:8080", "www.example.org:8080/"),
            ("*.example.org", "any--name.example.org:80/"),
        ] {
            assert_eq!(all(text), (vec![expected.to_owned()], 0), "{text}");
        }
        let two = ["a.example:80/", "b.example:443/"].map(str::to_owned);
        assert_eq!(all(" a.example, https://b.example ,"), (two.to_vec(), 0));
    }

    #[test]
    fn a_path_is_told_of_and_what_is_no_domain_left_out_alone() {
        let one = vec!["a.example:80/api/*".to_owned()];
        assert_eq!(all("a.example/api/*"), (one, 1));
        for text in [
            "*",
            "*/api",
            "web",
            "a..example",
            "a.*.example",
            "exa mple.org",
            "a.example:0",
            "a.example:70000",
            "a.example:http",
            "https://",
        ] {
            assert_eq!(all(text), (Vec::new(), 1), "{text}");
            let left = vec!["b.example:80/".to_owned()];
            assert_eq!(all(&format!("{text},b.example")), (left, 1), "{text}");
        }
    }
}
