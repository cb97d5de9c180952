//! The settings of `--marathon`.

use super::{Key, SERVICES_, many, one, switch};

pub(crate) const MARATHON: Key = many(
    SERVICES_,
    "marathon",
    "URL",
    "Marathon to read VIP labels from, such as http://marathon.mesos:8080. Several URLs are the masters of one cluster: \
     they are tried in turn, not merged",
);
pub(crate) const MARATHON_MORE: Key = many(
    SERVICES_,
    "marathon-more",
    "FILE",
    "File about one more Marathon, such as one on Marathon: `marathon = \"URL\"` and its other settings `marathon-...`, as in \
     the config file",
);
pub(crate) const MARATHON_FRAMEWORK: Key = one(
    SERVICES_,
    "marathon-framework",
    "NAME",
    "Framework name that ends the VIP names of this Marathon",
)
.words("what Marathon says of itself, mostly `marathon`");
pub(crate) const MARATHON_USER: Key = one(
    SERVICES_,
    "marathon-user",
    "USER",
    "User for HTTP basic authentication; needs --marathon-password-file",
);
pub(crate) const MARATHON_PASSWORD_FILE: Key = one(
    SERVICES_,
    "marathon-password-file",
    "FILE",
    "File whose first line is that user's password",
);
pub(crate) const MARATHON_TOKEN_FILE: Key = one(
    SERVICES_,
    "marathon-token-file",
    "FILE",
    "File whose first line is a DC/OS authentication token, instead of user and password",
);
pub(crate) const MARATHON_CREDENTIALS_FILE: Key = one(
    SERVICES_,
    "marathon-credentials-file",
    "FILE",
    "JSON file with an account of DC/OS to log in with, instead of a token: `uid` with `private_key` (a service account) or \
     `password`, and `login_endpoint` where it is not on Marathon's host",
);
pub(crate) const MARATHON_CA_FILE: Key = one(
    SERVICES_,
    "marathon-ca-file",
    "FILE",
    "PEM file with the certificate authority that signed Marathon's certificate, for https URLs",
)
.words("the system's authorities");
pub(crate) const MARATHON_STREAM_TIMEOUT: Key = one(
    SERVICES_,
    "marathon-stream-timeout",
    "SECONDS",
    "How long Marathon's event stream may be silent before another is opened and everything is read. Marathon says something \
     every 10 s; proxies on the way may hold it back",
)
.preset("30");
pub(crate) const MARATHON_GROUP: Key = many(
    SERVICES_,
    "marathon-group",
    "NAME",
    "Serve the service ports of Marathon apps whose label HAPROXY_GROUP names this group, at the node's own addresses, as \
     Marathon-LB does; `*` for every app",
);
pub(crate) const MARATHON_STRICT_MODE: Key = switch(
    SERVICES_,
    "marathon-strict-mode",
    "Of those, only the service ports with a label HAPROXY_n_ENABLED=true",
);
pub(crate) const MARATHON_SKIP: Key = many(
    SERVICES_,
    "marathon-skip",
    "APP",
    "Apps whose service ports are never served, such as /marathon-lb",
);
