//! The settings of `--etcd`.

use super::{Key, SERVICES_, many, one};

pub(crate) const ETCD: Key = many(
    SERVICES_,
    "etcd",
    "URL",
    "etcd to read services from and to agree with other nodes about addresses in, such as https://10.0.0.2:2379. Several \
     URLs are the members of one cluster: they are tried in turn",
);
pub(crate) const ETCD_PREFIX: Key = one(
    SERVICES_,
    "etcd-prefix",
    "PREFIX",
    "What the keys of lb-agent in etcd begin with",
)
.preset("/lb-agent/");
pub(crate) const ETCD_USER: Key = one(
    SERVICES_,
    "etcd-user",
    "USER",
    "User of etcd; needs --etcd-password-file",
);
pub(crate) const ETCD_PASSWORD_FILE: Key = one(
    SERVICES_,
    "etcd-password-file",
    "FILE",
    "File whose first line is that user's password",
);
pub(crate) const ETCD_CA_FILE: Key = one(
    SERVICES_,
    "etcd-ca-file",
    "FILE",
    "PEM file with the certificate authority that signed etcd's certificate, for https URLs",
)
.words("the system's authorities");
pub(crate) const ETCD_CERT_FILE: Key = one(
    SERVICES_,
    "etcd-cert-file",
    "FILE",
    "PEM file with the certificate that this node shows to etcd; needs --etcd-key-file",
);
pub(crate) const ETCD_KEY_FILE: Key = one(
    SERVICES_,
    "etcd-key-file",
    "FILE",
    "PEM file with the private key of that certificate",
);
