//! What was set on the container of dockercloud/haproxy itself: here the operator's word (`--docker-compat NAME=VALUE`),
//! for every container that says nothing else.

use super::{
    lines::{self, balance},
    option, route_settings,
};
use crate::{
    catalog::Properties,
    provider::{
        docker::{labels::Wish, probes},
        values::count,
    },
};

/// What holds for every container that says nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancer {
    /// What each begins with.
    pub(super) wish: Wish,
    /// `HEALTH_CHECK`, which a container's `HTTP_CHECK` may add to.
    pub(super) health: Option<String>,
}

/// Names that stand for settings of our own.
const ELSEWHERE: [(&str, &str); 16] = [
    ("ADDITIONAL_SERVICES", "--docker-services shop:web"),
    ("RELOAD_TIMEOUT", "--docker-drain"),
    ("SWARM_MODE_POLLING_INTERVAL", "--docker-poll"),
    ("DOCKER_HOST", "--docker"),
    ("DOCKER_TLS_VERIFY", "--docker-ca-file"),
    (
        "DOCKER_CERT_PATH",
        "--docker-cert-file and --docker-key-file",
    ),
    ("STATS_PORT", "--admin-listen"),
    ("STATS_AUTH", "--admin-users-file, and --admin-read-auth"),
    ("MONITOR_URI", "--admin-health-path"),
    ("MONITOR_PORT", "one more address of --admin-listen"),
    ("RSYSLOG_DESTINATION", "--syslog"),
    ("HAPROXY_USER", "--stats-socket"),
    ("HAPROXY_GROUP", "--stats-socket PATH,group=NAME"),
    ("DEBUG", "--log debug"),
    ("ADDITIONAL_BACKEND_", "a service in the file of --services"),
    (
        "EXTRA_FRONTEND_SETTINGS_",
        "labels of the service, such as lb.maxflows",
    ),
];

/// Names that are about HTTP and TLS, or about HAProxy's own processes.
const WITHOUT_EFFECT: [&str; 24] = [
    "SSL_CERT",
    "DEFAULT_SSL_CERT",
    "EXTRA_SSL_CERTS",
    "CERT_FOLDER",
    "CA_CERT",
    "CA_CERT_FILE",
    "SSL_BIND_OPTIONS",
    "SSL_BIND_CIPHERS",
    "FORCE_SSL",
    "HSTS_MAX_AGE",
    "GZIP_COMPRESSION_TYPE",
    "HTTP_BASIC_AUTH",
    "HTTP_BASIC_AUTH_SECURE",
    "EXCLUDE_BASIC_AUTH",
    "SKIP_FORWARDED_PROTO",
    "EXTRA_BIND_SETTINGS",
    "FORCE_DEFAULT_BACKEND",
    "VIRTUAL_HOST_WEIGHT",
    "NBPROC",
    "DOCKERCLOUD_AUTH",
    "DOCKERCLOUD_REST_HOST",
    "DOCKERCLOUD_SERVICE_API_URI",
    "DOCKERCLOUD_CONTAINER_API_URI",
    "TUTUM_AUTH",
];

// === impl Balancer ===

impl Balancer {
    /// Reads `NAME=VALUE` of each; `notes`: which have no effect here, and what is said instead.
    ///
    /// # Errors
    /// The first whose value cannot be used.
    pub fn read(pairs: &[String], notes: &mut Vec<String>) -> Result<Self, String> {
        let mut all = Self::default();
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() || !pair.contains('=') {
                // What it is may be a secret.
                return Err("it is not NAME=VALUE such as BALANCE=leastconn".to_owned());
            }
            // As in a Compose file: nothing said.
            if value.is_empty() {
                continue;
            }
            all.take(name, value, notes)
                .map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(all)
    }

    fn take(&mut self, name: &str, value: &str, notes: &mut Vec<String>) -> Result<(), String> {
        let Self { wish, health } = self;
        let to = &mut wish.properties;
        match name {
            "BALANCE" => to.balance = balance(value)?,
            "HEALTH_CHECK" => {
                // Wrong words are the operator's to mend, not each container's.
                probes::words(value, notes)?;
                *health = Some(value.to_owned());
            }
            "MAXCONN" => to.max_flows = count(value)?,
            "TIMEOUT" => timeout(value, to, notes)?,
            "OPTION" => notes.extend(option(value)),
            "EXTRA_ROUTE_SETTINGS" => route_settings(value, wish, notes)?,
            "EXTRA_SETTINGS" | "EXTRA_DEFAULT_SETTINGS" | "EXTRA_GLOBAL_SETTINGS" => {
                lines::read(name, value, to, notes)?;
            }
            "MODE" => match value {
                "http" | "tcp" => {}
                _ => return Err(format!("{value:?} is neither tcp nor http")),
            },
            _ => notes.push(instead(name)),
        }
        Ok(())
    }
}

