//! The two views of a frame in XDP: any frame, with each offset checked, and a plain one, checked once.

use core::marker::PhantomData;

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    Addr4, Addr6,
    geneve::{Encapsulate, IPV4_OVERHEAD, IPV6_OVERHEAD},
    headers::{ETH_LEN, Packet, PacketMut, Payload, TCP, UDP, skip_extensions},
};

use crate::extensions::{self, HEADER_MASK, L4_MASK};

/// The packet between `data` and `data_end`.
pub struct Frame {
    pub ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

/// The headers of a frame without tags, IP options and extension headers, as far as the end of a TCP header:
/// all of them are there.
pub struct Head<A> {
    data: usize,
    family: PhantomData<A>,
}

/// An address family's plain headers.
pub trait Plain: Sized {
    /// From the start of the frame to the end of a TCP header.
    type Headers;
    /// As many bytes of a frame as stand before a packet inside another one.
    type Outer;
    /// As many bytes of a frame that holds a packet inside another one, to the end of the inner TCP header.
    type Wrapped;
    /// Offset of the transport header.
    const L4: usize;
    /// Whether nothing stands between the IP header and the transport header.
    fn is_plain(head: &Head<Self>) -> bool;
}

/// [`skip_extensions`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_xdp_extensions(ctx: *mut xdp_md, proto: u32, l4: u32) -> u64 {
    if ctx.is_null() {
        return extensions::NONE;
    }
    extensions::pack(skip_extensions(
        &Frame::new(ctx),
        proto as u8,
        (l4 & HEADER_MASK) as usize,
    ))
}

// === impl Frame ===

impl Frame {
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: context fields; the verifier knows them as packet pointers.
        let (data, end) = unsafe {
            (
                (&raw const (*ctx).data).read_volatile(),
                (&raw const (*ctx).data_end).read_volatile(),
            )
        };
        Self {
            ctx,
            data: data as usize,
            end: end as usize,
        }
    }

    /// A pointer to `T` at `offset`, if all of it is inside the packet.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        Some(start as *mut T)
    }
}

/// Keeps the compiler from folding the test before it and one of the packet's length after it into one number, from which
/// older kernels cannot tell what is known of the length.
#[inline(always)]
pub fn apart() {
    core::hint::black_box(());
}

impl Packet for Frame {
    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        let p = self.at::<u16>(offset)?;
        // SAFETY: checked against the packet's end; unaligned access is what the kernel allows on the
        // architectures with eBPF JITs that we run on.
        Some(unsafe { *p })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let p = self.at::<[u32; N]>(offset)?;
        // SAFETY: as above.
        Some(unsafe { *p })
    }

    #[inline(always)]
    fn extensions(&self, proto: u8, l4: usize) -> Option<Payload> {
        extensions::unpack(
            lb_xdp_extensions(self.ctx, u32::from(proto), l4 as u32),
            L4_MASK,
        )
    }
}

impl PacketMut for Frame {
    #[inline(always)]
    fn set_half(&self, offset: usize, value: u16) -> Option<()> {
        let p = self.at::<u16>(offset)?;
        // SAFETY: as above; the program owns the packet while it runs.
        unsafe { *p = value };
        Some(())
    }

    #[inline(always)]
    fn set_words<const N: usize>(&self, offset: usize, value: [u32; N]) -> Option<()> {
        let p = self.at::<[u32; N]>(offset)?;
        // SAFETY: as above.
        unsafe { *p = value };
        Some(())
    }
}

// === impl Head ===

impl<A: Plain> Head<A> {
    #[inline(always)]
    pub fn of(frame: &Frame) -> Option<Self> {
        let head = Self {
            data: frame.at::<A::Headers>(0)? as usize,
            family: PhantomData,
        };
        A::is_plain(&head).then_some(head)
    }

    /// The headers of a plain packet, known to be one.
    #[inline(always)]
    pub fn room_of_headers(frame: &Frame) -> Option<Self> {
        Some(Self {
            data: frame.at::<A::Headers>(0)? as usize,
            family: PhantomData,
        })
    }

