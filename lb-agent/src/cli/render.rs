//! What people read: tables of `status` and `flows`, lines of `resolve` and `explain`.

mod explain;
mod flows;
mod lists;
mod trace;
mod traffic;

use std::{fmt::Write, net::IpAddr, time::Duration};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

pub(super) use self::{
    explain::explanation,
    flows::flows,
    lists::{backends, services},
    trace::traced,
};
use crate::{
    admin::report::{
        BackendReport, DatapathReport, DnsReport, OperatorReport, ProviderReport, Resolution,
        ServiceReport, StatusReport, Timestamp,
    },
    purged::Purged,
};

/// The whole of `lb-agent status`. No lines or colours: it must read well through `grep`, too.
pub(super) fn status(report: &StatusReport) -> String {
    let agent = &report.agent;
    let mut page = format!(
        "lb-agent {} on {}, process {}, up {}\n",
        plain(&agent.version),
        plain(&agent.node),
        agent.pid,
        duration(agent.now.since(agent.started))
    );
    section(
        &mut page,
        "SERVICES",
        "none",
        service_table(&report.services),
    );
    section(
        &mut page,
        "BACKENDS",
        "none",
        backend_table(&report.services, agent.now),
    );
    optional(&mut page, "OPERATOR", operator(&report.operator, agent.now));
    optional(&mut page, "TRAFFIC", traffic::traffic(&report.services));
    section(
        &mut page,
        "PROVIDERS",
        "none",
        providers(&report.providers, agent.now),
    );
    optional(&mut page, "PROBLEMS", problems(&report.providers));
    datapath(&mut page, &report.datapath);
    dns(&mut page, report.dns.as_ref());
    if !report.warnings.is_empty() {
        page.push_str("\nWARNINGS\n");
        for warning in &report.warnings {
            line(&mut page, &plain(warning));
        }
    }
    page
}

/// The whole of `lb-agent resolve`.
pub(super) fn resolution(answer: &Resolution) -> String {
    let name = plain(&answer.name);
    if !answer.authoritative {
        return format!("{name} is outside the zone: forwarded to the upstream resolvers\n");
    }
    if answer.addrs.is_empty() {
        return format!(
            "{name} {} {}, no address\n",
            answer.ttl,
            plain(&answer.code)
        );
    }
    answer.addrs.iter().fold(String::new(), |lines, addr| {
        let kind = if addr.is_ipv4() { "A" } else { "AAAA" };
        format!("{lines}{name} {} IN {kind} {addr}\n", answer.ttl)
    })
}

/// What was answered to an order.
pub(super) fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| plain(line) + "\n").collect()
}

/// What a purge removed; what it could not is told as an error.
pub(super) fn purged(purged: &Purged) -> String {
    let Purged { removed, failed } = purged;
    if removed.is_empty() && failed.is_empty() {
        return "nothing to remove\n".to_owned();
    }
    let removed = removed.iter().map(|item| format!("removed {item}\n"));
    removed.collect()
}

/// Text from outside on one line, without anything that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    // Bidirectional controls are not control characters, but turn a line around just as well.
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .fold(String::with_capacity(text.len()), |mut safe, c| {
            if harmful(c) {
                safe.extend(c.escape_unicode())
            } else {
                safe.push(c)
            }
            safe
        })
}

fn service_table(services: &[ServiceReport]) -> Table {
    let mut table = table(&["NAME", "VIP", "NODE PORTS", "ALGORITHM", "BACKENDS UP"]);
    for service in services {
        let external: Vec<_> = service.external.iter().map(u16::to_string).collect();
        table.add_row([
            service
                .name
                .as_deref()
                .map_or_else(|| "-".to_owned(), plain),
            vips(service),
            if external.is_empty() {
                "-".to_owned()
            } else {
                external.join(", ")
            },
            plain(&service.algorithm),
            up(service),
        ]);
    }
    table
}

