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
fn admit<A: Tables>(service: &Service, key: &FlowKey<A>) -> u32 {
    match check(service, key) {
        Ok(()) => ADMITTED,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn check<A: Tables>(service: &Service, key: &FlowKey<A>) -> Result<(), Reason> {
    if service.flags & LISTED != 0 {
        let allowed = match A::source_rule(service.id, key.src) {
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
    if service.source_rate != 0 && !source_has_token::<A>(service, key) {
        return Err(Reason::SourceRate);
    }
    if service.rate != 0 && !take(&mut state.bucket, service.rate) {
        return Err(Reason::ServiceRate);
    }
    Ok(())
}

#[inline(always)]
fn source_has_token<A: Tables>(service: &Service, key: &FlowKey<A>) -> bool {
    let source = AffinityKey {
        client: key.src.widen(),
        service: service.id,
        family: A::VERSION as u32,
    };
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

/// [`admit`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_admit4(service: *const Service, key: *const FlowKey<Addr4>) -> u32 {
    // SAFETY: null or a whole value, which is what the verifier grants for arguments of these types.
    match unsafe { (service.as_ref(), key.as_ref()) } {
        (Some(service), Some(key)) => admit(service, key),
        _ => ADMITTED,
    }
}

/// [`admit`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_admit6(service: *const Service, key: *const FlowKey<Addr6>) -> u32 {
    // SAFETY: as above.
    match unsafe { (service.as_ref(), key.as_ref()) } {
        (Some(service), Some(key)) => admit(service, key),
        _ => ADMITTED,
    }
}
