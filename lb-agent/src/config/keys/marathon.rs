//! The settings of `--marathon`.

use super::{Key, SERVICES_, many, one};

pub(crate) const MARATHON: Key = many(
    SERVICES_,
    "marathon",
    "URL",
    "Marathon to read VIP labels from, such as http://marathon.mesos:8080. Several URLs are the masters of one cluster: \
     they are tried in turn, not merged",
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
pub(crate) const MARATHON_CA_FILE: Key = one(
    SERVICES_,
    "marathon-ca-file",
    "FILE",
    "PEM file with the certificate authority that signed Marathon's certificate, for https URLs",
)
.words("the system's authorities");