fn backend_table(services: &[ServiceReport], now: Timestamp) -> Table {
    let mut table = table(&[
        "SERVICE", "BACKEND", "WEIGHT", "STATE", "SINCE", "WHY", "APP", "TASK", "FROM",
    ]);
    for service in services {
        for backend in &service.backends {
            let BackendReport {
                addr,
                weight,
                state,
                why,
                since,
                provider,
                app,
                task,
                instance: _,
                host: _,
                called: _,
                traffic: _,
                declared: _,
                health: _,
            } = backend;
            table.add_row([
                title(service),
                addr.to_string(),
                weight.to_string(),
                state.to_string(),
                since.map_or_else(|| "-".to_owned(), |since| duration(now.since(since))),
                why.as_deref().map_or_else(|| "-".to_owned(), plain),
                plain(app),
                plain(task),
                plain(provider),
            ]);
        }
    }
    table
}

fn operator(words: &[OperatorReport], now: Timestamp) -> Table {
    let mut table = table(&["BACKEND", "SAYS", "SINCE", "WHAT IS LEFT", "CONCERNS"]);
    for word in words {
        let left = word.deadline.map(|deadline| match deadline > now {
            true => format!("is reset in {}", duration(deadline.since(now))),
            false => "was reset".to_owned(),
        });
        let unused = word
            .unused_since
            .map(|since| format!("nobody for {}", duration(now.since(since))));
        table.add_row([
            plain(&word.which),
            plain(&word.says),
            duration(now.since(word.since)),
            left.unwrap_or_else(|| "goes on".to_owned()),
            unused.unwrap_or_else(|| "some".to_owned()),
        ]);
    }
    table
}

fn providers(providers: &[ProviderReport], now: Timestamp) -> Table {
    let mut table = table(&["ID", "LAST SYNC", "VIPS", "PROBLEMS", "LAST ERROR"]);
    for provider in providers {
        let age = provider.last_sync_age_ms.map(Duration::from_millis);
        let error = provider.last_error.as_ref();
        table.add_row([
            plain(&provider.id),
            age.map_or_else(
                || "never".to_owned(),
                |age| format!("{} ago", duration(age)),
            ),
            provider.pools.to_string(),
            provider.problems.len().to_string(),
            error.map_or_else(
                || "-".to_owned(),
                |error| {
                    format!(
                        "{} ago: {}",
                        duration(now.since(error.at)),
                        plain(&error.reason)
                    )
                },
            ),
        ]);
    }
    table
}

fn problems(providers: &[ProviderReport]) -> Table {
    let mut table = table(&["FROM", "WHAT", "WHY IT WAS LEFT OUT"]);
    for provider in providers {
        for problem in &provider.problems {
            table.add_row([
                plain(&provider.id),
                plain(&problem.subject),
                plain(&problem.reason),
            ]);
        }
    }
    table
}

