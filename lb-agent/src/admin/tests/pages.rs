//! Every page, as `docs/openapi.json` describes it.

use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::api::schema;
use crate::{
    admin::{
        report::{Resolution, StatusReport},
        stats::json::{Head, Service},
        vips::Entry,
        web::{Events, History},
    },
    look::{Explanation, FlowsReport, TraceReport},
};

/// A page.
pub(super) struct Page {
    /// As the router has it.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// It is posted, and changes something.
    pub(super) is_order: bool,
    /// Over TCP it is for those alone who show a token, or a user's name and password.
    pub(super) secret: bool,
    /// Names of parameters, and what they say; `{name}`: a part of the path.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// A query with which it answers.
    pub(super) asked: &'static str,
    pub(super) body: Body,
    /// Codes besides 200 and 401.
    pub(super) refusals: &'static [(u16, &'static str)],
}

type Schema = fn(&mut SchemaGenerator) -> Value;

/// What it answers.
#[derive(Clone, Copy)]
pub(super) enum Body {
    Json(Schema),
    /// An object a line.
    Lines(Schema),
    /// Of this media type.
    Other(&'static str),
}

const TEXT: Body = Body::Other("text/plain");
const NONSENSE: &[(u16, &str)] = &[(400, "the query makes no sense; the text says why")];
const LONG: (u16, &str) = (413, "over TCP: nobody reads so long a body");
const BUSY: &[(u16, &str)] = &[(503, "too many read long pages; come again")];
const ENDS: (u16, &str) = (503, "the agent is about to stop");
const REFUSED: &[(u16, &str)] = &[
    (400, "the query makes no sense; the text says why"),
    (409, "nothing was changed; the text says why"),
    LONG,
    ENDS,
];
const NOT_WELL: &[(u16, &str)] = &[(503, "not so; the text says why")];

const BACKEND: (&str, &str) = (
    "backend",
    "ADDR:PORT or [ADDR]:PORT, an address for all that listen there, or the id of its task",
);
const NODE: (&str, &str) = (
    "node",
    "true: every backend that is on this node, instead of `backend`",
);
const SERVICE: (&str, &str) = (
    "service",
    "only as a backend of this service: its name or address, with :PORT and :PORT/PROTOCOL or without",
);
const DEADLINE: (&str, &str) = ("deadline", "reset what is left after so many seconds");
const TRACED: &[(&str, &str)] = &[
    ("vip", "a VIP's address or name, with :PORT or without"),
    ("client", "an address or prefix"),
    ("reason", "only what was counted under this name"),
    ("sample", "one in so many"),
    ("snap", "bytes of each packet"),
];

const PLAIN: Page = Page {
    path: "",
    summary: "",
    is_order: false,
    secret: false,
    query: &[],
    asked: "",
    body: TEXT,
    refusals: &[],
};
const ORDER: Page = Page {
    is_order: true,
    secret: true,
    body: Body::Json(schema::<Vec<String>>),
    refusals: REFUSED,
    ..PLAIN
};

/// All of them.
pub(super) const PAGES: [Page; 32] = [
    Page {
        path: "/v1/status",
        summary: "Everything that `lb-agent status` shows.",
        body: Body::Json(schema::<StatusReport>),
        ..PLAIN
    },
    Page {
        path: "/_haproxy_getconfig",
        summary: "The same, where Marathon-LB has its configuration.",
        body: Body::Json(schema::<StatusReport>),
        ..PLAIN
    },
    Page {
        path: "/v1/resolve",
        summary: "What the agent's DNS answers to a name.",
        query: &[("name", "the name; its zone may be left out")],
        asked: "?name=web.x",
        body: Body::Json(schema::<Resolution>),
        refusals: NONSENSE,
        ..PLAIN
    },
    Page {
        path: "/v1/flows",
        summary: "Live flows of clients that come by packets.",
        secret: true,
        query: &[
            ("vip", "an address, with :PORT or without"),
            ("client", "as `vip`"),
            ("backend", "as `vip`"),
            ("service", "a name, with :PORT or without"),
            ("limit", "no more than so many; 1,000"),
        ],
        body: Body::Json(schema::<FlowsReport>),
        refusals: NONSENSE,
        ..PLAIN
    },
    Page {
        path: "/v1/explain",
        summary: "Which backend a flow has or would get, and why.",
        secret: true,
        query: &[
            ("client", "ADDR:PORT or [ADDR]:PORT"),
            ("vip", "the same, of the same family"),
            ("protocol", "tcp or udp; tcp"),
            ("local", "true: the client is a process of this node"),
        ],
        asked: "?client=192.0.2.7:40000&vip=11.0.0.1:80",
        body: Body::Json(schema::<Explanation>),
        refusals: NONSENSE,
        ..PLAIN
    },
    Page {
        path: "/v1/trace",
        summary: "Single packets and calls as they come, an object a line, until one side ends it. An empty line now \
                  and then says that the agent is there.",
        secret: true,
        query: TRACED,
        body: Body::Lines(traced),
        refusals: &[
            (400, "the query makes no sense; the text says why"),
            (503, "too many look already"),
        ],
        ..PLAIN
    },
    Page {
        path: "/v1/capture",
        summary: "The packets themselves, as they came and as they went, as a pcapng file that goes on.",
        secret: true,
        query: TRACED,
        body: Body::Other("application/x-pcapng"),
        refusals: &[
            (400, "the query makes no sense; the text says why"),
            (503, "too many look already"),
        ],
        ..PLAIN
    },
    Page {
        path: "/v1/vips",
        summary: "VIPs and backends as DC/OS shows them, with an ETag.",
        body: Body::Json(schema::<Vec<Entry<'static>>>),
        refusals: &[(
            304,
            "nothing has changed since the version in If-None-Match",
        )],
        ..PLAIN
    },
    Page {
        path: "/v1/drain",
        summary: "Give a backend no new connections; the answer says what now holds for whom.",
        query: &[BACKEND, NODE, SERVICE, DEADLINE],
        asked: "?backend=10.0.0.1:80",
        ..ORDER
    },
    Page {
        path: "/v1/maintenance",
        summary: "The same, shown as maintenance.",
        query: &[BACKEND, NODE, SERVICE, DEADLINE],
        asked: "?backend=10.0.0.1:80",
        ..ORDER
    },
    Page {
        path: "/v1/ready",
        summary: "Take back what was said of a backend.",
        query: &[BACKEND, NODE, SERVICE],
        asked: "?backend=10.0.0.1:80",
        ..ORDER
    },
    Page {
        path: "/v1/weight",
        summary: "Give a backend another share of new connections.",
        query: &[BACKEND, SERVICE, ("weight", "0 to 256")],
        asked: "?backend=10.0.0.1:80&weight=3",
        ..ORDER
    },
    Page {
        path: "/v1/resync",
        summary: "Have the agent read every orchestrator and file anew, and compare the kernel with them.",
        refusals: &[LONG],
        ..ORDER
    },
    Page {
        path: "/v1/health",
        summary: "Say how a backend is, whatever its checks and its orchestrator's say.",
        query: &[BACKEND, SERVICE, ("state", "up, stopping or down")],
        asked: "?backend=10.0.0.1:80&state=down",
        ..ORDER
    },
    Page {
        path: "/v1/reset",
        summary: "Reset the connections that a backend has now; the answer says how many they were.",
        query: &[BACKEND, NODE, SERVICE],
        asked: "?backend=10.0.0.1:80",
        ..ORDER
    },
    Page {
        path: "/v1/release",
        summary: "Give back the address of a name that has no backends; the answer says which it was.",
        query: &[("name", "the name, with its zone or without")],
        asked: "?name=web.marathon",
        ..ORDER
    },
    Page {
        path: "/v1/live",
        summary: "What changed since the stats page last asked; its form is that page's own and may change.",
        query: &[("since", "`seq` of the last answer")],
        body: Body::Json(|_| json!({"type": "object"})),
        refusals: BUSY,
        ..PLAIN
    },
    Page {
        path: "/assets/{name}",
        summary: "A file of the stats page.",
        query: &[("{name}", "the file")],
        body: Body::Other("text/*"),
        refusals: &[(404, "there is no such file")],
        ..PLAIN
    },
    Page {
        path: "/v1/stats",
        summary: "The latest sample of all counters, with rates.",
        body: Body::Json(statistics),
        refusals: BUSY,
        ..PLAIN
    },
    Page {
        path: "/v1/events",
        summary: "The latest changes, the oldest first.",
        query: &[("after", "the number of the last event that is known")],
        body: Body::Json(schema::<Events>),
        ..PLAIN
    },
    Page {
        path: "/v1/history",
        summary: "The last two minutes of a service or one of its backends, a point a second.",
        query: &[
            (
                "service",
                "its name or address, its proxy's name, or its iid",
            ),
            (
                "backend",
                "its address, its server's name, or its sid; without it: the service",
            ),
        ],
        asked: "?service=web.x:80",
        body: Body::Json(schema::<History>),
        refusals: &[
            (400, "no service is named"),
            (
                404,
                "there is no such service or backend, or no history of single backends",
            ),
        ],
        ..PLAIN
    },
    Page {
        path: "/v1/openapi.json",
        summary: "This description.",
        body: Body::Json(|_| json!({"type": "object"})),
        ..PLAIN
    },
    Page {
        path: "/healthz",
        summary: "Whether the agent's loops run.",
        refusals: NOT_WELL,
        ..PLAIN
    },
    Page {
        path: "/_haproxy_health_check",
        summary: "The same, as with Marathon-LB.",
        refusals: NOT_WELL,
        ..PLAIN
    },
    Page {
        path: "/readyz",
        summary: "Whether every orchestrator and file was read at least once.",
        refusals: NOT_WELL,
        ..PLAIN
    },
    Page {
        path: "/metrics",
        summary: "For Prometheus, in its text format 0.0.4.",
        query: &[("scope", "whose series, by commas: docs/stats.md")],
        refusals: BUSY,
        ..PLAIN
    },
    Page {
        path: "/v1/metrics/{registry}",
        summary: "The metrics of DC/OS' layer 4 load balancer by its names, for Prometheus.",
        query: &[("{registry}", "l4lb")],
        refusals: &[(404, "another registry")],
        ..PLAIN
    },
    Page {
        path: "/_haproxy_getpids",
        summary: "The agent's process.",
        ..PLAIN
    },
    Page {
        path: "/_haproxy_getappmap",
        summary: "Apps and their VIPs.",
        body: Body::Json(schema::<std::collections::BTreeMap<String, Vec<String>>>),
        ..PLAIN
    },
    Page {
        path: "/_haproxy_getvhostmap",
        summary: "Nothing: there are no virtual hosts at layer 4.",
        ..PLAIN
    },
    Page {
        path: "/_mlb_signal/hup",
        summary: "Have the agent read every orchestrator and file anew, and compare the kernel with them.",
        refusals: &[(500, "the control loop stands still")],
        ..PLAIN
    },
    Page {
        path: "/_mlb_signal/usr1",
        summary: "Nothing: there is nothing to reload.",
        ..PLAIN
    },
];

/// A packet or call, or how many more could not be told.
fn traced(generator: &mut SchemaGenerator) -> Value {
    let lost = json!({
        "type": "object", "required": ["lost"], "additionalProperties": false,
        "description": "So many more could not be told.",
        "properties": {"lost": {"type": "integer", "minimum": 0}},
    });
    json!({"oneOf": [schema::<TraceReport>(generator), lost]})
}

/// What holds for all, and the services after it.
fn statistics(generator: &mut SchemaGenerator) -> Value {
    let services = json!({"type": "array", "items": schema::<Service<'static>>(generator)});
    json!({
        "allOf": [
            schema::<Head<'static>>(generator),
            {"type": "object", "required": ["services"], "properties": {"services": services}},
        ],
    })
}
