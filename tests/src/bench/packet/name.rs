//! What the cases are called.

pub(super) const DROP: &str = "XDP_DROP, with the wrapper";
pub(super) const DROP_FLOWS: &str = "XDP_DROP, with the wrapper that visits flows";
pub(super) const DROP_SWING: &str = "XDP_DROP, with the wrapper that moves the head";

pub(super) const PASS: &str = "floor: XDP_PASS";
pub(super) const TX: &str = "floor: XDP_TX";
pub(super) const PARSE4: &str = "floor: headers and key, v4";
pub(super) const PARSE6: &str = "floor: headers and key, v6";
pub(super) const NAT4: &str = "floor: full NAT v4 with one lookup";
pub(super) const FILTER_HIT: &str = "floor: hash, 4 B key, hit";
pub(super) const FILTER_MISS: &str = "floor: hash, 4 B key, miss";
pub(super) const SERVICE: &str = "floor: hash, 8 B key, hit";
pub(super) const SOURCE: &str = "floor: prefix trie, hit";
pub(super) const TABLE: &str = "floor: map in map";
pub(super) const ARRAY: &str = "floor: array";
pub(super) const COUNT: &str = "floor: two counters per CPU";
pub(super) const FLOW4: &str = "floor: LRU, 16 B key, hit";
pub(super) const FLOW6: &str = "floor: LRU, 40 B key, hit";
pub(super) const FLOW4_FEW: &str = "floor: LRU, 16 B key, hit, 16 thousand flows";
pub(super) const FLOW4_MANY: &str = "floor: LRU, 16 B key, hit, 1 million flows";
pub(super) const MAIN4_MISS: &str = "floor: LRU, 16 B key, miss";
pub(super) const HALF4_MISS: &str = "floor: LRU, 16 B key, miss, table of half-open flows";
pub(super) const INSERT4: &str = "floor: LRU, 16 B key, new key";
pub(super) const INSERT6: &str = "floor: LRU, 40 B key, new key";
pub(super) const PAIR4: &str = "floor: LRU, 16 B key, new pair";
pub(super) const GROW: &str = "floor: 50 bytes before the packet";

pub(super) const TCP4: &str = "established TCP v4, NAT to another host";
pub(super) const TCP6: &str = "established TCP v6, NAT to another host";
pub(super) const UDP4: &str = "established UDP v4, NAT to another host";
pub(super) const UDP6: &str = "established UDP v6, NAT to another host";
pub(super) const ANSWER4: &str = "established TCP v4, the answer";
pub(super) const OTHER4: &str = "established TCP v4, NAT by another interface";
pub(super) const HERE4: &str = "established TCP v4, DNAT to this node";
pub(super) const TCP4_FEW: &str = "established TCP v4, NAT, 16 thousand flows";
pub(super) const TCP4_MANY: &str = "established TCP v4, NAT, 1 million flows";
pub(super) const FOREIGN: &str = "not ours: foreign destination";
pub(super) const OWN: &str = "not ours: the node's own address";
pub(super) const SYN4: &str = "first packet (SYN), TCP v4, NAT to another host";
pub(super) const SYN4_GUARD: &str = "SYN above the guard for new flows, TCP v4";
pub(super) const SYN4_FLOOD: &str = "SYN above the guard for new flows, 16 thousand sources";
pub(super) const IPIP4: &str = "established TCP v4, DSR by IPIP, sender";
pub(super) const IPIP6: &str = "established TCP v6, DSR by IPIP, sender";
pub(super) const L2: &str = "established TCP v4, DSR by L2, sender";
