//! Every counter, and where each surface shows it.

/// The rows of HAProxy that have a counter (`F`rontend, `B`ackend, `S`erver) and its name; what its column is called on
/// the page and in `/v1/live`; where it stands in `/v1/stats` and in `/v1/status`; its metrics, without
/// `haproxy_frontend_` and the like. `-`: it is not there; `=`: the same as before; `tr/` and `con/`: below `/traffic`
/// and `/traffic/connections`; `svc/`: after `lb_agent_service_`. A name is that of the CSV's field, and with a dot
/// that of something that no field is for.
const TABLE: &str = "
FBS scur          | Sessions Cur       | scur     | tr/flows_active      | = | current_sessions
FBS smax          | Sessions Max       | smax     | /flows_max           | - | max_sessions
FBS slim          | Sessions Limit     | slim     | -                    | - | limit_sessions
FBS stot          | Sessions Total     | stot     | tr/flows_new         | = | sessions_total
 BS lbtot         | Sessions LbTot     | lbtot    | tr/flows_new         | = | loadbalanced_total
 BS lastsess      | Sessions Last      | last     | /last_new            | - | last_session_seconds
FBS rate          | Session rate Cur   | rate     | /rate                | - | current_session_rate
FBS rate_max      | Session rate Max   | rate_max | /rate_max            | - | max_session_rate
F   rate_lim      | Session rate Limit | rate_lim | /limits/rate         | = | limit_session_rate
F   conn_rate     | -                  | -        | /rate                | - | -
F   conn_rate_max | -                  | -        | /rate_max            | - | connections_rate_max
F   conn_tot      | -                  | -        | tr/flows_new         | = | connections_total
 BS used_conn_cur | -                  | -        | tr/flows_active      | = | -
FBS bin           | Bytes In           | bin      | tr/bytes_in          | = | bytes_in_total
FBS bout          | Bytes Out          | bout     | tr/bytes_out         | = | bytes_out_total
F   .packets_in   | -                  | -        | tr/packets_in        | = | svc/packets_in_total
F   .packets_out  | -                  | -        | tr/packets_out       | = | svc/packets_out_total
  S .packets_in   | -                  | -        | tr/packets_in        | = | -
  S .packets_out  | -                  | -        | tr/packets_out       | = | -
F   dreq | Denied Req | dreq | tr/flows_denied | = | requests_denied_total svc/refused_total:not_allowed
 B  dreq          | Denied Req         | dreq     | tr/flows_denied      | = | requests_denied_total
FBS dresp         | Denied Resp        | -        | -                    | - | -
F   dcon | - | dcon | tr/flows_limited | = | denied_connections_total svc/refused_total:limit
F   eint | - | eint | tr/flows_lost | = | internal_errors_total svc/refused_total:full
 B  eint          | -                  | eint     | tr/flows_lost        | = | internal_errors_total
  S eint          | -                  | -        | -                    | - | -
F   .unserved     | -                  | -        | /flows_unserved      | - | svc/refused_total:no_backend
F   .unopened     | -                  | -        | tr/flows_refused     | = | -
F   ereq          | Errors Req         | ereq     | tr/malformed         | = | request_errors_total
 BS econ          | Errors Conn        | econ     | /failed              | - | connection_errors_total
 B  eresp         | Errors Resp        | eresp    | /backend_resets      | - | response_errors_total
  S eresp         | Errors Resp        | eresp    | /backend_aborts      | - | response_errors_total
 B  srv_abrt      | -                  | -        | /backend_resets      | - | server_aborts_total
  S srv_abrt      | -                  | -        | /backend_aborts      | - | server_aborts_total
 B  cli_abrt | - | - | /client_resets con/client_resets | con/client_resets | client_aborts_total
  S cli_abrt      | -                  | -        | tr/client_resets     | = | client_aborts_total
 B  wretr | Warnings Retr | wretr | /retries con/syn_retransmits | con/syn_retransmits | retry_warnings_total
  S wretr         | Warnings Retr      | wretr    | tr/syn_retransmits   | = | retry_warnings_total
 B  wredis        | Warnings Redis     | wredis   | con/redispatched     | = | redispatch_warnings_total
  S wredis        | Warnings Redis     | wredis   | tr/redispatched      | = | redispatch_warnings_total
 B  connect       | -                  | -        | con/handshakes       | = | connection_attempts_total
  S connect       | -                  | -        | tr/handshakes        | = | connection_attempts_total
