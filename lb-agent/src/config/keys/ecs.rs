//! The settings of `--ecs`.

use super::{Key, SERVICES_, many, one};

pub(crate) const ECS: Key = many(
    SERVICES_,
    "ecs",
    "CLUSTER",
    "Amazon ECS cluster to read services from, by name or ARN. Credentials: environment, profile or the instance's role",
);
pub(crate) const ECS_REGION: Key = one(
    SERVICES_,
    "ecs-region",
    "REGION",
    "Region of the ECS clusters, such as eu-west-1",
)
.words("that of the cluster's ARN, else AWS_REGION, the profile's or the instance's own");
pub(crate) const ECS_ENDPOINT: Key = one(
    SERVICES_,
    "ecs-endpoint",
    "URL",
    "Ask this address instead of Amazon's for ECS, EC2 and load balancers",
)
.words("Amazon's, or what AWS_ENDPOINT_URL says");
pub(crate) const ECS_POLL: Key = one(
    SERVICES_,
    "ecs-poll",
    "SECONDS",
    "How often the tasks of an ECS cluster are asked for",
)
.preset("5");
pub(crate) const ECS_EVENTS: Key = one(
    SERVICES_,
    "ecs-events",
    "URL",
    "Queue of SQS, of this agent alone, to which EventBridge sends events of ECS: each has the tasks asked for at once",
);
pub(crate) const ECS_HOSTS: Key = many(
    SERVICES_,
    "ecs-hosts",
    "ID=ADDRESS",
    "Addresses of hosts in an ECS cluster that are no EC2 instances (ECS Anywhere): mi-0123456789abcdef0=10.0.0.7",
);
