//! The settings of `--docker`.

use super::{Key, SERVICES_, many, one};

pub(crate) const DOCKER: Key = Key {
    switch: true,
    ..one(
        SERVICES_,
        "docker",
        "SOCKET",
        "Docker Engine to read containers from: `--docker` alone for unix:///var/run/docker.sock, or \
         `--docker=unix:///PATH` or `--docker=tcp://HOST:PORT`",
    )
}
.preset("no");
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