    /// Room for outer headers.
    #[inline(always)]
    pub fn outer(frame: &Frame) -> Option<Self> {
        Some(Self {
            data: frame.at::<A::Outer>(0)? as usize,
            family: PhantomData,
        })
    }

    /// The headers of a frame with outer headers as well; nothing is asked of those.
    #[inline(always)]
    pub fn wrapped(frame: &Frame) -> Option<Self> {
        Some(Self {
            data: frame.at::<A::Wrapped>(0)? as usize,
            family: PhantomData,
        })
    }

    /// What is inside of a [`Head::wrapped`], as if an Ethernet header stood right before it.
    #[inline(always)]
    pub fn inside(&self) -> Option<Self>
    where
        A: Encapsulate,
    {
        let head = Self {
            data: self.data + A::OVERHEAD,
            family: PhantomData,
        };
        A::is_plain(&head).then_some(head)
    }

    /// The first 12 bytes: both MAC addresses.
    #[inline(always)]
    pub fn macs(&self) -> (u64, u32) {
        (self.get(0), self.get(8))
    }

    /// Writes the Ethernet header.
    #[inline(always)]
    pub fn set_ethernet(&self, macs: (u64, u32), ethertype: u16) {
        self.set(0, macs.0);
        self.set(8, macs.1);
        self.set_ethertype(ethertype);
    }

    /// Writes the EtherType, host order.
    #[inline(always)]
    pub fn set_ethertype(&self, ethertype: u16) {
        self.set(ETH_LEN - 2, ethertype.to_be());
    }

    #[inline(always)]
    fn get<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: offsets are constants below the length that was checked, or the verifier refuses the
        // program; unaligned access as in [`Frame::half`].
        unsafe { *((self.data + offset) as *const T) }
    }

    #[inline(always)]
    fn set<T>(&self, offset: usize, value: T) {
        // SAFETY: as above.
        unsafe { *((self.data + offset) as *mut T) = value };
    }
}

impl<A: Plain> Packet for Head<A> {
    const SHORTCUT: bool = true;

    #[inline(always)]
    fn half(&self, offset: usize) -> Option<u16> {
        Some(self.get(offset))
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        Some(self.get(offset))
    }

    #[inline(always)]
    fn payload(&self, _: usize) -> usize {
        A::L4
    }

    #[inline(always)]
    fn extensions(&self, _: u8, _: usize) -> Option<Payload> {
        None
    }
}

impl<A: Plain> PacketMut for Head<A> {
    #[inline(always)]
    fn set_half(&self, offset: usize, value: u16) -> Option<()> {
        self.set(offset, value);
        Some(())
    }

    #[inline(always)]
    fn set_words<const N: usize>(&self, offset: usize, value: [u32; N]) -> Option<()> {
        for (i, word) in value.into_iter().enumerate() {
            // SAFETY: as in [`Head::get`]. Volatile: the compiler would call a function that moves bytes.
            unsafe { ((self.data + offset + i * 4) as *mut u32).write_volatile(word) };
        }
        Some(())
    }
}

impl Plain for Addr4 {
    type Headers = [u8; 54];
    type Outer = [u8; ETH_LEN + IPV4_OVERHEAD];
    type Wrapped = [u8; 54 + IPV4_OVERHEAD];
    const L4: usize = 34;

    #[inline(always)]
    fn is_plain(head: &Head<Self>) -> bool {
        head.get::<u8>(ETH_LEN) == 0x45
    }
}

impl Plain for Addr6 {
    type Headers = [u8; 74];
    type Outer = [u8; ETH_LEN + IPV6_OVERHEAD];
    type Wrapped = [u8; 74 + IPV6_OVERHEAD];
    const L4: usize = 54;

    #[inline(always)]
    fn is_plain(head: &Head<Self>) -> bool {
        matches!(head.get::<u8>(ETH_LEN + 6), TCP | UDP)
    }
}
