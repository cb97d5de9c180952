//! Pure: one line of a service's table, as the script and the plain page have it.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeSeq};

use crate::admin::{
    report::Timestamp,
    stats::{
        Last,
        fields::{Back, Front},
        status,
    },
};

/// A line whose names and order the script is told, so that they need not be written with every line.
macro_rules! row {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        /// A line of a table; what is not known is missing.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(super) struct Row<'a> {
            $($(#[$doc])* pub(super) $name: $kind,)*
        }

        impl Row<'_> {
            /// What the parts of a line are called, in order.
            pub(super) const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
        }

        impl Serialize for Row<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut line = to.serialize_seq(Some(Self::NAMES.len()))?;
                $(line.serialize_element(&self.$name)?;)*
                line.end()
            }
        }
    };
}

row! {
    sid: u16,
    svname: &'a str,
    status: Cow<'a, str>,
    /// When that status began.
    since: Option<Timestamp>,
    why: Option<&'a str>,
    rate: u64,
    rate_max: u64,
    rate_lim: Option<u64>,
    scur: u64,
    smax: u64,
    slim: Option<u64>,
    stot: u64,
    lbtot: Option<u64>,
    /// When the last flow was opened.
    last: Option<Timestamp>,
    bin: Option<u64>,
    bout: Option<u64>,
    dreq: Option<u64>,
    dcon: Option<u64>,
    eint: Option<u64>,
    ereq: Option<u64>,
    econ: Option<u64>,
    eresp: Option<u64>,
    wretr: Option<u64>,
    wredis: Option<u64>,
    check: Option<String>,
    weight: Option<u64>,
    uweight: Option<u64>,
    /// Share of new flows by weight, 0 to 1.
    share: Option<f64>,
    act: Option<u64>,
    bck: Option<u64>,
    chkfail: Option<u64>,
    chkdown: Option<u64>,
    downtime: Option<u64>,
    throttle: Option<u8>,
    /// Mean time from SYN to SYN-ACK, ms.
    ctime: Option<f64>,
    addr: Option<String>,
    task: Option<&'a str>,
    app: Option<&'a str>,
    provider: Option<&'a str>,
}

/// The FRONTEND row.
pub(super) fn frontend(front: Front<'_>) -> Row<'_> {
    let front = front.since_cleared();
    let (traffic, load) = (front.traffic(), front.load());
    Row {
        svname: "FRONTEND",
        status: front.status().into(),
        since: Some(front.sample.report.agent.started),
        rate: load.rate,
        rate_max: load.rate_max,
        rate_lim: Some(front.service.limits.rate.into()),
        scur: traffic.flows_active,
        smax: load.active_max,
        slim: front.limit(),
        stot: traffic.flows_new,
        bin: traffic.bytes_in,
        bout: traffic.bytes_out,
        dreq: Some(traffic.flows_denied),
        dcon: Some(traffic.flows_limited),
        eint: Some(traffic.flows_lost),
        ereq: Some(traffic.malformed),
        ..Row::default()
    }
}

/// The BACKEND row.
pub(super) fn backend(front: Front<'_>) -> Row<'_> {
    let front = front.since_cleared();
    let (load, pool, outcomes) = (front.load(), &front.proxy.pool, front.outcomes());
    Row {
        svname: "BACKEND",
        status: front.pool_status().into(),
        since: Some(pool.since),
        last: at(load.last_new),
        lbtot: Some(front.traffic().flows_new),
        econ: Some(front.failed()),
        eresp: outcomes.aborted(),
        wretr: Some(outcomes.syn_retransmits),
        wredis: Some(outcomes.redispatched),
        weight: Some(pool.weight),
        uweight: Some(pool.declared_weight),
        act: Some(pool.active),
        bck: Some(pool.backup),
        chkdown: Some(front.downs()),
        downtime: Some(front.downtime()),
        ctime: load.connect_us.map(millis),
        rate_lim: None,
        dcon: None,
        ereq: None,
        ..frontend(front)
    }
}

/// The rows of its servers.
pub(super) fn servers(front: Front<'_>) -> impl Iterator<Item = Row<'_>> {
    let parts = front.parts();
    front
        .since_cleared()
        .servers()
        .map(move |back| server(back, parts))
}

fn server(back: Back<'_>, parts: f64) -> Row<'_> {
    let (server, backend) = (back.server, back.backend);
    let (traffic, outcomes, load) = (back.traffic(), back.outcomes(), back.load());
    Row {
        sid: server.sid,
        svname: &server.name,
        status: status::text(backend),
        since: backend.since,
        why: backend.why.as_deref(),
        rate: load.rate,
        rate_max: load.rate_max,
        rate_lim: None,
        scur: traffic.flows_active,
        smax: load.active_max,
        slim: back.limit(),
        stot: traffic.flows_new,
        lbtot: Some(traffic.flows_new),
        last: at(load.last_new),
        bin: traffic.bytes_in,
        bout: traffic.bytes_out,
        econ: Some(outcomes.failed()),
        eresp: outcomes.aborted(),
        wretr: Some(outcomes.syn_retransmits),
        wredis: Some(outcomes.redispatched),
        check: checked(back),
        weight: Some(backend.weight.into()),
        uweight: Some(backend.declared.weight.into()),
        // More digits would only have the row sent again.
        share: Some((back.share(parts) * 10_000.0).round() / 10_000.0),
        act: Some(u64::from(!backend.declared.backup)),
        bck: Some(u64::from(backend.declared.backup)),
        chkfail: back.checks_failed(),
        chkdown: Some(back.downs()),
        downtime: Some(back.downtime()),
        throttle: backend.health.starting,
        ctime: load.connect_us.map(millis),
        addr: Some(backend.addr.to_string()),
        task: Some(&backend.task),
        app: Some(&backend.app),
        provider: Some(&backend.provider),
        ..Row::default()
    }
}

/// `L4OK in 0ms`, `L7STS/503 in 12ms`; of who is not probed what is known without: `INI`, `PROCOK`.
fn checked(back: Back<'_>) -> Option<String> {
    let result = back.check()?;
    let Some(probe) = &back.backend.health.probe else {
        return Some(result.to_owned());
    };
    let code = probe.code.map(|code| format!("/{code}"));
    let code = code.unwrap_or_default();
    Some(format!("{result}{code} in {}ms", probe.took_ms))
}

fn at(last: Last) -> Option<Timestamp> {
    match last {
        Last::At(at) => Some(at),
        Last::Unknown | Last::Never => None,
    }
}

fn millis(us: u64) -> f64 {
    us as f64 / 1_000.0
}