/// `connect 5000, client 50000, server 50000`.
fn timeout(text: &str, to: &mut Properties, notes: &mut Vec<String>) -> Result<(), String> {
    let entries = text.split(',').map(str::trim);
    let timeouts: Vec<String> = entries
        .filter(|entry| !entry.is_empty())
        .filter(|entry| match entry.split_whitespace().next() {
            Some("client" | "server") => true,
            word => {
                let word = word.unwrap_or_default();
                notes.push(format!("{word} in TIMEOUT has no effect"));
                false
            }
        })
        .map(|entry| format!("timeout {entry}"))
        .collect();
    if let Some(bare) = timeouts
        .iter()
        .find(|one| one.split_whitespace().count() != 3)
    {
        let bare = bare.trim_start_matches("timeout ");
        return Err(format!("{bare:?} is not client TIME or server TIME"));
    }
    lines::read("TIMEOUT", &timeouts.join(","), to, notes)
}

/// What is said of a name that has no effect.
fn instead(name: &str) -> String {
    if let Some(lines) = name.strip_suffix("_FILE")
        && lines.starts_with("EXTRA_")
        && !lines.starts_with("EXTRA_FRONTEND_")
    {
        return format!("{name} has no effect: give the lines themselves, {lines}=LINE,LINE");
    }
    let is_meant = |known: &str| known == name || (known.ends_with('_') && name.starts_with(known));
    if let Some((_, setting)) = ELSEWHERE.iter().find(|(known, _)| is_meant(known)) {
        return format!("{name} has no effect: say {setting}");
    }
    match WITHOUT_EFFECT.contains(&name) {
        true => format!(
            "{name} has no effect: connections are balanced, not requests, and TLS goes through to the container"
        ),
        false => format!("{name} is no variable of dockercloud/haproxy's and has no effect"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Balance;

    fn read(pairs: &[&str]) -> (Result<Balancer, String>, Vec<String>) {
        let mut notes = Vec::new();
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        (Balancer::read(&pairs, &mut notes), notes)
    }

    #[test]
    fn what_was_set_on_the_balancer_counts() {
        let (read, notes) = read(&[
            "BALANCE=source",
            "MAXCONN=4096",
            "TIMEOUT=client 50000, server 60s",
            "HEALTH_CHECK=check inter 5s",
            "EXTRA_ROUTE_SETTINGS=maxconn 7 backup",
            "OPTION=redispatch",
            "MODE=http",
            "RELOAD_TIMEOUT=",
        ]);
        assert_eq!(notes, Vec::<String>::new());
        let Balancer { wish, health } = read.unwrap();
        let to = &wish.properties;
        assert_eq!(
            (to.balance, to.max_flows, to.idle.tcp),
            (Balance::Source, 4_096, 60)
        );
        assert_eq!((wish.max_flows, wish.backup), (7, true));
        assert_eq!(health.as_deref(), Some("check inter 5s"));
        assert!(!wish.asks, "no service is served because of it");
    }

    #[test]
    fn what_has_no_effect_is_told_once_with_what_to_say() {
        for (pair, expected) in [
            (
                "STATS_PORT=1936",
                "STATS_PORT has no effect: say --admin-listen",
            ),
            ("ADDITIONAL_BACKEND_DB=x", "in the file of --services"),
            ("EXTRA_FRONTEND_SETTINGS_80=x", "lb.maxflows"),
            (
                "EXTRA_DEFAULT_SETTINGS_FILE=/x",
                "EXTRA_DEFAULT_SETTINGS=LINE",
            ),
            ("SSL_CERT=x", "TLS goes through"),
            ("COLOR=red", "COLOR is no variable of dockercloud/haproxy's"),
            ("TIMEOUT=connect 5000", "connect in TIMEOUT has no effect"),
            (
                "OPTION=redispatch, httplog",
                "httplog in OPTION has no effect",
            ),
            (
                "EXTRA_GLOBAL_SETTINGS=tune.ssl x",
                "tune.ssl in EXTRA_GLOBAL_SETTINGS",
            ),
            (
                "HEALTH_CHECK=check send-proxy",
                "send-proxy in HEALTH_CHECK has no effect",
            ),
        ] {
            let (read, notes) = read(&[pair]);
            assert_eq!(read.map(|one| one.wish), Ok(Wish::default()), "{pair}");
            assert!(
                notes.len() == 1 && notes[0].contains(expected),
                "{pair}: {notes:?}"
            );
        }
    }

    #[test]
    fn a_wrong_value_is_refused_and_named() {
        for (pair, expected) in [
            ("BALANCE", "it is not NAME=VALUE"),
            ("=5", "it is not NAME=VALUE"),
            ("BALANCE=uri", "BALANCE: \"uri\" is not one of roundrobin"),
            ("MAXCONN=0", "MAXCONN: \"0\" is not a number"),
            ("TIMEOUT=client", "TIMEOUT: \"client\" is not client TIME"),
            ("TIMEOUT=client soon", "TIMEOUT: \"soon\" is not a duration"),
            (
                "HEALTH_CHECK=check rise 0",
                "\"0\" is not a number from 1 to 100",
            ),
            ("MODE=health", "MODE: \"health\" is neither tcp nor http"),
            (
                "EXTRA_SETTINGS=maxconn x",
                "EXTRA_SETTINGS: \"x\" is not a number",
            ),
        ] {
            let refused = read(&[pair]).0.unwrap_err();
            assert!(refused.contains(expected), "{pair}: {refused}");
        }
    }
}
