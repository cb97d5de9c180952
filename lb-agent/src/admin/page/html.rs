//! Pure: the page as plain HTML, with every table, and forms where orders are taken.

use super::{
    Head, Wish,
    assets::{PAGE, TOOLS},
    cells::{GROUPS, Kind, cells, uptime},
    row::{self, Row},
};
use crate::admin::stats::{Sample, fields::Front};

/// As many services stand on one plain page; the script shows all.
pub(super) const SERVICES: usize = 30;

/// HTML in the making. Markup is what stands in this program's own text; all else is escaped.
#[derive(Default)]
struct Html(String);

// === impl Html ===

impl Html {
    fn tag(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text between tags or in an attribute with double quotes.
    fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }
}

fn escaped(text: &str) -> String {
    let mut html = Html::default();
    html.text(text);
    html.0
}

/// The whole page.
pub(super) fn page(sample: &Sample, head: Head, wish: &Wish) -> String {
    let agent = &sample.report.agent;
    let process = format!(
        "{}pid = {}, uptime = {}, current conns = {}, idle = 100 %",
        head.line(sample),
        agent.pid,
        uptime(sample.at.since(agent.started).as_secs()),
        sample.flows_active
    );
    let mut out = String::with_capacity(PAGE.len() + TOOLS.len() + 65_536);
    // In one pass: what a tenant wrote must never be taken for a mark.
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (mark, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        match mark {
            "node" => out.push_str(&escaped(&agent.node)),
            "process" => out.push_str(&escaped(&process)),
            "banner" => out.push_str(&(banner(wish) + &unread(sample))),
            "tools" => out.push_str(&TOOLS.replace("{{scope}}", &escaped(&wish.scope))),
            _ => services(sample, head, wish, &mut out),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What came of an order that was given by a form.
fn banner(wish: &Wish) -> String {
    let Some(outcome) = &wish.outcome else {
        return String::new();
    };
    let (is, words) = match outcome.as_str() {
        "DONE" => ("good", "The order was carried out."),
        "PART" => (
            "bad",
            "Some of the servers are not known; the rest is done.",
        ),
        "NONE" => ("bad", "No server was chosen."),
        "ERRP" => ("bad", "This action, service or server is not known."),
        "EXCD" => ("bad", "The form was too long: choose fewer servers."),
        "DENY" => ("bad", "This listener takes no orders."),
        _ => (
            "bad",
            "The order could not be carried out; the log says why.",
        ),
    };
    let mut html = Html::default();
    html.tag("<p class=\"banner no-script\" role=\"status\" data-is=\"")
        .tag(is)
        .tag("\">")
        .tag(words)
        .tag("</p>");
    html.0
}

/// Orchestrators and files that cannot be read.
fn unread(sample: &Sample) -> String {
    let mut html = Html::default();
    for provider in &sample.report.providers {
        if let Some(error) = &provider.last_error {
            html.tag("<p class=\"banner no-script\" role=\"status\" data-is=\"bad\">")
                .text(&provider.id)
                .tag(" cannot be read: ")
                .text(&error.reason)
                .tag("</p>");
        }
    }
    html.0
}

fn services(sample: &Sample, head: Head, wish: &Wish, out: &mut String) {
    let all: Vec<_> = Front::all(sample)
        .filter(|front| front.proxy.name.contains(&wish.scope))
        .collect();
    let pages = all.len().div_ceil(SERVICES).max(1);
    let page = wish.page.min(pages - 1);
    let mut html = Html(std::mem::take(out));
    html.tag("<p class=\"tools no-script\">");
    let link = |html: &mut Html, words: &'static str, wish: Wish| {
        html.tag("<a class=\"button\" href=\"").text(&wish.target());
        html.tag("\">").tag(words).tag("</a> ");
    };
    let base = Wish {
        page,
        outcome: None,
        ..wish.clone()
    };
    let flip = |up: bool, no_maint: bool| Wish {
        up: base.up ^ up,
        no_maint: base.no_maint ^ no_maint,
        ..base.clone()
    };
    let hide = if base.up {
        "Show all servers"
    } else {
        "Hide 'DOWN' servers"
    };
    link(&mut html, hide, flip(true, false));
    let hide = if base.no_maint {
        "Show 'MAINT' servers"
    } else {
        "Hide 'MAINT' servers"
    };
    link(&mut html, hide, flip(false, true));
    link(&mut html, "Refresh now", base.clone());
    if page > 0 {
        link(
            &mut html,
            "Services before these",
            Wish {
                page: page - 1,
                ..base.clone()
            },
        );
    }
    if page + 1 < pages {
        link(
            &mut html,
            "More services",
            Wish {
                page: page + 1,
                ..base.clone()
            },
        );
    }
    html.tag("</p>\n");
    for front in all.iter().skip(page * SERVICES).take(SERVICES) {
        service(*front, head, &base, &mut html);
    }
    if all.is_empty() {
        html.tag("<p class=\"none\">No service matches.</p>");
    }
    *out = html.0;
}

fn service(front: Front<'_>, head: Head, wish: &Wish, html: &mut Html) {
    let (service, proxy) = (front.service, front.proxy);
    let id = proxy.iid.to_string();
    html.tag("<section class=\"px open still\" aria-labelledby=\"still-")
        .text(&id);
    html.tag("\"><header><div class=\"who\"><div><h2 id=\"still-")
        .text(&id);
    html.tag("\">").text(&proxy.name).tag("</h2><p>");
    for addr in &service.addrs {
        let at = std::net::SocketAddr::new(*addr, service.port.get());
        html.text(&at.to_string()).tag(" ");
    }
    html.text(service.protocol.as_str())
        .tag(" ")
        .text(&service.algorithm);
    html.tag("</p></div></div></header>\n");
    if head.orders {
        html.tag("<form method=\"post\" action=\"")
            .text(&wish.target())
            .tag("\">");
    }
    table_head(html);
    let now = front.sample.at;
    line(&row::frontend(front), Kind::Frontend, head, now, html);
    for row in row::servers(front) {
        let is_down = row.status.starts_with("DOWN");
        if (wish.up && is_down) || (wish.no_maint && row.status == "MAINT") {
            continue;
        }
        line(&row, Kind::Server, head, now, html);
    }
    line(&row::backend(front), Kind::Backend, head, now, html);
    html.tag("</tbody></table>");
    if head.orders {
        html.tag("<div class=\"order\"><input type=\"hidden\" name=\"b\" value=\"#")
            .text(&id);
        html.tag("\"><label>Chosen servers: <select name=\"action\"><option value=\"\"></option>");
        for (action, words) in ACTIONS {
            html.tag("<option value=\"")
                .tag(action)
                .tag("\">")
                .tag(words)
                .tag("</option>");
        }
        html.tag("</select></label> <button>Apply</button></div></form>");
    }
    html.tag("</section>\n");
}

/// The words of a form, and what they are called.
const ACTIONS: [(&str, &str); 9] = [
    ("ready", "Set state to READY"),
    ("drain", "Set state to DRAIN"),
    ("maint", "Set state to MAINT"),
    ("dhlth", "Health: disable checks"),
    ("ehlth", "Health: enable checks"),
    ("hrunn", "Health: force UP"),
    ("hnolb", "Health: force NOLB"),
    ("hdown", "Health: force DOWN"),
    ("shutdown", "Kill Sessions"),
];

fn table_head(html: &mut Html) {
    html.tag("<table class=\"px-t\"><colgroup><col class=\"name\">");
    for (group, columns) in GROUPS {
        for column in *columns {
            html.tag("<col class=\"")
                .tag(width(group, column))
                .tag("\">");
        }
    }
    html.tag("</colgroup><thead><tr class=\"grp-row\"><td class=\"name\"></td>");
    for (group, columns) in GROUPS {
        html.tag("<th class=\"grp first\" scope=\"colgroup\" colspan=\"");
        html.text(&columns.len().to_string())
            .tag("\">")
            .tag(group)
            .tag("</th>");
    }
    html.tag("</tr><tr><th class=\"name\" scope=\"col\">Name</th>");
    for (_, columns) in GROUPS {
        for column in *columns {
            html.tag("<th scope=\"col\">").tag(column).tag("</th>");
        }
    }
    html.tag("</tr></thead>\n<tbody>");
}

/// How wide a column is, in the words of the style sheet.
fn width(group: &str, column: &str) -> &'static str {
    match (group, column) {
        (_, "Status") => "status",
        (_, "LastChk") => "check",
        ("Queue", _) | (_, "Act" | "Bck" | "Chk" | "Dwn") => "n2",
        ("Bytes", _) | (_, "Total" | "LbTot" | "Dwntme") => "n5",
        ("Sessions", _) | (_, "Wght") => "n4",
        _ => "n3",
    }
}

fn line(
    row: &Row<'_>,
    kind: Kind,
    head: Head,
    now: crate::admin::report::Timestamp,
    html: &mut Html,
) {
    let (class, name) = match kind {
        Kind::Frontend => ("fe", "Frontend"),
        Kind::Server => ("sv", row.svname),
        Kind::Backend => ("be", "Backend"),
    };
    html.tag("<tr class=\"")
        .tag(class)
        .tag("\" data-s=\"")
        .tag(look(&row.status));
    html.tag("\"><th class=\"name\" scope=\"row\">");
    if kind == Kind::Server && head.orders {
        html.tag("<label><input type=\"checkbox\" name=\"s\" value=\"")
            .text(name);
        html.tag("\"> ").text(name).tag("</label>");
    } else {
        html.text(name);
    }
    html.tag("</th>");
    for cell in cells(row, kind, now) {
        html.tag("<td>").text(&cell).tag("</td>");
    }
    html.tag("</tr>\n");
}

/// What a status looks like, as in `show.js`.
fn look(status: &str) -> &'static str {
    match status {
        "UP" | "OPEN" => "up",
        "MAINT" => "maint",
        "DRAIN" => "drain",
        status if status.starts_with("DOWN") => "down",
        _ => "wait",
    }
}
