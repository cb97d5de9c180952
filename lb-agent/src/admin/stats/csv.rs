//! HAProxy's statistics as CSV: fields 0 to 102 of version 2.6, each followed by a comma.
//!
//! Field names and places are those of HAProxy's management guide, section 9.1. What has no meaning at this layer, or is
//! not known, is empty: readers take 0 for a fact.

use super::{
    fields::{Back, Front},
    number, status,
};

/// Every field, in its place.
pub(crate) const FIELDS: [&str; COUNT] = [
    "pxname",
    "svname",
    "qcur",
    "qmax",
    "scur",
    "smax",
    "slim",
    "stot",
    "bin",
    "bout",
    "dreq",
    "dresp",
    "ereq",
    "econ",
    "eresp",
    "wretr",
    "wredis",
    "status",
    "weight",
    "act",
    "bck",
    "chkfail",
    "chkdown",
    "lastchg",
    "downtime",
    "qlimit",
    "pid",
    "iid",
    "sid",
    "throttle",
    "lbtot",
    "tracked",
    "type",
    "rate",
    "rate_lim",
    "rate_max",
    "check_status",
    "check_code",
    "check_duration",
    "hrsp_1xx",
    "hrsp_2xx",
    "hrsp_3xx",
    "hrsp_4xx",
    "hrsp_5xx",
    "hrsp_other",
    "hanafail",
    "req_rate",
    "req_rate_max",
    "req_tot",
    "cli_abrt",
    "srv_abrt",
    "comp_in",
    "comp_out",
    "comp_byp",
    "comp_rsp",
    "lastsess",
    "last_chk",
    "last_agt",
    "qtime",
    "ctime",
    "rtime",
    "ttime",
    "agent_status",
    "agent_code",
    "agent_duration",
    "check_desc",
    "agent_desc",
    "check_rise",
    "check_fall",
    "check_health",
    "agent_rise",
    "agent_fall",
    "agent_health",
    "addr",
    "cookie",
    "mode",
    "algo",
    "conn_rate",
    "conn_rate_max",
    "conn_tot",
    "intercepted",
    "dcon",
    "dses",
    "wrew",
    "connect",
    "reuse",
    "cache_lookups",
    "cache_hits",
    "srv_icur",
    "src_ilim",
    "qtime_max",
    "ctime_max",
    "rtime_max",
    "ttime_max",
    "eint",
    "idle_conn_cur",
    "safe_conn_cur",
    "used_conn_cur",
    "need_conn_est",
    "uweight",
    "agg_server_status",
    "agg_server_check_status",
    "agg_check_status",
];
/// How many they are.
pub(crate) const COUNT: usize = 103;

/// One value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// Not known, or without meaning.
    #[default]
    Empty,
    /// A count.
    Number(u64),
    /// Field 55 alone may be -1.
    Signed(i64),
    /// Text that may hold anything.
    Text(std::borrow::Cow<'a, str>),
}

/// One line; the places are those of [`FIELDS`].
pub(crate) type Row<'a> = [Cell<'a>; COUNT];

/// Kinds of lines, in HAProxy's mask of `show stat`.
pub(crate) mod kind {
    /// The FRONTEND line.
    pub(crate) const FRONTEND: u8 = 1;
    /// The BACKEND line.
    pub(crate) const BACKEND: u8 = 2;
    /// Lines of servers.
    pub(crate) const SERVER: u8 = 4;
    /// All of them.
    pub(crate) const ALL: u8 = 7;
}

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Bits of [`kind`].
    pub(crate) kinds: u8,
    /// Of this proxy alone.
    pub(crate) iid: Option<u32>,
    /// With this number alone.
    pub(crate) sid: Option<u16>,
    /// Proxies whose name contains it.
    pub(crate) scope: String,
    /// Without servers that are down.
    pub(crate) up: bool,
    /// Without servers in maintenance.
    pub(crate) no_maint: bool,
}

// === impl Wish ===

impl Default for Wish {
    /// Everything.
    fn default() -> Self {
        Self {
            kinds: kind::ALL,
            iid: None,
            sid: None,
            scope: String::new(),
            up: false,
            no_maint: false,
        }
    }
}

impl Wish {
    /// Whether a proxy is wanted.
    pub(crate) fn takes(&self, front: Front<'_>) -> bool {
        self.iid.is_none_or(|iid| front.proxy.iid == iid) && front.proxy.name.contains(&self.scope)
    }

    /// Whether a server is wanted, of a proxy that is.
    pub(crate) fn takes_server(&self, back: Back<'_>) -> bool {
        let word = status::word(back.backend);
        self.sid.is_none_or(|sid| back.server.sid == sid)
            && !(self.up && word == "DOWN")
            && !(self.no_maint && word == "MAINT")
    }

