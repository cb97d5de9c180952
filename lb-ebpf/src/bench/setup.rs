//! What the wrapper does before each run. The benchmark includes this file by its path, so that both
//! sides see one struct.

/// 64-bit words at the start of a packet that are written before each run: as far as a program writes into any. The
/// checksum of a TCP header inside a packet to a peer over IPv6 ends 152 bytes from the start.
pub const WORDS: usize = 19;

/// The single entry of the map `BENCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Setup {
    /// The packet's first bytes.
    pub head: [u64; WORDS],
    /// Runs so far.
    pub run: u64,
    /// Number of flows less 1, all ones in binary; 0: the packet's source stays as it is.
    ///
    /// Flow `i` has a source address that ends in the 16 bits `i >> 8`, and the source port
    /// `0x8000 | i & 0xff`.
    pub mask: u64,
    /// Run `n` is of flow `n * stride & mask`.
    pub stride: u64,
    /// Length of the packet, bytes.
    pub len: u32,
    /// 4 or 6.
    pub family: u32,
    /// Bytes that the program under test puts before the packet; they are taken off again. Negative, as 32 bits:
    /// that it takes off, and they are put back.
    pub grows: u32,
    /// Not 0: the packet grows in one run and shrinks in the next. With a program that does nothing, what
    /// it costs to take the bytes off again is known.
    pub swing: u32,
    /// Where `bench_send` sends.
    pub ifindex: u32,
    /// Where `bench_redirect` sends.
    pub onward: u32,
}

const _: () = assert!(size_of::<Setup>() == WORDS * 8 + 3 * 8 + 6 * 4);
