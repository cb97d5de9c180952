//! IPv6 extension headers are walked in a global function, whose result crosses as one scalar.

use lb_common::headers::{MAX_EXTENSIONS, Payload};

/// No payload.
pub const NONE: u64 = u64::MAX;
/// Bounds an offset given to a global function, as a mask, which the verifier sees where it does not see
/// a comparison: Ethernet, two tags and an IPv6 header are 62 bytes.
pub const HEADER_MASK: u32 = 0x7f;

/// Where a payload can begin is below this: every extension header at its longest (256 x 8 bytes, RFC
/// 8200). As a mask it is the bound that the verifier sees.
pub const L4_MASK: u32 = 0x3fff;
const _: () = assert!(HEADER_MASK + MAX_EXTENSIONS as u32 * 2048 < L4_MASK);

/// Offset in the low half, protocol and fragment mark above.
#[inline(always)]
pub fn pack(payload: Option<Payload>) -> u64 {
    let Some(payload) = payload else { return NONE };
    payload.l4 as u64 | (u64::from(payload.proto) << 32) | (u64::from(payload.fragment) << 40)
}

/// The reverse of [`pack`]; `mask`: a bound for the offset.
#[inline(always)]
pub fn unpack(packed: u64, mask: u32) -> Option<Payload> {
    if packed == NONE {
        return None;
    }
    Some(Payload {
        proto: (packed >> 32) as u8,
        l4: (packed as u32 & mask) as usize,
        fragment: packed >> 40 & 1 != 0,
    })
}
