//! Who may open a flow, and how many: the service's list of sources, its limits and its rates.

use lb_common::{
    Addr4, Addr6, AffinityKey, Bucket, FlowKey, Reason, Service, service_flag, source_rule,
};

use crate::{
    clock::now,
    dry_run, load,
    maps::{LB_SERVICE_STATES, LB_SOURCE_RATES},
    tables::{ANY, Tables},
};

/// The flow may be opened; any other number is that of a [`Reason`].
pub const ADMITTED: u32 = u32::MAX;

/// Whether the service has anything to be asked about.
#[inline(always)]
pub fn is_open_to_all(service: &Service) -> bool {
    service.flags & LISTED == 0 && service.max_flows | service.rate | service.source_rate == 0
}

const LISTED: u32 = service_flag::ALLOW_LISTED | service_flag::DENY_LISTED;

#[inline(always)]
fn admit<A: Tables>(
    service: &Service,
    source: Option<A>,
    client: impl FnOnce() -> AffinityKey,
) -> u32 {
    match check(service, source, client) {
        Ok(()) => ADMITTED,
        Err(reason) => reason as u32,
    }
}

/// `source`: whom the lists are asked for; `client`: whose rate it is.
#[inline(always)]
fn check<A: Tables>(
    service: &Service,
    source: Option<A>,
    client: impl FnOnce() -> AffinityKey,
) -> Result<(), Reason> {
    if service.flags & LISTED != 0
        && let Some(source) = source
    {
        let allowed = match A::source_rule(service.id, source) {
            Some(rule) => rule == source_rule::ALLOW,
            None => service.flags & service_flag::ALLOW_LISTED == 0,
        };
        if !allowed {
            return Err(Reason::SourceNotAllowed);
        }
    }
    let Some(state) = LB_SERVICE_STATES.get_ptr_mut(service.id) else {
        return Ok(());
    };
    // SAFETY: a live map value; a lost update of a bucket lets one flow more through.
    let state = unsafe { &mut *state };
    if service.max_flows != 0 && load::count(state.flows) >= u64::from(service.max_flows) {
        return Err(Reason::ServiceFull);
    }
    if service.source_rate != 0 && !source_has_token(service, client()) {
        return Err(Reason::SourceRate);
    }
    if service.rate != 0 && !take(&mut state.bucket, service.rate) {
        return Err(Reason::ServiceRate);
    }
    Ok(())
}

#[inline(always)]
fn source_has_token(service: &Service, source: AffinityKey) -> bool {
    let Some(bucket) = LB_SOURCE_RATES.get_ptr_mut(source) else {
        let mut bucket = Bucket::default();
        bucket.refill(service.source_rate, now());
        bucket.take();
        if dry_run::is_on() {
            return true;
        }
        // A full table forgets the oldest source.
        let _ = LB_SOURCE_RATES.insert(source, bucket, ANY);
        return true;
    };
    // SAFETY: as above.
    take(unsafe { &mut *bucket }, service.source_rate)
}

/// Takes one new flow; whether there was one. A dry run only looks.
#[inline(always)]
fn take(bucket: &mut Bucket, rate: u32) -> bool {
    if dry_run::is_on() {
        let mut bucket = *bucket;
        bucket.refill(rate, now());
        return bucket.take();
    }
    bucket.refill(rate, now());
    bucket.take()
}

/// Whether the service takes the flow of a packet.
#[inline(always)]
fn admit_packet<A: Tables>(service: &Service, key: &FlowKey<A>) -> u32 {
    admit(service, Some(key.src), || AffinityKey {
        client: key.src.widen(),
        service: service.id,
        family: u32::from(A::VERSION),
    })
}

/// [`admit_packet`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_admit4(service: *const Service, key: *const FlowKey<Addr4>) -> u32 {
    // SAFETY: null or a whole value, which is what the verifier grants for arguments of these types.
    match unsafe { (service.as_ref(), key.as_ref()) } {
        (Some(service), Some(key)) => admit_packet(service, key),
        _ => ADMITTED,
    }
}

/// [`admit_packet`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_admit6(service: *const Service, key: *const FlowKey<Addr6>) -> u32 {
    // SAFETY: as above.
    match unsafe { (service.as_ref(), key.as_ref()) } {
        (Some(service), Some(key)) => admit_packet(service, key),
        _ => ADMITTED,
    }
}

/// Whether the service takes the flow of a socket over IPv4; `source`: zero if nobody knows it yet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_admit_local4(
    service: *const Service,
    client: *const AffinityKey,
    source: u32,
) -> u32 {
    // SAFETY: as above.
    match unsafe { (service.as_ref(), client.as_ref()) } {
        (Some(service), Some(client)) => admit(service, known(Addr4(source)), || *client),
        _ => ADMITTED,
    }
}

/// The same over IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_admit_local6(
    service: *const Service,
    client: *const AffinityKey,
    source: *const Addr6,
) -> u32 {
    // SAFETY: as above.
    match unsafe { (service.as_ref(), client.as_ref(), source.as_ref()) } {
        (Some(service), Some(client), Some(source)) => admit(service, known(*source), || *client),
        _ => ADMITTED,
    }
}

/// [`lb_admit_local4`].
#[inline(always)]
pub fn local4(service: &Service, client: &AffinityKey, source: &Addr4) -> u32 {
    lb_admit_local4(service, client, source.0)
}

/// [`lb_admit_local6`].
#[inline(always)]
pub fn local6(service: &Service, client: &AffinityKey, source: &Addr6) -> u32 {
    lb_admit_local6(service, client, source)
}

#[inline(always)]
fn known<A: Tables + Default>(addr: A) -> Option<A> {
    (addr != A::default()).then_some(addr)
}
