//! Dry runs: a second instance of the programs, over the same maps, tells which backend a flow would get and
//! leaves everything as it is.
//!
//! Whether an instance is one is a constant to the verifier, which takes these branches out of the live one.

use aya_ebpf::{Global, bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{Addr4, Addr6, DryRun, FlowKey, headers::tcp_flag};

use crate::{maps::LB_DRY_RUN, tables::Tables};

/// 1: nothing is opened, counted or moved.
// Used: as `NEW_FLOWS`.
#[used]
#[unsafe(no_mangle)]
static DRY_RUN: Global<u32> = Global::new(0);

/// Whether this instance must leave everything as it is.
#[inline(always)]
pub fn is_on() -> bool {
    DRY_RUN.load() != 0
}

/// Changes the answer, in a dry run.
#[inline(always)]
pub fn note(change: impl FnOnce(&mut DryRun)) {
    if is_on()
        && let Some(run) = LB_DRY_RUN.get_ptr_mut(0)
    {
        // SAFETY: a live map value, which nobody else uses: each dry run has a map of its own.
        change(unsafe { &mut *run });
    }
}

/// Opens the flow of the question, by the way that a client's first packet goes; gives how it would have ended.
/// Only ever run by hand, and only where [`is_on`].
#[xdp]
pub fn lb_explain(_ctx: XdpContext) -> u32 {
    let Some(run) = LB_DRY_RUN.get(0).filter(|_| is_on()) else {
        return xdp_action::XDP_ABORTED;
    };
    match run.family {
        4 => open::<Addr4>(run),
        6 => open::<Addr6>(run),
        _ => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn open<A: Tables>(run: &DryRun) -> u32 {
    let key = FlowKey {
        src: A::narrow(&run.src),
        dst: A::narrow(&run.dst),
        sport: run.sport,
        dport: run.dport,
        proto: u32::from(run.proto),
    };
    A::open(&key, u32::from(tcp_flag::SYN), 0)
}
