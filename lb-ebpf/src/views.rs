//! Packets read and written by helper: slower than by pointer, but at any offset, and the verifier has
//! nothing to prove. The tc programs and whatever is no plain TCP or UDP packet see them so.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, xdp_md},
    helpers::generated::{
        bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
};
use lb_common::headers::{Packet, PacketMut, Payload, skip_extensions};

use crate::{extensions, maps::LB_BY_XDP};

/// A socket buffer: it may be paged, shared, and its checksum unfinished.
#[derive(Clone, Copy)]
pub struct Buffer(pub *mut __sk_buff);

/// What XDP has, all of its fragments. Kernel 5.18.
#[derive(Clone, Copy)]
pub struct Bytes(pub *mut xdp_md);

macro_rules! by_helper {
    ($view:ty, $load:ident, $store:expr, $extensions:ident, $context:ty, $is_counted:expr) => {
        impl $view {
            #[inline(always)]
            fn load<T: Copy>(&self, offset: usize) -> Option<T> {
                let mut value = core::mem::MaybeUninit::<T>::uninit();
                // SAFETY: the helper fills exactly the bytes told, or fails.
                let ret = unsafe {
                    $load(
                        self.0.cast(),
                        offset as u32,
                        value.as_mut_ptr().cast(),
                        size_of::<T>() as u32,
                    )
                };
                // SAFETY: filled when the helper says 0; integers have no invalid bytes.
                (ret == 0).then(|| unsafe { value.assume_init() })
            }

            #[inline(always)]
            fn store<T: Copy>(&self, offset: usize, mut value: T) -> Option<()> {
                let bytes = (&raw mut value).cast();
                // SAFETY: the helper reads exactly the bytes told.
                let ret = unsafe { $store(self.0, offset as u32, bytes, size_of::<T>() as u32) };
                (ret == 0).then_some(())
            }
        }

        impl Packet for $view {
            #[inline(always)]
            fn is_counted(&self) -> bool {
                $is_counted(self.0)
            }

            #[inline(always)]
            fn half(&self, offset: usize) -> Option<u16> {
                self.load(offset)
            }

            #[inline(always)]
            fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
                self.load(offset)
            }

            #[inline(always)]
            fn extensions(&self, proto: u8, l4: usize) -> Option<Payload> {
                extensions::unpack($extensions(self.0, u32::from(proto), l4 as u32), u32::MAX)
            }
        }

        impl PacketMut for $view {
            #[inline(always)]
            fn set_half(&self, offset: usize, value: u16) -> Option<()> {
                self.store(offset, value)
            }

            #[inline(always)]
            fn set_words<const N: usize>(&self, offset: usize, value: [u32; N]) -> Option<()> {
                self.store(offset, value)
            }
        }

        /// [`skip_extensions`] as a function of its own.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $extensions(ctx: *mut $context, proto: u32, l4: u32) -> u64 {
            if ctx.is_null() {
                return extensions::NONE;
            }
            extensions::pack(skip_extensions(&<$view>::of(ctx), proto as u8, l4 as usize))
        }
    };
}

by_helper!(
    Buffer,
    bpf_skb_load_bytes,
    store_recomputed,
    lb_tc_extensions,
    __sk_buff,
    |skb| lb_tc_counted(skb) != 0
);
by_helper!(
    Bytes,
    bpf_xdp_load_bytes,
    bpf_xdp_store_bytes,
    lb_far_extensions,
    xdp_md,
    |_| false
);

/// Whether the packet came in where XDP is attached. A function of its own, since few packets are asked about.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_tc_counted(ctx: *mut __sk_buff) -> u32 {
    if ctx.is_null() {
        return 0;
    }
    // SAFETY: a plain read of the context.
    let ifindex = unsafe { (*ctx).ingress_ifindex };
    // SAFETY: the value is not looked at.
    u32::from(unsafe { LB_BY_XDP.get(ifindex) }.is_some())
}

/// Where the device has summed the packet, the kernel brings that sum up to date.
#[inline(always)]
unsafe fn store_recomputed(
    skb: *mut __sk_buff,
    offset: u32,
    from: *mut core::ffi::c_void,
    len: u32,
) -> i64 {
    // SAFETY: the caller's.
    unsafe { bpf_skb_store_bytes(skb, offset, from, len, u64::from(BPF_F_RECOMPUTE_CSUM)) }
}

// === impl Buffer ===

impl Buffer {
    #[inline(always)]
    fn of(ctx: *mut __sk_buff) -> Self {
        Self(ctx)
    }
}

// === impl Bytes ===

impl Bytes {
    #[inline(always)]
    fn of(ctx: *mut xdp_md) -> Self {
        Self(ctx)
    }

    /// Bytes of the whole frame.
    #[inline(always)]
    pub fn len(&self) -> usize {
        // SAFETY: the context of this program.
        unsafe { bpf_xdp_get_buff_len(self.0) as usize }
    }
}