F   .by_time | - | - | tr/handshakes | = | svc/handshake_seconds_count svc/handshake_seconds_bucket:+Inf
 BS ctime         | -                  | ctime    | /connect_us          | - | connect_time_average_seconds
 BS ctime_max     | -                  | -        | /connect_us_max      | - | max_connect_time_seconds
 BS ttime         | -                  | -        | /life_ms             | - | total_time_average_seconds
 BS ttime_max     | -                  | -        | /life_ms_max         | - | max_total_time_seconds
 B  .connect_ns   | -                  | -        | con/handshake_ns     | = | -
  S .connect_ns   | -                  | -        | tr/handshake_ns      | = | -
 B  .lived_ms     | -                  | -        | con/lived_ms         | = | -
  S .lived_ms     | -                  | -        | tr/lived_ms          | = | -
 B  .closed       | -                  | -        | con/closed           | = | -
  S .closed       | -                  | -        | tr/flows_closed      | = | -
 B  .resets       | -                  | -        | con/backend_resets   | = | -
  S .resets       | -                  | -        | tr/backend_resets    | = | -
 B  .refused      | -                  | -        | con/refused          | = | -
  S .refused      | -                  | -        | tr/refused           | = | -
 B  .failed       | -                  | -        | con/failed           | = | -
  S .failed       | -                  | -        | tr/failed            | = | -
 B  .retransmits  | -                  | -        | con/retransmits      | = | -
  S .retransmits  | -                  | -        | tr/retransmits       | = | -
 BS qcur          | Queue Cur          | -        | -                    | - | current_queue
 BS qmax          | Queue Max          | -        | -                    | - | max_queue
 B  weight        | Server Wght        | weight   | /weight              | - | weight
  S weight        | Server Wght        | weight   | /weight              | = | weight
 B  uweight       | Server Wght/       | uweight  | -                    | - | uweight
  S uweight       | Server Wght/       | uweight  | /declared/weight     | = | uweight
 B  act           | Server Act         | act      | -                    | - | active_servers
 B  bck           | Server Bck         | bck      | -                    | - | backup_servers
  S act           | Server Act         | act      | -                    | - | -
  S bck           | Server Bck         | bck      | -                    | - | -
  S throttle      | Server Thrtle      | throttle | /health/starting     | = | -
  S chkfail       | Server Chk         | chkfail  | /health/probe/failed | = | check_failures_total
 B  chkdown       | Server Dwn         | chkdown  | /downs               | - | check_up_down_total
  S chkdown       | Server Dwn         | chkdown  | /health/downs        | = | check_up_down_total
 BS lastchg       | Server Status      | since    | /changed_s           | - | check_last_change_seconds
 BS downtime      | Server Dwntme      | downtime | /downtime_s          | - | downtime_seconds_total
";

/// Fields of the CSV that count what there is not at this layer: 0, and on no other surface.
pub(super) const ZERO: &str = "wrew reuse qtime rtime qtime_max rtime_max req_rate req_rate_max req_tot comp_in \
    comp_out comp_byp comp_rsp dses srv_icur idle_conn_cur safe_conn_cur need_conn_est agg_check_status";

/// Numbers that count nothing, by column.
const NO_COUNTERS: [(Column, &str); 5] = [
    (
        Column::Field,
        "pid iid sid type check_code check_duration check_rise check_fall check_health",
    ),
    (Column::Live, "sid since share"),
    (
        Column::Stats,
        "/iid /port /external /limits/flows /limits/source_rate /sid /since /share /observed_share \
         /declared/max_flows /health/down_ms",
    ),
    (
        Column::Status,
        "/id /port /external /limits/flows /limits/source_rate /since /declared/max_flows /health/down_ms",
    ),
    (
        Column::Metric,
        "status check_status check_code check_duration_seconds lb_agent_service_fail_open \
         lb_agent_service_handshake_seconds_bucket",
    ),
];

