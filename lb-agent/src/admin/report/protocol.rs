//! A protocol as `tcp` or `udp`.
use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::catalog::Protocol;

pub(crate) fn serialize<S: Serializer>(protocol: &Protocol, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(protocol.as_str())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
    let text = String::deserialize(from)?;
    let known = [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|known| known.as_str() == text);
    known.ok_or_else(|| D::Error::unknown_variant(&text, &["tcp", "udp"]))
}
