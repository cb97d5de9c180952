//! Addresses and ports in network byte order.

/// A 16-bit field in network byte order, as it stands in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Be16(pub u16);

/// An IPv4 address, network byte order in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Addr4(pub u32);

/// An IPv6 address as four words, network byte order in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Addr6(pub [u32; 4]);

/// An address of either family, for code that serves both.
pub trait Address: Copy + Eq + 'static {
    /// Number of 32-bit words.
    const WORDS: usize;

    /// The words in memory order.
    fn words(&self) -> &[u32];

    /// Fills 16 bytes; an IPv4 address takes the first word, the rest is zero.
    fn widen(&self) -> Addr6;

    /// The reverse of [`Address::widen`].
    fn narrow(wide: &Addr6) -> Self;
}

// === impl Be16 ===

impl Be16 {
    /// From host byte order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// In host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

// === impl Addr4 ===

impl Address for Addr4 {
    const WORDS: usize = 1;

    #[inline(always)]
    fn words(&self) -> &[u32] {
        core::slice::from_ref(&self.0)
    }

    #[inline(always)]
    fn widen(&self) -> Addr6 {
        Addr6([self.0, 0, 0, 0])
    }

    #[inline(always)]
    fn narrow(wide: &Addr6) -> Self {
        Self(wide.0[0])
    }
}

impl From<core::net::Ipv4Addr> for Addr4 {
    fn from(addr: core::net::Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(addr.octets()))
    }
}

impl From<Addr4> for core::net::Ipv4Addr {
    fn from(addr: Addr4) -> Self {
        Self::from(addr.0.to_ne_bytes())
    }
}

// === impl Addr6 ===

impl Addr6 {
    /// `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2), the form in which an IPv6 socket names an IPv4 peer.
    #[inline(always)]
    pub const fn mapped(v4: Addr4) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), v4.0])
    }

    /// The IPv4 address inside `::ffff:a.b.c.d`.
    #[inline(always)]
    pub const fn unmap(&self) -> Option<Addr4> {
        if self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be() {
            Some(Addr4(self.0[3]))
        } else {
            None
        }
    }
}

impl Address for Addr6 {
    const WORDS: usize = 4;

    #[inline(always)]
    fn words(&self) -> &[u32] {
        &self.0
    }

    #[inline(always)]
    fn widen(&self) -> Addr6 {
        *self
    }

    #[inline(always)]
    fn narrow(wide: &Addr6) -> Self {
        // Word by word: where the two may overlap for all that the compiler knows, it calls `memmove`, which in the
        // kernel is a function with a stack frame of its own.
        let [a, b, c, d] = wide.0;
        Self([a, b, c, d])
    }
}

impl From<core::net::Ipv6Addr> for Addr6 {
    fn from(addr: core::net::Ipv6Addr) -> Self {
        let b = addr.octets();
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Addr6> for core::net::Ipv6Addr {
    fn from(addr: Addr6) -> Self {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(addr.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::from(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn an_address_survives_the_way_to_network_order_and_back() {
        let v4 = Ipv4Addr::new(11, 68, 84, 23);
        assert_eq!(Addr4::from(v4).0.to_ne_bytes(), [11, 68, 84, 23]);
        assert_eq!(Ipv4Addr::from(Addr4::from(v4)), v4);
        let v6: Ipv6Addr = "fd01:c::68c7:ae1c:a5d:109c".parse().unwrap();
        assert_eq!(Ipv6Addr::from(Addr6::from(v6)), v6);
    }

    #[test]
    fn a_mapped_address_gives_its_ipv4_address_and_no_other_does() {
        let v4 = Addr4::from(Ipv4Addr::new(11, 0, 0, 1));
        let mapped: Ipv6Addr = "::ffff:11.0.0.1".parse().unwrap();
        assert_eq!(Addr6::mapped(v4), mapped.into());
        assert_eq!(Addr6::mapped(v4).unmap(), Some(v4));
        let compat: Ipv6Addr = "::11.0.0.1".parse().unwrap();
        assert_eq!(Addr6::from(compat).unmap(), None);
    }

    #[test]
    fn a_port_is_kept_in_network_order() {
        assert_eq!(Be16::new(10000).0.to_ne_bytes(), 10000_u16.to_be_bytes());
        assert_eq!(Be16::new(10000).get(), 10000);
    }
}