    /// Calls `each` with every line of a proxy that is wanted.
    pub(crate) fn rows<'a>(&self, front: Front<'a>, mut each: impl FnMut(Row<'a>)) {
        if !self.takes(front) {
            return;
        }
        let front = front.since_cleared();
        // FRONTEND and BACKEND have the number 0.
        let whole = self.sid.is_none_or(|sid| sid == 0);
        if self.kinds & kind::FRONTEND != 0 && whole {
            each(frontend(front));
        }
        if self.kinds & kind::SERVER != 0 {
            let servers = front.servers().filter(|back| self.takes_server(*back));
            servers.for_each(|back| each(server(back)));
        }
        if self.kinds & kind::BACKEND != 0 && whole {
            each(backend(front));
        }
    }
}

/// The first line.
pub(crate) fn header(out: &mut String) {
    out.push_str("# ");
    for name in FIELDS {
        out.push_str(name);
        out.push(',');
    }
    out.push('\n');
}

/// The lines of one proxy.
pub(crate) fn proxy(front: Front<'_>, wish: &Wish, out: &mut String) {
    wish.rows(front, |row| {
        for cell in &row {
            write(cell, out);
            out.push(',');
        }
        out.push('\n');
    });
}

/// All of it, as it comes over HTTP: without an empty line at its end.
#[cfg(test)]
pub(crate) fn whole(sample: &super::Sample, wish: &Wish) -> String {
    let mut out = String::new();
    header(&mut out);
    Front::all(sample).for_each(|front| proxy(front, wish, &mut out));
    out
}

/// A value as every form of text has it.
pub(super) fn write(cell: &Cell<'_>, out: &mut String) {
    match cell {
        Cell::Empty => {}
        Cell::Number(number) => number::push(out, *number),
        Cell::Signed(number) => {
            if *number < 0 {
                out.push('-');
            }
            number::push(out, number.unsigned_abs());
        }
        Cell::Text(text) => plain(text, out),
    }
}

/// Text without what readers take for the end of a value: commas, quotes, control characters, blanks at its ends.
fn plain(text: &str, out: &mut String) {
    let tame = |c: char| match c {
        ',' | '\'' | '"' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    let bytes = text.as_bytes();
    let is_tame = |byte: &u8| *byte > b' ' && *byte < 0x7f && !b",'\"".contains(byte);
    if bytes.iter().all(is_tame) {
        out.push_str(text);
    } else {
        let tamed: String = text.chars().map(tame).collect();
        out.push_str(tamed.trim());
    }
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(text.into())
}

fn known(number: Option<u64>) -> Cell<'static> {
    number.map_or(Cell::Empty, Cell::Number)
}

fn signed(number: Option<i64>) -> Cell<'static> {
    number.map_or(Cell::Empty, Cell::Signed)
}

/// Whole ms of us.
fn ms(us: Option<u64>) -> Cell<'static> {
    known(us.map(|us| (us + 500) / 1_000))
}

/// A line whose constants and names are in place.
fn row<'a>(front: Front<'a>, name: &'a str, kind: u64, sid: u16) -> Row<'a> {
    let mut row: Row<'a> = std::array::from_fn(|_| Cell::Empty);
    row[0] = text(&front.proxy.name);
    row[1] = text(name);
    row[11] = Cell::Number(0);
    row[26] = Cell::Number(1);
    row[27] = Cell::Number(front.proxy.iid.into());
    row[28] = Cell::Number(sid.into());
    row[32] = Cell::Number(kind);
    row[75] = text(front.service.protocol.as_str());
    row[83] = Cell::Number(0);
    row
}

/// What servers and BACKEND have in common: there is no queue, and no request or connection is kept for another.
fn without_queue(row: &mut Row<'_>) {
    for place in [2, 3, 58, 60, 85, 90, 92] {
        row[place] = Cell::Number(0);
    }
}

/// What FRONTEND and BACKEND have in common: all traffic of the service.
fn of_service<'a>(front: Front<'a>, row: &mut Row<'a>) {
    let (traffic, load) = (front.traffic(), front.load());
    row[4] = Cell::Number(traffic.flows_active);
    row[5] = Cell::Number(load.active_max);
    row[6] = known(front.limit());
    row[7] = Cell::Number(traffic.flows_new);
    row[8] = known(traffic.bytes_in);
    row[9] = known(traffic.bytes_out);
    row[10] = Cell::Number(traffic.flows_denied);
    row[33] = Cell::Number(load.rate);
    row[35] = Cell::Number(load.rate_max);
    row[94] = Cell::Number(traffic.flows_lost);
    for place in [51, 52, 53, 54] {
        row[place] = Cell::Number(0);
    }
}

