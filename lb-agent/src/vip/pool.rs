//! The range that VIP addresses are drawn from, and the first candidate of a name in it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha1::{Digest, Sha1};

use super::{VipName, phash2::phash2};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

/// The addresses `min..=max` of one family, at least two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    family: Family,
    // As integers, an IPv4 address in the low 32 bits.
    min: u128,
    max: u128,
}

/// One pool a family; a family without a pool gives no addresses to names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// Where A records come from.
    pub v4: Option<AddressPool>,
    /// Where AAAA records come from.
    pub v6: Option<AddressPool>,
}

/// Why two bounds make no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// One bound is IPv4, the other IPv6.
    #[error("{min} and {max} are of different address families")]
    Families {
        /// The lower bound.
        min: IpAddr,
        /// The upper bound.
        max: IpAddr,
    },
    /// `min` is not below `max`; the modulus of the address hash would be 0.
    #[error("the lower bound {min} must be below the upper bound {max}")]
    Empty {
        /// The lower bound.
        min: IpAddr,
        /// The upper bound.
        max: IpAddr,
    },
    /// The rest of a pool is made unreachable, which would cut the node off from these addresses.
    #[error("{min} to {max} has addresses of {special}, which every node needs")]
    Special {
        /// The lower bound.
        min: IpAddr,
        /// The upper bound.
        max: IpAddr,
        /// The block in the way.
        special: IpNet,
    },
}

/// Blocks that no pool may touch: "this network", loopback, link-local, multicast and above.
const SPECIAL: [IpNet; 8] = [
    net4([0, 0, 0, 0], 8),
    net4([127, 0, 0, 0], 8),
    net4([169, 254, 0, 0], 16),
    net4([224, 0, 0, 0], 3),
    net6(0, 127),
    net6(0xFFFF << 32, 96),
    net6(0xFE80 << 112, 10),
    net6(0xFF00 << 112, 8),
];

const fn net4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn net6(bits: u128, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), prefix))
}

// === impl Family ===

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `addr`; `::ffff:a.b.c.d` is IPv6.
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

// === impl AddressPool ===

impl AddressPool {
    /// DC/OS' 11.0.0.0 to 11.255.255.255.
    pub const DEFAULT_V4: Self = Self {
        family: Family::V4,
        min: 0x0B00_0000,
        max: 0x0BFF_FFFF,
    };
    /// DC/OS' `fd01:c::` to `fd01:c::ffff:ffff:ffff:ffff`.
    pub const DEFAULT_V6: Self = Self {
        family: Family::V6,
        min: 0xFD01_000C << 96,
        max: 0xFD01_000C << 96 | 0xFFFF_FFFF_FFFF_FFFF,
    };

    /// Another `max` moves the first candidate of every name: it sets the modulus of the hash.
    pub fn new(min: IpAddr, max: IpAddr) -> Result<Self, PoolError> {
        let family = Family::of(min);
        if family != Family::of(max) {
            return Err(PoolError::Families { min, max });
        }
        if min >= max {
            return Err(PoolError::Empty { min, max });
        }
        let pool = Self {
            family,
            min: to_bits(min),
            max: to_bits(max),
        };
        let touches = |block: &&IpNet| {
            Family::of(block.addr()) == family
                && to_bits(block.network()) <= pool.max
                && to_bits(block.broadcast()) >= pool.min
        };
        match SPECIAL.iter().find(touches) {
            Some(&special) => Err(PoolError::Special { min, max, special }),
            None => Ok(pool),
        }
    }