/// Where to look for a counter's place on a surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Fields of the CSV.
    Field,
    /// Columns of the page.
    Head,
    Live,
    Stats,
    Status,
    Metric,
}

/// How numbers of two surfaces compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Exactly.
    Count,
    /// Exactly; it is a limit or the like, and not 0 without traffic.
    Setting,
    /// Milliseconds; the CSV has whole ones.
    Time,
    /// Seconds that go on.
    Age,
}

/// A line of the table.
pub(super) struct Counter {
    rows: &'static str,
    /// As the table has it.
    pub(super) name: &'static str,
    places: [Vec<String>; 5],
}

/// The whole table.
pub(super) fn counters() -> Vec<Counter> {
    let lines = TABLE.lines().filter(|line| !line.is_empty());
    lines.map(Counter::read).collect()
}

// === impl Column ===

impl Column {
    /// Whether a number counts nothing.
    pub(super) fn leaves_out(self, key: &str) -> bool {
        if self == Self::Head {
            // Of a FRONTEND: since the agent started.
            return key == "Server Status";
        }
        let (name, _) = key.split_once(':').unwrap_or((key, ""));
        let mut lists = NO_COUNTERS.iter().filter(|(column, _)| *column == self);
        lists.any(|(_, names)| names.split_whitespace().any(|known| known == name))
    }
}

// === impl Counter ===

impl Counter {
    fn read(line: &'static str) -> Self {
        let (rows, rest) = line.split_at(4);
        let mut columns = rest.split('|').map(str::trim);
        let mut next = || {
            columns
                .next()
                .unwrap_or_else(|| panic!("a column in {line}"))
        };
        let name = next();
        let [head, live, stats, status, metrics] = std::array::from_fn(|_| next());
        let words = |text: &str| -> Vec<String> {
            let words = text.split_whitespace().filter(|word| *word != "-");
            words.map(spelled).collect()
        };
        // A head has blanks in it.
        let head = [head].into_iter().filter(|head| *head != "-");
        let status = if status == "=" { stats } else { status };
        Self {
            rows,
            name,
            places: [
                head.map(str::to_owned).collect(),
                words(live),
                words(stats),
                words(status),
                words(metrics),
            ],
        }
    }

    /// Whether a row of HAProxy's has it.
    pub(super) fn is_of(&self, row: &str) -> bool {
        self.rows.contains(letter(row))
    }

    /// What it is called there.
    pub(super) fn places(&self, column: Column) -> Vec<&str> {
        let [head, live, stats, status, metrics] = &self.places;
        let places = match column {
            Column::Field if self.name.starts_with('.') => return Vec::new(),
            Column::Field => return vec![self.name],
            Column::Head => head,
            Column::Live => live,
            Column::Stats => stats,
            Column::Status => status,
            Column::Metric => metrics,
        };
        places.iter().map(String::as_str).collect()
    }

    pub(super) fn kind(&self) -> Kind {
        match self.name {
            "slim" | "rate_lim" | "weight" | "uweight" | "act" | "bck" | "throttle" => {
                Kind::Setting
            }
            // Of few flows it is 0 where a sample took its time.
            "rate_max" | "conn_rate_max" => Kind::Setting,
            "ctime" | "ctime_max" | "ttime" | "ttime_max" | ".connect_ns" | ".lived_ms" => {
                Kind::Time
            }
            "lastchg" | "lastsess" | "downtime" => Kind::Age,
            _ => Kind::Count,
        }
    }
}

/// The letter that the table has for a row.
pub(super) fn letter(row: &str) -> char {
    match row {
        "FRONTEND" => 'F',
        "BACKEND" => 'B',
        _ => 'S',
    }
}

/// A place with what the table leaves out of it.
fn spelled(place: &str) -> String {
    match place.split_once('/') {
        Some(("tr", rest)) => format!("/traffic/{rest}"),
        Some(("con", rest)) => format!("/traffic/connections/{rest}"),
        Some(("svc", rest)) => format!("lb_agent_service_{rest}"),
        _ => place.to_owned(),
    }
}