fn frontend(front: Front<'_>) -> Row<'_> {
    let (traffic, load) = (front.traffic(), front.load());
    let mut row = row(front, "FRONTEND", 0, 0);
    of_service(front, &mut row);
    row[12] = Cell::Number(traffic.malformed);
    row[17] = text(front.status());
    row[34] = Cell::Number(front.service.limits.rate.into());
    for place in [46, 47, 48, 82] {
        row[place] = Cell::Number(0);
    }
    row[77] = Cell::Number(load.rate);
    row[78] = Cell::Number(load.rate_max);
    row[79] = Cell::Number(traffic.flows_new);
    row[81] = Cell::Number(traffic.flows_limited);
    row
}

fn backend(front: Front<'_>) -> Row<'_> {
    let (traffic, load, pool) = (front.traffic(), front.load(), &front.proxy.pool);
    let outcomes = front.outcomes();
    let mut row = row(front, "BACKEND", 1, 0);
    without_queue(&mut row);
    of_service(front, &mut row);
    row[13] = Cell::Number(front.failed());
    row[14] = known(outcomes.aborted());
    row[15] = Cell::Number(outcomes.syn_retransmits);
    row[16] = Cell::Number(outcomes.redispatched);
    row[17] = text(front.pool_status());
    row[18] = Cell::Number(pool.weight);
    row[19] = Cell::Number(pool.active);
    row[20] = Cell::Number(pool.backup);
    row[22] = Cell::Number(front.downs());
    row[23] = Cell::Number(front.last_change());
    row[24] = Cell::Number(front.downtime());
    row[30] = Cell::Number(traffic.flows_new);
    row[49] = Cell::Number(outcomes.client_resets);
    row[50] = known(outcomes.aborted());
    row[102] = Cell::Number(0);
    row[55] = signed(front.last_new());
    row[59] = ms(load.connect_us);
    row[61] = known(load.life_ms);
    row[76] = text(status::algorithm(&front.service.algorithm));
    row[84] = known(outcomes.handshakes);
    row[91] = ms(load.connect_us_max);
    row[93] = known(load.life_ms_max);
    row[97] = Cell::Number(traffic.flows_active);
    row[99] = Cell::Number(pool.declared_weight);
    row
}

fn server(back: Back<'_>) -> Row<'_> {
    let (one, load) = (back.backend, back.load());
    let (traffic, outcomes) = (back.traffic(), back.outcomes());
    let mut row = row(back.front, &back.server.name, 2, back.server.sid);
    without_queue(&mut row);
    row[4] = Cell::Number(traffic.flows_active);
    row[5] = Cell::Number(load.active_max);
    row[6] = known(back.limit());
    row[7] = Cell::Number(traffic.flows_new);
    row[8] = known(traffic.bytes_in);
    row[9] = known(traffic.bytes_out);
    row[13] = Cell::Number(outcomes.failed());
    row[14] = known(outcomes.aborted());
    row[15] = Cell::Number(outcomes.syn_retransmits);
    row[16] = Cell::Number(outcomes.redispatched);
    row[17] = Cell::Text(status::text(one));
    row[18] = Cell::Number(one.weight.into());
    row[19] = Cell::Number((!one.declared.backup).into());
    row[20] = Cell::Number(one.declared.backup.into());
    row[22] = Cell::Number(back.downs());
    row[23] = known(back.last_change());
    row[24] = Cell::Number(back.downtime());
    row[29] = known(one.health.starting.map(u64::from));
    row[30] = Cell::Number(traffic.flows_new);
    row[33] = Cell::Number(load.rate);
    row[35] = Cell::Number(load.rate_max);
    row[49] = Cell::Number(outcomes.client_resets);
    row[50] = known(outcomes.aborted());
    row[55] = signed(back.last_new());
    row[59] = ms(load.connect_us);
    row[61] = known(load.life_ms);
    row[73] = Cell::Text(one.addr.to_string().into());
    row[84] = known(outcomes.handshakes);
    row[91] = ms(load.connect_us_max);
    row[93] = known(load.life_ms_max);
    for place in [88, 94, 95, 96, 98] {
        row[place] = Cell::Number(0);
    }
    row[97] = Cell::Number(traffic.flows_active);
    row[99] = Cell::Number(one.declared.weight.into());
    checks(back, &mut row);
    row
}

fn checks<'a>(back: Back<'a>, row: &mut Row<'a>) {
    let one = back.backend;
    let Some(result) = back.check() else {
        return;
    };
    row[36] = text(result);
    row[21] = known(back.checks_failed());
    if let Some(probe) = &one.health.probe {
        row[37] = known(probe.code.map(u64::from));
        row[38] = Cell::Number(probe.took_ms);
        row[56] = probe.why.as_deref().map_or(Cell::Empty, text);
        row[65] = text(status::description(result));
        row[67] = Cell::Number(probe.rise.into());
        row[68] = Cell::Number(probe.fall.into());
        row[69] = known(status::check_health(one));
        return;
    }
    if let Some(check) = &back.front.service.probe {
        row[67] = Cell::Number(check.rise.into());
        row[68] = Cell::Number(check.fall.into());
        return;
    }
    // What the orchestrator says, where it says something.
    row[65] = text(status::description(result));
}
