//! The words every room uses for a service: protocol, port, weight.

use std::{fmt, num::NonZeroU16};

/// A transport protocol that can be balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp,
    /// UDP, RFC 768.
    Udp,
}

/// A port that something can listen on: 1-65535, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// A backend's share of new flows: 0..=256, where 0 takes none and keeps the flows it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

// === impl Protocol ===

impl Protocol {
    /// The IANA protocol number, as in the IPv4 protocol and IPv6 next-header fields.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Port ===

impl Port {
    /// `None` for 0.
    pub fn new(port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(Self)
    }

    /// Host byte order.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Weight ===

impl Weight {
    /// Takes no new flows; those it has go on.
    pub const DRAIN: Self = Self(0);
    /// What a source that knows no weights gives.
    pub const ONE: Self = Self(1);
    /// The largest weight.
    pub const MAX: Self = Self(256);

    /// `None` above 256.
    pub fn new(weight: u16) -> Option<Self> {
        (weight <= Self::MAX.0).then_some(Self(weight))
    }

    /// 0..=256.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