fn datapath(page: &mut String, datapath: &DatapathReport) {
    let DatapathReport {
        interfaces,
        cgroup,
        pin_dir,
        maps,
        drops,
        snat_tries,
    } = datapath;
    page.push_str("\nDATAPATH\n");
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref()
            .map_or_else(|| "-".to_owned(), |path| plain(&path.to_string_lossy()))
    };
    line(
        page,
        &format!("cgroup {}, pinned under {}", path(cgroup), path(pin_dir)),
    );
    let mut attached = table(&["INTERFACE", "INDEX", "ATTACHED"]);
    for interface in interfaces {
        attached.add_row([
            plain(&interface.name),
            interface.index.to_string(),
            plain(&interface.attached.join(", ")),
        ]);
    }
    section(
        page,
        "INTERFACES",
        "none: only processes on this node are served",
        attached,
    );
    let mut fill = table(&["NAME", "USED", "ROOM FOR", "FULL"]);
    for map in maps {
        let percent = map
            .used
            .saturating_mul(100)
            .checked_div(map.capacity)
            .unwrap_or(100);
        fill.add_row([
            plain(&map.name),
            map.used.to_string(),
            map.capacity.to_string(),
            format!("{percent}%"),
        ]);
    }
    optional(page, "MAPS", fill);
    let mut dropped = table(&["REASON", "PACKETS"]);
    for drop in drops.iter().filter(|drop| drop.packets > 0) {
        dropped.add_row([plain(&drop.reason), drop.packets.to_string()]);
    }
    optional(page, "DROPS", dropped);
    let mut tried = table(&["SOURCE PORTS TRIED", "NEW FLOWS"]);
    for (number, flows) in snat_tries
        .iter()
        .enumerate()
        .filter(|(_, flows)| **flows > 0)
    {
        let last = number + 1 == snat_tries.len();
        let tries = match last {
            true => "none was free".to_owned(),
            false => (number + 1).to_string(),
        };
        tried.add_row([tries, flows.to_string()]);
    }
    optional(page, "FULL NAT", tried);
}

fn dns(page: &mut String, dns: Option<&DnsReport>) {
    page.push_str("\nDNS\n");
    let list = |addrs: &[std::net::SocketAddr]| {
        let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        if addrs.is_empty() {
            "nowhere".to_owned()
        } else {
            addrs.join(", ")
        }
    };
    match dns {
        None => line(page, "turned off"),
        Some(DnsReport {
            listen,
            upstreams,
            names,
        }) => {
            line(
                page,
                &format!(
                    "names served: {names}, on {}; all others {}",
                    list(listen),
                    if upstreams.is_empty() {
                        "fail: no upstream resolver is known".to_owned()
                    } else {
                        format!("go to {}", list(upstreams))
                    }
                ),
            );
        }
    }
}

/// All its addresses.
fn vips(service: &ServiceReport) -> String {
    let addrs = service.addrs.iter();
    let vips: Vec<_> = addrs.map(|addr| vip(service, *addr)).collect();
    let note = if service.address_not_agreed {
        " (address not agreed across nodes)"
    } else {
        ""
    };
    format!("{}{note}", vips.join(", "))
}

/// `2/3`: so many of its backends take new flows.
fn up(service: &ServiceReport) -> String {
    let up = service.backends.iter().filter(|one| one.is_up()).count();
    let note = match (service.stopped, service.fail_open) {
        (true, _) => " (no new connections, by the operator)",
        (false, true) => " (all are used: none is up)",
        (false, false) => "",
    };
    format!("{up}/{}{note}", service.backends.len())
}

/// `dcos-101app2.marathon:10000/tcp`, or the address of an IP VIP.
pub(super) fn title(service: &ServiceReport) -> String {
    match (&service.name, service.addrs.first()) {
        (Some(name), _) => format!("{}:{}/{}", plain(name), service.port, service.protocol),
        (None, Some(addr)) => vip(service, *addr),
        (None, None) => format!("-:{}/{}", service.port, service.protocol),
    }
}

fn vip(service: &ServiceReport, addr: IpAddr) -> String {
    let port = service.port.get();
    format!(
        "{}/{}",
        std::net::SocketAddr::new(addr, port),
        service.protocol
    )
}

/// The two largest units that matter: `3s`, `2m5s`, `4h0m`, `2d3h`.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    table
}

/// A heading and its table, or a word if there is nothing.
fn section(page: &mut String, heading: &str, empty: &str, table: Table) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "\n{heading}");
    if table.is_empty() {
        line(page, empty);
    } else {
        let _ = writeln!(page, "{}", table.trim_fmt());
    }
}

/// A heading and its table, or nothing.
fn optional(page: &mut String, heading: &str, table: Table) {
    if !table.is_empty() {
        section(page, heading, "", table);
    }
}

fn line(page: &mut String, text: &str) {
    let _ = writeln!(page, " {text}");
}