    /// The family of every address in the pool.
    pub fn family(self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn min(self) -> IpAddr {
        self.address(self.min)
    }

    /// The highest address; only probing gets there.
    pub fn max(self) -> IpAddr {
        self.address(self.max)
    }

    /// Whether `addr` lies in the pool.
    pub fn contains(self, addr: IpAddr) -> bool {
        Family::of(addr) == self.family && (self.min..=self.max).contains(&to_bits(addr))
    }

    /// Q, the modulus of the address hash: `max - min`, one less than the number of addresses.
    pub fn modulus(self) -> u128 {
        self.max - self.min
    }

    /// The address that every node tries first for `name`.
    pub fn candidate(self, name: &VipName) -> IpAddr {
        let name = name.as_str().as_bytes();
        let offset = match self.family {
            Family::V4 => u128::from(phash2(name)) % self.modulus(),
            Family::V6 => remainder(&Sha1::digest(name), self.modulus()),
        };
        self.address(self.min + offset)
    }

    /// Every address of the pool once, the candidate of `name` first and `min` after `max`.
    pub fn probe(self, name: &VipName) -> impl Iterator<Item = IpAddr> + use<> {
        let first = to_bits(self.candidate(name));
        (first..=self.max)
            .chain(self.min..first)
            .map(move |bits| self.address(bits))
    }

    /// The fewest prefixes that cover the pool exactly, ascending.
    pub fn to_cidrs(self) -> Vec<IpNet> {
        let width = self.family.bits();
        let mut cidrs = Vec::new();
        let mut start = self.min;
        loop {
            let aligned = start.trailing_zeros().min(width);
            // A pool is never a whole family, so this does not overflow.
            let fitting = (self.max - start + 1).ilog2();
            let host_bits = aligned.min(fitting);
            let prefix = (width - host_bits) as u8;
            cidrs.push(match self.address(start) {
                IpAddr::V4(addr) => Ipv4Net::new_assert(addr, prefix).into(),
                IpAddr::V6(addr) => Ipv6Net::new_assert(addr, prefix).into(),
            });
            match start + (1 << host_bits) {
                next if next > self.max => return cidrs,
                next => start = next,
            }
        }
    }

    fn address(self, bits: u128) -> IpAddr {
        match self.family {
            // Bounds are IPv4 addresses, so nothing is cut off.
            Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min(), self.max())
    }
}

fn to_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// `digest`, a big-endian integer of any length, modulo `modulus`.
fn remainder(digest: &[u8], modulus: u128) -> u128 {
    let bits = digest
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |shift| u128::from(byte >> shift & 1)));
    bits.fold(0, |rest, bit| {
        let doubled = add_modulo(rest, rest, modulus);
        add_modulo(doubled, bit % modulus, modulus)
    })
}

/// `a + b` modulo `modulus` for `a`, `b` below it, without overflow.
fn add_modulo(a: u128, b: u128, modulus: u128) -> u128 {
    let room = modulus - a;
    if b >= room { b - room } else { a + b }
}

// === impl Pools ===

impl Pools {
    /// The pool of `family`.
    pub fn get(&self, family: Family) -> Option<AddressPool> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Whether `addr` lies in the pool of its family.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.get(Family::of(addr))
            .is_some_and(|pool| pool.contains(addr))
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            v4: Some(AddressPool::DEFAULT_V4),
            v6: Some(AddressPool::DEFAULT_V6),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(canonical: &str) -> VipName {
        VipName::from_canonical(canonical).expect("a canonical name")
    }

    fn pool(min: &str, max: &str) -> Result<AddressPool, PoolError> {
        AddressPool::new(
            min.parse().expect("an address"),
            max.parse().expect("an address"),
        )
    }

    #[test]
    fn default_pools_give_the_addresses_of_dcos() {
        for (canonical, v4, v6) in [
            (
                "dcos-101app2.marathon",
                "11.68.84.23",
                "fd01:c::68c7:ae1c:a5d:109c",
            ),
            (
                "redis.marathon",
                "11.202.66.36",
                "fd01:c::da94:49ac:1e87:4a07",
            ),
            (
                "l4lbtest.marathon",
                "11.128.73.162",
                "fd01:c::a571:402b:82ab:ef77",
            ),
        ] {
            let name = name(canonical);
            assert_eq!(
                AddressPool::DEFAULT_V4.candidate(&name).to_string(),
                v4,
                "{name}"
            );
            assert_eq!(
                AddressPool::DEFAULT_V6.candidate(&name).to_string(),
                v6,
                "{name}"
            );
        }
    }

    #[test]
    fn the_modulus_is_max_minus_min() {
        let small = pool("11.0.0.0", "11.0.0.254").expect("a pool");
        assert_eq!(small.modulus(), 254);
        assert_eq!(small.candidate(&name("foo.bar")).to_string(), "11.0.0.37");
        assert_eq!(small.candidate(&name("baz.qux")).to_string(), "11.0.0.39");
        assert_eq!(AddressPool::DEFAULT_V4.modulus(), 16_777_215);
        assert_eq!(AddressPool::DEFAULT_V6.modulus(), u128::from(u64::MAX));
    }

