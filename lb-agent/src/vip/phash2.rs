//! Erlang's `phash2` of a binary, which picks the IPv4 address of a name.

/// The golden ratio, Jenkins' start value.
const GOLDEN: u32 = 0x9E37_79B9;
/// Erlang's start value for a binary: 13 times the golden ratio, modulo 2^32.
const BINARY: u32 = 0x08D1_2E65;

/// The full 32-bit hash of a byte string; never called with an empty one.
///
/// Bob Jenkins' lookup2 with Erlang's start value (`block_hash` in erts/emulator/beam/utils.c), so that
/// a name gets the address that DC/OS gives it.
pub(super) fn phash2(key: &[u8]) -> u32 {
    let (mut a, mut b, mut c) = (GOLDEN, GOLDEN, BINARY);
    let (blocks, tail) = key.as_chunks::<12>();
    for block in blocks {
        a = a.wrapping_add(le32(block, 0));
        b = b.wrapping_add(le32(block, 4));
        c = c.wrapping_add(le32(block, 8));
        (a, b, c) = mix(a, b, c);
    }
    let mut rest = [0; 12];
    rest[..tail.len()].copy_from_slice(tail);
    a = a.wrapping_add(le32(&rest, 0));
    b = b.wrapping_add(le32(&rest, 4));
    // The low byte of c is the length's; the three bytes of the tail go above it.
    c = c
        .wrapping_add(key.len() as u32)
        .wrapping_add(le32(&rest, 8) << 8);
    mix(a, b, c).2
}

fn le32(block: &[u8; 12], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 13);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 8);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 13);
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 12);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 16);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 5);
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 3);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 10);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 15);
    (a, b, c)
}

#[cfg(test)]
mod tests {
    use super::phash2;

    #[test]
    fn the_hash_is_erlangs() {
        for (name, hash) in [
            ("dcos-101app2.marathon", 0x5B44_53BC),
            ("redis.marathon", 0x7ECA_41A6),
            ("l4lbtest.marathon", 0x0D80_4995),
            ("foo.bar", 0x458A_3A57),
            ("baz.qux", 0x945F_407D),
        ] {
            assert_eq!(phash2(name.as_bytes()), hash, "{name}");
        }
    }
}
