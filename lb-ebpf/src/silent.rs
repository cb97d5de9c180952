//! In the place of `words.rs` in builds without the feature `trace`: nothing is noted, nothing is said.

use lb_common::SockPeer;

use crate::counters;

#[inline(always)]
pub fn begin() {}

#[inline(always)]
pub fn count(reason: u32) {
    counters::count_only(reason);
}

#[inline(always)]
pub fn chosen(_service: u32, _backend: u32) {}

#[inline(always)]
pub fn suspect(_backend: u32) {}

#[inline(always)]
pub fn end() {}

#[inline(always)]
pub fn call(_peer: &SockPeer, _reason: Option<u32>, _known: bool) {}
