//! The statistics page as plain tables, in the columns that users of HAProxy know.

use axum::response::Response;

use super::{pages::send, statistics::code_of};
use crate::admin::{
    server::Admin,
    stats::{
        Sample,
        csv::{Cell, FIELDS, Row, Wish},
        fields::Front,
    },
};

/// Heads of columns and the fields in them.
const GROUPS: [(&str, &[(&str, &str)]); 8] = [
    (
        "Queue",
        &[("Cur", "qcur"), ("Max", "qmax"), ("Limit", "qlimit")],
    ),
    (
        "Session rate",
        &[("Cur", "rate"), ("Max", "rate_max"), ("Limit", "rate_lim")],
    ),
    (
        "Sessions",
        &[
            ("Cur", "scur"),
            ("Max", "smax"),
            ("Limit", "slim"),
            ("Total", "stot"),
            ("LbTot", "lbtot"),
            ("Last", "lastsess"),
        ],
    ),
    ("Bytes", &[("In", "bin"), ("Out", "bout")]),
    ("Denied", &[("Req", "dreq"), ("Resp", "dresp")]),
    (
        "Errors",
        &[("Req", "ereq"), ("Conn", "econ"), ("Resp", "eresp")],
    ),
    ("Warnings", &[("Retr", "wretr"), ("Redis", "wredis")]),
    (
        "Server",
        &[
            ("Status", "status"),
            ("LastChk", "check_status"),
            ("Wght", "weight"),
            ("Act", "act"),
            ("Bck", "bck"),
            ("Chk", "chkfail"),
            ("Dwn", "chkdown"),
            ("Dwntme", "downtime"),
            ("Thrtle", "throttle"),
        ],
    ),
];

/// The page.
pub(super) async fn page(admin: &Admin, target: &str, wish: &Wish) -> Response {
    let (mut next, wish) = (0, wish.clone());
    let code = code_of(target).map(str::to_owned);
    let piece = move |sample: &Sample, out: &mut String| {
        if next == 0 {
            head(sample, code.as_deref(), out);
        }
        let Some(proxy) = sample.proxies.get(next) else {
            out.push_str("</body></html>\n");
            return false;
        };
        next += 1;
        table(Front::of(sample, proxy), &wish, out);
        true
    };
    send(admin, "text/html; charset=utf-8", piece).await
}

fn head(sample: &Sample, code: Option<&str>, out: &mut String) {
    let agent = &sample.report.agent;
    let up = sample.at.since(agent.started).as_secs();
    let (days, hours, minutes, seconds) = (up / 86_400, up / 3_600 % 24, up / 60 % 60, up % 60);
    out.push_str("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>lb-agent</title></head><body>");
    out.push_str("<h1>HAProxy version ");
    escape(&agent.version, out);
    out.push_str(" (lb-agent)</h1><p>node ");
    escape(&agent.node, out);
    out.push_str(&format!(
        "; pid = {}; uptime = {days}d {hours}h{minutes:02}m{seconds:02}s; current conns = {}; idle = 100 %</p>",
        agent.pid, sample.flows_active
    ));
    if let Some(code) = code {
        out.push_str("<p>");
        escape(code, out);
        out.push_str("</p>");
    }
    out.push_str(
        "<p><a href=\"/haproxy?stats;up\">Hide DOWN servers</a> <a href=\"/haproxy?stats\">Refresh now</a> \
         <a href=\"/haproxy?stats;csv\">CSV export</a> <a href=\"/haproxy?stats;json\">JSON export</a></p>",
    );
}

fn table(front: Front<'_>, wish: &Wish, out: &mut String) {
    if !wish.takes(front) {
        return;
    }
    out.push_str("<h2>");
    escape(&front.proxy.name, out);
    out.push_str("</h2><table border=\"1\"><tr><th rowspan=\"2\"></th>");
    for (name, columns) in GROUPS {
        out.push_str(&format!("<th colspan=\"{}\">{name}</th>", columns.len()));
    }
    out.push_str("</tr><tr>");
    for (name, _) in GROUPS.iter().flat_map(|(_, columns)| *columns) {
        out.push_str(&format!("<th>{name}</th>"));
    }
    out.push_str("</tr>");
    wish.rows(front, |row| {
        out.push_str("<tr><th>");
        escape(&text(&row, "svname"), out);
        out.push_str("</th>");
        for (_, field) in GROUPS.iter().flat_map(|(_, columns)| *columns) {
            out.push_str("<td>");
            escape(&shown(&row, field), out);
            out.push_str("</td>");
        }
        out.push_str("</tr>\n");
    });
    out.push_str("</table>\n");
}

/// A value as people read it.
fn shown(row: &Row<'_>, field: &str) -> String {
    let is_server = text(row, "type") == "2";
    match field {
        "status" if !text(row, "lastchg").is_empty() => {
            format!("{}s {}", text(row, "lastchg"), text(row, "status"))
        }
        "check_status" if !text(row, "check_duration").is_empty() => {
            let (word, took) = (text(row, "check_status"), text(row, "check_duration"));
            format!("{word} in {took}ms")
        }
        "weight" if !text(row, "weight").is_empty() => {
            format!("{}/{}", text(row, "weight"), text(row, "uweight"))
        }
        "act" | "bck" if is_server => match text(row, field).as_str() {
            "1" => "Y".to_owned(),
            _ => "-".to_owned(),
        },
        field => text(row, field),
    }
}

fn text(row: &Row<'_>, field: &str) -> String {
    let place = FIELDS.iter().position(|name| *name == field);
    match place.and_then(|place| row.get(place)) {
        None | Some(Cell::Empty) => String::new(),
        Some(Cell::Number(number)) => number.to_string(),
        Some(Cell::Signed(number)) => number.to_string(),
        Some(Cell::Text(text)) => text.to_string(),
    }
}

/// Text as text, whatever tenants wrote.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}
