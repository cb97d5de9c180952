//! Labels of Marathon-LB without a meaning for connections: each is named once, with what there is in its place.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    catalog::Port,
    provider::{marathon::label::Labels, values::said},
};

/// What is read, or says nothing about what is served, behind `HAPROXY_{n}_`.
const READ: [&str; 10] = [
    "GROUP",
    "ENABLED",
    "PORT",
    "BIND_ADDR",
    "BALANCE",
    "MODE",
    "STICKY",
    "VHOST",
    "BACKEND_NETWORK_ALLOWED_ACL",
    "BACKEND_HEALTHCHECK_PORT_INDEX",
];

/// Those of the app as a whole that are read, or that only the tools around Marathon-LB read.
const READ_OF_APP: [&str; 8] = [
    "GROUP",
    "APP_ID",
    "DEPLOYMENT_GROUP",
    "DEPLOYMENT_STARTED_AT",
    "DEPLOYMENT_TARGET_INSTANCES",
    "DEPLOYMENT_NEW_INSTANCES",
    "DEPLOYMENT_ALT_PORT",
    "DEPLOYMENT_COLOUR",
];

const PATHS: &str = "paths of requests are not looked at: the port serves all of them";
const REDIRECT: &str = "requests are not answered here: let the app redirect and add headers";
const TLS: &str = "TLS goes through to the task, which needs the certificate";
const TEMPLATE: &str = "there is no HAProxy that its text could configure";

/// What has no effect, and what there is in its place.
const SILENT: [(&str, &str); 11] = [
    (
        "BACKEND_WEIGHT",
        "with Marathon-LB it orders rules and is no share of connections; for a share set lb.weight",
    ),
    ("PATH", PATHS),
    ("HTTP_BACKEND_PROXYPASS_PATH", PATHS),
    ("HTTP_BACKEND_REVPROXY_PATH", PATHS),
    ("HTTP_BACKEND_REDIR", REDIRECT),
    ("REDIRECT_TO_HTTPS", REDIRECT),
    ("USE_HSTS", REDIRECT),
    (
        "AUTH",
        "requests are not asked for a password; which clients may connect is said by \
         HAPROXY_{n}_BACKEND_NETWORK_ALLOWED_ACL or lb.allow",
    ),
    ("SSL_CERT", TLS),
    ("BIND_OPTIONS", TLS),
    // The list of certificates of the whole process.
    ("SSL_CERTS", TLS),
];

/// Says which labels of an app have no effect; `served`: its service ports that are served.
pub(super) fn notes(labels: &Labels, served: BTreeMap<usize, Port>, notes: &mut Vec<String>) {
    let mut by_reason = BTreeMap::<&str, BTreeSet<&str>>::new();
    for name in labels.keys() {
        let Some(rest) = name.strip_prefix("HAPROXY_") else {
            continue;
        };
        let of_port = rest.split_once('_').and_then(|(index, what)| {
            let index: usize = index.parse().ok()?;
            Some((index, what))
        });
        let reason = match of_port {
            // Nothing is served there, or what is wrong was said.
            Some((index, _)) if !served.contains_key(&index) => continue,
            Some((_, what)) if READ.contains(&what) => continue,
            None if READ_OF_APP.contains(&rest) => continue,
            Some((_, what)) => reason(what),
            None => reason(rest),
        };
        by_reason.entry(reason).or_default().insert(said(name));
    }
    for (reason, names) in by_reason {
        let names: Vec<_> = names.into_iter().collect();
        let noun = if names.len() == 1 { "label" } else { "labels" };
        notes.push(format!("{noun} {}: no effect: {reason}", names.join(", ")));
    }
}

fn reason(what: &str) -> &'static str {
    let found = SILENT.iter().find(|(name, _)| *name == what);
    found.map_or(TEMPLATE, |(_, reason)| reason)
}
