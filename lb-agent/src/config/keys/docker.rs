//! The settings of `--docker`.

use super::{Key, SERVICES_, many, one, switch};

pub(crate) const DOCKER: Key = Key {
    switch: true,
    ..one(
        SERVICES_,
        "docker",
        "SOCKET",
        "Docker Engine to read containers from: `--docker` alone for that of the variable DOCKER_HOST, without it for \
         unix:///var/run/docker.sock; or `--docker=unix:///PATH` or `--docker=tcp://HOST:PORT`",
    )
}
.preset("no");
pub(crate) const DOCKER_FRAMEWORK: Key = one(
    SERVICES_,
    "docker-framework",
    "NAME",
    "Framework name that ends the VIP names of Docker, such as web.NAME.l4lb.thisdcos.directory",
)
.preset("docker");
pub(crate) const DOCKER_EXPOSE: Key = one(
    SERVICES_,
    "docker-expose",
    "WHICH",
    "Which services of Docker get a VIP: `asked`, those with a label `lb.vip` or what dockercloud/haproxy takes for one, or \
     `all` that expose a port",
)
.preset("asked");
pub(crate) const DOCKER_SERVICES: Key = many(
    SERVICES_,
    "docker-services",
    "NAME",
    "Services of Docker that get a VIP without asking for one: `web`, or `shop:web` for service web of Compose project shop",
);
pub(crate) const DOCKER_NETWORKS: Key = many(
    SERVICES_,
    "docker-networks",
    "NAME",
    "Docker networks on which containers are reached; of several, the first that a container is on",
)
.words("any; by name the first that a container is on");
pub(crate) const DOCKER_CA_FILE: Key = one(
    SERVICES_,
    "docker-ca-file",
    "FILE",
    "PEM file with the certificate authority that signed the certificate of the engine behind tcp://; speaks TLS to it",
);
pub(crate) const DOCKER_CERT_FILE: Key = one(
    SERVICES_,
    "docker-cert-file",
    "FILE",
    "PEM file with the certificate that this node shows to that engine; needs --docker-key-file",
);
pub(crate) const DOCKER_KEY_FILE: Key = one(
    SERVICES_,
    "docker-key-file",
    "FILE",
    "PEM file with the private key of that certificate",
);
pub(crate) const DOCKER_POLL: Key = one(
    SERVICES_,
    "docker-poll",
    "SECONDS",
    "How often the tasks of a Swarm are asked for where the engine is one of its managers; at once, too, when a service \
     changes",
)
.preset("5");
pub(crate) const DOCKER_OVERLAY_REACHABLE: Key = switch(
    SERVICES_,
    "docker-overlay-reachable",
    "Whether this node has a route to the overlay networks of its Swarm, and to those of an engine on another node: what \
     publishes no port is then reached there",
);
pub(crate) const DOCKER_DRAIN: Key = one(
    SERVICES_,
    "docker-drain",
    "TIME",
    "How long a container that is told to stop keeps its connections where no label `lb.drain` says so, with the values of \
     dockercloud/haproxy's RELOAD_TIMEOUT: `-1` not at all, `0` as long as they last, or seconds",
)
.preset("0");
pub(crate) const DOCKER_COMPAT: Key = Key {
    lines: true,
    ..many(
        SERVICES_,
        "docker-compat",
        "NAME=VALUE",
        "What was set on the container of dockercloud/haproxy itself, for containers that say nothing else: BALANCE, \
         HEALTH_CHECK, MAXCONN, TIMEOUT, OPTION, EXTRA_ROUTE_SETTINGS, EXTRA_SETTINGS and the like",
    )
};