    #[test]
    fn the_default_pools_are_what_their_bounds_say() {
        assert_eq!(
            pool("11.0.0.0", "11.255.255.255"),
            Ok(AddressPool::DEFAULT_V4)
        );
        assert_eq!(
            pool("fd01:c::", "fd01:c::ffff:ffff:ffff:ffff"),
            Ok(AddressPool::DEFAULT_V6)
        );
        let cidrs: Vec<String> = [AddressPool::DEFAULT_V4, AddressPool::DEFAULT_V6]
            .iter()
            .flat_map(|pool| pool.to_cidrs())
            .map(|cidr| cidr.to_string())
            .collect();
        assert_eq!(cidrs, ["11.0.0.0/8", "fd01:c::/64"]);
    }

    #[test]
    fn probing_visits_every_address_once_and_wraps() {
        let small = pool("11.0.0.0", "11.0.0.254").expect("a pool");
        let visited: Vec<String> = small
            .probe(&name("foo.bar"))
            .map(|a| a.to_string())
            .collect();
        assert_eq!(visited.len(), 255);
        assert_eq!(visited[0], "11.0.0.37");
        assert_eq!(visited[254 - 37], "11.0.0.254");
        assert_eq!(visited[254 - 37 + 1], "11.0.0.0");
        assert_eq!(visited[254], "11.0.0.36");
    }

    #[test]
    fn bounds_that_make_no_pool_are_refused_with_the_reason() {
        for (min, max, says) in [
            ("11.0.0.0", "fd01::", "families"),
            ("11.0.0.0", "11.0.0.0", "must be below"),
            ("11.0.0.1", "11.0.0.0", "must be below"),
            ("126.0.0.0", "128.0.0.0", "127.0.0.0/8"),
            ("11.0.0.0", "255.255.255.255", "127.0.0.0/8"),
            ("::", "fd01::", "::/127"),
            ("fe00::", "feff::", "fe80::/10"),
        ] {
            let error = pool(min, max).expect_err("no pool").to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_ragged_range_takes_the_fewest_prefixes() {
        let cidrs = pool("10.0.0.1", "10.0.0.6").expect("a pool").to_cidrs();
        let cidrs: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
        assert_eq!(
            cidrs,
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
        );
    }

    proptest! {
        #[test]
        fn prefixes_cover_the_pool_exactly(min in 0x0100_0000u32..0x7E00_0000, len in 1u32..0x0100_0000) {
            let pool = AddressPool::new(
                Ipv4Addr::from_bits(min).into(),
                Ipv4Addr::from_bits(min + len).into(),
            ).expect("a pool");
            let mut next = pool.min;
            for cidr in pool.to_cidrs() {
                prop_assert_eq!(to_bits(cidr.network()), next);
                next = to_bits(cidr.broadcast()) + 1;
            }
            prop_assert_eq!(next, pool.max + 1);
        }

        #[test]
        fn a_candidate_is_in_the_pool_and_never_its_max(
            label in "[a-z][a-z0-9]{0,20}",
            min in 1u128 << 100..1 << 120,
            len in 1u128..1 << 110,
        ) {
            let pool = AddressPool::new(
                Ipv6Addr::from_bits(min).into(),
                Ipv6Addr::from_bits(min + len).into(),
            ).expect("a pool");
            let candidate = pool.candidate(&name(&format!("{label}.marathon")));
            prop_assert!(pool.contains(candidate) && candidate != pool.max());
        }

        #[test]
        fn the_default_remainder_is_the_sum_of_three_parts(digest in any::<[u8; 20]>()) {
            let part = |from: usize, to: usize| digest[from..to].iter().fold(0u128, |n, b| n << 8 | u128::from(*b));
            let modulus = u128::from(u64::MAX);
            prop_assert_eq!(
                remainder(&digest, modulus),
                (part(0, 4) + part(4, 12) + part(12, 20)) % modulus
            );
        }
    }
}
