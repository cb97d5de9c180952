//! The settings of the pages over TCP and of the stats socket.

use super::{ADMIN, Key, many, one, switch};

pub(crate) const ADMIN_LISTEN: Key = many(
    ADMIN,
    "admin-listen",
    "ADDR:PORT",
    "Where the statistics page, CSV, metrics and JSON are served over HTTP; `none` turns it off. Tools for Marathon-LB expect \
     port 9090 of the node's address",
)
.preset("127.0.0.1:9090,[::1]:9090");
pub(crate) const ADMIN_TOKEN_FILE: Key = one(
    ADMIN,
    "admin-token-file",
    "FILE",
    "Its first line is the token with which `Authorization: Bearer` may drain backends and see flows over --admin-listen. \
     Without it and --admin-users-file nobody may",
);
pub(crate) const ADMIN_USERS_FILE: Key = one(
    ADMIN,
    "admin-users-file",
    "FILE",
    "Lines `user:password` for those who may do the same from a browser",
);
pub(crate) const ADMIN_READ_AUTH: Key = switch(
    ADMIN,
    "admin-read-auth",
    "Ask for token or password for reading, too",
);
pub(crate) const ADMIN_HEALTH_PATH: Key = one(
    ADMIN,
    "admin-health-path",
    "PATH",
    "One more path of --admin-listen that answers as /healthz does, for those who ask there: MONITOR_URI of \
     dockercloud/haproxy",
);
pub(crate) const ADMIN_HOSTS: Key = many(
    ADMIN,
    "admin-hosts",
    "NAME",
    "Names by which browsers reach --admin-listen, besides addresses, localhost and the node's host name; requests for \
     others change nothing",
);
pub(crate) const ADMIN_TLS_CERT: Key = one(
    ADMIN,
    "admin-tls-cert",
    "FILE",
    "PEM file with the certificate for --admin-listen, with those between it and its authority; a renewed one counts at once",
);
pub(crate) const ADMIN_TLS_KEY: Key = one(
    ADMIN,
    "admin-tls-key",
    "FILE",
    "PEM file with the certificate's key",
);
pub(crate) const STATS_SOCKET: Key = one(
    ADMIN,
    "stats-socket",
    "PATH[,OPTION...]",
    "Unix socket that speaks HAProxy's language, for hatop and the like; `none` turns it off. Options: mode=0600, \
     group=NAME, level=user, operator or admin",
)
.words("stats.sock in --run-dir, for root only");
